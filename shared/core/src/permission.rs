//! Permissions of keys, in words that the SaaS chose.
//!
//! A granted permission may be `*` (everything), or end in `:*`, `.*` or `/*` (everything that begins with the text
//! before the `*`). Everything that can be granted can be required: the words of [`crate::requirement`] are not permissions.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::Bounds;
use crate::text::InvalidField;

/// The characters that may stand before the `*` of a wildcard.
const SEPARATORS: [char; 3] = [':', '.', '/'];
/// The word that joins permissions of which all are required.
pub(crate) const AND: &str = "AND";
/// The word that joins permissions of which any is required.
pub(crate) const OR: &str = "OR";

/// A granted permission: `*`, or 1 to 128 of `[A-Za-z0-9_.:/-]`, optionally ending in `*` after one of `:./`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(max_length = 128, pattern = r"^(\*|[A-Za-z0-9_.:/-]+([:./]\*)?)$", example = "users:read")]
pub struct Permission(String);

impl Permission {
    /// Parses an entry of the request's field `field`.
    ///
    /// # Errors
    /// Says which field is wrong and what an entry may hold.
    pub fn parse(field: &str, value: &str) -> Result<Self, InvalidField> {
        let text = value.trim();
        if text == AND || text == OR {
            let problem = format!("must not contain '{text}', which joins required permissions");
            return Err(InvalidField::new(field, problem));
        }
        Self::from_stored(text).ok_or_else(|| {
            InvalidField::new(
                field,
                "must contain permissions of 1 to 128 letters, digits or '_.:/-', each '*' or ending in ':*', '.*' or '/*' if it is a wildcard",
            )
        })
    }

    /// As [`Self::parse`], and the words that used to be permissions: nothing can require those.
    fn from_stored(text: &str) -> Option<Self> {
        let below = text.strip_suffix('*').and_then(|below| below.strip_suffix(SEPARATORS));
        let plain = below.unwrap_or(text);
        let characters = |b: u8| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b);
        let is_one = text == "*" || (text.len() <= 128 && !plain.is_empty() && plain.bytes().all(characters));
        is_one.then(|| Self(text.to_owned()))
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
        Self::from_stored(&value)
            .ok_or_else(|| InvalidField::new("permissions", "are not as they were written"))
    }
}

/// The permissions of `granted` that lie within the bounds of the app.
pub fn effective<'a>(
    granted: impl IntoIterator<Item = &'a Permission>,
    bounds: &'a Bounds<Permission>,
) -> BTreeSet<&'a Permission> {
    granted
        .into_iter()
        .flat_map(|permission| -> Vec<&Permission> {
            if bounds.admit(|bound| bound.covers(&permission.0)) {
                return vec![permission];
            }
            bounds.entries().iter().filter(|bound| permission.covers(&bound.0)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::requirement::Requirement;

    fn permissions(texts: &[&str]) -> Vec<Permission> {
        texts.iter().map(|t| Permission::parse("permissions", t).unwrap()).collect()
    }

    fn check(granted: &[&str], bounds: &[&str], required: &[&str]) -> bool {
        let (granted, bounds) = (permissions(granted), Bounds::from_list(permissions(bounds)));
        let effective = effective(&granted, &bounds);
        required.iter().all(|required| effective.iter().any(|permission| permission.covers(required)))
    }

    proptest! {
        #[test]
        fn granted_permissions_can_be_required(
            text in prop_oneof!["[A-Za-z0-9_.:/-]{1,12}", "AND", "OR", "(AND|OR)[:./*]{0,2}", "[a-c:./*]{1,6}"]
        ) {
            let Ok(granted) = Permission::parse("permissions", &text) else { return Ok(()) };
            let required = Requirement::parse("required_permissions", &text);
            let required = required.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            prop_assert!(required.holds(&BTreeSet::from([&granted])), "{}", text);
        }

        #[test]
        fn a_wildcard_covers_what_begins_with_what_is_before_it(
            above in "[a-c]{1,2}", separator in "[:./]", name in "[a-c:./]{1,4}",
        ) {
            let granted = Permission::parse("permissions", &format!("{above}{separator}*")).unwrap();
            prop_assert!(!granted.covers(&above));
            for other in [":", ".", "/", "d"] {
                let required = format!("{above}{other}{name}");
                prop_assert_eq!(granted.covers(&required), other == separator, "{}", required);
            }
        }
    }

    #[test]
    fn words_are_no_permissions_but_rows_that_hold_them_are_read() {
        for word in [AND, OR] {
            let refused = Permission::parse("permissions", word).unwrap_err().to_string();
            assert!(refused.contains(&format!("'{word}', which joins")), "{refused}");
            assert_eq!(Permission::try_from(word.to_owned()).unwrap().as_str(), word);
            assert!(Permission::parse("permissions", &word.to_lowercase()).is_ok());
        }
        assert!(Permission::try_from("a b".to_owned()).is_err());
    }

    #[test]
    fn a_permission_is_shown_and_kept_as_it_is() {
        let permission = Permission::from_stored("users:*").unwrap();
        assert_eq!(permission.to_string(), "users:*");
        assert_eq!(serde_json::to_value(&permission).unwrap(), "users:*");
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
        let all = permissions(&["*"]);
        assert!(effective(&all, &Bounds::Within(vec![])).is_empty(), "bounds without entries admit nothing");
    }

    #[test]
    fn invalid_permissions() {
        for bad in [
            "",
            " ",
            "a b",
            "a,b",
            "(a)",
            "a*",
            "*:a",
            ":*",
            ".*",
            "/*",
            "a-*",
            "a:**",
            "a:*:*",
            "a*:*",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(Permission::parse("permissions", bad).is_err(), "{bad:?}");
        }
    }
}
