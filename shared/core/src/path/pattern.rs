//! Patterns that match several paths.

use serde::{Deserialize, Serialize};

use super::{decoded, folded, path_of, with_slashes};
use crate::text::InvalidField;

/// A path, or several: `*` stands for any text, slashes included. 1 to 128 printable characters without white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PathPattern {
    written: String,
    normal: String,
}

impl PathPattern {
    /// Parses an entry of the request's field `field`. Whoever writes one means one reading: percent-encodings are resolved
    /// once, backslashes are slashes, dot segments are resolved, empty segments and a slash at the end go, and so does what
    /// stands before the path of a URL.
    ///
    /// # Errors
    /// Says which field is wrong and what an entry may hold.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let printable = !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if !printable || text.chars().count() > 128 || text.contains(['?', '#']) {
            return Err(InvalidField::new(
                field,
                "must contain paths of 1 to 128 printable characters without white space, '?' and '#', in which '*' stands for any text",
            ));
        }
        let path = with_slashes(&decoded(path_of(text).unwrap_or(text)));
        if path.contains(char::is_control) {
            return Err(InvalidField::new(field, "must not contain control characters"));
        }
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment),
            }
        }
        Ok(Self { written: text.to_owned(), normal: folded(&format!("/{}", segments.join("/"))) })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The pattern in the form in which it is compared: that of all patterns that are alike but for their spelling.
    pub(crate) fn normal(&self) -> &str {
        &self.normal
    }

    /// Whether it stands for this reading of a path.
    pub(super) fn matches(&self, reading: &str) -> bool {
        wildcard_matches(self.normal.as_bytes(), reading.as_bytes())
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.written
    }
}

impl TryFrom<String> for PathPattern {
    type Error = InvalidField;

    fn try_from(text: String) -> Result<Self, InvalidField> {
        Self::parse("path", &text)
    }
}

/// Whether `*`s of the pattern can be replaced to give the text, in time linear in their product.
fn wildcard_matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // After the last `*`: the pattern, and the text that it has not yet been replaced by.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', pattern_rest @ ..], _) => {
                retry = Some((pattern_rest, text));
                pattern = pattern_rest;
            }
            ([wanted, pattern_rest @ ..], [found, text_rest @ ..]) if wanted == found => {
                pattern = pattern_rest;
                text = text_rest;
            }
            ([], []) => return true,
            _ => match retry {
                Some((after_star, [_, longer @ ..])) => {
                    retry = Some((after_star, longer));
                    pattern = after_star;
                    text = longer;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::NormalPath;
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse("endpoints", text).unwrap()
    }

    fn path(text: &str) -> NormalPath {
        NormalPath::parse("resource", text).unwrap()
    }

    fn may_be(of: &str, text: &str) -> bool {
        path(text).may_be(&pattern(of))
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(may_be("*", "/") && may_be("*", "/a/b") && may_be("/*", "/a/b"));
        assert!(may_be("users/*", "/users/1") && may_be("users/*", "/users/1/keys"));
        assert!(!may_be("users/*", "/users") && !may_be("users/*", "/users2/1"));
        assert!(may_be("/v1/*/keys", "/v1/apps/a/keys") && !may_be("/v1/*/keys", "/v1/keys"));
        for text in ["", "a b", "a\tb", "a?b", "a#b", "/a%0ab", &"a".repeat(129)] {
            assert!(PathPattern::parse("endpoints", text).is_err(), "{text:?}");
        }
        assert!(PathPattern::parse("endpoints", &"a".repeat(128)).is_ok());
    }

    #[test]
    fn a_pattern_has_one_reading() {
        for (written, normal) in [
            ("/Users/", "/users"),
            ("users//%31", "/users/1"),
            ("/users/%2531", "/users/%31"),
            ("\\users%5C1", "/users/1"),
            ("/v1/./a/../users/*", "/v1/users/*"),
            ("/../users", "/users"),
            ("https://api.example.com/v1/*", "/v1/*"),
            ("http://h", "/"),
            ("v1:batch", "/v1:batch"),
            ("/a;b", "/a;b"),
            ("/\u{17f}traße", "/strasse"),
            ("*", "/*"),
        ] {
            let pattern = pattern(written);
            assert_eq!((pattern.normal.as_str(), pattern.as_str()), (normal, written));
        }
    }

    #[test]
    fn a_pattern_is_kept_as_it_was_written() {
        let kept = serde_json::to_string(&pattern("/Users/*")).unwrap();
        assert_eq!(kept, "\"/Users/*\"");
        assert_eq!(serde_json::from_str::<PathPattern>(&kept).unwrap(), pattern("/Users/*"));
        assert!(serde_json::from_str::<PathPattern>("\"a b\"").is_err());
    }

    /// By definition: some `*` is replaced by some prefix of the text.
    pub(in crate::path) fn wildcard_matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                (0..=text.len()).any(|taken| wildcard_matches_by_definition(rest, &text[taken..]))
            }
            ([wanted, rest @ ..], [found, text @ ..]) => {
                wanted == found && wildcard_matches_by_definition(rest, text)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(wildcard_matches(pattern.as_bytes(), text.as_bytes()), wildcard_matches_by_definition(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn a_path_is_its_own_pattern(text in "(/[a-zA-Z0-9;éſΣ*._~-]{1,6}){1,4}") {
            if let Ok(path) = NormalPath::parse("resource", &text) {
                prop_assert!(path.may_be(&pattern(&text)), "{}", text);
            }
        }
    }
}
