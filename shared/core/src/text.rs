//! The texts that callers choose: names, slugs, prefixes, owner ids and the like, each parsed once.
//!
//! Texts for people must be visible, by the data of the Unicode Character Database
//! (<https://www.unicode.org/reports/tr44/>): at least one visible character, and none that is a control, changes the
//! direction of the following text, or is not assigned. Rows from before this rule are still read, with U+FFFD in place of
//! such characters.

use std::fmt;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A field of a request that is not acceptable: which, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// The field, as the caller named it.
    pub field: String,
    /// The problem, worded to follow the field's name.
    pub problem: String,
}

impl InvalidField {
    /// `field` has this `problem`.
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

/// The choice with this name.
///
/// # Errors
/// There is none: which there are.
pub(crate) fn one_of<T: Copy>(field: &str, text: &str, choices: &[(&str, T)]) -> Result<T, InvalidField> {
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*chosen);
    }
    let mut names: Vec<String> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
    let last = names.pop().unwrap_or_default();
    Err(InvalidField::new(field, format!("must be {} or {last}", names.join(", "))))
}

/// The most that callers may write into one app or one key, in bytes, so that a strongly consistent read of either takes
/// one unit of 4 KiB.
pub const MAX_BYTES: usize = 2_560;

/// Rejects texts with more than `max` bytes together. `field` names them to the caller.
///
/// # Errors
/// They do.
pub fn check_total<'a>(
    field: &str,
    max: usize,
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<(), InvalidField> {
    // Each member of a list costs up to three bytes beside its text.
    let size: usize = texts.into_iter().map(|text| text.len() + 3).sum();
    if size <= max {
        return Ok(());
    }
    Err(InvalidField::new(field, format!("total {size} bytes; the limit is {max}")))
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $label:literal, $check:expr) => {
        text!($(#[$doc])* $name, $label, $check, |value| Self::parse($label, &value));
    };
    ($(#[$doc:meta])* $name:ident, $label:literal, $check:expr, |$stored:ident| $read:expr) => {
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(into = "String", try_from = "String")]
        $(#[$doc])*
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

            fn try_from($stored: String) -> Result<Self, InvalidField> {
                $read
            }
        }
    };
}

text!(
    /// The name of an app, a key or a scheme: 1 to 128 characters on one line, around which white space is dropped.
    #[schema(min_length = 1, example = "Acme production")]
    Name, "name", |value| {
        let text = value.trim();
        check_length(text, 128)?;
        readable(text, &[])?;
        Ok(text)
    },
    |value| Ok(Self(replaced(&value, &[])))
);
text!(
    /// The slug of an app or a scheme: `[a-z0-9][a-z0-9_-]{0,63}`.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "acme")]
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
    /// The prefix of an app's keys: `[a-z][a-z0-9_]{0,31}`, not ending in `_`, and none of Keyward's own prefixes.
    #[schema(pattern = "^[a-z]([a-z0-9_]{0,30}[a-z0-9])?$", example = "acme_live")]
    KeyPrefix, "key_prefix", |value| {
        let first = value.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !(first && rest && value.len() <= 32 && !value.ends_with('_')) {
            return Err(
                "must be 1 to 32 lower-case letters, digits or '_', starting with a letter and not ending in '_'".into(),
            );
        }
        if crate::credential::RESERVED_PREFIXES.contains(&value) {
            return Err(format!("must not be {value}, which is reserved for Keyward's own credentials"));
        }
        Ok(value)
    }
);
text!(
    /// A description: up to 512 characters on any number of lines, or none at all.
    #[schema(max_length = 512)]
    Description, "description", |value| {
        check_length(value, 512)?;
        if !value.is_empty() {
            readable(value, &LINES)?;
        }
        Ok(value)
    },
    |value| Ok(Self(if value.is_empty() { value } else { replaced(&value, &LINES) }))
);
text!(
    /// An id of the SaaS's own (a user, an organization, a membership): opaque, 1 to 128 characters as of a name. One that was
    /// stored stays as it is: another text would be another id.
    #[schema(min_length = 1, max_length = 128, example = "user_42")]
    OwnerId, "owner id", |value| {
        check_length(value, 128)?;
        readable(value, &[])?;
        Ok(value)
    },
    |value| Ok(Self(value))
);
text!(
    /// Why a key was revoked: 1 to 512 bytes on one line.
    #[schema(max_length = 512, example = "The laptop was lost")]
    Reason, "reason", |value| {
        let text = value.trim();
        if text.len() > 512 {
            return Err("must be at most 512 bytes".into());
        }
        readable(text, &[])?;
        Ok(text)
    },
    |value| Ok(Self(replaced(&value, &[])))
);

/// The controls that a text of several lines may hold.
const LINES: [char; 3] = ['\t', '\n', '\r'];

/// Rejects a text without a visible character, and characters that are invisible or change how others are shown. Those in
/// `also` are welcome.
fn readable(text: &str, also: &[char]) -> Result<(), String> {
    if let Some(refused) = text.chars().find(|c| !is_readable(*c) && !also.contains(c)) {
        let code = u32::from(refused);
        return Err(format!(
            "must not contain U+{code:04X}: control characters, line breaks, bidirectional controls and unassigned characters are not allowed"
        ));
    }
    if text.chars().any(shows) { Ok(()) } else { Err("must contain a visible character".into()) }
}

/// The text with U+FFFD for each character that [`readable`] rejects, and alone if nothing is visible.
fn replaced(text: &str, also: &[char]) -> String {
    let replace = |c: char| if is_readable(c) || also.contains(&c) { c } else { char::REPLACEMENT_CHARACTER };
    let text: String = text.chars().map(replace).collect();
    if text.chars().any(shows) { text } else { char::REPLACEMENT_CHARACTER.into() }
}

/// Whether a character leaves the text around it what it is on one line: neither a control nor a line break, nor one of the
/// embeddings, overrides and isolates of the bidirectional algorithm (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>),
/// nor unassigned.
pub(crate) fn is_readable(c: char) -> bool {
    let turns = matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let unread = matches!(
        category(c),
        GeneralCategory::Control
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::Unassigned
    );
    !turns && !unread
}

/// Whether a character shows: a letter, mark, number, sign or symbol that is not blank.
fn shows(c: char) -> bool {
    const BLANK_PATTERN: char = '\u{2800}';
    let blank = matches!(
        category(c),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    !blank && c != BLANK_PATTERN && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn check_length(text: &str, characters: usize) -> Result<(), String> {
    if text.chars().count() > characters {
        return Err(format!("must be at most {characters} characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn invalid_texts() {
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
    fn names_of_all_scripts_and_emoji_pass() {
        for name in [
            "Zażółć gęślą jaźń",
            "Ελληνικά",
            "Русский ключ",
            "Հայերեն",
            "עִבְרִית",
            "العربيّة",
            "فارسی می\u{200C}خواهم",
            "اردو",
            "हिन्दी",
            "ক\u{200D}ষ",
            "தமிழ்",
            "తెలుగు",
            "ಕನ್ನಡ",
            "മലയാളം",
            "සිංහල",
            "ภาษาไทย",
            "ລາວ",
            "བོད་སྐད་",
            "မြန်မာ",
            "ქართული",
            "አማርኛ",
            "ᏣᎳᎩ",
            "ᐃᓄᒃᑎᑐᑦ",
            "ភាសាខ្មែរ",
            "ᠮᠣᠩᠭᠣᠯ",
            "日本語のキー",
            "한국어",
            "漢字𠮷",
            "ꦧꦱꦗꦮ",
            "𐤀𐤋𐤐",
            "𒀀𒁀",
            "e\u{301}",
            "Tiếng Việt",
            "👩\u{200D}👩\u{200D}👧\u{200D}👦",
            "🏳\u{FE0F}\u{200D}🌈",
            "❤\u{FE0F}",
            "👍🏽",
            "🇩🇪",
            "1\u{FE0F}\u{20E3}",
            "🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
            "✓ §42 – 50 %",
            "LRM\u{200E} and RLM\u{200F}",
            "\u{F8FF} key",
        ] {
            assert_eq!(Name::parse("name", name).unwrap().as_str(), name);
            assert!(
                Reason::parse("reason", name).is_ok() && Description::parse("description", name).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn invisible_texts_are_rejected() {
        for blank in [
            "\u{200B}",
            "\u{200D}",
            "\u{FEFF}",
            "\u{AD}",
            "\u{2060}",
            "\u{115F}",
            "\u{3164}",
            "\u{FFA0}",
            "\u{2800}",
            "\u{FE0F}",
            "\u{34F}",
            "\u{17B5}",
            "\u{E0041}\u{E007F}",
            "\u{200B} \u{200B}",
            "\u{E000}",
            "\u{3000}",
            "\u{A0}",
            "\u{180E}",
        ] {
            let refused = Name::parse("name", blank).unwrap_err().to_string();
            assert_eq!(refused, "name must contain a visible character", "{blank:?}");
            assert!(
                Reason::parse("reason", blank).is_err() && Description::parse("description", blank).is_err()
            );
            assert!(OwnerId::parse("user_id", blank).is_err(), "{blank:?}");
        }
        for (name, code) in [
            ("evil\u{202E}gpj", "U+202E"),
            ("\u{202A}a", "U+202A"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{2069}b", "U+2069"),
            ("a\u{0}b", "U+0000"),
            ("a\u{1B}[2Jb", "U+001B"),
            ("a\u{85}b", "U+0085"),
            ("a\u{2028}b", "U+2028"),
            ("a\u{2029}b", "U+2029"),
            ("a\u{378}b", "U+0378"),
            ("a\u{FFFE}b", "U+FFFE"),
            ("a\u{10FFFF}b", "U+10FFFF"),
            ("a\rb", "U+000D"),
        ] {
            for refused in [
                Name::parse("f", name).unwrap_err(),
                Reason::parse("f", name).unwrap_err(),
                OwnerId::parse("f", name).unwrap_err(),
            ] {
                assert!(refused.to_string().starts_with(&format!("f must not contain {code}:")), "{refused}");
            }
        }
        assert!(Description::parse("description", "one\r\n\ttwo").is_ok());
        assert!(Description::parse("description", "").is_ok());
        for description in [" ", "\n", "a\u{B}b", "a\u{202E}b"] {
            assert!(Description::parse("description", description).is_err(), "{description:?}");
        }
    }

    #[test]
    fn stored_texts_are_read_with_replacement_characters() {
        let name = |text: &str| Name::try_from(text.to_owned()).unwrap().to_string();
        assert_eq!(name("evil\u{202E}gpj"), "evil\u{FFFD}gpj");
        assert_eq!(name("\u{200B}"), "\u{FFFD}");
        assert_eq!(name(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(Reason::try_from("a\nb".to_owned()).unwrap().as_str(), "a\u{FFFD}b");
        let description = |text: &str| Description::try_from(text.to_owned()).unwrap().to_string();
        assert_eq!([description(""), description("a\nb\u{0}")], ["", "a\nb\u{FFFD}"]);
        assert_eq!(OwnerId::try_from("\u{200B}".to_owned()).unwrap().as_str(), "\u{200B}");
        assert!(Slug::try_from("No".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn letters_marks_numbers_and_signs_pass_in_any_mixture(text in "[\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\u{200C}\u{200D}\u{FE0F}\u{E0061}-\u{E007A}\u{E007F}]{0,30}x") {
            // What generates the texts may know another version of Unicode.
            let assigned: String = text.chars().filter(|c| category(*c) != GeneralCategory::Unassigned).collect();
            prop_assert_eq!(Name::parse("name", &assigned).map(String::from), Ok(assigned));
        }

        #[test]
        fn a_name_has_something_to_see_and_nothing_that_hides_it(text in "(\\PC|\\p{C}|\\p{Z}|[\u{200B}-\u{200F}\u{2028}-\u{202E}\u{2060}-\u{206F}]){0,4}") {
            let hides = |c: char| c.is_control() || matches!(u32::from(c), 0x2028..=0x202E | 0x2066..=0x2069);
            if let Ok(name) = Name::parse("name", &text) {
                prop_assert!(!name.as_str().chars().any(hides));
                prop_assert!(name.as_str().chars().any(|c| !c.is_whitespace() && !matches!(u32::from(c), 0x200B..=0x200F | 0x2060..=0x206F)));
            }
            let read = Name::try_from(text).unwrap();
            prop_assert!(readable(read.as_str(), &[]).is_ok(), "what is read is a name: {:?}", read);
        }
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
