//! Audit events: actions with their actors, and the decision on each request.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use ulid::Ulid;
use utoipa::ToSchema;

use crate::address::ClientAddress;
use crate::error_code::ErrorCode;
use crate::id::{AppNumber, DeploymentId, KeyId, RootKeyId, SessionId};
use crate::rate_limit::Status;
use crate::text::{Name, OwnerId, Reason, Slug, is_readable};

/// The id of an event, `req_` and a ULID: it sorts by time, and responses carry it as `request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, pattern = "^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$", example = "req_01K7ZZ9S9Q3Z7T5V0J8R4N2M6C")]
pub struct EventId(Ulid);

/// A text is not an event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is req_ and a ULID")]
pub struct InvalidEventId;

impl EventId {
    /// An id for the instant `now`; the lowest 80 bits of `random` are used.
    pub fn mint(now: DateTime<Utc>, random: u128) -> Self {
        let ms = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        Self(Ulid::from_parts(ms, random))
    }

    /// No event of `at` or later sorts before this.
    pub fn first_at(at: DateTime<Utc>) -> Self {
        Self::mint(at, 0)
    }

    /// No event of `at` or earlier sorts after this.
    pub fn last_at(at: DateTime<Utc>) -> Self {
        Self::mint(at, u128::MAX)
    }

    /// When it was minted, to the millisecond.
    pub fn timestamp(self) -> DateTime<Utc> {
        i64::try_from(self.0.timestamp_ms())
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or_default()
    }

    /// The lowest 32 of the random bits, to spread events evenly.
    pub fn spread(self) -> u32 {
        (self.0.random() & u128::from(u32::MAX)) as u32
    }

    /// The next 32 of the random bits, to choose some of the events by chance wherever they are spread to.
    pub(crate) fn draw(self) -> u32 {
        (self.0.random() >> 32 & u128::from(u32::MAX)) as u32
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        write!(f, "req_{}", self.0.array_to_str(&mut buffer))
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let ulid = text.strip_prefix("req_").ok_or(InvalidEventId)?;
        let parsed = Ulid::from_string(ulid).map_err(|_| InvalidEventId)?;
        // Lower-case and overflowing spellings of the same number would sort elsewhere.
        let id = Self(parsed);
        if id.to_string() == text { Ok(id) } else { Err(InvalidEventId) }
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, InvalidEventId> {
        text.parse()
    }
}

/// The kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Action {
    /// A key was presented and its request decided.
    #[serde(rename = "verification")]
    Verification,
    /// An app was created.
    #[serde(rename = "app.created")]
    AppCreated,
    /// An app was changed.
    #[serde(rename = "app.updated")]
    AppUpdated,
    /// An app was deleted.
    #[serde(rename = "app.deleted")]
    AppDeleted,
    /// A key was created.
    #[serde(rename = "key.created")]
    KeyCreated,
    /// A key was given a new secret.
    #[serde(rename = "key.rotated")]
    KeyRotated,
    /// A key was revoked.
    #[serde(rename = "key.revoked")]
    KeyRevoked,
    /// A rate-limit scheme was created.
    #[serde(rename = "scheme.created")]
    SchemeCreated,
    /// A rate-limit scheme was changed.
    #[serde(rename = "scheme.updated")]
    SchemeUpdated,
    /// A rate-limit scheme was deleted.
    #[serde(rename = "scheme.deleted")]
    SchemeDeleted,
    /// A scheme was taken from keys that can never work again.
    #[serde(rename = "scheme.released")]
    SchemeReleased,
    /// A deployment was created, other than the first.
    #[serde(rename = "deployment.created")]
    DeploymentCreated,
    /// A root key was created.
    #[serde(rename = "root_key.created")]
    RootKeyCreated,
    /// A root key was revoked.
    #[serde(rename = "root_key.revoked")]
    RootKeyRevoked,
    /// A ticket was issued.
    #[serde(rename = "ticket.issued")]
    TicketIssued,
    /// A ticket was asked for and refused.
    #[serde(rename = "ticket.refused")]
    TicketRefused,
    /// A ticket was exchanged for a session.
    #[serde(rename = "session.created")]
    SessionCreated,
}

