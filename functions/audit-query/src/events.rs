//! `…/audit/events`: what was done with an app and its keys, newest first, by cursor.

use axum::extract::State;
use chrono::TimeDelta;
use keyward_core::audit::{Action, Actor, BlockedBy, Event, EventId, MemberChanges, Outcome};
use keyward_core::cursor::{InvalidCursor, List};
use keyward_core::id::{DeploymentId, KeyId, RootKeyId};
use keyward_core::instant::{Bound, Instant};
use keyward_core::text::{Name, Reason, Slug};
use keyward_core::{App, ClientAddress, ErrorCode};
use keyward_http::{ActiveSession, ApiError, Data, Path, Query, Root, app_slug};
use keyward_runtime::Services;
use keyward_store::{AppAccess, EventFilter, EventKinds, EventPage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Range;
use crate::logs::hide_backend;

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
/// Of a deployment's events.
const DEFAULT_RANGE: TimeDelta = TimeDelta::days(90);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The number of events on a page: 1 to 1,000; other numbers are clamped.
    #[param(default = 100)]
    limit: Option<u32>,
    /// The events of this key alone.
    key_id: Option<KeyId>,
    /// Where the range begins. Where it is not given, with the app; in a deployment's events 90 days before its end.
    start_date: Option<Bound>,
    /// Where the range ends: now where it is not given.
    end_date: Option<Bound>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

impl EventsQuery {
    /// The cursors of this list: of whose events they are, and of what the filters say is in it.
    fn cursors(&self, deployment: DeploymentId, app: Option<&App>, kinds: EventKinds) -> List {
        let ms = |date: Option<Bound>, of: fn(Bound) -> chrono::DateTime<chrono::Utc>| {
            date.map(|date| of(date).timestamp_millis().to_string())
        };
        let parts = [
            Some(deployment.to_string()),
            app.map(|app| app.number.base62()),
            Some(format!("{kinds:?}")),
            self.key_id.map(|key| key.to_string()),
            ms(self.start_date, Bound::start),
            ms(self.end_date, Bound::end),
        ];
        List::new("audit/events", parts.iter().map(|part| part.as_deref().unwrap_or_default()))
    }

    /// The events of a page of this list, whose range is so long where it is not given.
    fn filter(
        &self,
        services: &Services,
        list: &List,
        kinds: EventKinds,
        default: TimeDelta,
    ) -> Result<EventFilter, ApiError> {
        let limit = self.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let range = Range::new(self.start_date, self.end_date, services.store.clock().now(), default)?;
        let before = match &self.cursor {
            Some(cursor) => Some(list.position(cursor)?.parse::<EventId>().map_err(|_| InvalidCursor)?),
            None => None,
        };
        Ok(EventFilter {
            start: range.start,
            end: range.end,
            before,
            outcome: None,
            key_id: self.key_id,
            kinds,
            offset: 0,
            limit: limit as usize,
        })
    }
}

/// A page of what was done.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangeEventList)]
pub(crate) struct Events {
    data: Vec<Row>,
    limit: usize,
    has_more: bool,
    next_cursor: Option<String>,
}

impl Events {
    fn new(page: EventPage, list: &List, filter: &EventFilter) -> Self {
        let last = page.last.filter(|_| page.has_more);
        Self {
            next_cursor: last.map(|last| list.cursor(&last.to_string())),
            data: page.events.into_iter().map(Row::from).collect(),
            limit: filter.limit,
            has_more: page.has_more,
        }
    }
}

/// Something that was done with an app or a key of it, or was refused.
#[derive(Serialize, ToSchema)]
#[schema(as = ChangeEvent)]
struct Row {
    /// The id of the request that did it.
    request_id: EventId,
    deployment_id: DeploymentId,
    app_slug: Option<Slug>,
    action: Action,
    outcome: Outcome,
    /// Why it was refused.
    #[schema(value_type = Option<String>)]
    blocked_by_rule: Option<BlockedBy>,
    /// The key that it concerns.
    key_id: Option<KeyId>,
    /// The key's name at that time, or the root key's.
    key_name: Option<Name>,
    /// The root key that it concerns.
    root_key_id: Option<RootKeyId>,
    /// The rate-limit scheme that it concerns.
    rate_limit_scheme_slug: Option<Slug>,
    /// The members that it changed, each with its value before and after.
    changes: MemberChanges,
    /// Who did it. Browsers are not told which of your root keys it was.
    actor: Option<Actor>,
    /// Why, if that was said.
    reason: Option<Reason>,
    #[schema(value_type = Option<String>)]
    client_ip: Option<ClientAddress>,
    /// The method and the path.
    path: String,
    user_agent: Option<String>,
    timestamp: Instant,
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Self {
            request_id: event.id,
            deployment_id: event.deployment_id,
            app_slug: event.app_slug,
            action: event.action,
            outcome: event.outcome,
            blocked_by_rule: event.blocked_by,
            key_id: event.key_id,
            key_name: event.key_name,
            root_key_id: event.root_key_id,
            rate_limit_scheme_slug: event.scheme,
            changes: event.changes,
            actor: event.actor,
            reason: event.reason,
            client_ip: event.origin.client_ip,
            path: event.origin.path,
            user_agent: event.origin.user_agent,
            timestamp: event.id.timestamp().into(),
        }
    }
}

