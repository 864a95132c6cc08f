//! The settings of an app's audit log: which requests it holds, how much of each, and for how long.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::audit::{EventId, Origin, Outcome};
use crate::text::{InvalidField, one_of};

/// The settings of an app's audit log. Whatever they say, the last use of a key is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// When the event of a check is written.
    pub durability: AuditDurability,
    /// Of which checks there are events.
    pub level: AuditLevel,
    /// Of how many checks one has an event, where they are sampled.
    pub sample_one_in: SampleOneIn,
    /// The part of the client's address that an event holds.
    pub client_ip: AuditClientIp,
    /// Whether an event holds the client's `User-Agent`.
    pub user_agent: bool,
    /// How long the events of checks are kept.
    pub request_days: RetentionDays,
    /// How long the events of changes are kept.
    pub change_days: RetentionDays,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            durability: AuditDurability::AfterAnswer,
            level: AuditLevel::All,
            sample_one_in: SampleOneIn(100),
            client_ip: AuditClientIp::Full,
            user_agent: true,
            request_days: RetentionDays(90),
            change_days: RetentionDays(730),
        }
    }
}

/// When the event of a check is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditDurability {
    /// After the response, which does not wait for it: a process that is killed loses the events of its last moments.
    #[default]
    AfterAnswer,
    /// Before the response: what was decided is in the audit log before anybody learns of it, or the response is an error.
    BeforeAnswer,
}

/// Of which checks there are events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditLevel {
    /// Of all.
    #[default]
    All,
    /// Of those that were blocked.
    Blocked,
    /// Of one in so many, chosen by chance, which stands for all of these in figures.
    Sampled,
    /// Of none.
    None,
}

/// The part of the client's address that an event holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditClientIp {
    /// All of it.
    #[default]
    Full,
    /// Its network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 one.
    Truncated,
    /// Nothing.
    None,
}

/// A number of checks of which one has an event: 2 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32, minimum = 2, maximum = 10_000)]
pub struct SampleOneIn(u32);

/// A number of days for which events are kept: 1 to 3,650.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32, minimum = 1, maximum = 3_650)]
pub struct RetentionDays(u32);

impl AuditDurability {
    /// Parses the value of the request's field `field`.
    ///
    /// # Errors
    /// It is neither `after_answer` nor `before_answer`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        one_of(field, text, &[("after_answer", Self::AfterAnswer), ("before_answer", Self::BeforeAnswer)])
    }
}

impl AuditLevel {
    /// Parses the value of the request's field `field`.
    ///
    /// # Errors
    /// It is none of `all`, `blocked`, `sampled` and `none`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let levels = [
            ("all", Self::All),
            ("blocked", Self::Blocked),
            ("sampled", Self::Sampled),
            ("none", Self::None),
        ];
        one_of(field, text, &levels)
    }
}

impl AuditClientIp {
    /// Parses the value of the request's field `field`.
    ///
    /// # Errors
    /// It is none of `full`, `truncated` and `none`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        one_of(field, text, &[("full", Self::Full), ("truncated", Self::Truncated), ("none", Self::None)])
    }
}

