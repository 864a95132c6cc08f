//! Instants and dates as callers write and read them.
//!
//! RFC 3339 (<https://www.rfc-editor.org/rfc/rfc3339#section-5.6>) in the years 0001 to 9999 and without leap seconds,
//! which is what JavaScript's `Date` reads too (<https://tc39.es/ecma262/#sec-date-time-string-format>).

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::text::InvalidField;

/// Why a text is no instant, to be read after the name of its field.
const NO_INSTANT: &str = "must be RFC3339 in the years 0001 to 9999, such as 2027-06-01T00:00:00Z";
/// Why a text is neither a date nor an instant.
const NO_DATE: &str = "must be a date, such as 2027-06-01, or an instant, such as 2027-06-01T00:00:00Z";
/// 0001-01-01T00:00:00Z in Unix milliseconds.
const FIRST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z in Unix milliseconds.
const LAST_MS: i64 = 253_402_300_799_999;
/// From the first instant of a day to its last.
const DAY: TimeDelta = TimeDelta::milliseconds(24 * 60 * 60 * 1_000 - 1);

/// An instant that every client can read: in UTC, in whole milliseconds, in the years 0001 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2027-06-01T00:00:00Z")]
pub struct Instant(DateTime<Utc>);

impl Instant {
    /// Parses the value of the request's field `field`. What is below a millisecond is cut off.
    ///
    /// # Errors
    /// Says what is wanted, with an example.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        Self::read(text).ok_or_else(|| InvalidField::new(field, NO_INSTANT))
    }

    fn read(text: &str) -> Option<Self> {
        // Chrono takes U+2212 for the sign of an offset too.
        let at = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.is_ascii())?;
        let is_leap_second = at.nanosecond() >= 1_000_000_000;
        let is_of_the_calendar = (FIRST_MS..=LAST_MS).contains(&at.timestamp_millis());
        (is_of_the_calendar && !is_leap_second).then(|| Self::from(at.to_utc()))
    }

    /// The instant.
    pub fn at(self) -> DateTime<Utc> {
        self.0
    }
}

/// The instant, or the nearest one that there is: rows may hold others, which were taken once.
impl From<DateTime<Utc>> for Instant {
    fn from(at: DateTime<Utc>) -> Self {
        let ms = at.timestamp_millis().clamp(FIRST_MS, LAST_MS);
        Self(DateTime::from_timestamp_millis(ms).unwrap_or_default())
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(deserializer)?).ok_or_else(|| de::Error::custom(NO_INSTANT))
    }
}

/// An end of a range: an instant, or a UTC day, of which the first instant is meant at the start and the last at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    first: Instant,
    last: Instant,
}

impl Bound {
    /// `2026-01-31`, an instant in RFC 3339, or `2026-01-31 12:00:00` in UTC.
    fn read(text: &str) -> Option<Self> {
        let day = match text.len() {
            10 => Instant::read(&format!("{text}T00:00:00Z")),
            _ => None,
        };
        if let Some(first) = day {
            return Some(Self { first, last: Instant::from(first.0 + DAY) });
        }
        let spaced = text.len() == 19 && text.as_bytes().get(10) == Some(&b' ');
        let at = if spaced { Instant::read(&format!("{text}Z")) } else { Instant::read(text) }?;
        Some(Self { first: at, last: at })
    }

    /// Where a range begins that begins here.
    pub fn start(self) -> DateTime<Utc> {
        self.first.0
    }

    /// Where a range ends that ends here, itself included.
    pub fn end(self) -> DateTime<Utc> {
        self.last.0
    }
}

impl PartialSchema for Bound {
    fn schema() -> RefOr<Schema> {
        let described = "An instant or, as `2027-06-01`, a UTC day: its first instant where a range begins, its last where one ends.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(described));
        text.examples(["2027-06-01"]).into()
    }
}

