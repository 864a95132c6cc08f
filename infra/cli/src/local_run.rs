//! The installation that runs on this machine, as commands beside it reach it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use keyward_pepper::{LocalKeyProvider, PepperError};
use keyward_store::{Error, OperatorAccess, Table, dynamodb_client, system_clock, system_entropy};

use crate::embedded::sdk_config_at;
use crate::files::read_functions_env;

/// Why there is no local run to use: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalRunError {
    /// There is none.
    #[error(
        "there is no local run in the folder {}: start one with 'keyward dev', or name a stack with --stack",
        .0.display()
    )]
    Missing(PathBuf),
    /// It has stopped.
    #[error("the local run in the folder {} does not respond: restart it with 'keyward dev'", .0.display())]
    Stopped(PathBuf),
}

/// A local run that responds.
#[derive(Debug)]
pub struct LocalRun {
    env: HashMap<String, String>,
    /// Its table.
    pub table: Table,
}

impl LocalRun {
    /// The one that has its data in this folder.
    ///
    /// # Errors
    /// [`LocalRunError`].
    pub async fn find(folder: &Path) -> Result<Self, LocalRunError> {
        let missing = || LocalRunError::Missing(folder.to_owned());
        let env = read_functions_env(folder).ok_or_else(missing)?;
        let value = |name| env.get(name).map(String::as_str).ok_or_else(missing);
        let config = sdk_config_at(value("AWS_ENDPOINT_URL_DYNAMODB")?, value("AWS_ACCESS_KEY_ID")?).await;
        // A command may wait longer than a function, while the run is busy.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(10))
            .operation_timeout(Duration::from_secs(30))
            .build();
        let client = dynamodb_client(&config.to_builder().timeout_config(timeouts).build());
        let table = Table::new(client, value("KEYWARD_TABLE")?, system_clock(), system_entropy());
        if let Err(Error::Unavailable(_)) = table.peppers(&OperatorAccess::assume()).await {
            return Err(LocalRunError::Stopped(folder.to_owned()));
        }
        Ok(Self { env, table })
    }

    /// The provider that wraps its peppers.
    ///
    /// # Errors
    /// The key file cannot be used.
    pub fn key_provider(&self) -> Result<LocalKeyProvider, PepperError> {
        let value = |name| self.env.get(name).map_or("", String::as_str);
        let key_file = Path::new(value("KEYWARD_KEY_FILE"));
        LocalKeyProvider::open(key_file, value("KEYWARD_INSTALLATION"), system_entropy())
    }
}
