//! A deployed installation, found through its CloudFormation stack.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use aws_sdk_cloudformation::types::StackStatus;
use keyward_pepper::KmsKeyProvider;
use keyward_store::{Table, dynamodb_client, system_clock, system_entropy};

/// A stack of `template.yaml`.
#[derive(Debug)]
pub struct Stack {
    config: SdkConfig,
    /// Its name, which is the installation's.
    pub name: String,
    /// Where it is reached.
    pub url: String,
    /// Its status, such as `CREATE_COMPLETE`.
    pub status: StackStatus,
    /// The table in use.
    pub table_name: String,
    /// The KMS key that wraps its peppers.
    pub key_arn: String,
}

/// Why a stack cannot be used: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// No credentials, no region, no response, no permission.
    #[error(
        "CloudFormation cannot describe the stack '{0}' ({1}): set the credentials and the region of its account"
    )]
    Unreachable(String, String),
    /// There is none of this name.
    #[error(
        "there is no stack '{0}' here: deploy it with 'sam build && sam deploy --guided', or name another with --stack"
    )]
    Missing(String),
    /// It is being created or deleted.
    #[error("the stack '{0}' is {1}: wait until CloudFormation is done with it")]
    Busy(String, StackStatus),
    /// It could not be created or deleted.
    #[error(
        "the stack '{0}' is {1}: see why with 'aws cloudformation describe-stack-events --stack-name {0}', delete it with 'sam delete --stack-name {0}' and deploy again"
    )]
    Failed(String, StackStatus),
    /// It is not one of Keyward, or of an older release.
    #[error(
        "the stack '{0}' has no output '{1}': deploy this release's template.yaml to it, or name another with --stack"
    )]
    NoOutput(String, &'static str),
}

impl Stack {
    /// Finds the stack in the account and region of the environment.
    ///
    /// # Errors
    /// [`StackError`].
    pub async fn find(name: &str) -> Result<Self, StackError> {
        let config = keyward_runtime::sdk_config().load().await;
        let sent = Client::new(&config).describe_stacks().stack_name(name).send().await;
        let described = sent.map_err(|error| match error.code() {
            Some("ValidationError") => StackError::Missing(name.to_owned()),
            _ => StackError::Unreachable(name.to_owned(), cause(&error)),
        })?;
        let stack = described.stacks().first().ok_or_else(|| StackError::Missing(name.to_owned()))?;
        let status = stack.stack_status.as_ref().ok_or_else(|| StackError::Missing(name.to_owned()))?;
        if matches!(
            status,
            StackStatus::CreateInProgress
                | StackStatus::RollbackInProgress
                | StackStatus::DeleteInProgress
                | StackStatus::ReviewInProgress
        ) {
            return Err(StackError::Busy(name.to_owned(), status.clone()));
        }
        if matches!(
            status,
            StackStatus::CreateFailed
                | StackStatus::RollbackComplete
                | StackStatus::RollbackFailed
                | StackStatus::DeleteComplete
                | StackStatus::DeleteFailed
        ) {
            return Err(StackError::Failed(name.to_owned(), status.clone()));
        }
        let outputs: HashMap<&str, &str> = stack
            .outputs()
            .iter()
            .filter_map(|output| Some((output.output_key()?, output.output_value()?)))
            .collect();
        let output = |key: &'static str| {
            let value = outputs.get(key).map(|value| (*value).to_owned());
            value.ok_or_else(|| StackError::NoOutput(name.to_owned(), key))
        };
        Ok(Self {
            status: status.clone(),
            url: output("Url")?,
            table_name: output("TableName")?,
            key_arn: output("KeyArn")?,
            name: name.to_owned(),
            config,
        })
    }

    /// Its resources: their names in the account, by their names in the template.
    ///
    /// # Errors
    /// [`StackError::Unreachable`].
    pub async fn resources(&self) -> Result<HashMap<String, String>, StackError> {
        let mut pages =
            Client::new(&self.config).list_stack_resources().stack_name(&self.name).into_paginator().send();
        let mut resources = HashMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| StackError::Unreachable(self.name.clone(), cause(&error)))?;
            for resource in page.stack_resource_summaries.unwrap_or_default() {
                resources.extend(resource.logical_resource_id.zip(resource.physical_resource_id));
            }
        }
        Ok(resources)
    }

    /// The table that its functions use.
    pub fn table(&self) -> Table {
        Table::new(dynamodb_client(&self.config), self.table_name.as_str(), system_clock(), system_entropy())
    }

    /// The KMS key that wraps its peppers.
    pub fn key_provider(&self) -> Arc<KmsKeyProvider> {
        Arc::new(KmsKeyProvider::new(&self.config, &self.key_arn, &self.name))
    }

    /// The configuration with which the AWS SDK reaches its account and region.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }
}

/// The innermost cause of an error, which says most.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
