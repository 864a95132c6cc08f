//! What all handlers share, and how it comes about when a function starts.

use std::env;
use std::path::Path;
use std::sync::Arc;

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyward_audit::Recorder;
use keyward_core::deployment::Mode;
use keyward_core::metric::Metric;
use keyward_core::{Deployment, PublicUrl, WebOrigin};
use keyward_pepper::{KeyProvider, KmsKeyProvider, LocalKeyProvider, PepperError};
use keyward_store::{
    Error, OpenError, PublicAccess, Store, Table, dynamodb_client, system_clock, system_entropy,
};

use crate::{ApiError, TrustedProxies};

/// The store, the recorder of decisions and the settings. Clones share them.
#[derive(Debug, Clone)]
pub struct Services {
    /// The table, with its peppers.
    pub store: Store,
    /// Where decisions are recorded.
    pub recorder: Recorder,
    /// What requests without a credential may do.
    pub public: PublicAccess,
    /// The settings of the installation.
    pub settings: Arc<Settings>,
}

/// The settings of an installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the installation is reached.
    pub public_url: PublicUrl,
    /// Whether a check needs a root key.
    pub verify_auth: VerifyAuth,
    /// Origins whose pages may use the sessions of every deployment, beside those that a deployment names itself.
    pub allowed_origins: Vec<WebOrigin>,
    /// Whose `X-Forwarded-For` is believed about where a request comes from.
    pub trusted_proxies: TrustedProxies,
}

/// What pages are given to find the installation at this URL: `pk_test_` or `pk_live_` and the URL in standard base64.
pub fn publishable_key(public_url: &str, mode: Mode) -> String {
    let kind = match mode {
        Mode::Production => "live",
        Mode::Staging => "test",
    };
    format!("pk_{kind}_{}", BASE64_STANDARD.encode(public_url))
}

/// Whether `POST /v1/authz/check` needs a root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyAuth {
    /// With the scope `verify`.
    Required,
    /// None: whoever reaches the route may check a key that they hold.
    Open,
}

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable of the environment is missing or wrong.
    #[error("the environment variable {0} {1}")]
    Variable(&'static str, &'static str),
    /// The table is new: nobody has made a deployment yet.
    #[error("the table holds no deployment")]
    NoDeployment,
    /// The peppers cannot be had.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

impl SettingsError {
    /// What an operator is told of it by.
    pub fn metric(&self) -> Metric {
        match self {
            Self::Pepper(PepperError::Kms(_)) => Metric::KmsFailures,
            Self::Store(error) => error.metric().unwrap_or(Metric::InternalErrors),
            Self::Variable(..) | Self::NoDeployment | Self::Pepper(_) => Metric::InternalErrors,
        }
    }
}

