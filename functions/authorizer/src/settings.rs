//! The settings of the authorizer.

use std::env;

use keyward_runtime::SettingsError;
use lambda_http::http::HeaderName;

use crate::guarded::Guarded;

/// Where keys are found, and of which apps they must be.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The one header in which keys are; where it is not given, `Authorization` and `x-api-key`.
    pub key_header: Option<HeaderName>,
    /// The apps whose keys open the guarded API; those of stages that name theirs are others.
    pub guarded: Guarded,
}

impl Settings {
    /// As the environment says:
    ///
    /// | variable | |
    /// |---|---|
    /// | `KEYWARD_KEY_HEADER` | [`Settings::key_header`] |
    /// | `KEYWARD_APPS`, `KEYWARD_DEPLOYMENT` | [`Settings::guarded`]: see [`Guarded::parse`] |
    ///
    /// # Errors
    /// A variable is wrong.
    pub fn from_env() -> Result<Self, SettingsError> {
        let variable = |name| env::var(name).unwrap_or_default();
        let guarded = Guarded::parse(&variable("KEYWARD_APPS"), &variable("KEYWARD_DEPLOYMENT"))?;
        Ok(Self { guarded, ..Self::parse(&variable("KEYWARD_KEY_HEADER"))? })
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
        Ok(Self { key_header, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        let message = Settings::parse("x key").unwrap_err().to_string();
        assert!(message.starts_with("the environment variable KEYWARD_KEY_HEADER must be the name"));
        assert!(Settings::parse(" X-Acme-Key ").unwrap().key_header.is_some());
        assert!(Settings::parse("").unwrap().key_header.is_none());
    }
}