impl ToSchema for Bound {
    fn name() -> Cow<'static, str> {
        "DateOrInstant".into()
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(deserializer)?).ok_or_else(|| de::Error::custom(NO_DATE))
    }
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, NaiveDate, TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> Option<String> {
        Instant::parse("expires_at", text).ok().map(|at| at.to_string())
    }

    /// The form that ECMAScript's `Date.parse` must read, with a UTC offset of `Z`: `YYYY-MM-DDTHH:mm:ss[.sss]Z`, in which
    /// each number is in its range.
    fn javascript_reads(text: &str) -> bool {
        let digits = |from: usize, to: usize| {
            text.get(from..to).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))
        };
        let number = |from, to| digits(from, to).and_then(|part| part.parse::<u32>().ok());
        let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        let day =
            (|| NaiveDate::from_ymd_opt(number(0, 4)?.try_into().ok()?, number(5, 7)?, number(8, 10)?))();
        let fraction = match text.len() {
            20 => true,
            24 => text.as_bytes()[19] == b'.' && digits(20, 23).is_some(),
            _ => false,
        };
        fraction
            && text.ends_with('Z')
            && signs.iter().all(|(at, sign)| text.as_bytes()[*at] == *sign)
            && day.is_some()
            && number(11, 13).is_some_and(|hour| hour < 24)
            && [number(14, 16), number(17, 19)].iter().all(|part| part.is_some_and(|part| part < 60))
    }

    #[test]
    fn an_end_of_a_range_is_described_as_one_type() {
        assert_eq!(Bound::name(), "DateOrInstant");
    }

    #[test]
    fn instants_are_those_of_rfc3339_that_javascript_has() {
        for (text, at) in [
            ("2027-06-01T00:00:00Z", "2027-06-01T00:00:00Z"),
            ("2027-06-01t00:00:00z", "2027-06-01T00:00:00Z"),
            ("2027-06-01T00:00:00.1234567891Z", "2027-06-01T00:00:00.123Z"),
            ("2027-06-01T00:00:00+23:59", "2027-05-31T00:01:00Z"),
            ("2027-06-01T00:00:00-23:59", "2027-06-01T23:59:00Z"),
            ("2027-06-01T00:00:00-00:00", "2027-06-01T00:00:00Z"),
            ("2028-02-29T23:59:59.999Z", "2028-02-29T23:59:59.999Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(written(text).as_deref(), Some(at), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2027-06-01",
            "2027-06-01T00:00:00",
            "2027-06-01T00:00Z",
            "2027-06-01T23:59:60Z",
            "2027-06-01T23:59:60.5Z",
            "2016-12-31T23:59:60Z",
            "2027-06-01T24:00:00Z",
            "2027-06-01T00:60:00Z",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "-0001-01-01T00:00:00Z",
            "2027-02-29T00:00:00Z",
            "2027-6-1T00:00:00Z",
            "2027-06-01T00:00:00+24:00",
            "2027-06-01T00:00:00+23:60",
            "2027-06-01T00:00:00\u{2212}01:00",
            "2027-06-01T00:00:00+0100",
            "2027-06-01T00:00:00.Z",
            " 2027-06-01T00:00:00Z",
            "2027-06-01T00:00:00Z ",
            "٢٠٢٧-06-01T00:00:00Z",
            "1798761600",
        ] {
            assert_eq!(written(text), None, "{text}");
        }
        let refused = Instant::parse("expires_at", "soon").unwrap_err().to_string();
        assert_eq!(refused, format!("expires_at {NO_INSTANT}"));
        assert!(serde_json::from_str::<Instant>("\"2027-06-01T23:59:60Z\"").is_err());
    }

    #[test]
    fn out_of_range_instants_of_rows_are_clamped() {
        let read = |text: &str| Instant::from(text.parse::<DateTime<Utc>>().unwrap()).to_string();
        assert_eq!(read("+10000-01-01T00:00:00Z"), "9999-12-31T23:59:59.999Z");
        assert_eq!(read("-0001-01-01T00:00:00Z"), "0001-01-01T00:00:00Z");
        assert_eq!(read("2027-06-01T23:59:60Z"), "2027-06-02T00:00:00Z");
        assert_eq!(Instant::from(DateTime::<Utc>::MAX_UTC).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Instant::from(DateTime::<Utc>::MIN_UTC).to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn a_date_starts_with_its_first_instant_and_ends_with_its_last() {
        let ends = |text: &str| {
            Bound::read(text).map(|bound| [bound.start(), bound.end()].map(|at| Instant(at).to_string()))
        };
        let both = |at: &str| Some([at.to_owned(), at.to_owned()]);
        assert_eq!(
            ends("2026-11-25"),
            Some(["2026-11-25T00:00:00Z", "2026-11-25T23:59:59.999Z"].map(str::to_owned))
        );
        assert_eq!(
            ends("9999-12-31"),
            Some(["9999-12-31T00:00:00Z", "9999-12-31T23:59:59.999Z"].map(str::to_owned))
        );
        assert_eq!(ends("2026-11-25 12:00:01"), both("2026-11-25T12:00:01Z"));
        assert_eq!(ends("2026-11-25T12:00:01+01:00"), both("2026-11-25T11:00:01Z"));
        for text in [
            "",
            "2026-11-31",
            "2026-1-5",
            "+262142-12-31",
            "0000-01-01",
            "2026-11-25T12:00:00",
            "2026-11-25 23:59:60",
            "2026-11-2é",
            "2026-11-25 ",
            "yesterday!",
        ] {
            assert_eq!(ends(text), None, "{text}");
        }
        assert!(serde_json::from_str::<Bound>("\"2026-11-31\"").is_err());
    }

    proptest! {
        #[test]
        fn javascript_reads_every_emitted_instant(seconds in any::<i64>(), nanoseconds in 0..2_000_000_000_u32) {
            let within = seconds % DateTime::<Utc>::MAX_UTC.timestamp();
            let Some(at) = DateTime::from_timestamp(within, nanoseconds) else { return Ok(()) };
            let text = Instant::from(at).to_string();
            prop_assert!(javascript_reads(&text), "{}", text);
            prop_assert_eq!(written(&text), Some(text), "what is emitted is taken again");
        }

        #[test]
        fn parsed_instants_are_exact(
            ms in FIRST_MS + 86_400_000..LAST_MS - 86_400_000, offset in -1_439..=1_439_i32,
        ) {
            let at = DateTime::from_timestamp_millis(ms).unwrap();
            let there = FixedOffset::east_opt(offset * 60).unwrap().from_utc_datetime(&at.naive_utc());
            let text = there.to_rfc3339_opts(SecondsFormat::Millis, false);
            prop_assert_eq!(Instant::parse("at", &text).map(Instant::at), Ok(at), "{}", text);
        }

        #[test]
        fn invalid_instants_are_rejected_and_the_rest_is_readable(text in "[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9][Tt ][01][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,4})?(Z|[+-][0-2][0-9]:[0-5][0-9])") {
            if let Some(emitted) = written(&text) {
                prop_assert!(javascript_reads(&emitted), "{} as {}", text, emitted);
            }
        }
    }
}