/// Lists what was done with an app and its keys, newest first, also of an app that was deleted.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}/audit/events", operation_id = "listChangeEvents", tag = "Audit log",
    security(("rootKey" = ["audit"])), params(("slug" = Slug, Path, description = "The app's slug."), EventsQuery),
    responses((status = 200, body = Events)), extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn of_app(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Data<Events>, ApiError> {
    let access = services.store.app_log_access(&root.0, &app_slug(&slug)?).await?;
    read(&services, &access, query, EventKinds::Changes).await
}

/// Lists what was done with the keys of the session's app, newest first.
#[utoipa::path(
    get, path = "/api-auth/audit/events", operation_id = "listSessionChangeEvents", tag = "Session",
    security(("session" = ["audit:read"])), params(EventsQuery),
    responses((status = 200, body = Events)), extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn of_session(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Query(query): Query<EventsQuery>,
) -> Result<Data<Events>, ApiError> {
    let access = services.store.session_app(&session).await?;
    read(&services, &access, query, EventKinds::ChangesOfKeys).await
}

/// Lists what was done in a deployment, newest first: with its apps and keys, also deleted ones, its rate-limit schemes and its
/// root keys. Tickets and sessions are among the events of their app alone.
#[utoipa::path(
    get, path = "/api-auth/deployment/audit/events", operation_id = "listDeploymentChangeEvents", tag = "Audit log",
    security(("rootKey" = ["audit"])), params(EventsQuery),
    responses((status = 200, body = Events)), extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn of_deployment(
    State(services): State<Services>,
    Root(access): Root,
    Query(query): Query<EventsQuery>,
) -> Result<Data<Events>, ApiError> {
    let list = query.cursors(access.deployment_id(), None, EventKinds::Changes);
    let filter = query.filter(&services, &list, EventKinds::Changes, DEFAULT_RANGE)?;
    let page = services.store.deployment_events(&access, &filter).await?;
    Ok(Data(Events::new(page, &list, &filter)))
}

async fn read(
    services: &Services,
    access: &AppAccess,
    query: EventsQuery,
    kinds: EventKinds,
) -> Result<Data<Events>, ApiError> {
    let app = access.app();
    let list = query.cursors(app.deployment_id, Some(app), kinds);
    let age = (services.store.clock().now() - app.created_at).max(TimeDelta::zero());
    let filter = query.filter(services, &list, kinds, age)?;
    let mut page = services.store.events(access, &filter).await?;
    for event in &mut page.events {
        hide_backend(event, access);
    }
    Ok(Data(Events::new(page, &list, &filter)))
}