impl Action {
    /// Whether its event is also among those of the deployment, beside those of the app: all but what happens with each
    /// request and each visit of a customer.
    pub fn concerns_deployment(self) -> bool {
        !matches!(self, Self::Verification | Self::TicketIssued | Self::TicketRefused | Self::SessionCreated)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It went through.
    Allowed,
    /// It was blocked.
    Blocked,
}

impl Outcome {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Blocked => "blocked",
        }
    }
}

/// The rule or the code that blocked a request, as the audit log and responses name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BlockedBy {
    /// A rate-limit rule, by its name, `<max>/<window>`.
    RateLimit(String),
    /// The error with this code.
    Code(ErrorCode),
    /// A ticket was asked for, and there is no such app.
    AppNotFound,
    /// A reason that only a later release knows.
    Other(String),
}

const APP_NOT_FOUND: &str = "app_not_found";

impl fmt::Display for BlockedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RateLimit(name) | Self::Other(name) => name,
            Self::Code(code) => code.as_str(),
            Self::AppNotFound => APP_NOT_FOUND,
        })
    }
}

/// Reads what [`BlockedBy`] is shown as.
impl From<String> for BlockedBy {
    fn from(name: String) -> Self {
        if name.contains('/') {
            return Self::RateLimit(name);
        }
        if name == APP_NOT_FOUND {
            return Self::AppNotFound;
        }
        let code = ErrorCode::ALL.iter().find(|code| code.as_str() == name);
        code.map_or(Self::Other(name), |code| Self::Code(*code))
    }
}

impl From<ErrorCode> for BlockedBy {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl Serialize for BlockedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// The operator of the installation, with the rights of its AWS account.
    Operator,
    /// A backend with this root key.
    RootKey {
        /// The root key.
        id: RootKeyId,
        /// Its name at that time; events of earlier releases have none.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// A browser with this session.
    Session {
        /// The session.
        id: SessionId,
        /// On whose behalf its ticket was issued.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<OwnerId>,
    },
}

/// A changed member, with null where it had or has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberChange {
    /// The value before.
    pub before: Value,
    /// The value after.
    pub after: Value,
}

/// The changed members of an app, a key or a scheme, by their names.
pub type MemberChanges = BTreeMap<String, MemberChange>;

/// Where a request came from and what it asked for: cut to lengths that a stored event has room for, and without controls,
/// which callers could write lines or act on terminals with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, where it is known.
    pub client_ip: Option<ClientAddress>,
    /// Method and path, without the query.
    pub path: String,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
}

impl Origin {
    /// An origin with each text cut to its longest: 2,060 and 256 bytes. Characters that are refused in names are
    /// percent-encoded.
    pub fn new(client_ip: Option<ClientAddress>, path: &str, user_agent: Option<&str>) -> Self {
        Self {
            client_ip,
            path: encode_unreadable(path, 2_060),
            user_agent: user_agent.map(|text| encode_unreadable(text, 256)),
        }
    }
}

/// The beginning of a text, in which what is not [readable](is_readable) is percent-encoded.
fn encode_unreadable(text: &str, max_bytes: usize) -> String {
    let mut seen = String::new();
    for c in text.chars() {
        let before = seen.len();
        if is_readable(c) {
            seen.push(c);
        } else {
            seen.extend(c.to_string().bytes().map(|byte| format!("%{byte:02X}")));
        }
        if seen.len() > max_bytes {
            seen.truncate(before);
            break;
        }
    }
    seen
}

