//! `…/audit/timeseries`: an app's requests over time.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Datelike, DurationRound, NaiveTime, TimeDelta, Utc};
use keyward_core::ErrorCode;
use keyward_core::audit::Outcome;
use keyward_core::id::KeyId;
use keyward_core::instant::{Bound, Instant};
use keyward_core::text::Slug;
use keyward_http::{ActiveSession, ApiError, Data, Path, Query, Root};
use keyward_runtime::Services;
use keyward_store::AppAccess;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Range, app, percent};

const DEFAULT_RANGE: TimeDelta = TimeDelta::days(30);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TimeseriesQuery {
    /// Where the range begins: 30 days before its end where it is not given.
    start_date: Option<Bound>,
    /// Where the range ends: now where it is not given.
    end_date: Option<Bound>,
    /// `minute`, `hour`, `day`, `week` or `month`; anything else is an hour.
    #[param(default = "hour")]
    interval: Option<String>,
    /// The verifications of this key alone.
    key_id: Option<KeyId>,
}

/// The length of a bucket. Buckets begin at UTC boundaries, weeks on Sunday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Interval {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Interval {
    /// Anything unknown is an hour.
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("minute") => Self::Minute,
            Some("day") => Self::Day,
            Some("week") => Self::Week,
            Some("month") => Self::Month,
            _ => Self::Hour,
        }
    }

    /// When the bucket of this instant begins.
    fn start(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let truncated = |span| at.duration_trunc(span).unwrap_or(at);
        let day = at.date_naive();
        let first = match self {
            Self::Minute => return truncated(TimeDelta::minutes(1)),
            Self::Hour => return truncated(TimeDelta::hours(1)),
            Self::Day => day,
            Self::Week => day - TimeDelta::days(i64::from(day.weekday().num_days_from_sunday())),
            Self::Month => day.with_day(1).unwrap_or(day),
        };
        first.and_time(NaiveTime::MIN).and_utc()
    }
}

/// The buckets that hold requests, earliest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Timeseries {
    data: Vec<Point>,
    interval: Interval,
    /// Whether the figures are estimates, because the app's checks are sampled.
    is_estimate: bool,
}

#[derive(Serialize, ToSchema)]
struct Point {
    timestamp: Instant,
    total_requests: u64,
    allowed_requests: u64,
    blocked_requests: u64,
    /// Percent.
    success_rate: f64,
}

/// Counts an app's verifications by time. Only buckets that have any are listed. A range of more than 20,000 verifications is an error.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}/audit/timeseries", operation_id = "getTimeseries", tag = "Audit log",
    security(("rootKey" = ["audit"])), params(("slug" = Slug, Path, description = "The app's slug."), TimeseriesQuery),
    responses((status = 200, body = Timeseries)), extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
pub(crate) async fn of_app(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<TimeseriesQuery>,
) -> Result<Data<Timeseries>, ApiError> {
    let access = app(&services, root, &slug).await?;
    count(&services, &access, query).await
}

/// Counts the verifications of the session's app by time. Only buckets that have any are listed. A range of more than 20,000 verifications is an error.
#[utoipa::path(
    get, path = "/api-auth/audit/timeseries", operation_id = "getSessionTimeseries", tag = "Session",
    security(("session" = ["audit:read"])), params(TimeseriesQuery),
    responses((status = 200, body = Timeseries)), extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
pub(crate) async fn of_session(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Query(query): Query<TimeseriesQuery>,
) -> Result<Data<Timeseries>, ApiError> {
    let access = services.store.session_app(&session).await?;
    count(&services, &access, query).await
}

async fn count(
    services: &Services,
    access: &AppAccess,
    query: TimeseriesQuery,
) -> Result<Data<Timeseries>, ApiError> {
    let interval = Interval::parse(query.interval.as_deref());
    let range = Range::new(query.start_date, query.end_date, services.store.clock().now(), DEFAULT_RANGE)?;
    let mut is_estimate = false;
    let mut buckets: BTreeMap<DateTime<Utc>, (u64, u64)> = BTreeMap::new();
    services
        .store
        .verifications(access, range.start, range.end, |event| {
            if query.key_id.is_none_or(|key| event.key_id == Some(key)) {
                let (allowed, blocked) = buckets.entry(interval.start(event.id.timestamp())).or_default();
                is_estimate |= event.weight > 1;
                match event.outcome {
                    Outcome::Allowed => *allowed += u64::from(event.weight),
                    Outcome::Blocked => *blocked += u64::from(event.weight),
                }
            }
        })
        .await?;
    let points = buckets.into_iter().map(|(timestamp, (allowed, blocked))| Point {
        timestamp: timestamp.into(),
        total_requests: allowed + blocked,
        allowed_requests: allowed,
        blocked_requests: blocked,
        success_rate: percent(allowed, allowed + blocked),
    });
    Ok(Data(Timeseries { data: points.collect(), interval, is_estimate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_at_utc_boundaries() {
        let at: DateTime<Utc> = "2026-01-01T23:59:59.999Z".parse().unwrap();
        for (interval, start) in [
            (Interval::Minute, "2026-01-01T23:59:00Z"),
            (Interval::Hour, "2026-01-01T23:00:00Z"),
            (Interval::Day, "2026-01-01T00:00:00Z"),
            (Interval::Week, "2025-12-28T00:00:00Z"),
            (Interval::Month, "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(interval.start(at), start.parse::<DateTime<Utc>>().unwrap(), "{interval:?}");
        }
        let sunday: DateTime<Utc> = "2026-01-04T00:00:00Z".parse().unwrap();
        assert_eq!(Interval::Week.start(sunday), sunday);
    }

    #[test]
    fn an_unknown_interval_is_an_hour() {
        assert_eq!(Interval::parse(Some("fortnight")), Interval::Hour);
        assert_eq!(Interval::parse(None), Interval::Hour);
    }
}
