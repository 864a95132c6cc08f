//! Which lines a process logs.

use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::registry::LookupSpan;

/// What the variable `KEYWARD_LOG` asks for (directives of [`EnvFilter`]) or, without it, this level. Whatever it asks for,
/// other crates log no more than `info`: below that they write down what they receive and send, with the root keys, tickets
/// and session tokens in it.
pub fn log_filter<S>(level: &str) -> impl Filter<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let asked = EnvFilter::try_from_env("KEYWARD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    asked.and(filter_fn(|metadata| *metadata.level() <= Level::INFO || is_own(metadata.target())))
}

/// Whether a line is from a crate of ours that says itself what it logs.
fn is_own(target: &str) -> bool {
    target.split("::").next().is_some_and(|name| name == "keyward" || name.starts_with("keyward_"))
}
