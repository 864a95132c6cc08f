//! `…/audit/logs`: the events of an app, newest first, by cursor.

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::App;
use keyward_core::audit::{Action, Actor, Event, EventId, Outcome};
use keyward_core::cursor::{InvalidCursor, List};
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::instant::{Bound, Instant};
use keyward_core::text::{Reason, Slug};
use keyward_http::{ApiError, Data, Services};
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
    start_date: Option<Bound>,
    end_date: Option<Bound>,
    cursor: Option<String>,
    cursor_ts: Option<String>,
    cursor_id: Option<String>,
}

impl LogsQuery {
    /// The cursors of this list: of the app, and of what the filters say is in it.
    fn cursors(&self, app: &App, outcome: Option<Outcome>) -> List {
        let ms = |at: DateTime<Utc>| at.timestamp_millis().to_string();
        let parts = [
            Some(app.deployment_id.to_string()),
            Some(app.number.base62()),
            outcome.map(|outcome| outcome.as_str().to_owned()),
            self.key_id.map(|key| key.to_string()),
            self.start_date.map(|date| ms(date.start())),
            self.end_date.map(|date| ms(date.end())),
        ];
        List::new("audit/logs", parts.iter().map(|part| part.as_deref().unwrap_or_default()))
    }

    /// Whether the dates that were given leave this instant in.
    fn includes(&self, at: DateTime<Utc>) -> bool {
        self.start_date.is_none_or(|date| date.start() <= at)
            && self.end_date.is_none_or(|date| at <= date.end())
    }
}

/// The event before which the page begins. A cursor overrides the pair of `cursor_ts` and `cursor_id`, which name a row of
/// this list.
async fn before(
    services: &Services,
    access: &AppAccess,
    query: &LogsQuery,
    filter: &EventFilter,
    list: &List,
) -> Result<Option<EventId>, ApiError> {
    let id = |text: &str| text.parse::<EventId>().map_err(|_| InvalidCursor);
    let (at, id) = match (&query.cursor, &query.cursor_ts, &query.cursor_id) {
        (Some(cursor), _, _) => return Ok(Some(id(&list.position(cursor)?)?)),
        (None, None, None) => return Ok(None),
        (None, Some(at), Some(text)) => {
            (Instant::parse("cursor_ts", at).map_err(|_| InvalidCursor)?.at(), id(text)?)
        }
        (None, _, _) => return Err(InvalidCursor.into()),
    };
    let row = services.store.logged_event(access, id).await?;
    let is_listed = |row: &Event| row.id.timestamp() == at && filter.wants(row) && query.includes(at);
    if row.as_ref().is_some_and(is_listed) { Ok(Some(id)) } else { Err(InvalidCursor.into()) }
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
    timestamp: Instant,
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
            timestamp: event.id.timestamp().into(),
        }
    }
}

pub(crate) async fn read(
    services: &Services,
    access: &AppAccess,
    query: LogsQuery,
) -> Result<Data<Logs>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, LONGEST_PAGE);
    let range = Range::new(query.start_date, query.end_date, services.store.clock().now(), DEFAULT_RANGE)?;
    let outcome = [Outcome::Allowed, Outcome::Blocked]
        .into_iter()
        .find(|outcome| query.outcome.as_deref() == Some(outcome.as_str()));
    let list = query.cursors(access.app(), outcome);
    let mut filter = EventFilter {
        start: range.start,
        end: range.end,
        before: None,
        outcome,
        key_id: query.key_id,
        offset: query.offset as usize,
        limit: limit as usize,
    };
    filter.before = before(services, access, &query, &filter, &list).await?;
    if filter.before.is_some() {
        filter.offset = 0;
    }
    let page = services.store.events(access, &filter).await?;
    let last = page.last.filter(|_| page.has_more || !page.events.is_empty());
    Ok(Data(Logs {
        next_cursor: last.map(|last| list.cursor(&last.to_string())),
        data: page.events.into_iter().map(|event| Row::new(event, access)).collect(),
        limit,
        has_more: page.has_more,
    }))
}
