//! `…/audit/timeseries`: an app's requests over time.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, DurationRound, NaiveTime, TimeDelta, Utc};
use keyward_core::audit::Outcome;
use keyward_core::id::KeyId;
use keyward_core::instant::{Bound, Instant};
use keyward_http::{ApiError, Data, Services};
use keyward_store::AppAccess;
use serde::{Deserialize, Serialize};

use crate::{Range, percent};

const DEFAULT_RANGE: TimeDelta = TimeDelta::days(30);

#[derive(Debug, Deserialize)]
pub(crate) struct TimeseriesQuery {
    start_date: Option<Bound>,
    end_date: Option<Bound>,
    interval: Option<String>,
    key_id: Option<KeyId>,
}

/// The length of a bucket. Buckets begin at UTC boundaries, weeks on Sunday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Serialize)]
pub(crate) struct Timeseries {
    data: Vec<Point>,
    interval: Interval,
}

#[derive(Serialize)]
struct Point {
    timestamp: Instant,
    total_requests: u64,
    allowed_requests: u64,
    blocked_requests: u64,
    success_rate: f64,
}

pub(crate) async fn count(
    services: &Services,
    access: &AppAccess,
    query: TimeseriesQuery,
) -> Result<Data<Timeseries>, ApiError> {
    let interval = Interval::parse(query.interval.as_deref());
    let range = Range::new(query.start_date, query.end_date, services.store.clock().now(), DEFAULT_RANGE)?;
    let mut buckets: BTreeMap<DateTime<Utc>, (u64, u64)> = BTreeMap::new();
    services
        .store
        .verifications(access, range.start, range.end, |event| {
            if query.key_id.is_none_or(|key| event.key_id == Some(key)) {
                let (allowed, blocked) = buckets.entry(interval.start(event.id.timestamp())).or_default();
                match event.outcome {
                    Outcome::Allowed => *allowed += 1,
                    Outcome::Blocked => *blocked += 1,
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
    Ok(Data(Timeseries { data: points.collect(), interval }))
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
