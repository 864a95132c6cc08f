//! The settings of an installation.

use std::env;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyward_core::deployment::Mode;
use keyward_core::metric::Metric;
use keyward_core::{PublicUrl, WebOrigin};
use keyward_pepper::PepperError;
use keyward_store::Error;

use crate::{AssemblyError, TrustedProxies};

/// The settings of an installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the installation is reached.
    pub public_url: PublicUrl,
    /// Whether a check needs a root key.
    pub verify_auth: VerifyAuth,
    /// Origins whose pages may use the sessions of every deployment, besides those that a deployment names itself.
    pub allowed_origins: Vec<WebOrigin>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

/// The publishable key of the installation at this URL: `pk_test_` or `pk_live_` and the URL in standard base64.
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
    /// The parts of the installation cannot be put together.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
}

impl SettingsError {
    /// The metric that counts it.
    pub fn metric(&self) -> Metric {
        match self {
            Self::Variable(..) => Metric::InternalErrors,
            Self::Assembly(error) => error.metric(),
        }
    }
}

impl From<PepperError> for SettingsError {
    fn from(error: PepperError) -> Self {
        AssemblyError::from(error).into()
    }
}

impl From<Error> for SettingsError {
    fn from(error: Error) -> Self {
        AssemblyError::from(error).into()
    }
}

impl Settings {
    /// The settings in the environment:
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_PUBLIC_URL` | [`Settings::public_url`] |
    /// | `KEYWARD_VERIFY_AUTH` | `required` (default) or `open` |
    /// | `KEYWARD_ALLOWED_ORIGINS` | [`Settings::allowed_origins`], separated by commas (default: none) |
    /// | `KEYWARD_TRUSTED_PROXIES` | [`Settings::trusted_proxies`], in CIDR notation, separated by commas (default: none) |
    ///
    /// # Errors
    /// A variable is missing or wrong.
    pub fn from_env() -> Result<Self, SettingsError> {
        Ok(Self {
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
        })
    }
}

/// Origins, separated by commas.
fn origins(list: &str) -> Result<Vec<WebOrigin>, SettingsError> {
    let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(str::parse).collect::<Result<_, _>>().map_err(|_| {
        SettingsError::Variable(
            "KEYWARD_ALLOWED_ORIGINS",
            "must contain origins such as https://app.example.com, without a path, separated by commas",
        )
    })
}

fn proxies(list: &str) -> Result<TrustedProxies, SettingsError> {
    list.parse().map_err(|_| {
        SettingsError::Variable(
            "KEYWARD_TRUSTED_PROXIES",
            "must contain networks such as 192.0.2.0/24 or 2001:db8::/32, separated by commas",
        )
    })
}

/// The value of a variable that must be set.
pub(crate) fn variable(name: &'static str) -> Result<String, SettingsError> {
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
            let message = proxies(wrong).unwrap_err().to_string();
            assert!(
                message.starts_with("the environment variable KEYWARD_TRUSTED_PROXIES must contain"),
                "{wrong}"
            );
        }
        assert!(proxies("").is_ok() && proxies(" 192.0.2.0/24, 2001:db8::/32 ").is_ok());
    }
}
