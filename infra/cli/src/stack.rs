//! A deployed installation, found through its CloudFormation stack, and what its operator does to it.

use std::collections::HashMap;
use std::error::Error;

use aws_config::SdkConfig;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use chrono::Utc;
use keyward_core::Clock;
use keyward_pepper::KmsKeyProvider;
use keyward_store::{Store, Table, dynamodb_client};

use crate::set_up::{self, SetUpError};

/// A stack of `template.yaml`.
#[derive(Debug)]
pub struct Stack {
    config: SdkConfig,
    /// Its name, which is the installation's.
    pub name: String,
    /// Where it is reached.
    pub url: String,
    /// The table in use.
    pub table_name: String,
    /// The KMS key that wraps its peppers.
    pub key_arn: String,
}

/// Why a stack cannot be used: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// No credentials, no region, no answer, no permission.
    #[error(
        "CloudFormation does not answer for the stack '{0}' ({1}): set the credentials and the region of its account"
    )]
    Unreachable(String, String),
    /// There is none of this name.
    #[error(
        "there is no stack '{0}' here: deploy it with 'sam build && sam deploy --guided', or name another with --stack"
    )]
    Missing(String),
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
        let config = keyward_http::sdk_config().load().await;
        let sent = Client::new(&config).describe_stacks().stack_name(name).send().await;
        let described = sent.map_err(|error| match error.code() {
            Some("ValidationError") => StackError::Missing(name.to_owned()),
            _ => StackError::Unreachable(name.to_owned(), cause(&error)),
        })?;
        let stack = described.stacks().first().ok_or_else(|| StackError::Missing(name.to_owned()))?;
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
            url: output("Url")?,
            table_name: output("TableName")?,
            key_arn: output("KeyArn")?,
            name: name.to_owned(),
            config,
        })
    }

    /// The store that its functions use. The first pepper is made if there is none.
    ///
    /// # Errors
    /// The table or the KMS key cannot be used.
    pub async fn store(&self) -> Result<Store, SetUpError> {
        let client = dynamodb_client(&self.config);
        let table = Table::new(client, self.table_name.as_str(), Clock::new(Utc::now));
        let provider = KmsKeyProvider::new(&self.config, &self.key_arn, &self.name);
        let keyring = set_up::keyring(&table, &provider).await?;
        Ok(Store::new(table, keyring))
    }
}

/// The innermost cause of an error, which says most.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
