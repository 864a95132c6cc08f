//! `…/audit/logs`: the events of an app, newest first, by cursor.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::audit::{Action, Actor, BlockedBy, Event, EventId, Outcome};
use keyward_core::cursor::{InvalidCursor, List};
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::instant::{Bound, Instant};
use keyward_core::rate_limit::Status;
use keyward_core::text::{Reason, Slug};
use keyward_core::{App, ErrorCode};
use keyward_http::{ActiveSession, ApiError, Data, Path, Query, Root};
use keyward_runtime::Services;
use keyward_store::{AppAccess, EventFilter, EventKinds};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Range, app};

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
const DEFAULT_RANGE: TimeDelta = TimeDelta::days(7);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// The number of events on a page: 1 to 1,000; other numbers are clamped.
    #[param(default = 100)]
    limit: Option<u32>,
    /// The number of events to skip before the page, if there is no cursor.
    #[serde(default)]
    offset: u32,
    /// `allowed` or `blocked`: events that ended so. Others filter nothing.
    outcome: Option<String>,
    /// The events of this key alone.
    key_id: Option<KeyId>,
    /// Where the range begins: 7 days before its end where it is not given.
    start_date: Option<Bound>,
    /// Where the range ends: now where it is not given.
    end_date: Option<Bound>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The `timestamp` of the last row of the page before, with `cursor_id`.
    cursor_ts: Option<String>,
    /// The `request_id` of the last row of the page before, with `cursor_ts`.
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
    let is_listed = |row: &Event| row.id.timestamp() == at && filter.matches(row) && query.includes(at);
    if row.as_ref().is_some_and(is_listed) { Ok(Some(id)) } else { Err(InvalidCursor.into()) }
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = EventList)]
pub(crate) struct Logs {
    data: Vec<Row>,
    limit: u32,
    has_more: bool,
    next_cursor: Option<String>,
}

/// An event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
struct Row {
    request_id: EventId,
    deployment_id: DeploymentId,
    app_slug: Option<Slug>,
    /// `0` for an event that concerns no key.
    key_id: String,
    key_name: String,
    action: Action,
    outcome: Outcome,
    /// The rule that blocked it, such as `100/60s`, or the code.
    #[schema(value_type = Option<String>)]
    blocked_by_rule: Option<BlockedBy>,
    /// Empty where it is not known.
    client_ip: String,
    /// The method and the path.
    path: String,
    user_agent: String,
    /// A list for backends, and the JSON of one for browsers.
    rate_limits: Option<RateLimits>,
    /// The number of requests that it stands for: more than 1 where the app's checks are sampled.
    weight: u32,
    actor: Option<Actor>,
    reason: Option<Reason>,
    timestamp: Instant,
}

/// The state of the rate limits.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum RateLimits {
    List(Vec<Status>),
    /// JSON of the list.
    Text(String),
}

impl RateLimits {
    fn new(limits: Vec<Status>, access: &AppAccess) -> Option<Self> {
        if limits.is_empty() {
            return None;
        }
        if access.is_backend() {
            return Some(Self::List(limits));
        }
        // With its members sorted, as it always was.
        serde_json::to_value(limits).ok().map(|sorted| Self::Text(sorted.to_string()))
    }
}

/// Makes of an event what whoever has this access to its app may see: customers do not learn where the SaaS's backend is and
/// which of its root keys acted.
pub(crate) fn hide_backend(event: &mut Event, access: &AppAccess) {
    if matches!(event.actor, Some(Actor::RootKey { .. })) && !access.is_backend() {
        event.actor = None;
        event.origin.client_ip = None;
        event.origin.user_agent = None;
    }
    // What a backend notes beside a key is its own.
    if !access.is_backend() {
        event.changes.remove("metadata");
    }
}

impl Row {
    fn new(mut event: Event, access: &AppAccess) -> Self {
        hide_backend(&mut event, access);
        Self {
            request_id: event.id,
            deployment_id: event.deployment_id,
            app_slug: event.app_slug,
            key_id: event.key_id.map_or_else(|| "0".to_owned(), |id| id.to_string()),
            key_name: event.key_name.map(String::from).unwrap_or_default(),
            action: event.action,
            outcome: event.outcome,
            blocked_by_rule: event.blocked_by,
            client_ip: event.origin.client_ip.map(|address| address.to_string()).unwrap_or_default(),
            path: event.origin.path,
            user_agent: event.origin.user_agent.unwrap_or_default(),
            rate_limits: RateLimits::new(event.rate_limits, access),
            weight: event.weight,
            actor: event.actor,
            reason: event.reason,
            timestamp: event.id.timestamp().into(),
        }
    }
}

/// Lists the events of an app, newest first. A page may end early when a filter is rare: continue with `next_cursor` while `has_more`.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}/audit/logs", operation_id = "listEvents", tag = "Audit log",
    security(("rootKey" = ["audit"])), params(("slug" = Slug, Path, description = "The app's slug."), LogsQuery),
    responses((status = 200, body = Logs)), extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn of_app(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Data<Logs>, ApiError> {
    let access = app(&services, root, &slug).await?;
    read(&services, &access, query, EventKinds::All).await
}

/// Lists the requests that came with keys of the session's app, newest first. A page may end early when a filter is rare: continue with `next_cursor` while `has_more`.
#[utoipa::path(
    get, path = "/api-auth/audit/logs", operation_id = "listSessionEvents", tag = "Session",
    security(("session" = ["audit:read"])), params(LogsQuery),
    responses((status = 200, body = Logs)), extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn of_session(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Query(query): Query<LogsQuery>,
) -> Result<Data<Logs>, ApiError> {
    let access = services.store.session_app(&session).await?;
    read(&services, &access, query, EventKinds::Requests).await
}

async fn read(
    services: &Services,
    access: &AppAccess,
    query: LogsQuery,
    kinds: EventKinds,
) -> Result<Data<Logs>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
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
        kinds,
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
