//! Tickets and their sessions, with which a customer's browser accesses one app's keys.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{AppNumber, DeploymentId, SessionId, TicketId};
use crate::text::{InvalidField, OwnerId};

/// The default lifetime of a ticket.
pub const TICKET_LIFETIME: TimeDelta = TimeDelta::seconds(120);
/// The lifetime of a session without a request.
pub const SESSION_IDLE_TIMEOUT: TimeDelta = TimeDelta::minutes(30);
/// The maximum lifetime of a session.
pub const SESSION_MAX_AGE: TimeDelta = TimeDelta::hours(12);

/// Something that a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Capability {
    /// List keys.
    #[serde(rename = "keys:read")]
    KeysRead,
    /// Create keys.
    #[serde(rename = "keys:create")]
    KeysCreate,
    /// Rotate keys.
    #[serde(rename = "keys:rotate")]
    KeysRotate,
    /// Revoke keys.
    #[serde(rename = "keys:revoke")]
    KeysRevoke,
    /// Read logs and analytics.
    #[serde(rename = "audit:read")]
    AuditRead,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::KeysRead, Self::KeysCreate, Self::KeysRotate, Self::KeysRevoke, Self::AuditRead];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeysRead => "keys:read",
            Self::KeysCreate => "keys:create",
            Self::KeysRotate => "keys:rotate",
            Self::KeysRevoke => "keys:revoke",
            Self::AuditRead => "audit:read",
        }
    }

    /// Parses an entry of the request's field `field`.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn parse(field: &str, name: &str) -> Result<Self, InvalidField> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            InvalidField::new(field, format!("must contain only {names}"))
        })
    }
}

/// A ticket, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its id.
    pub id: TicketId,
    /// Its deployment's id.
    pub deployment_id: DeploymentId,
    /// The app that it leads to.
    pub app: AppNumber,
    /// On whose behalf it was issued.
    pub actor: Option<OwnerId>,
    /// The capabilities of its session.
    pub capabilities: Vec<Capability>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it can no longer be exchanged.
    pub expires_at: DateTime<Utc>,
    /// The session it was exchanged for.
    pub session: Option<SessionId>,
}

/// A session, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its deployment's id.
    pub deployment_id: DeploymentId,
    /// The app whose keys it leads to.
    pub app: AppNumber,
    /// On whose behalf it acts.
    pub actor: Option<OwnerId>,
    /// Its capabilities.
    pub capabilities: Vec<Capability>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last seen, to the minute.
    pub updated_at: DateTime<Utc>,
}

impl Session {
    /// When it ends if it is not used again.
    pub fn expires_at(&self) -> DateTime<Utc> {
        (self.updated_at + SESSION_IDLE_TIMEOUT).min(self.created_at + SESSION_MAX_AGE)
    }

    /// Whether enough time has passed since it was last seen to note that it is used.
    pub fn is_due_for_touch(&self, now: DateTime<Utc>) -> bool {
        now - self.updated_at >= TimeDelta::minutes(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_idle_and_at_last_however_busy() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default();
        let mut session = Session {
            id: SessionId::new(1).unwrap(),
            deployment_id: DeploymentId::new(1).unwrap(),
            app: AppNumber::mint(1),
            actor: None,
            capabilities: vec![],
            created_at: start,
            updated_at: start,
        };
        assert_eq!(session.expires_at(), start + TimeDelta::minutes(30));
        session.updated_at = start + TimeDelta::minutes(715);
        assert_eq!(session.expires_at(), start + TimeDelta::hours(12));
        assert!(!session.is_due_for_touch(session.updated_at + TimeDelta::seconds(59)));
        assert!(session.is_due_for_touch(session.updated_at + TimeDelta::seconds(60)));
    }

    #[test]
    fn capabilities_are_parsed_by_their_names() {
        assert_eq!(Capability::parse("capabilities", "keys:rotate"), Ok(Capability::KeysRotate));
        let error = Capability::parse("capabilities", "keys:delete").unwrap_err();
        assert!(error.to_string().contains("keys:read, keys:create"), "{error}");
    }
}
