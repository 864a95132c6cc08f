//! The decision on a request whose key was found and whose secret matched.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::permission::{self, Permission};
use crate::text::InvalidField;
use crate::{ApiKey, App};

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// What a request asks for: its method and its path, without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    method: &'static str,
    path: String,
}

impl Target {
    /// Parses the `method` and `resource` of a check.
    ///
    /// # Errors
    /// An unknown method; a path that is blank, or longer than 2,048 bytes.
    pub fn parse(method: &str, resource: &str) -> Result<Self, InvalidField> {
        let method = METHODS
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(method.trim()))
            .ok_or_else(|| InvalidField::new("method", format!("must be one of {}", METHODS.join(", "))))?;
        let path = resource.trim().split(['?', '#']).next().unwrap_or_default();
        if path.is_empty() {
            return Err(InvalidField::new("resource", "must be a path"));
        }
        if path.len() > 2_048 || path.chars().any(char::is_control) {
            return Err(InvalidField::new("resource", "must be at most 2048 bytes of printable text"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { method, path: format!("{slash}{path}") })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Why a key whose secret matched is refused whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key was revoked.
    #[error("this API key was revoked")]
    KeyRevoked,
    /// The app is disabled.
    #[error("the app of this API key is disabled")]
    AppDisabled,
    /// The app was deleted.
    #[error("the app of this API key was deleted")]
    AppDeleted,
    /// The key has expired.
    #[error("this API key has expired")]
    KeyExpired,
}

impl Refusal {
    /// The stable code, in answers and in the audit log.
    pub fn code(self) -> &'static str {
        match self {
            Self::KeyRevoked => "key_revoked",
            Self::AppDisabled => "app_disabled",
            Self::AppDeleted => "app_deleted",
            Self::KeyExpired => "key_expired",
        }
    }
}

/// What was decided of a request whose key works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may go through.
    pub allowed: bool,
    /// What the key may do in all, sorted.
    pub permissions: Vec<Permission>,
}

/// Decides in this order: the state of key and app, expiry, permissions.
///
/// # Errors
/// The key is refused whatever it asks for.
pub fn decide<S: AsRef<str>>(
    app: &App,
    key: &ApiKey,
    required: &[S],
    now: DateTime<Utc>,
) -> Result<Verdict, Refusal> {
    if !key.is_active() {
        return Err(Refusal::KeyRevoked);
    }
    if app.deleted_at.is_some() {
        return Err(Refusal::AppDeleted);
    }
    if !app.is_active {
        return Err(Refusal::AppDisabled);
    }
    if key.is_expired(now) {
        return Err(Refusal::KeyExpired);
    }
    let effective = permission::effective(&key.permissions, &app.permissions);
    Ok(Verdict {
        allowed: permission::all_hold(&effective, required),
        permissions: effective.into_iter().cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_method_and_a_path() {
        let target = |method, resource| Target::parse(method, resource).map(|t| t.to_string());
        assert_eq!(target(" get ", " users/1?x=1#y ").unwrap(), "GET /users/1");
        assert_eq!(target("POST", "/a#b?c").unwrap(), "POST /a");
        for (method, resource) in [("TRACE", "/"), ("", "/"), ("GET", " "), ("GET", "?a"), ("GET", "/a\u{0}")]
        {
            assert!(target(method, resource).is_err(), "{method} {resource:?}");
        }
        assert!(target("GET", &"a".repeat(2_049)).is_err());
    }
}
