//! Whether the roles permit what the template gives them, as IAM decides it: with the boundaries and the policies of the
//! organisation that apply to them. And whether they permit what it does not give them.
//!
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html>

use std::collections::HashMap;

use aws_sdk_iam::Client;
use aws_sdk_iam::error::DisplayErrorContext;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};

use super::unknown;
use crate::stack::Stack;
use crate::template::{self, Condition, Role, Statement};

/// Reading and writing items.
const ITEM_ACTIONS: [&str; 9] = [
    "dynamodb:BatchGetItem",
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:Scan",
    "dynamodb:UpdateItem",
];
const LEADING_KEYS: &str = "dynamodb:LeadingKeys";
/// Where API keys are.
const KEYS: &str = "KEY#*";

/// A sentence for each permission that a function's role lacks or has too many.
pub(super) async fn faults(
    stack: &Stack,
    resources: &HashMap<String, String>,
) -> Result<Vec<String>, String> {
    let roles = template::roles().map_err(|error| error.to_string())?;
    let simulator = Simulator { client: Client::new(stack.sdk_config()), stack, resources };
    let mut faults = Vec::new();
    for role in &roles {
        if let Some(physical) = resources.get(&role.name) {
            faults.extend(simulator.faults(role, physical).await?);
        }
    }
    Ok(faults)
}

struct Simulator<'a> {
    client: Client,
    stack: &'a Stack,
    resources: &'a HashMap<String, String>,
}

impl Simulator<'_> {
    async fn faults(&self, role: &Role, physical: &str) -> Result<Vec<String>, String> {
        let mut faults = Vec::new();
        for statement in &role.statements {
            let Some(resource) = self.arn(&statement.resource) else { continue };
            faults.extend(self.missing(role, physical, statement, &resource).await?);
        }
        let granted =
            |action: &&str| role.statements.iter().any(|one| one.actions.iter().any(|of| of == action));
        let others: Vec<String> = ITEM_ACTIONS
            .iter()
            .filter(|action| !granted(action))
            .map(|action| (*action).to_owned())
            .collect();
        let of_keys =
            [Condition { key: LEADING_KEYS.to_owned(), values: vec![KEYS.to_owned()], is_set: true }];
        for (action, decision) in self.decide(physical, &others, &self.table_arn(), &of_keys).await? {
            if decision == PolicyEvaluationDecisionType::Allowed {
                faults.push(format!(
                    "the role {physical} permits {action}, which its function does not need: remove it"
                ));
            }
        }
        Ok(faults)
    }

    /// Permissions that a statement should give and IAM does not.
    async fn missing(
        &self,
        role: &Role,
        physical: &str,
        statement: &Statement,
        resource: &str,
    ) -> Result<Vec<String>, String> {
        let context: Vec<Condition> = statement.context.iter().map(|of| self.with_name(of)).collect();
        let mut faults = Vec::new();
        let decisions = self.decide(physical, &statement.actions, resource, &context).await?;
        for (action, decision) in decisions {
            if decision == PolicyEvaluationDecisionType::Allowed {
                continue;
            }
            let mut refused = Vec::new();
            for value in context.iter().filter(|of| of.key == LEADING_KEYS).flat_map(|of| &of.values) {
                let with_one = context.iter().map(|of| match of.key.as_str() {
                    LEADING_KEYS => Condition { values: vec![value.clone()], ..of.clone() },
                    _ => of.clone(),
                });
                let with_one: Vec<Condition> = with_one.collect();
                let alone = self.decide(physical, std::slice::from_ref(&action), resource, &with_one).await?;
                if alone.iter().any(|(_, decision)| *decision != PolicyEvaluationDecisionType::Allowed) {
                    refused.push(value.clone());
                }
            }
            let of = if refused.is_empty() { String::new() } else { format!(" of {}", refused.join(", ")) };
            faults.push(match decision {
                PolicyEvaluationDecisionType::ExplicitDeny => format!(
                    "a policy denies {action}{of} to the role {physical}: remove it, or exempt this role from it"
                ),
                _ => format!(
                    "the role {physical} lacks {action}{of}: restore the permissions that {} has in template.yaml",
                    role.name
                ),
            });
        }
        Ok(faults)
    }

    async fn decide(
        &self,
        role: &str,
        actions: &[String],
        resource: &str,
        context: &[Condition],
    ) -> Result<Vec<(String, PolicyEvaluationDecisionType)>, String> {
        let failed = |error: String| unknown("the roles' permissions", "iam:SimulatePrincipalPolicy", &error);
        let mut entries = Vec::new();
        for Condition { key, values, is_set } in context {
            let kind = if *is_set { ContextKeyTypeEnum::StringList } else { ContextKeyTypeEnum::String };
            let entry = ContextEntry::builder().context_key_name(key).context_key_type(kind);
            entries.push(entry.set_context_key_values(Some(values.clone())).build());
        }
        let decided = self
            .client
            .simulate_principal_policy()
            .policy_source_arn(self.arn_of("iam", &format!("role/{role}"), false))
            .set_action_names(Some(actions.to_vec()))
            .resource_arns(resource)
            .set_context_entries(Some(entries))
            .send()
            .await
            .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        let results = decided.evaluation_results.unwrap_or_default().into_iter();
        Ok(results.map(|result| (result.eval_action_name, result.eval_decision)).collect())
    }

    /// The value of a template's condition in this stack.
    fn with_name(&self, condition: &Condition) -> Condition {
        let named = condition.values.iter().map(|value| match value.as_str() {
            "AWS::StackName" => self.stack.name.clone(),
            value => value.to_owned(),
        });
        Condition { values: named.collect(), ..condition.clone() }
    }

    /// The ARN of what a statement is about, if this knows it.
    fn arn(&self, resource: &str) -> Option<String> {
        match resource.split_once('.')? {
            ("TableInUse", _) => Some(self.table_arn()),
            ("Key", _) => Some(self.stack.key_arn.clone()),
            (logs, _) if logs.ends_with("Logs") => {
                let group = self.resources.get(logs)?;
                Some(self.arn_of("logs", &format!("log-group:{group}:*"), true))
            }
            _ => None,
        }
    }

    fn table_arn(&self) -> String {
        self.arn_of("dynamodb", &format!("table/{}", self.stack.table_name), true)
    }

    /// An ARN in the stack's account, and in its region if the service has those.
    fn arn_of(&self, service: &str, resource: &str, regional: bool) -> String {
        let mut parts = self.stack.key_arn.split(':').skip(1);
        let partition = parts.next().unwrap_or_default();
        let region = parts.nth(1).filter(|_| regional).unwrap_or_default();
        let account = parts.next().unwrap_or_default();
        format!("arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}
