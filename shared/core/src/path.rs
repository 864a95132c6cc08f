//! Paths, brought into one form before anything compares them, so that no spelling of a path escapes a limit, a bound or
//! a permission; and patterns that stand for several.
//!
//! Syntax-based normalization as in RFC 3986 (6.2.2), and further, as servers differ in what they take for the same: every
//! percent-encoding is resolved, also one of an encoding; a backslash is a slash; white space around a segment, empty and dot
//! segments go, and with them a slash at the end; capital letters are small ones.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::InvalidField;

/// The longest path, in bytes, before it is normalised.
const LONGEST: usize = 2_048;
/// How often a path may be percent-encoded.
const DEEPEST: usize = 8;

/// A path in its one form: `/`, or segments that each follow a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NormalPath(String);

impl NormalPath {
    /// Normalises the path in the request's field `field`. What follows a `?` or a `#` is not part of it.
    ///
    /// # Errors
    /// It is blank, longer than 2,048 bytes, percent-encoded more than eight times, or has control characters, encoded or
    /// not.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let path = without_query(text);
        if path.is_empty() {
            return Err(InvalidField::new(field, "must be a path"));
        }
        if path.len() > LONGEST {
            return Err(InvalidField::new(field, "must be at most 2048 bytes"));
        }
        let plain = decoded(path)
            .ok_or_else(|| InvalidField::new(field, "must not be percent-encoded more than 8 times"))?
            .to_lowercase();
        if plain.chars().any(char::is_control) {
            return Err(InvalidField::new(field, "must not have control characters"));
        }
        let mut segments: Vec<&str> = Vec::new();
        for segment in plain.split(['/', '\\']) {
            match segment.trim() {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment),
            }
        }
        Ok(Self(format!("/{}", segments.join("/"))))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a text that may have white space around it, a query and a fragment.
pub(crate) fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default().trim()
}

/// Without percent-encodings, also those of encodings. What is no UTF-8 is U+FFFD. None if it is encoded too often.
fn decoded(path: &str) -> Option<String> {
    let mut text = path.to_owned();
    for _ in 0..=DEEPEST {
        let once = decoded_once(&text);
        if once == text {
            return Some(text);
        }
        text = once;
    }
    None
}

