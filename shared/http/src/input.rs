//! Requests read into types: a JSON body, or the pairs of a query or a form.
//!
//! Every handler's types are read here, so that all follow the same rules: an array is not accepted in place of an object, no
//! name appears twice, and an error names the member in plain words.

use std::collections::HashSet;
use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Value};

/// Why a body is not what a route takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is not JSON, from this line and column on.
    Malformed { line: usize, column: usize },
    /// It is JSON of another shape.
    Mismatch(Mismatch),
}

impl From<Mismatch> for BodyError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

/// A member that is not what it should be. What was sent is not repeated: it may be a secret in the wrong place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Where it is, as `rules[0].unit`; empty for the whole.
    path: String,
    /// The problem, worded to follow the member's name.
    problem: String,
}

impl Mismatch {
    fn new(problem: impl Into<String>) -> Self {
        Self { path: String::new(), problem: problem.into() }
    }

    fn within(self, place: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{place}{dot}{}", self.path), ..self }
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "it" } else { &self.path };
        write!(f, "{place} {}", self.problem)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }

    fn invalid_type(_sent: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format!("must be {wanted}"))
    }

    fn invalid_value(_sent: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format!("must be {wanted}"))
    }

    fn invalid_length(_sent: usize, wanted: &dyn Expected) -> Self {
        Self::new(format!("must be {wanted}"))
    }

    fn unknown_variant(_sent: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of '{}'", known.join("', '")))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new("is required").within(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new("must not be given twice").within(name)
    }
}

/// Reads a JSON body.
///
/// # Errors
/// It is not JSON, or not of this shape; an object in it has a name twice, which readers take for different things
/// (RFC 8259, 4).
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    let malformed =
        |error: serde_json::Error| BodyError::Malformed { line: error.line(), column: error.column() };
    let value: Value = serde_json::from_slice(body).map_err(malformed)?;
    serde_json::from_slice::<NamesOnce>(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Mismatch::new(format!("must not repeat a name in one object, as at line {line}, column {column}"))
    })?;
    Ok(T::deserialize(Input::Json(&value))?)
}

/// Reads the pairs of a query or of a form: `name=text`, joined by `&`, percent-encoded.
///
/// # Errors
/// A parameter is missing, given twice or not of its type.
pub(crate) fn pairs<T: DeserializeOwned>(encoded: &[u8]) -> Result<T, Mismatch> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded).into_owned().collect();
    T::deserialize(Input::Pairs(&pairs))
}

/// JSON in which no object has a name twice.
struct NamesOnce;

impl<'de> Deserialize<'de> for NamesOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NamesOnce {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Self>()?;
            if !names.insert(name) {
                return Err(de::Error::custom("a name is given twice"));
            }
        }
        Ok(self)
    }
}

