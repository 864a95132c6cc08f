//! `…/audit/analytics`: figures about an app's requests.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use chrono::TimeDelta;
use keyward_core::ErrorCode;
use keyward_core::audit::{BlockedBy, Event, Outcome};
use keyward_core::id::KeyId;
use keyward_core::instant::Bound;
use keyward_core::text::Slug;
use keyward_http::{ActiveSession, ApiError, Data, Path, Query, Root};
use keyward_runtime::Services;
use keyward_store::AppAccess;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Range, app, percent};

const DEFAULT_RANGE: TimeDelta = TimeDelta::days(30);
const DEFAULT_TOP: u32 = 10;
const MAX_TOP: u32 = 50;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AnalyticsQuery {
    /// Where the range begins: 30 days before its end where it is not given.
    start_date: Option<Bound>,
    /// Where the range ends: now where it is not given.
    end_date: Option<Bound>,
    /// The verifications of this key alone.
    key_id: Option<KeyId>,
    /// Whether the response has `top_keys`.
    #[serde(default)]
    include_top_keys: bool,
    /// Whether the response has `top_paths`.
    #[serde(default)]
    include_top_paths: bool,
    /// Whether the response has `blocked_reasons`.
    #[serde(default)]
    include_blocked_reasons: bool,
    /// Whether the response has `rate_limit_stats`.
    #[serde(default)]
    include_rate_limits: bool,
    /// The maximum number of rows of each of these: 1 to 50; other numbers are clamped.
    #[param(default = 10)]
    top_limit: Option<u32>,
}

/// The figures. What was not asked for is left out.
#[derive(Serialize, ToSchema)]
pub(crate) struct Analytics {
    total_requests: u64,
    allowed_requests: u64,
    blocked_requests: u64,
    /// Percent.
    success_rate: f64,
    /// Of the app, whatever the range and the key asked for. Where the last day holds more verifications than an analysis
    /// reads, the keys of those that were read: at least so many.
    keys_used_24h: usize,
    /// Whether the figures are estimates, because the app's checks are sampled.
    is_estimate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_keys: Option<Vec<TopKey>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_paths: Option<Vec<TopPath>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_reasons: Option<Vec<BlockedReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_stats: Option<RateLimitStats>,
}

#[derive(Serialize, ToSchema)]
struct TopKey {
    key_id: KeyId,
    key_name: String,
    total_requests: u64,
}

#[derive(Serialize, ToSchema)]
struct TopPath {
    path: String,
    total_requests: u64,
}

#[derive(Serialize, ToSchema)]
struct BlockedReason {
    blocked_by_rule: String,
    count: u64,
    percentage: f64,
}

#[derive(Serialize, ToSchema)]
struct RateLimitStats {
    total_hits: u64,
    percentage_of_blocked: f64,
    top_rules: Vec<RateLimitRule>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RateLimitHits)]
struct RateLimitRule {
    rule: String,
    hit_count: u64,
    percentage: f64,
}

#[derive(Default)]
struct Counts {
    allowed: u64,
    blocked: u64,
    is_estimate: bool,
    keys: HashMap<KeyId, (u64, EventName)>,
    paths: HashMap<String, u64>,
    blocked_by: HashMap<BlockedBy, u64>,
}

/// A key's name as its latest event has it.
type EventName = (keyward_core::audit::EventId, String);

impl Counts {
    fn add(&mut self, event: Event) {
        let weight = u64::from(event.weight);
        self.is_estimate |= weight > 1;
        match event.outcome {
            Outcome::Allowed => self.allowed += weight,
            Outcome::Blocked => self.blocked += weight,
        }
        if let Some(id) = event.key_id {
            let name = event.key_name.map(String::from).unwrap_or_default();
            let (count, latest) = self.keys.entry(id).or_insert_with(|| (0, (event.id, String::new())));
            *count += weight;
            if event.id >= latest.0 {
                *latest = (event.id, name);
            }
        }
        *self.paths.entry(event.origin.path).or_default() += weight;
        if let Some(blocked_by) = event.blocked_by {
            *self.blocked_by.entry(blocked_by).or_default() += weight;
        }
    }
}

/// Counts an app's verifications. A range of more than 20,000 verifications is an error.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}/audit/analytics", operation_id = "getAnalytics", tag = "Audit log",
    security(("rootKey" = ["audit"])), params(("slug" = Slug, Path, description = "The app's slug."), AnalyticsQuery),
    responses((status = 200, body = Analytics)), extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