impl From<OpenError> for SettingsError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Pepper(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl Services {
    /// Reads the peppers from the table, has them unwrapped and starts the recorder, on the current Tokio runtime. What else
    /// is read is read meanwhile.
    ///
    /// # Errors
    /// The table or the key provider fails: there is no going on without peppers.
    pub async fn start(
        table: Table,
        provider: Arc<dyn KeyProvider>,
        settings: Settings,
    ) -> Result<Self, SettingsError> {
        let store = async { Store::open(table.clone(), provider).await.map_err(SettingsError::from) };
        let public = async { Ok(table.public_access().await?) };
        let (store, public) = tokio::try_join!(store, public)?;
        let public = public.ok_or(SettingsError::NoDeployment)?;
        let recorder = Recorder::start(store.clone());
        Ok(Self { recorder, public, store, settings: Arc::new(settings) })
    }

    /// The deployment that requests without a credential concern.
    ///
    /// # Errors
    /// 5xx: the store fails.
    pub async fn first_deployment(&self) -> Result<Arc<Deployment>, ApiError> {
        Ok(self.store.first_deployment(&self.public).await?)
    }

    /// As [`Self::start`], as the environment says:
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_INSTALLATION` | the installation's name, to which its peppers are bound |
    /// | `KEYWARD_TABLE` | the table's name |
    /// | `KEYWARD_KMS_KEY_ID` | the KMS key that wraps the peppers, or |
    /// | `KEYWARD_KEY_FILE` | the key file that does |
    /// | `KEYWARD_PUBLIC_URL` | [`Settings::public_url`] |
    /// | `KEYWARD_VERIFY_AUTH` | `required` (default) or `open` |
    /// | `KEYWARD_ALLOWED_ORIGINS` | [`Settings::allowed_origins`], separated by commas (default: none) |
    /// | `KEYWARD_TRUSTED_PROXIES` | [`Settings::trusted_proxies`], in CIDR notation, separated by commas (default: none) |
    ///
    /// # Errors
    /// A variable is missing or wrong, or as [`Self::start`].
    pub async fn from_env() -> Result<Self, SettingsError> {
        let installation = variable("KEYWARD_INSTALLATION")?;
        let name = variable("KEYWARD_TABLE")?;
        let settings = Settings {
            public_url: variable("KEYWARD_PUBLIC_URL")?.parse().map_err(|_| {
                SettingsError::Variable(
                    "KEYWARD_PUBLIC_URL",
                    "must be a URL such as https://keys.example.com, without a query",
                )
            })?,
            verify_auth: match env::var("KEYWARD_VERIFY_AUTH").as_deref() {
                Err(_) | Ok("required") => VerifyAuth::Required,
                Ok("open") => VerifyAuth::Open,
                Ok(_) => {
                    return Err(SettingsError::Variable(
                        "KEYWARD_VERIFY_AUTH",
                        "must be 'required' or 'open'",
                    ));
                }
            },
            allowed_origins: origins(&env::var("KEYWARD_ALLOWED_ORIGINS").unwrap_or_default())?,
            trusted_proxies: proxies(&env::var("KEYWARD_TRUSTED_PROXIES").unwrap_or_default())?,
        };
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

/// Origins, separated by commas.
fn origins(list: &str) -> Result<Vec<WebOrigin>, SettingsError> {
    let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(str::parse).collect::<Result<_, _>>().map_err(|_| {
        SettingsError::Variable(
            "KEYWARD_ALLOWED_ORIGINS",
            "must hold origins such as https://app.example.com, without a path, separated by commas",
        )
    })
}

fn proxies(list: &str) -> Result<TrustedProxies, SettingsError> {
    list.parse().map_err(|_| {
        SettingsError::Variable(
            "KEYWARD_TRUSTED_PROXIES",
            "must hold networks such as 192.0.2.0/24 or 2001:db8::/32, separated by commas",
        )
    })
}

/// The AWS configuration of the environment, with TLS through `ring`.
pub fn sdk_config() -> ConfigLoader {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}

fn variable(name: &'static str) -> Result<String, SettingsError> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or(SettingsError::Variable(name, "is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed_with_commas() {
        let listed = origins(" https://app.example.com,http://localhost:3000, ").unwrap();
        let wanted =
            ["https://app.example.com", "http://localhost:3000"].map(|origin| origin.parse().unwrap());
        assert_eq!(listed, wanted);
        assert!(origins("").unwrap().is_empty());
        for wrong in [
            "*",
            "app.example.com",
            "https://a.example/",
            "https://a.example/path",
            "ftp://a.example",
            "https://",
        ] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn proxies_are_networks() {
        for wrong in ["192.0.2.1", "192.0.2.0/33", "example.com", "192.0.2.0/24;198.51.100.0/24", "*"] {
            let told = proxies(wrong).unwrap_err().to_string();
            assert!(
                told.starts_with("the environment variable KEYWARD_TRUSTED_PROXIES must hold"),
                "{wrong}"
            );
        }
        assert!(proxies("").is_ok() && proxies(" 192.0.2.0/24, 2001:db8::/32 ").is_ok());
    }
}
