//! Permissions: what a key may do, in words that the SaaS chose.
//!
//! A granted permission may be `*` (everything) or end in `:*` (everything below).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::InvalidField;

/// A granted permission: `*`, or 1 to 128 of `[A-Za-z0-9_.:/-]`, optionally ending in `:*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Permission(String);

impl Permission {
    /// Parses an entry of the request's field `field`.
    ///
    /// # Errors
    /// Says which field is wrong and what an entry may hold.
    pub fn parse(field: &str, value: &str) -> Result<Self, InvalidField> {
        let text = value.trim();
        let plain = text.strip_suffix(":*").unwrap_or(text);
        let characters = |b: u8| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b);
        if text == "*" || (text.len() <= 128 && !plain.is_empty() && plain.bytes().all(characters)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidField::new(
                field,
                "must hold permissions of 1 to 128 letters, digits or '_.:/-', each '*' or ending in ':*' if it is a wildcard",
            ))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether who holds this permission may do what `required` says.
    pub fn covers(&self, required: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(below) => required.starts_with(below),
            None => self.0 == required,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Permission> for String {
    fn from(value: Permission) -> Self {
        value.0
    }
}

impl TryFrom<String> for Permission {
    type Error = InvalidField;

    fn try_from(value: String) -> Result<Self, InvalidField> {
        Self::parse("permissions", &value)
    }
}

/// What remains of `granted` inside the bounds of the app. An app that sets no bounds leaves everything.
pub fn effective<'a>(
    granted: impl IntoIterator<Item = &'a Permission>,
    bounds: &'a [Permission],
) -> BTreeSet<&'a Permission> {
    granted
        .into_iter()
        .flat_map(|permission| -> Vec<&Permission> {
            if bounds.is_empty() || bounds.iter().any(|bound| bound.covers(&permission.0)) {
                return vec![permission];
            }
            bounds.iter().filter(|bound| permission.covers(&bound.0)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(texts: &[&str]) -> Vec<Permission> {
        texts.iter().map(|t| Permission::parse("permissions", t).unwrap()).collect()
    }

    fn check(granted: &[&str], bounds: &[&str], required: &[&str]) -> bool {
        let (granted, bounds) = (permissions(granted), permissions(bounds));
        let effective = effective(&granted, &bounds);
        required.iter().all(|required| effective.iter().any(|permission| permission.covers(required)))
    }

    #[test]
    fn wildcards_cover_what_is_below_them() {
        assert!(check(&["*"], &[], &["anything:at:all"]));
        assert!(check(&["users:*"], &[], &["users:read"]));
        assert!(!check(&["users:*"], &[], &["users"]));
        assert!(!check(&["users:*"], &[], &["users2:read"]));
    }

    #[test]
    fn the_app_bounds_its_keys() {
        assert!(!check(&["users:write"], &["users:read"], &["users:write"]));
        assert!(check(&["*"], &["users:read"], &["users:read"]));
        assert!(!check(&["*"], &["users:read"], &["users:write"]));
        assert!(check(&["users:read"], &["users:*"], &["users:read"]));
    }

    #[test]
    fn what_is_no_permission() {
        for bad in ["", " ", "a b", "a,b", "(a)", "a*", "*:a", ":*", "ä", &"a".repeat(129)] {
            assert!(Permission::parse("permissions", bad).is_err(), "{bad:?}");
        }
    }
}
