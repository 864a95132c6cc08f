//! The audit log of an app: requests, changes, figures and time series, for backends and for browsers.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod analytics;
mod events;
mod logs;
mod timeseries;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::InvalidField;
use keyward_core::instant::Bound;
use keyward_http::{ApiError, Root, app_slug};
use keyward_runtime::Services;
use keyward_store::AppAccess;

keyward_http::routes! {
    Backend { logs::{of_app}, events::{of_app, of_deployment}, analytics::{of_app}, timeseries::{of_app} }
    Browser { logs::{of_session}, events::{of_session}, analytics::{of_session}, timeseries::{of_session} }
}

/// The app with this slug, for the backend with this root key.
async fn app(services: &Services, root: Root, slug: &str) -> Result<AppAccess, ApiError> {
    Ok(services.store.app_access(&root.0, &app_slug(slug)?).await?)
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
