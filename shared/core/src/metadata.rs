//! The metadata of keys: JSON that comes back as it was written, digit for digit.
//!
//! It is kept as text and never as the floating-point numbers of a JSON library, so `1.0`, `1e2`, `-0` and thirty digits are
//! preserved. Only white space between its parts is dropped, strings get their shortest escapes, and the names of the
//! outermost object are sorted.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::text::InvalidField;

/// The maximum depth of nested objects and lists.
const MAX_DEPTH: usize = 32;
/// The digits, and the powers of ten of the first of them, of the numbers that DynamoDB holds
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html#HowItWorks.DataTypes.Number>):
/// what is taken here can be kept in any store.
const MAX_DIGITS: usize = 38;
const EXPONENTS: std::ops::RangeInclusive<i64> = -130..=125;

/// The members of a JSON object, each with the text of its value.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// A JSON object that the SaaS attached to a key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Metadata(Members);

impl Metadata {
    /// Parses the text of the value of the request's field `field`; `null` is an empty object.
    ///
    /// # Errors
    /// Anything but an object or null; in it, a name that is there twice in one object, a number that would not come
    /// back as it was written, or more than 32 objects and lists in each other.
    pub fn parse(field: &str, value: &RawValue) -> Result<Self, InvalidField> {
        match value.get().bytes().next() {
            Some(b'n') => return Ok(Self::default()),
            Some(b'{') => {}
            _ => return Err(InvalidField::new(field, "must be a JSON object")),
        }
        let mut text = String::new();
        write(field, value, MAX_DEPTH, &mut text)?;
        Self::try_from(text).map_err(|_| InvalidField::new(field, "must be a JSON object"))
    }

    /// The members, taken out.
    pub fn into_members(self) -> Members {
        self.0
    }

    /// The members whose values are strings.
    pub fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), serde_json::from_str(value.get()).ok()?)))
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&json)
    }
}

impl From<Metadata> for String {
    fn from(metadata: Metadata) -> Self {
        metadata.to_string()
    }
}

impl TryFrom<String> for Metadata {
    type Error = serde_json::Error;

    fn try_from(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&text).map(Self)
    }
}

/// Writes the value at `path` without white space, or says what is wrong with it.
fn write(path: &str, value: &RawValue, depth: usize, text: &mut String) -> Result<(), InvalidField> {
    let json = value.get();
    let wrong = |problem: &str| InvalidField::new(path, problem);
    let below =
        depth.checked_sub(1).ok_or_else(|| wrong(&format!("must be nested at most {MAX_DEPTH} levels deep")));
    match json.bytes().next() {
        Some(b'{') => {
            let below = below?;
            let pairs: Pairs<'_> = serde_json::from_str(json).map_err(|_| wrong("must be JSON"))?;
            let mut names = HashSet::new();
            text.push('{');
            for (name, value) in &pairs.0 {
                let path = format!("{path}.{name}");
                if !names.insert(name) {
                    return Err(InvalidField::new(&path, "must not appear twice"));
                }
                push_comma(text);
                *text += &quoted(name);
                text.push(':');
                write(&path, value, below, text)?;
            }
            text.push('}');
        }
        Some(b'[') => {
            let below = below?;
            let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| wrong("must be JSON"))?;
            text.push('[');
            for (index, item) in items.into_iter().enumerate() {
                push_comma(text);
                write(&format!("{path}[{index}]"), item, below, text)?;
            }
            text.push(']');
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(json).map_err(|_| wrong("must be Unicode text"))?;
            *text += &quoted(&string);
        }
        Some(b'-' | b'0'..=b'9') if !is_lossless(json) => {
            return Err(wrong(
                "must have at most 38 digits and be 0, or between 1E-130 and 9.99E+125 with either sign; send others as strings",
            ));
        }
        _ => *text += json,
    }
    Ok(())
}

/// A comma between parts.
fn push_comma(text: &mut String) {
    if !text.ends_with(['{', '[']) {
        text.push(',');
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether DynamoDB would hold a JSON number without losing anything of it.
fn is_lossless(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let from_first = digits.trim_start_matches('0');
    if from_first.is_empty() {
        return true;
    }
    let leading_zeros = digits.len() - from_first.len();
    let before_point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let zeros = i64::try_from(leading_zeros).unwrap_or(i64::MAX);
    // An exponent that is not a 64-bit number is far out of the range.
    let power = exponent.parse::<i64>().ok().and_then(|by| by.checked_add(before_point - 1 - zeros));
    from_first.trim_end_matches('0').len() <= MAX_DIGITS
        && power.is_some_and(|power| EXPONENTS.contains(&power))
}

/// The members of an object in their order, each as often as it is there.
struct Pairs<'t>(Vec<(String, &'t RawValue)>);