pub(crate) async fn of_app(
    State(services): State<Services>,
    root: Root,
    Path(slug): Path<String>,
    Query(query): Query<AnalyticsQuery>,
) -> Result<Data<Analytics>, ApiError> {
    let access = app(&services, root, &slug).await?;
    count(&services, &access, query).await
}

/// Counts the verifications of the session's app. A range of more than 20,000 verifications is an error.
#[utoipa::path(
    get, path = "/api-auth/audit/analytics", operation_id = "getSessionAnalytics", tag = "Session",
    security(("session" = ["audit:read"])), params(AnalyticsQuery),
    responses((status = 200, body = Analytics)), extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
pub(crate) async fn of_session(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Query(query): Query<AnalyticsQuery>,
) -> Result<Data<Analytics>, ApiError> {
    let access = services.store.session_app(&session).await?;
    count(&services, &access, query).await
}

async fn count(
    services: &Services,
    access: &AppAccess,
    query: AnalyticsQuery,
) -> Result<Data<Analytics>, ApiError> {
    let now = services.store.clock().now();
    let day_ago = now - TimeDelta::hours(24);
    let range = Range::new(query.start_date, query.end_date, now, DEFAULT_RANGE)?;
    let mut counts = Counts::default();
    let mut used = HashSet::new();
    services
        .store
        .verifications(access, range.start, range.end, |event| {
            if event.id.timestamp() >= day_ago {
                used.extend(event.key_id);
            }
            if query.key_id.is_none_or(|key| event.key_id == Some(key)) {
                counts.add(event);
            }
        })
        .await?;
    if range.start > day_ago || range.end < now {
        // The last day is no part of the range, which is not refused for it.
        services.store.some_verifications(access, day_ago, now, |event| used.extend(event.key_id)).await?;
    }
    let top = query.top_limit.unwrap_or(DEFAULT_TOP).clamp(1, MAX_TOP) as usize;
    Ok(Data(figures(&query, counts, used.len(), top)))
}

fn figures(query: &AnalyticsQuery, counts: Counts, keys_used_24h: usize, top: usize) -> Analytics {
    let total = counts.allowed + counts.blocked;
    let limits: HashMap<String, u64> = counts
        .blocked_by
        .iter()
        .filter_map(|(blocked_by, count)| match blocked_by {
            BlockedBy::RateLimit(rule) => Some((rule.clone(), *count)),
            _ => None,
        })
        .collect();
    let with_rule: u64 = counts.blocked_by.values().sum();
    let reasons = counts.blocked_by.into_iter().map(|(blocked_by, count)| (blocked_by.to_string(), count));
    let keys = counts.keys.into_iter();
    let keys = keys.map(|(id, (count, (_, name)))| ((id, name), count));
    Analytics {
        total_requests: total,
        allowed_requests: counts.allowed,
        blocked_requests: counts.blocked,
        success_rate: percent(counts.allowed, total),
        keys_used_24h,
        is_estimate: counts.is_estimate,
        top_keys: query.include_top_keys.then(|| {
            let rows = ranked(keys, top).into_iter();
            rows.map(|((key_id, key_name), total_requests)| TopKey { key_id, key_name, total_requests })
                .collect()
        }),
        top_paths: query.include_top_paths.then(|| {
            let rows = ranked(counts.paths, top).into_iter();
            rows.map(|(path, total_requests)| TopPath { path, total_requests }).collect()
        }),
        blocked_reasons: query.include_blocked_reasons.then(|| {
            let rows = ranked(reasons, top).into_iter();
            rows.map(|(blocked_by_rule, count)| BlockedReason {
                blocked_by_rule,
                count,
                percentage: percent(count, with_rule),
            })
            .collect()
        }),
        rate_limit_stats: query.include_rate_limits.then(|| {
            let total_hits = limits.values().sum();
            RateLimitStats {
                total_hits,
                percentage_of_blocked: percent(total_hits, counts.blocked),
                top_rules: ranked(limits, top)
                    .into_iter()
                    .map(|(rule, hit_count)| RateLimitRule {
                        rule,
                        hit_count,
                        percentage: percent(hit_count, total_hits),
                    })
                    .collect(),
            }
        }),
    }
}

/// The `top` with the highest counts; equal ones in the order of their names.
fn ranked<T: Ord>(counts: impl IntoIterator<Item = (T, u64)>, top: usize) -> Vec<(T, u64)> {
    let mut rows: Vec<(T, u64)> = counts.into_iter().collect();
    rows.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    rows.truncate(top);
    rows
}
