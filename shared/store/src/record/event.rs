//! Audit events.

use chrono::{DateTime, Utc};
use keyward_core::audit::{Action, Actor, BlockedBy, Event, EventId, MemberChanges, Origin, Outcome};
use keyward_core::id::{AppNumber, DeploymentId, KeyId, RootKeyId, SessionId};
use keyward_core::rate_limit::Status;
use keyward_core::text::{Name, OwnerId, Reason, Slug};
use serde::{Deserialize, Serialize};

use super::Entity;

/// An event. Nothing is decided by one, and one is written for each request, so it has no byte too many: what there is none of
/// is absent, and the schema is 0.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventRecord {
    id: EventId,
    deployment_id: DeploymentId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<AppNumber>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_slug: Option<Slug>,
    action: Action,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocked_by_rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root_key_id: Option<RootKeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<Slug>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<ActorRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "MemberChanges::is_empty")]
    changes: MemberChanges,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rate_limits: Vec<StatusRecord>,
    /// Text, since earlier releases may have written no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<String>,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    /// The number of requests that it stands for, if that is not one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    /// Unix seconds, by which the table deletes it.
    #[serde(with = "chrono::serde::ts_seconds")]
    purge_at: DateTime<Utc>,
}

fn one() -> u32 {
    1
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ActorRecord {
    Operator,
    RootKey {
        id: RootKeyId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    Session {
        id: SessionId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_id: Option<OwnerId>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct StatusRecord {
    rule: String,
    remaining: i64,
    limit: i64,
}

impl From<Actor> for ActorRecord {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::Operator => Self::Operator,
            Actor::RootKey { id, name } => Self::RootKey { id, name },
            Actor::Session { id, user_id } => Self::Session { id, user_id },
        }
    }
}

impl From<ActorRecord> for Actor {
    fn from(record: ActorRecord) -> Self {
        match record {
            ActorRecord::Operator => Self::Operator,
            ActorRecord::RootKey { id, name } => Self::RootKey { id, name },
            ActorRecord::Session { id, user_id } => Self::Session { id, user_id },
        }
    }
}

impl From<&Status> for StatusRecord {
    fn from(status: &Status) -> Self {
        Self { rule: status.rule.clone(), remaining: status.remaining, limit: status.limit }
    }
}

impl From<StatusRecord> for Status {
    fn from(record: StatusRecord) -> Self {
        let StatusRecord { rule, remaining, limit } = record;
        Self { rule, remaining, limit, window_ms: 0, resets_in: 0 }
    }
}

impl Entity for Event {
    const TYPE: &'static str = "event";
    const SCHEMA: u32 = 0;
    type Record = EventRecord;

    fn to_record(&self) -> EventRecord {
        EventRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            app: self.app,
            app_slug: self.app_slug.clone(),
            action: self.action,
            outcome: self.outcome,
            blocked_by_rule: self.blocked_by.as_ref().map(BlockedBy::to_string),
            key_id: self.key_id,
            key_name: self.key_name.clone(),
            root_key_id: self.root_key_id,
            scheme: self.scheme.clone(),
            actor: self.actor.clone().map(ActorRecord::from),
            reason: self.reason.clone(),
            changes: self.changes.clone(),
            rate_limits: self.rate_limits.iter().map(StatusRecord::from).collect(),
            client_ip: self.origin.client_ip.map(|address| address.to_string()),
            path: self.origin.path.clone(),
            user_agent: self.origin.user_agent.clone(),
            weight: self.weight,
            purge_at: self.purge_at,
        }
    }

    fn from_record(record: EventRecord) -> Result<Self, String> {
        Ok(Self {
            id: record.id,
            deployment_id: record.deployment_id,
            app: record.app,
            app_slug: record.app_slug,
            action: record.action,
            outcome: record.outcome,
            blocked_by: record.blocked_by_rule.map(BlockedBy::from),
            key_id: record.key_id,
            key_name: record.key_name,
            root_key_id: record.root_key_id,
            scheme: record.scheme,
            actor: record.actor.map(Actor::from),
            reason: record.reason,
            changes: record.changes,
            rate_limits: record.rate_limits.into_iter().map(Status::from).collect(),
            origin: Origin {
                client_ip: record.client_ip.and_then(|text| text.parse().ok()),
                path: record.path,
                user_agent: record.user_agent,
            },
            weight: record.weight,
            purge_at: record.purge_at,
        })
    }
}

/// The attributes of an event as JSON, for a log that keeps what the table refused.
pub(crate) fn event_json(event: &Event) -> String {
    serde_json::to_string(&event.to_record()).unwrap_or_default()
}

/// The event with these attributes as JSON, if there is one.
pub(crate) fn event_of_json(json: &str) -> Option<Event> {
    Event::from_record(serde_json::from_str(json).ok()?).ok()
}