impl<'de: 't, 't> Deserialize<'de> for Pairs<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = members.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<String, String> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        Metadata::parse("metadata", &raw).map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_come_back_digit_for_digit() {
        for number in [
            "123456789012345678901234567890",
            "0.1234567890123456789012345678901234567",
            "1.0",
            "1e2",
            "1E+2",
            "-0",
            "-0.0",
            "0e999999999999999999999",
            "99999999999999999999999999999999999999",
            "1E-130",
            "9.9999999999999999999999999999999999999E+125",
            "100e123",
            "18446744073709551616",
            "-9223372036854775809",
            "1.10",
            "0.000000000000000000000000000000000000000000001",
            "1e-130",
            "100000000000000000000000000000000000000000000000000000",
        ] {
            let json = format!("{{\"n\":{number}}}");
            assert_eq!(read(&json), Ok(json.clone()));
            let stored = Metadata::try_from(json.clone()).unwrap();
            assert_eq!(serde_json::to_string(&stored.into_members()).unwrap(), json, "in an answer");
        }
    }

    #[test]
    fn metadata_is_equal_to_what_is_written_alike() {
        let stored = |json: &str| Metadata::try_from(json.to_owned()).unwrap();
        assert_eq!(stored(r#"{"n":1.0}"#), stored(r#"{"n":1.0}"#));
        assert_ne!(stored(r#"{"n":1.0}"#), stored(r#"{"n":1}"#));
        let expected = serde_json::from_str::<Pairs<'_>>("5").map(|_| ()).unwrap_err().to_string();
        assert!(expected.contains("expected an object"), "{expected}");
    }

    #[test]
    fn lossy_values_are_rejected_by_name() {
        for number in [
            "1E-131",
            "1E+126",
            "10E+125",
            "0.9E-130",
            "123456789012345678901234567890123456789",
            "1e99999999999999999999",
            "-1e-99999999999999999999",
            "1.23456789012345678901234567890123456789",
            "1e9223372036854775807",
        ] {
            let refused = read(&format!("{{\"a\":[{{\"b c\":{number}}}]}}")).unwrap_err();
            assert!(refused.starts_with("metadata.a[0].b c must have at most 38 digits"), "{refused}");
        }
        for (json, expected) in [
            ("{\"a\":1,\"a\":1}", "metadata.a must not appear twice"),
            ("{\"x\":[{\"a\":1,\"\\u0061\":2}]}", "metadata.x[0].a must not appear twice"),
            ("{\"a\":\"\\ud800\"}", "metadata.a must be Unicode text"),
            ("[1]", "metadata must be a JSON object"),
            ("5", "metadata must be a JSON object"),
            ("\"{}\"", "metadata must be a JSON object"),
        ] {
            assert_eq!(read(json).unwrap_err(), expected);
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&deep(MAX_DEPTH - 1)), Ok(deep(MAX_DEPTH - 1)));
        assert!(read(&deep(MAX_DEPTH)).unwrap_err().ends_with("must be nested at most 32 levels deep"));
    }

    #[test]
    fn it_is_what_it_was_stored_as() {
        assert_eq!(read("null"), Ok("{}".to_owned()));
        assert_eq!(
            read(" { \"b\" : [ 1 , { \"y\" : 1, \"x\" : null } ] ,\"a\": \"\\u0041\\n\" } "),
            Ok("{\"a\":\"A\\n\",\"b\":[1,{\"y\":1,\"x\":null}]}".to_owned())
        );
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(
            Metadata::try_from(deep.clone()).unwrap().to_string(),
            deep,
            "rows of earlier releases are read"
        );
        assert!(Metadata::try_from("[]".to_owned()).is_err());
        assert_ne!(Metadata::try_from("{\"a\":1}".to_owned()).unwrap(), Metadata::default());
        let texts = Metadata::try_from("{\"a\":\"x\",\"b\":1,\"c\":null,\"d\":\"\"}".to_owned()).unwrap();
        assert_eq!(texts.texts().collect::<Vec<_>>(), [("a", "x".to_owned()), ("d", String::new())]);
    }

    /// JSON without white space.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,7})?([eE][+-]?[0-8]?[0-9])?",
            "true|false|null",
            "\\PC{0,8}".prop_map(|text| quoted(&text)),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..4).prop_map(object),
            ]
        })
    }

    fn object(members: BTreeMap<String, String>) -> String {
        let members = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn valid_metadata_comes_back_as_it_was_written(members in prop::collection::btree_map("\\PC{0,4}", json(), 0..5)) {
            let json = object(members);
            prop_assert_eq!(read(&json), Ok(json.clone()));
        }
    }
}
