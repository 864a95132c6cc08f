//! The services that all handlers share, and their cold start.

use std::path::Path;
use std::sync::Arc;

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use keyward_audit::Recorder;
use keyward_core::Deployment;
use keyward_pepper::{KeyProvider, KmsKeyProvider, LocalKeyProvider};
use keyward_store::{Error, PublicAccess, Store, Table, dynamodb_client, system_clock, system_entropy};

use crate::settings::variable;
use crate::{Assembly, Settings, SettingsError};

/// The store, the recorder of decisions and the settings. Clones share them.
#[derive(Debug, Clone)]
pub struct Services {
    /// The table, with its peppers.
    pub store: Store,
    /// Where decisions are recorded.
    pub recorder: Recorder,
    /// The access of requests without a credential.
    pub public: PublicAccess,
    /// The settings of the installation.
    pub settings: Arc<Settings>,
}

impl Services {
    /// An [`Assembly`] with these settings.
    ///
    /// # Errors
    /// As [`Assembly::open`].
    pub async fn start(
        table: Table,
        provider: Arc<dyn KeyProvider>,
        settings: Settings,
    ) -> Result<Self, SettingsError> {
        let Assembly { store, public, recorder } = Assembly::open(table, provider).await?;
        Ok(Self { store, recorder, public, settings: Arc::new(settings) })
    }

    /// The deployment that requests without a credential concern.
    ///
    /// # Errors
    /// The store fails.
    pub async fn first_deployment(&self) -> Result<Arc<Deployment>, Error> {
        self.store.first_deployment(&self.public).await
    }

    /// As [`Self::start`], as the environment says: [`Settings::from_env`], and
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_INSTALLATION` | the installation's name, to which its peppers are bound |
    /// | `KEYWARD_TABLE` | the table's name |
    /// | `KEYWARD_KMS_KEY_ID` | the KMS key that wraps the peppers, or |
    /// | `KEYWARD_KEY_FILE` | the key file that does |
    ///
    /// # Errors
    /// A variable is missing or wrong, or as [`Self::start`].
    pub async fn from_env() -> Result<Self, SettingsError> {
        let installation = variable("KEYWARD_INSTALLATION")?;
        let name = variable("KEYWARD_TABLE")?;
        let settings = Settings::from_env()?;
        let config = sdk_config().load().await;
        let table = Table::new(dynamodb_client(&config), name, system_clock(), system_entropy());
        let provider: Arc<dyn KeyProvider> =
            match (variable("KEYWARD_KMS_KEY_ID"), variable("KEYWARD_KEY_FILE")) {
                (Ok(key_id), Err(_)) => Arc::new(KmsKeyProvider::new(&config, &key_id, &installation)),
                (Err(_), Ok(file)) => {
                    Arc::new(LocalKeyProvider::open(Path::new(&file), &installation, system_entropy())?)
                }
                _ => {
                    return Err(SettingsError::Variable(
                        "KEYWARD_KMS_KEY_ID",
                        "or KEYWARD_KEY_FILE must be set, and not both",
                    ));
                }
            };
        Self::start(table, provider, settings).await
    }
}

/// The AWS configuration of the environment, with TLS through `ring`.
pub fn sdk_config() -> ConfigLoader {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}
