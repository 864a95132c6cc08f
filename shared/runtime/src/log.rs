//! The log of a process.

use std::env;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::metrics::EmbeddedMetrics;

/// Starts the log of a function: JSON to standard output, with metrics in CloudWatch's embedded format.
pub(crate) fn start_log() {
    // The innermost span carries the ids of the request, which each line is to name.
    let lines = fmt::layer().json().with_span_list(false).with_filter(log_filter(Level::INFO));
    let installation = env::var("KEYWARD_INSTALLATION").unwrap_or_default();
    registry().with(lines).with(EmbeddedMetrics { installation }).init();
}

/// The filter that the variable `KEYWARD_LOG` sets (a level, or levels by module as in [`Targets`]: `warn,keyward_store=debug`)
/// or, without it, this level. Whatever it sets, other crates log no more than `info`: below that they write down what they receive and send, with the root keys,
/// tickets and session tokens in it.
pub fn log_filter<S>(level: Level) -> impl Filter<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let asked = env::var("KEYWARD_LOG").ok().filter(|levels| !levels.is_empty());
    let asked = asked.and_then(|levels| levels.parse::<Targets>().ok());
    let asked = asked.unwrap_or_else(|| Targets::new().with_default(level));
    asked.and(filter_fn(|metadata| *metadata.level() <= Level::INFO || is_own(metadata.target())))
}

/// Whether a line is from a crate of ours that says itself what it logs.
fn is_own(target: &str) -> bool {
    target.split("::").next().is_some_and(|name| name == "keyward" || name.starts_with("keyward_"))
}