/// Something that a request gives.
#[derive(Clone, Copy)]
enum Input<'de> {
    Json(&'de Value),
    /// A query or a form.
    Pairs(&'de [(String, String)]),
    /// The value of a parameter.
    Text(&'de str),
}

impl<'de> Input<'de> {
    fn text(self) -> Option<&'de str> {
        match self {
            Self::Json(Value::String(text)) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn whole(self, min: i128, max: i128) -> Result<i128, Mismatch> {
        let number = match self {
            Self::Json(Value::Number(number)) => number.to_string().parse().ok(),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| Mismatch::new(format!("must be a whole number from {min} to {max}")))
    }
}

macro_rules! whole_numbers {
    ($($method:ident: $number:ident as $visit:ident,)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
                let number = self.whole($number::MIN.into(), $number::MAX.into())?;
                visitor.$visit($number::try_from(number).unwrap_or_default())
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Input<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Json(Value::Null) => visitor.visit_unit(),
            Self::Json(Value::Bool(value)) => visitor.visit_bool(*value),
            Self::Json(Value::Number(number)) => {
                let wanted = (&visitor as &dyn Expected).to_string();
                number.deserialize_any(visitor).map_err(|_| Mismatch::new(format!("must be {wanted}")))
            }
            Self::Json(Value::String(text)) => visitor.visit_borrowed_str(text),
            Self::Json(Value::Array(items)) => visitor.visit_seq(Items(items.iter().enumerate())),
            Self::Json(Value::Object(members)) => visitor.visit_map(Members::new(of_object(members))),
            Self::Pairs(pairs) => visitor.visit_map(Members::new(of_pairs(pairs))),
            Self::Text(text) => visitor.visit_borrowed_str(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Json(Value::Null) => visitor.visit_none(),
            given => visitor.visit_some(given),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Json(Value::Bool(value)) => visitor.visit_bool(*value),
            Self::Text("true") => visitor.visit_bool(true),
            Self::Text("false") => visitor.visit_bool(false),
            _ => Err(Mismatch::new("must be true or false")),
        }
    }

    whole_numbers! {
        deserialize_i8: i8 as visit_i8,
        deserialize_i16: i16 as visit_i16,
        deserialize_i32: i32 as visit_i32,
        deserialize_i64: i64 as visit_i64,
        deserialize_u8: u8 as visit_u8,
        deserialize_u16: u16 as visit_u16,
        deserialize_u32: u32 as visit_u32,
        deserialize_u64: u64 as visit_u64,
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let text = self.text().ok_or_else(|| Mismatch::new("must be text"))?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Json(Value::Array(_)) => self.deserialize_any(visitor),
            _ => Err(Mismatch::new("must be a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Json(Value::Object(_)) | Self::Pairs(_) => self.deserialize_any(visitor),
            _ => Err(Mismatch::new("must be an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _members: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let text = self.text().ok_or_else(|| de::Error::unknown_variant("", known))?;
        let text: StrDeserializer<'_, Mismatch> = text.into_deserializer();
        visitor.visit_enum(text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list, whose errors name the item.
struct Items<'de>(std::iter::Enumerate<std::slice::Iter<'de, Value>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some((index, item)) = self.0.next() else { return Ok(None) };
        let read = seed.deserialize(Input::Json(item));
        read.map(Some).map_err(|wrong| wrong.within(&format!("[{index}]")))
    }
}

/// An object, whose errors name the member.
struct Members<'de, I> {
    left: I,
    current: Option<(&'de str, Input<'de>)>,
}

impl<I> Members<'_, I> {
    fn new(left: I) -> Self {
        Self { left, current: None }
    }
}

fn of_object<'de>(members: &'de Map<String, Value>) -> impl Iterator<Item = (&'de str, Input<'de>)> {
    members.iter().map(|(name, value)| (name.as_str(), Input::Json(value)))
}

fn of_pairs<'de>(pairs: &'de [(String, String)]) -> impl Iterator<Item = (&'de str, Input<'de>)> {
    pairs.iter().map(|(name, text)| (name.as_str(), Input::Text(text)))
}

impl<'de, I: Iterator<Item = (&'de str, Input<'de>)>> MapAccess<'de> for Members<'de, I> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.current = self.left.next();
        let Some((name, _)) = self.current else { return Ok(None) };
        seed.deserialize(Input::Text(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (name, given) = self.current.ok_or_else(|| Mismatch::new("must be an object"))?;
        seed.deserialize(given).map_err(|wrong| wrong.within(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Outer {
        flag: bool,
        count: i32,
        page: Option<u32>,
        text: String,
        kind: Option<Kind>,
        inner: Option<Inner>,
        list: Vec<Inner>,
        names: Option<Vec<String>>,
        any: Option<Value>,
        map: Map<String, Value>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        number: u64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        One,
        Other,
    }

    fn read(value: Value) -> Result<Outer, String> {
        json(value.to_string().as_bytes()).map_err(|error| match error {
            BodyError::Mismatch(mismatch) => mismatch.to_string(),
            malformed => format!("{malformed:?}"),
        })
    }

    #[test]
    fn valid_input_is_read() {
        let given = json!({
            "flag": true, "count": -5, "page": null, "text": "é", "kind": "other", "unknown": [{}],
            "inner": {"number": u64::MAX}, "list": [{"number": 1}, {"number": 0, "more": 1}], "names": ["a"],
            "any": {"a": [1.5, -1, null, "x", false]}, "map": {"b": {}},
        });
        let read = read(given).unwrap();
        assert_eq!((read.flag, read.count, read.page, read.text.as_str()), (true, -5, None, "é"));
        assert_eq!((read.kind, read.inner), (Some(Kind::Other), Some(Inner { number: u64::MAX })));
        assert_eq!(read.list, [Inner { number: 1 }, Inner { number: 0 }]);
        assert_eq!(read.names.unwrap(), ["a"]);
        assert_eq!(read.any.unwrap(), json!({"a": [1.5, -1, null, "x", false]}));
        assert_eq!(Value::from(read.map), json!({"b": {}}));
    }

    #[test]
    fn errors_name_the_member_in_plain_words() {
        let number = "must be a whole number from -2147483648 to 2147483647";
        for (given, expected) in [
            (json!([true]), "it must be an object".to_owned()),
            (json!(null), "it must be an object".to_owned()),
            (json!({"flag": "true"}), "flag must be true or false".to_owned()),
            (json!({"count": "5"}), format!("count {number}")),
            (json!({"count": 5.0}), format!("count {number}")),
            (json!({"count": 2_147_483_648_i64}), format!("count {number}")),
            (json!({"page": -1}), "page must be a whole number from 0 to 4294967295".to_owned()),
            (json!({"text": 5}), "text must be text".to_owned()),
            (json!({"text": null}), "text must be text".to_owned()),
            (json!({"kind": "third"}), "kind must be one of 'one', 'other'".to_owned()),
            (json!({"kind": {"one": null}}), "kind must be one of 'one', 'other'".to_owned()),
            (json!({"inner": [1]}), "inner must be an object".to_owned()),
            (json!({"inner": {}}), "inner.number is required".to_owned()),
            (json!({"list": {"number": 1}}), "list must be a list".to_owned()),
            (json!({"list": [{"number": 1}, [1]]}), "list[1] must be an object".to_owned()),
            (
                json!({"list": [{"number": true}]}),
                "list[0].number must be a whole number from 0 to 18446744073709551615".to_owned(),
            ),
            (json!({"names": [["a"]]}), "names[0] must be text".to_owned()),
            (json!({"map": []}), "map must be an object".to_owned()),
        ] {
            assert_eq!(read(given.clone()).unwrap_err(), expected, "{given}");
        }
    }

    #[test]
    fn no_name_is_given_twice_at_any_depth() {
        for (body, column) in [
            ("{\"flag\":true,\"flag\":true}", 25),
            ("{\"any\":{\"a\":[{\"b\":1,\"b\":2}]}}", 26),
            ("{\"unknown\":1,\"\\u0075nknown\":2}", 30),
        ] {
            let expected = json::<Outer>(body.as_bytes()).unwrap_err();
            let BodyError::Mismatch(expected) = expected else { panic!("{expected:?}") };
            let place = format!("must not repeat a name in one object, as at line 1, column {column}");
            assert_eq!(expected.to_string(), format!("it {place}"), "{body}");
        }
        json::<Outer>(b"{\"any\":[{\"a\":1},{\"a\":1}],\"list\":[]}").unwrap();
    }

    #[test]
    fn syntax_errors_have_a_position() {
        for body in ["", "{", "{\"flag\":tru}", "{}{}", "\u{0}"] {
            assert!(
                matches!(json::<Outer>(body.as_bytes()), Err(BodyError::Malformed { line: 0..=1, .. })),
                "{body}"
            );
        }
        assert_eq!(json::<Outer>(b"{\n\n  x}").unwrap_err(), BodyError::Malformed { line: 3, column: 3 });
    }

    #[test]
    fn parameters_are_read_from_their_texts() {
        let read =
            pairs::<Outer>(b"flag=true&count=-7&page=3&text=a%20b+c&kind=one&unknown=1&unknown=2").unwrap();
        assert_eq!((read.flag, read.count, read.page, read.text.as_str()), (true, -7, Some(3), "a b c"));
        assert_eq!(read.kind, Some(Kind::One));
        assert_eq!(pairs::<Outer>(b"").unwrap(), Outer::default());
        for (given, expected) in [
            ("flag=1", "flag must be true or false"),
            ("page=x", "page must be a whole number from 0 to 4294967295"),
            ("page=", "page must be a whole number from 0 to 4294967295"),
            ("page=1&page=1", "page must not be given twice"),
            ("kind=two", "kind must be one of 'one', 'other'"),
            ("inner=1", "inner must be an object"),
            ("names=a", "names must be a list"),
        ] {
            assert_eq!(pairs::<Outer>(given.as_bytes()).unwrap_err().to_string(), expected);
        }
    }
}
