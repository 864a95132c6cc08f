//! What can be set of the authorizer.

use std::env;

use keyward_http::SettingsError;
use lambda_http::http::HeaderName;

use crate::proxies::TrustedProxies;

/// Where keys are found, and who is believed about where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The one header in which keys are; where it is not given, `Authorization` and `x-api-key`.
    pub key_header: Option<HeaderName>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

impl Settings {
    /// As the environment says:
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_KEY_HEADER` | [`Settings::key_header`] |
    /// | `KEYWARD_TRUSTED_PROXIES` | [`Settings::trusted_proxies`], in CIDR notation, separated by commas (default: none) |
    ///
    /// # Errors
    /// A variable is wrong.
    pub fn from_env() -> Result<Self, SettingsError> {
        let variable = |name| env::var(name).unwrap_or_default();
        Self::parse(&variable("KEYWARD_KEY_HEADER"), &variable("KEYWARD_TRUSTED_PROXIES"))
    }

    /// Parses the values of the variables of [`Self::from_env`].
    ///
    /// # Errors
    /// Says which is wrong, and what it may hold.
    pub fn parse(key_header: &str, trusted_proxies: &str) -> Result<Self, SettingsError> {
        let key_header = match key_header.trim() {
            "" => None,
            name => Some(name.parse().map_err(|_| {
                SettingsError::Variable(
                    "KEYWARD_KEY_HEADER",
                    "must be the name of a header, such as x-acme-key",
                )
            })?),
        };
        let trusted_proxies = trusted_proxies.parse().map_err(|_| {
            SettingsError::Variable(
                "KEYWARD_TRUSTED_PROXIES",
                "must hold networks such as 192.0.2.0/24 or 2001:db8::/32, separated by commas",
            )
        })?;
        Ok(Self { key_header, trusted_proxies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |header, proxies| Settings::parse(header, proxies).unwrap_err().to_string();
        assert!(
            refused("x key", "").starts_with("the environment variable KEYWARD_KEY_HEADER must be the name")
        );
        for wrong in ["192.0.2.1", "192.0.2.0/33", "example.com", "192.0.2.0/24;198.51.100.0/24", "*"] {
            let told = refused("", wrong);
            assert!(
                told.starts_with("the environment variable KEYWARD_TRUSTED_PROXIES must hold"),
                "{wrong}"
            );
        }
        assert!(Settings::parse(" X-Acme-Key ", " 192.0.2.0/24, 2001:db8::/32 ").is_ok());
        assert!(Settings::parse("", "").unwrap().key_header.is_none());
    }
}
