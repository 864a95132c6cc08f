//! Identifiers: one type for each kind, so that they cannot be mixed up.
//!
//! An id is a positive `i64`: 41 bits of milliseconds since 2025-01-01 UTC and 22 random bits. Ids sort by the time
//! they were minted and are created without coordination; each is stored on the condition that it is free.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use utoipa::ToSchema;

use crate::base62;

/// 2025-01-01T00:00:00Z in Unix milliseconds. Part of every id that exists: it must never change.
const EPOCH_MS: i64 = 1_735_689_600_000;
const RANDOM_BITS: u32 = 22;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a positive 64-bit number in decimal digits")]
pub struct InvalidId;

fn mint(now: DateTime<Utc>, random: u32) -> i64 {
    let elapsed = (now.timestamp_millis() - EPOCH_MS).clamp(0, (1 << 41) - 1);
    let id = (elapsed << RANDOM_BITS) + i64::from(random & ((1 << RANDOM_BITS) - 1));
    id.max(1)
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: a whole number from 1 to 9223372036854775807")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<i64, E> {
        value.parse().map_err(|_| E::invalid_value(Unexpected::Str(value), &self))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
        $(#[$doc])*
        #[schema(value_type = String, pattern = "^[1-9][0-9]{0,18}$", example = "251658240000000000")]
        pub struct $name(i64);

        impl $name {
            /// A new id for the instant `now`; only the lowest 22 bits of `random` are used.
            pub fn mint(now: DateTime<Utc>, random: u32) -> Self {
                Self(mint(now, random))
            }

            /// The id with this number, if it is positive.
            pub fn new(number: i64) -> Result<Self, InvalidId> {
                if number > 0 { Ok(Self(number)) } else { Err(InvalidId) }
            }

            /// The number.
            pub fn get(self) -> i64 {
                self.0
            }

            /// Eleven base-62 digits, which sort as the ids do.
            pub fn base62(self) -> String {
                base62::encode(self.0.unsigned_abs(), 11)
            }

            /// Reads [`Self::base62`].
            ///
            /// # Errors
            /// For anything but eleven digits of a positive `i64`.
            pub fn from_base62(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 11 {
                    return Err(InvalidId);
                }
                base62::decode(text)
                    .and_then(|number| i64::try_from(number).ok())
                    .ok_or(InvalidId)
                    .and_then(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map_err(|_| InvalidId).and_then(Self::new)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = deserializer.deserialize_any(IdVisitor)?;
                Self::new(number).map_err(|_| {
                    de::Error::invalid_value(Unexpected::Signed(number), &IdVisitor)
                })
            }
        }
    };
}

id!(
    /// The id of a deployment, which is a tenant of the installation.
    DeploymentId
);
id!(
    /// The id of an API key.
    KeyId
);
id!(
    /// The id of a root key.
    RootKeyId
);
id!(
    /// The id of a rate-limit scheme.
    SchemeId
);
id!(
    /// The id of a ticket.
    TicketId
);
id!(
    /// The id of a session.
    SessionId
);

/// The number that API keys carry to address their app: below 62^6, drawn at random, unique in the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppNumber(u64);

impl AppNumber {
    /// One more than the largest number: 62^6.
    const END: u64 = 62_u64.pow(6);

    /// A number drawn from 64 random bits.
    pub fn mint(random: u64) -> Self {
        Self(random % Self::END)
    }

    /// Six base-62 digits.
    pub fn base62(self) -> String {
        base62::encode(self.0, 6)
    }

    /// Reads [`Self::base62`].
    ///
    /// # Errors
    /// For anything but six base-62 digits.
    pub fn from_base62(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 6 {
            return Err(InvalidId);
        }
        base62::decode(text).map(Self).ok_or(InvalidId)
    }
}

impl Serialize for AppNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.base62())
    }
}

impl<'de> Deserialize<'de> for AppNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_base62(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_positive_whatever_the_clock_says() {
        for seconds in [-1_000_000_000_000, 0, 1_763_800_000, 9_000_000_000_000] {
            let now = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
            assert!(KeyId::mint(now, 0).get() > 0);
            assert!(KeyId::mint(now, u32::MAX).get() > 0);
        }
    }

    #[test]
    fn a_later_id_is_larger() {
        let at = |ms| DateTime::from_timestamp_millis(EPOCH_MS + ms).unwrap_or_default();
        assert!(KeyId::mint(at(5), u32::MAX) < KeyId::mint(at(6), 0));
    }

    #[test]
    fn an_id_is_a_string_on_the_wire_and_may_come_as_a_number() {
        let id = KeyId::new(42).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""42""#);
        assert_eq!(serde_json::from_str::<KeyId>("42").unwrap(), id);
        assert_eq!(serde_json::from_str::<KeyId>(r#""42""#).unwrap(), id);
        for bad in ["0", "-1", r#""x""#, "1.5", "18446744073709551615", "null"] {
            assert!(serde_json::from_str::<KeyId>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_holds_its_milliseconds_and_its_random_bits() {
        let at = |ms| DateTime::from_timestamp_millis(EPOCH_MS + ms).unwrap();
        for (ms, random, number) in
            [(5, 0, 5 << 22), (5, 3, (5 << 22) + 3), (5, 1 << 22, 5 << 22), (5, u32::MAX, (6 << 22) - 1)]
        {
            assert_eq!(KeyId::mint(at(ms), random).get(), number, "{ms} {random}");
        }
        assert_eq!(KeyId::mint(at(1 << 50), u32::MAX).get(), i64::MAX, "the last there is");
        assert_eq!(AppNumber::mint(62_u64.pow(6) + 63).base62(), "000011");
    }

    #[test]
    fn other_formats_than_json_may_hold_ids_too() {
        use serde::de::value::{Error, I64Deserializer};
        let read = |number| KeyId::deserialize(I64Deserializer::<Error>::new(number));
        assert_eq!(read(42), Ok(KeyId(42)));
        let message = read(-42).unwrap_err().to_string();
        assert!(
            message.ends_with("expected an id: a whole number from 1 to 9223372036854775807"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn base62_reads_back(number in 1..=i64::MAX, random: u64) {
            let id = KeyId::new(number).unwrap();
            prop_assert_eq!(KeyId::from_base62(&id.base62()), Ok(id));
            let app = AppNumber::mint(random);
            prop_assert_eq!(AppNumber::from_base62(&app.base62()), Ok(app));
        }
    }
}