impl SampleOneIn {
    /// This number, of the request's field `field`.
    ///
    /// # Errors
    /// It is out of range.
    pub fn parse(field: &str, number: u32) -> Result<Self, InvalidField> {
        in_range(field, number, 2, 10_000).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The longest time for which anything is kept, in days.
pub const MAX_RETENTION_DAYS: i64 = 3_650;

impl RetentionDays {
    /// This number, of the request's field `field`.
    ///
    /// # Errors
    /// It is out of range.
    pub fn parse(field: &str, days: u32) -> Result<Self, InvalidField> {
        in_range(field, days, 1, 3_650).map(Self)
    }

    /// When something of this instant is purged, to the second.
    pub fn after(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at.trunc_subsecs(0) + TimeDelta::days(self.0.into())
    }
}

fn in_range(field: &str, number: u32, least: u32, most: u32) -> Result<u32, InvalidField> {
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(InvalidField::new(field, format!("must be {least} to {most}")))
}

impl TryFrom<u32> for SampleOneIn {
    type Error = InvalidField;

    fn try_from(number: u32) -> Result<Self, InvalidField> {
        Self::parse("sample_one_in", number)
    }
}

impl From<SampleOneIn> for u32 {
    fn from(SampleOneIn(number): SampleOneIn) -> Self {
        number
    }
}

impl TryFrom<u32> for RetentionDays {
    type Error = InvalidField;

    fn try_from(days: u32) -> Result<Self, InvalidField> {
        Self::parse("days", days)
    }
}

impl From<RetentionDays> for u32 {
    fn from(RetentionDays(days): RetentionDays) -> Self {
        days
    }
}

impl AuditSettings {
    /// The number of checks that the event of this one stands for; none if it has no event.
    pub(crate) fn weight(&self, id: EventId, outcome: Outcome) -> Option<u32> {
        let one_in = self.sample_one_in.0;
        match self.level {
            AuditLevel::All => Some(1),
            AuditLevel::Blocked => (outcome == Outcome::Blocked).then_some(1),
            AuditLevel::Sampled => id.draw().is_multiple_of(one_in).then_some(one_in),
            AuditLevel::None => None,
        }
    }

    /// The part of a request's origin that an event holds.
    pub fn origin(&self, origin: Origin) -> Origin {
        Origin {
            client_ip: match self.client_ip {
                AuditClientIp::Full => origin.client_ip,
                AuditClientIp::Truncated => origin.client_ip.map(|address| address.truncated()),
                AuditClientIp::None => None,
            },
            user_agent: origin.user_agent.filter(|_| self.user_agent),
            path: origin.path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::NOW;

    #[test]
    fn numbers_are_in_their_range() {
        let one_in = |number| SampleOneIn::parse("audit_sample_one_in", number).map(SampleOneIn::get);
        assert_eq!((one_in(2), one_in(10_000)), (Ok(2), Ok(10_000)));
        for wrong in [0, 1, 10_001, u32::MAX] {
            assert_eq!(one_in(wrong).unwrap_err().to_string(), "audit_sample_one_in must be 2 to 10000");
        }
        let days = |days| RetentionDays::parse("audit_request_days", days).map(|days| days.after(NOW) - NOW);
        assert_eq!((days(1), days(3_650)), (Ok(TimeDelta::days(1)), Ok(TimeDelta::days(3_650))));
        for wrong in [0, 3_651] {
            assert_eq!(days(wrong).unwrap_err().to_string(), "audit_request_days must be 1 to 3650");
        }
        assert_eq!(serde_json::from_str::<RetentionDays>("90").unwrap(), RetentionDays(90));
        assert_eq!(serde_json::to_string(&SampleOneIn(7)).unwrap(), "7");
        assert!(serde_json::from_str::<RetentionDays>("0").is_err());
        assert!(serde_json::from_str::<SampleOneIn>("1").is_err());
    }

    #[test]
    fn choices_are_named_as_they_are_written() {
        fn written<T: Serialize>(value: T) -> String {
            serde_json::from_value(serde_json::to_value(value).unwrap()).unwrap()
        }
        for level in [AuditLevel::All, AuditLevel::Blocked, AuditLevel::Sampled, AuditLevel::None] {
            assert_eq!(AuditLevel::parse("audit_level", &written(level)), Ok(level));
        }
        for client_ip in [AuditClientIp::Full, AuditClientIp::Truncated, AuditClientIp::None] {
            assert_eq!(AuditClientIp::parse("audit_client_ip", &written(client_ip)), Ok(client_ip));
        }
        for durability in [AuditDurability::AfterAnswer, AuditDurability::BeforeAnswer] {
            assert_eq!(AuditDurability::parse("audit_durability", &written(durability)), Ok(durability));
        }
        let wrong = AuditLevel::parse("audit_level", "some").unwrap_err().to_string();
        assert_eq!(wrong, "audit_level must be 'all', 'blocked', 'sampled' or 'none'");
        let wrong = AuditDurability::parse("audit_durability", "").unwrap_err().to_string();
        assert_eq!(wrong, "audit_durability must be 'after_answer' or 'before_answer'");
        assert!(AuditClientIp::parse("audit_client_ip", "Full").is_err());
    }

    #[test]
    fn the_level_says_which_checks_have_events_and_what_each_stands_for() {
        let weights = |level: AuditLevel, outcome| {
            let settings = AuditSettings { level, sample_one_in: SampleOneIn(4), ..AuditSettings::default() };
            let ids = (0..400_u128).map(|number| EventId::mint(NOW, number << 32));
            ids.filter_map(|id| settings.weight(id, outcome)).collect::<Vec<_>>()
        };
        for outcome in [Outcome::Allowed, Outcome::Blocked] {
            assert_eq!(weights(AuditLevel::All, outcome), [1; 400]);
            assert_eq!(weights(AuditLevel::Sampled, outcome), [4; 100]);
            assert_eq!(weights(AuditLevel::None, outcome), [0; 0]);
        }
        assert_eq!(weights(AuditLevel::Blocked, Outcome::Blocked), [1; 400]);
        assert_eq!(weights(AuditLevel::Blocked, Outcome::Allowed), [0; 0]);
    }

    #[test]
    fn addresses_and_user_agents_are_left_out_or_truncated() {
        let with = |client_ip, user_agent, address: &str| {
            let settings = AuditSettings { client_ip, user_agent, ..AuditSettings::default() };
            let origin = Origin::new(address.parse().ok(), "GET /a", Some("curl"));
            let origin = settings.origin(origin);
            assert_eq!(origin.path, "GET /a");
            (origin.client_ip.map(|address| address.to_string()), origin.user_agent)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(with(AuditClientIp::Full, true, "203.0.113.7"), (some("203.0.113.7"), some("curl")));
        assert_eq!(with(AuditClientIp::Truncated, false, "203.0.113.7"), (some("203.0.113.0"), None));
        assert_eq!(with(AuditClientIp::Truncated, true, "2001:db8:1:2::3").0, some("2001:db8:1::"));
        assert_eq!(with(AuditClientIp::None, true, "203.0.113.7"), (None, some("curl")));
    }
}
