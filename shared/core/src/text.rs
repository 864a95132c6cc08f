//! The texts that callers choose: names, slugs, prefixes, owner ids and the like, each parsed once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A field of a request that is not acceptable: which, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// The field, as the caller named it.
    pub field: String,
    /// What is wrong, to be read after the field's name.
    pub problem: String,
}

impl InvalidField {
    /// `field` has this `problem`.
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $label:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the value of the request's field `field`.
            ///
            /// # Errors
            /// Says which field is wrong and what it may hold.
            pub fn parse(field: &str, value: &str) -> Result<Self, InvalidField> {
                let check: fn(&str) -> Result<&str, String> = $check;
                match check(value) {
                    Ok(text) => Ok(Self(text.to_owned())),
                    Err(problem) => Err(InvalidField::new(field, problem)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidField;

            fn try_from(value: String) -> Result<Self, InvalidField> {
                Self::parse($label, &value)
            }
        }
    };
}

text!(
    /// The name of an app, a key or a scheme: 1 to 128 characters around which white space is dropped.
    Name, "name", |value| {
        let text = value.trim();
        printable(text, 128)?;
        Ok(text)
    }
);
text!(
    /// The slug of an app or a scheme: `[a-z0-9][a-z0-9_-]{0,63}`.
    Slug, "slug", |value| {
        let first = value.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if first && rest && value.len() <= 64 {
            Ok(value)
        } else {
            Err("must be 1 to 64 lower-case letters, digits, '_' or '-', starting with a letter or digit".into())
        }
    }
);
text!(
    /// What an app's keys begin with: `[a-z][a-z0-9_]{0,31}`, not ending in `_`, and none of Keyward's own prefixes.
    KeyPrefix, "key_prefix", |value| {
        let first = value.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !(first && rest && value.len() <= 32 && !value.ends_with('_')) {
            return Err(
                "must be 1 to 32 lower-case letters, digits or '_', starting with a letter and not ending in '_'".into(),
            );
        }
        if crate::token::RESERVED_PREFIXES.contains(&value) {
            return Err(format!("must not be {value}, which Keyward's own credentials begin with"));
        }
        Ok(value)
    }
);
text!(
    /// A description: up to 512 characters.
    Description, "description", |value| {
        if value.chars().count() > 512 {
            return Err("must be at most 512 characters".into());
        }
        if value.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return Err("must not contain control characters".into());
        }
        Ok(value)
    }
);
text!(
    /// An id of the SaaS's own (a user, an organization, a membership): opaque, 1 to 128 printable characters.
    OwnerId, "owner id", |value| {
        printable(value, 128)?;
        Ok(value)
    }
);
text!(
    /// Why a key was revoked: 1 to 512 bytes of printable text.
    Reason, "reason", |value| {
        let text = value.trim();
        printable(text, 512)?;
        if text.len() > 512 {
            return Err("must be at most 512 bytes".into());
        }
        Ok(text)
    }
);
fn printable(value: &str, longest: usize) -> Result<(), String> {
    if value.trim().is_empty() {
        return Err("must not be blank".into());
    }
    if value.chars().count() > longest {
        return Err(format!("must be at most {longest} characters"));
    }
    if value.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_slugs_and_prefixes_are_accepted() {
        for slug in ["aa_42", "acme-v2", "my-integration", "my-integration-with-rate-limit", "0"] {
            assert_eq!(Slug::parse("app_slug", slug).unwrap().as_str(), slug);
        }
        for prefix in ["acme_live", "sk_live", "wacht_internal", "sk", "wk_live"] {
            assert_eq!(KeyPrefix::parse("key_prefix", prefix).unwrap().as_str(), prefix);
        }
    }

    #[test]
    fn what_is_refused() {
        for slug in ["", "-a", "_a", "A", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(Slug::parse("slug", slug).is_err(), "{slug:?}");
        }
        for prefix in
            ["", "a_", "_a", "1a", "A", "a-b", &"a".repeat(33), "kw_root", "kw_ticket", "kw_session"]
        {
            assert!(KeyPrefix::parse("key_prefix", prefix).is_err(), "{prefix:?}");
        }
        for name in ["", "  ", "a\nb", &"x".repeat(129)] {
            assert!(Name::parse("name", name).is_err(), "{name:?}");
        }
        assert!(Reason::parse("reason", &"é".repeat(300)).is_err(), "600 bytes");
    }

    #[test]
    fn a_name_counts_characters_and_loses_the_space_around_it() {
        assert_eq!(Name::parse("name", " CI key ").unwrap().as_str(), "CI key");
        assert!(Name::parse("name", &"é".repeat(128)).is_ok());
    }

    #[test]
    fn the_error_names_the_field() {
        let error = Slug::parse("app_slug", "No").unwrap_err();
        assert!(error.to_string().starts_with("app_slug must be"), "{error}");
    }
}
