//! `…/audit/logs`: the events of an app, newest first, by cursor.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::audit::{Action, Actor, Event, EventId, Outcome};
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::text::{Reason, Slug};
use keyward_http::{ApiError, Data, Instant, Services};
use keyward_store::{AppAccess, EventFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Range;

const DEFAULT_PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 1_000;
const DEFAULT_RANGE: TimeDelta = TimeDelta::days(7);

#[derive(Debug, Deserialize)]
pub(crate) struct LogsQuery {
    limit: Option<u32>,
    #[serde(default)]
    offset: u32,
    outcome: Option<String>,
    key_id: Option<KeyId>,
    start_date: Option<Instant>,
    end_date: Option<Instant>,
    cursor: Option<String>,
    cursor_ts: Option<Instant>,
    cursor_id: Option<String>,
}

impl LogsQuery {
    /// The event before which the page begins. `cursor` overrides the pair of `cursor_ts` and `cursor_id`.
    fn before(&self) -> Result<Option<EventId>, ApiError> {
        let invalid = || ApiError::bad_request("invalid_cursor", "invalid cursor");
        let (ms, id) = match (&self.cursor, self.cursor_ts, &self.cursor_id) {
            (Some(cursor), _, _) => {
                let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
                let text = String::from_utf8(bytes).map_err(|_| invalid())?;
                let (ms, id) = text.split_once('|').ok_or_else(invalid)?;
                (ms.parse().map_err(|_| invalid())?, id.to_owned())
            }
            (None, Some(Instant(at)), Some(id)) => (at.timestamp_millis(), id.clone()),
            (None, None, None) => return Ok(None),
            (None, _, _) => return Err(invalid()),
        };
        let id: EventId = id.parse().map_err(|_| invalid())?;
        if id.timestamp().timestamp_millis() == ms { Ok(Some(id)) } else { Err(invalid()) }
    }
}

fn cursor(id: EventId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}|{id}", id.timestamp().timestamp_millis()))
}

/// A page of the log.
#[derive(Serialize)]
pub(crate) struct Logs {
    data: Vec<Row>,
    limit: u32,
    has_more: bool,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Row {
    request_id: EventId,
    deployment_id: DeploymentId,
    app_slug: Option<Slug>,
    /// `0` for an event that concerns no key.
    key_id: String,
    key_name: String,
    action: Action,
    outcome: Outcome,
    blocked_by_rule: Option<String>,
    client_ip: String,
    path: String,
    user_agent: String,
    /// A list for backends, and the JSON of one for browsers.
    rate_limits: Option<Value>,
    actor: Option<Actor>,
    reason: Option<Reason>,
    timestamp: DateTime<Utc>,
}

impl Row {
    /// The event as whoever has this access to its app may see it: customers do not learn where the SaaS's backend is
    /// and which of its root keys acted.
    fn new(mut event: Event, access: &AppAccess) -> Self {
        if matches!(event.actor, Some(Actor::RootKey { .. })) && !access.is_backend() {
            event.actor = None;
            event.origin.client_ip = None;
            event.origin.user_agent = None;
        }
        let rate_limits = Some(json!(event.rate_limits)).filter(|_| !event.rate_limits.is_empty());
        let rate_limits =
            rate_limits.map(|list| if access.is_backend() { list } else { list.to_string().into() });
        Self {
            request_id: event.id,
            deployment_id: event.deployment_id,
            app_slug: event.app_slug,
            key_id: event.key_id.map_or_else(|| "0".to_owned(), |id| id.to_string()),
            key_name: event.key_name.map(String::from).unwrap_or_default(),
            action: event.action,
            outcome: event.outcome,
            blocked_by_rule: event.blocked_by_rule,
            client_ip: event.origin.client_ip.map(|address| address.to_string()).unwrap_or_default(),
            path: event.origin.path,
            user_agent: event.origin.user_agent.unwrap_or_default(),
            rate_limits,
            actor: event.actor,
            reason: event.reason,
            timestamp: event.id.timestamp(),
        }
    }
}

pub(crate) async fn read(
    services: &Services,
    access: &AppAccess,
    query: LogsQuery,
) -> Result<Data<Logs>, ApiError> {
    let before = query.before()?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, LONGEST_PAGE);
    let range = Range::new(query.start_date, query.end_date, services.store.clock().now(), DEFAULT_RANGE)?;
    let outcome = [Outcome::Allowed, Outcome::Blocked]
        .into_iter()
        .find(|outcome| query.outcome.as_deref() == Some(outcome.as_str()));
    let filter = EventFilter {
        start: range.start,
        end: range.end,
        before,
        outcome,
        key_id: query.key_id,
        offset: if before.is_some() { 0 } else { query.offset as usize },
        limit: limit as usize,
    };
    let page = services.store.events(access, &filter).await?;
    Ok(Data(Logs {
        next_cursor: page.last.filter(|_| page.has_more || !page.events.is_empty()).map(cursor),
        data: page.events.into_iter().map(|event| Row::new(event, access)).collect(),
        limit,
        has_more: page.has_more,
    }))
}