/// One event of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, which says when it happened.
    pub id: EventId,
    /// Its deployment's id.
    pub deployment_id: DeploymentId,
    /// The app it concerns, if that exists.
    pub app: Option<AppNumber>,
    /// The app's slug, also when there is no such app.
    pub app_slug: Option<Slug>,
    /// The kind of event.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// The rule or the code that blocked it, if anything did.
    pub blocked_by: Option<BlockedBy>,
    /// The key it concerns.
    pub key_id: Option<KeyId>,
    /// The key's name at that time, or the root key's.
    pub key_name: Option<Name>,
    /// The root key it concerns.
    pub root_key_id: Option<RootKeyId>,
    /// The rate-limit scheme it concerns.
    pub scheme: Option<Slug>,
    /// The actor. A verification has none besides the key.
    pub actor: Option<Actor>,
    /// Why, if that was given.
    pub reason: Option<Reason>,
    /// The members that it changed.
    pub changes: MemberChanges,
    /// The state of the rate limits that hold for a request.
    pub rate_limits: Vec<Status>,
    /// Where it came from.
    pub origin: Origin,
    /// The number of requests that it stands for: more than itself where they were sampled.
    pub weight: u32,
    /// When it is purged.
    pub purge_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap_or_default();
        let early = EventId::mint(at(1_800_000_000_000), u128::MAX);
        let late = EventId::mint(at(1_800_000_000_001), 0);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early, EventId::last_at(at(1_800_000_000_000)));
        assert_eq!(late.to_string().parse(), Ok(late));
        assert_eq!(late.timestamp(), at(1_800_000_000_001));
    }

    #[test]
    fn ids_are_kept_as_they_are_shown_and_spread_by_their_lowest_bits() {
        let id = EventId::mint(DateTime::UNIX_EPOCH, 0x1_2345_6789);
        assert_eq!(serde_json::to_value(id).unwrap(), id.to_string());
        assert_eq!(id.spread(), 0x2345_6789);
        assert_eq!(serde_json::to_value(Outcome::Allowed).unwrap(), Outcome::Allowed.as_str());
        assert_eq!(serde_json::to_value(Outcome::Blocked).unwrap(), Outcome::Blocked.as_str());
    }

    #[test]
    fn blocked_by_reads_back() {
        for (blocked_by, name) in [
            (BlockedBy::RateLimit("100/60s".into()), "100/60s"),
            (BlockedBy::Code(ErrorCode::KeyRevoked), "key_revoked"),
            (BlockedBy::AppNotFound, "app_not_found"),
            (BlockedBy::Other("of_tomorrow".into()), "of_tomorrow"),
        ] {
            assert_eq!(
                (blocked_by.to_string().as_str(), BlockedBy::from(name.to_owned())),
                (name, blocked_by)
            );
        }
        assert_eq!(serde_json::to_value(BlockedBy::from(ErrorCode::Forbidden)).unwrap(), "forbidden");
    }

    #[test]
    fn invalid_ids() {
        let id = EventId::mint(DateTime::UNIX_EPOCH, 0xABCDEF).to_string();
        for bad in
            ["", "req_", "x", &id.to_lowercase(), &id.replace("req_", ""), "req_ZZZZZZZZZZZZZZZZZZZZZZZZZZ"]
        {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn controls_in_paths_and_user_agents_are_percent_encoded() {
        let agent = "curl/8\r\nx: y\u{1B}[2J\u{0}\u{7F}\u{85}\u{202E}\u{2028}é 50%";
        let origin = Origin::new(None, "GET /a\u{1B}%41", Some(agent));
        let seen = "curl/8%0D%0Ax: y%1B[2J%00%7F%C2%85%E2%80%AE%E2%80%A8é 50%";
        assert_eq!((origin.path.as_str(), origin.user_agent.as_deref()), ("GET /a%1B%41", Some(seen)));
        let long = Origin::new(None, "", Some(&format!("{}\u{202E}", "x".repeat(250))));
        assert_eq!(long.user_agent, Some("x".repeat(250)), "no half of an encoded character");
        let full = Origin::new(None, "", Some(&format!("{}\u{202E}", "x".repeat(247))));
        assert_eq!(full.user_agent.map(|text| text.len()), Some(256));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let origin = Origin::new(None, &format!("GET /{}", "é".repeat(2_000)), Some(&"x".repeat(300)));
        assert_eq!(origin.path.len(), 2_059);
        assert_eq!(origin.user_agent.map(|t| t.len()), Some(256));
    }
}
