//! The audit log of an app: events, figures and time series, for backends and for browsers.

mod analytics;
mod logs;
mod timeseries;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::InvalidField;
use keyward_core::instant::Bound;
use keyward_http::{ActiveSession, ApiError, Data, Path, Query, Root, Services, app_slug, backend, frontend};
use keyward_store::AppAccess;

use crate::analytics::{Analytics, AnalyticsQuery};
use crate::logs::{Logs, LogsQuery};
use crate::timeseries::{Timeseries, TimeseriesQuery};

/// The routes of this function.
pub fn routes(services: &Services) -> Router<Services> {
    let server = Router::new()
        .route("/api-auth/apps/{slug}/audit/logs", get(app_logs))
        .route("/api-auth/apps/{slug}/audit/analytics", get(app_analytics))
        .route("/api-auth/apps/{slug}/audit/timeseries", get(app_timeseries));
    let browser = Router::new()
        .route("/api-auth/audit/logs", get(session_logs))
        .route("/api-auth/audit/analytics", get(session_analytics))
        .route("/api-auth/audit/timeseries", get(session_timeseries));
    backend(server).merge(frontend(browser, services.clone()))
}

async fn app(services: &Services, root: Root, slug: &str) -> Result<AppAccess, ApiError> {
    Ok(services.store.app_access(&root.0, &app_slug(slug)?).await?)
}

async fn session_app(services: &Services, session: ActiveSession) -> Result<AppAccess, ApiError> {
    Ok(services.store.session_app(&session.0).await?)
}

async fn app_logs(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Data<Logs>, ApiError> {
    let access = app(&services, root, &slug).await?;
    logs::read(&services, &access, query).await
}

async fn session_logs(
    State(services): State<Services>,
    session: ActiveSession,
    Query(query): Query<LogsQuery>,
) -> Result<Data<Logs>, ApiError> {
    let access = session_app(&services, session).await?;
    logs::read(&services, &access, query).await
}

async fn app_analytics(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<AnalyticsQuery>,
) -> Result<Data<Analytics>, ApiError> {
    let access = app(&services, root, &slug).await?;
    analytics::count(&services, &access, query).await
}

async fn session_analytics(
    State(services): State<Services>,
    session: ActiveSession,
    Query(query): Query<AnalyticsQuery>,
) -> Result<Data<Analytics>, ApiError> {
    let access = session_app(&services, session).await?;
    analytics::count(&services, &access, query).await
}

async fn app_timeseries(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<TimeseriesQuery>,
) -> Result<Data<Timeseries>, ApiError> {
    let access = app(&services, root, &slug).await?;
    timeseries::count(&services, &access, query).await
}

async fn session_timeseries(
    State(services): State<Services>,
    session: ActiveSession,
    Query(query): Query<TimeseriesQuery>,
) -> Result<Data<Timeseries>, ApiError> {
    let access = session_app(&services, session).await?;
    timeseries::count(&services, &access, query).await
}

/// A range of time, both ends included.
struct Range {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl Range {
    /// From `start` to `end`; where not given, up to now, and from `default` before that or the end. What lies in the
    /// future is left out.
    fn new(
        start: Option<Bound>,
        end: Option<Bound>,
        now: DateTime<Utc>,
        default: TimeDelta,
    ) -> Result<Self, InvalidField> {
        let end = end.map_or(now, Bound::end);
        let start = start.map_or(end.min(now) - default, Bound::start);
        if start > end {
            return Err(InvalidField::new("start_date", "must not be after end_date"));
        }
        Ok(Self { start, end: end.min(now) })
    }
}

/// The share of `part` in `whole` in percent; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
