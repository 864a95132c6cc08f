//! Changes that were made outside CloudFormation: parameters of functions, roles, anything that the template sets.
//!
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-drift.html>

use std::time::Duration;

use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::types::{
    DifferenceType, PropertyDifference, StackDriftDetectionStatus, StackResourceDrift,
    StackResourceDriftStatus,
};

use super::unknown;
use crate::stack::{Stack, cause};

const TIMEOUT: u32 = 150;
const INTERVAL: Duration = Duration::from_secs(2);
/// As much of a value as fits into a sentence.
const MAX_VALUE_LENGTH: usize = 100;

/// A sentence for each property that is not as the stack set it, and for each resource that is gone.
pub(super) async fn faults(stack: &Stack) -> Result<Vec<String>, String> {
    let client = Client::new(stack.sdk_config());
    detect(&client, &stack.name).await?;
    let mut faults = Vec::new();
    let mut next = None;
    loop {
        let page = client
            .describe_stack_resource_drifts()
            .stack_name(&stack.name)
            .stack_resource_drift_status_filters(StackResourceDriftStatus::Modified)
            .stack_resource_drift_status_filters(StackResourceDriftStatus::Deleted)
            .set_next_token(next)
            .send()
            .await
            .map_err(|error| not_compared(&cause(&error)))?;
        for drift in page.stack_resource_drifts() {
            faults.extend(sentences(drift));
        }
        next = page.next_token;
        if next.is_none() {
            return Ok(faults);
        }
    }
}

async fn detect(client: &Client, stack: &str) -> Result<(), String> {
    let started = client.detect_stack_drift().stack_name(stack).send().await;
    let started = started.map_err(|error| not_compared(&cause(&error)))?;
    let id = started
        .stack_drift_detection_id
        .ok_or_else(|| not_compared("CloudFormation returned no detection id"))?;
    for _ in 0..TIMEOUT {
        let now = client.describe_stack_drift_detection_status().stack_drift_detection_id(&id).send().await;
        let now = now.map_err(|error| not_compared(&cause(&error)))?;
        match now.detection_status {
            Some(StackDriftDetectionStatus::DetectionInProgress) => tokio::time::sleep(INTERVAL).await,
            Some(StackDriftDetectionStatus::DetectionComplete) => return Ok(()),
            _ => return Err(not_compared(&now.detection_status_reason.unwrap_or_default())),
        }
    }
    Err(not_compared("CloudFormation did not finish the detection in time"))
}

fn not_compared(error: &str) -> String {
    let actions = "cloudformation:DetectStackDrift, and to read the stack's resources";
    unknown("drift", actions, &error)
}

fn sentences(drift: &StackResourceDrift) -> Vec<String> {
    let resource = drift.logical_resource_id().unwrap_or("a resource");
    if drift.stack_resource_drift_status() == Some(&StackResourceDriftStatus::Deleted) {
        let physical = drift.physical_resource_id().unwrap_or_default();
        return vec![format!(
            "{resource} ({physical}) was deleted by hand: create it again as template.yaml describes it, under the same name"
        )];
    }
    let different = drift.property_differences().iter();
    different.map(|property| changed(resource, property)).collect()
}

fn changed(resource: &str, property: &PropertyDifference) -> String {
    let path = property.property_path().unwrap_or_default().trim_start_matches('/').replace('/', ".");
    let expected = short(property.expected_value());
    match property.difference_type() {
        Some(DifferenceType::Add) => format!("{path} of {resource} was added by hand: remove it"),
        Some(DifferenceType::Remove) => {
            format!("{path} of {resource} was removed by hand: set it back to {expected}")
        }
        _ => {
            let actual = short(property.actual_value());
            format!("{path} of {resource} was changed by hand to {actual}: set it back to {expected}")
        }
    }
}

fn short(value: Option<&str>) -> String {
    let value = value.filter(|value| !value.is_empty()).unwrap_or("nothing");
    let mut short: String = value.chars().take(MAX_VALUE_LENGTH).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    short
}
