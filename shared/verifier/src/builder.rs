//! A verifier of an installation, from what an AWS SDK is configured with.

use std::path::PathBuf;
use std::sync::Arc;

use aws_config::SdkConfig;
use keyward_pepper::{KeyProvider, KmsKeyProvider, LocalKeyProvider, PepperError};
use keyward_runtime::{Assembly, AssemblyError};
use keyward_store::{Error, Table, dynamodb_client, system_clock, system_entropy};

use crate::Verifier;

/// Makes a [`Verifier`]: see [`Verifier::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing is read before build()"]
pub struct Builder {
    config: SdkConfig,
    installation: Option<String>,
    table: Option<String>,
    key: Option<Key>,
}

/// The key that wraps the peppers.
#[derive(Debug, Clone)]
enum Key {
    Kms(String),
    File(PathBuf),
}

/// Why there is no verifier: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A part of the installation is not named.
    #[error("the verifier lacks {0}")]
    Unnamed(&'static str),
    /// The table cannot be read.
    #[error(
        "the table {0} cannot be read ({1}): check that its name and the region are right, and that this process may query PEPPERS and get INSTALLATION in it"
    )]
    Table(String, Error),
    /// Nobody has made the installation ready.
    #[error("the table {0} holds no pepper or no deployment: run 'keyward init' for its stack")]
    Empty(String),
    /// The peppers do not open.
    #[error(
        "the peppers of the installation {0} cannot be unwrapped ({1}): check that its name and the key are those of the table's stack, and that this process may decrypt with that key"
    )]
    Peppers(String, PepperError),
}

impl Builder {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self { config: config.clone(), installation: None, table: None, key: None }
    }

    /// The installation's name, to which its peppers are bound: that of its stack.
    pub fn installation(self, name: impl Into<String>) -> Self {
        Self { installation: Some(name.into()), ..self }
    }

    /// The table's name: the stack's output `TableName`.
    pub fn table(self, name: impl Into<String>) -> Self {
        Self { table: Some(name.into()), ..self }
    }

    /// The id or the ARN of the KMS key that wraps the peppers: the stack's output `KeyArn`.
    pub fn kms_key(self, id: impl Into<String>) -> Self {
        Self { key: Some(Key::Kms(id.into())), ..self }
    }

    /// The key file that wraps the peppers of a local run, instead of a KMS key.
    pub fn key_file(self, path: impl Into<PathBuf>) -> Self {
        Self { key: Some(Key::File(path.into())), ..self }
    }

    /// Reads the peppers from the table, has them unwrapped, and starts what writes the audit log, on the current Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(self) -> Result<Verifier, BuildError> {
        let Some(installation) = self.installation else {
            return Err(BuildError::Unnamed("its installation: call installation() with the stack's name"));
        };
        let Some(name) = self.table else {
            return Err(BuildError::Unnamed("its table: call table() with the stack's output TableName"));
        };
        let Some(key) = self.key else {
            return Err(BuildError::Unnamed("its key: call kms_key() with the stack's output KeyArn"));
        };
        let provider: Arc<dyn KeyProvider> = match key {
            Key::Kms(id) => Arc::new(KmsKeyProvider::new(&self.config, &id, &installation)),
            Key::File(path) => match LocalKeyProvider::open(&path, &installation, system_entropy()) {
                Ok(provider) => Arc::new(provider),
                Err(error) => return Err(BuildError::Peppers(installation, error)),
            },
        };
        let table = Table::new(dynamodb_client(&self.config), &name, system_clock(), system_entropy());
        let Assembly { store, public, recorder } =
            Assembly::open(table, provider).await.map_err(|error| match error {
                AssemblyError::Store(error) => BuildError::Table(name, error),
                AssemblyError::NoDeployment | AssemblyError::Pepper(PepperError::Missing) => {
                    BuildError::Empty(name)
                }
                AssemblyError::Pepper(error) => BuildError::Peppers(installation, error),
            })?;
        Ok(Verifier::new(store, recorder, public.deployment_id()))
    }
}
