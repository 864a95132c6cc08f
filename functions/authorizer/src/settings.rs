//! What can be set of the authorizer.

use std::env;

use keyward_http::SettingsError;
use lambda_http::http::HeaderName;

/// Where keys are found.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The one header in which keys are; where it is not given, `Authorization` and `x-api-key`.
    pub key_header: Option<HeaderName>,
}

impl Settings {
    /// As the environment says:
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_KEY_HEADER` | [`Settings::key_header`] |
    ///
    /// # Errors
    /// A variable is wrong.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::parse(&env::var("KEYWARD_KEY_HEADER").unwrap_or_default())
    }

    /// Parses the value of `KEYWARD_KEY_HEADER`.
    ///
    /// # Errors
    /// Says what it may hold.
    pub fn parse(key_header: &str) -> Result<Self, SettingsError> {
        let key_header = match key_header.trim() {
            "" => None,
            name => Some(name.parse().map_err(|_| {
                SettingsError::Variable(
                    "KEYWARD_KEY_HEADER",
                    "must be the name of a header, such as x-acme-key",
                )
            })?),
        };
        Ok(Self { key_header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let told = Settings::parse("x key").unwrap_err().to_string();
        assert!(told.starts_with("the environment variable KEYWARD_KEY_HEADER must be the name"));
        assert!(Settings::parse(" X-Acme-Key ").unwrap().key_header.is_some());
        assert!(Settings::parse("").unwrap().key_header.is_none());
    }
}