fn decoded_once(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let encoded = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = encoded.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A path, or several: `*` stands for any text, slashes included. 1 to 128 printable characters without white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PathPattern {
    written: String,
    normal: NormalPath,
}

impl PathPattern {
    /// Parses an entry of the request's field `field`.
    ///
    /// # Errors
    /// Says which field is wrong and what an entry may hold.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let printable = !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if !printable || text.chars().count() > 128 || text.contains(['?', '#']) {
            return Err(InvalidField::new(
                field,
                "must hold paths of 1 to 128 printable characters without white space, '?' and '#', in which '*' stands for any text",
            ));
        }
        Ok(Self { written: text.to_owned(), normal: NormalPath::parse(field, text)? })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it stands for this path.
    pub fn matches(&self, path: &NormalPath) -> bool {
        is_like(self.normal.as_str().as_bytes(), path.as_str().as_bytes())
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
fn is_like(mut pattern: &[u8], mut text: &[u8]) -> bool {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> String {
        NormalPath::parse("resource", text).unwrap().to_string()
    }

    #[test]
    fn each_spelling_has_one_form() {
        for (text, form) in [
            ("/v1/users", "/v1/users"),
            (" v1/users?x=/..#y ", "/v1/users"),
            ("/v1//users/", "/v1/users"),
            ("/v1/./users/.", "/v1/users"),
            ("/v1/admin/../users", "/v1/users"),
            ("/../../v1/users", "/v1/users"),
            ("/V1/Users", "/v1/users"),
            ("/v1/%75sers", "/v1/users"),
            ("/v1/%2575sers", "/v1/users"),
            ("/v1%2Fusers", "/v1/users"),
            ("/v1%2fadmin%2f%2E%2e/users", "/v1/users"),
            ("/v1\\users", "/v1/users"),
            ("/v1%5Cusers", "/v1/users"),
            ("/", "/"),
            ("/..", "/"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/caf%C3%A9", "/café"),
            ("/CAFÉ", "/café"),
            ("/v1/users ?x", "/v1/users"),
            ("/v1/users%20", "/v1/users"),
            ("/v1/admin/..%20/users", "/v1/users"),
            ("/a b", "/a b"),
            ("/%ff", "/\u{fffd}"),
        ] {
            assert_eq!(normal(text), form, "{text}");
        }
    }

    #[test]
    fn what_is_no_path() {
        for text in
            ["", " ", "?a", "#a", "/a\u{0}", "/a%00", "/a%2500", "/a%0a", &format!("/{}", "a".repeat(2_048))]
        {
            assert!(NormalPath::parse("resource", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn encodings_of_encodings_are_bounded() {
        let encoded = |times: usize| format!("/%{}41", "25".repeat(times - 1));
        assert_eq!(normal(&encoded(DEEPEST)), "/a");
        assert!(NormalPath::parse("resource", &encoded(DEEPEST + 1)).is_err());
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, path: &str| {
            PathPattern::parse("endpoints", pattern)
                .unwrap()
                .matches(&NormalPath::parse("resource", path).unwrap())
        };
        assert!(matches("*", "/") && matches("*", "/a/b") && matches("/*", "/a/b"));
        assert!(matches("users/*", "/users/1") && matches("users/*", "/users/1/keys"));
        assert!(!matches("users/*", "/users") && !matches("users/*", "/users2/1"));
        assert!(matches("/v1/*/keys", "/v1/apps/a/keys") && !matches("/v1/*/keys", "/v1/keys"));
        assert!(matches("/Users/", "/users") && matches("/users", "/Users/"));
        assert!(!matches("/users/*", "/users/../admin") && !matches("/users/*", "/users/%2e%2e/admin"));
        assert!(!matches("/users/*", "/users/%252e%252e%252fadmin"));
        for pattern in ["", "a b", "a\tb", "a?b", "a#b", &"a".repeat(129)] {
            assert!(PathPattern::parse("endpoints", pattern).is_err(), "{pattern:?}");
        }
    }

    /// A path written otherwise, in a way that `choice` picks for each character.
    fn spelled(path: &str, choices: &[u8]) -> String {
        let mut spelled = String::new();
        for (character, choice) in path.chars().zip(choices.iter().cycle()) {
            match (character, choice % 8) {
                ('/', 0) => spelled.push_str("//"),
                ('/', 1) => spelled.push_str("/./"),
                ('/', 2) => spelled.push_str("/other/../"),
                ('/', 3) => spelled.push_str("%2F"),
                ('/', 4) => spelled.push('\\'),
                (_, 0) => spelled.extend(character.to_uppercase()),
                (_, 1) => spelled.push_str(&format!("%{:02x}", u32::from(character))),
                (_, 2) => spelled.push_str(&format!("%25{:02X}", u32::from(character))),
                _ => spelled.push(character),
            }
        }
        spelled
    }

    /// By definition: some `*` is replaced by some prefix of the text.
    fn is_like_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                (0..=text.len()).any(|taken| is_like_by_definition(rest, &text[taken..]))
            }
            ([wanted, rest @ ..], [found, text @ ..]) => wanted == found && is_like_by_definition(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn no_spelling_escapes(path in "(/[a-z0-9_-]{1,6}){1,4}", choices in prop::collection::vec(any::<u8>(), 1..30), query in "(\\?[a-z/.]{0,5})?") {
            prop_assert_eq!(normal(&(spelled(&path, &choices) + &query)), path);
        }

        #[test]
        fn normalising_again_changes_nothing(text in "\\PC{1,60}") {
            if let Ok(path) = NormalPath::parse("resource", &text) {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(!path.as_str().contains("//") && !path.as_str().contains("/../"));
                let encoded = path.as_str().replace('?', "%3f").replace('#', "%23");
                if let Ok(again) = NormalPath::parse("resource", &encoded) {
                    prop_assert_eq!(again, path);
                }
            }
        }

        #[test]
        fn a_pattern_matches_as_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(is_like(pattern.as_bytes(), text.as_bytes()), is_like_by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
