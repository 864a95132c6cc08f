//! `keyward audit`: the operator's commands for the audit log.

use std::io::{self, BufRead};

use chrono::DateTime;
use futures::stream::{self, StreamExt};
use keyward_store::{Error, OperatorAccess, Table};
use serde::Deserialize;

/// The target under which events are logged that the table did not take.
const TARGET: &str = "keyward::audit";
/// The number of events that are restored at the same time.
const CONCURRENCY: usize = 16;

/// The numbers of events in a log, by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The number that were written.
    pub restored: u64,
    /// The number that were in the table.
    pub present: u64,
    /// The number that could not be read or written.
    pub failed: u64,
}

/// A line of the log of a function.
#[derive(Deserialize)]
struct Line {
    target: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    event: Option<String>,
}

/// The event in a line of a log, as JSON. A line is an object of JSON, before which the time may stand that CloudWatch has of
/// it. Text that is not that may be from whoever sent a request, and is never an event.
fn event_in(line: &str) -> Option<String> {
    let line = match line.split_once(' ') {
        Some((time, object)) if DateTime::parse_from_rfc3339(&format!("{time}Z")).is_ok() => object,
        Some((time, object)) if DateTime::parse_from_rfc3339(time).is_ok() => object,
        _ => line,
    };
    let line: Line = serde_json::from_str(line).ok()?;
    line.fields.event.filter(|_| line.target == TARGET)
}

/// Writes the events of verifications in a log that the table did not take, each once: those that are there are left alone.
/// Whatever fails is told to `report`, with the number of its line, and does not stop the others.
///
/// # Errors
/// The log cannot be read.
pub async fn replay(
    table: &Table,
    log: impl BufRead,
    report: impl Fn(usize, &Error),
) -> io::Result<Replayed> {
    let operator = &OperatorAccess::assume();
    let mut unread = None;
    let lines = (1..).zip(log.lines()).map_while(|(number, line)| match line {
        Ok(line) => Some((number, line)),
        Err(error) => {
            unread = Some(error);
            None
        }
    });
    let events = lines.filter_map(|(number, line)| Some((number, event_in(&line)?)));
    let mut restoring = stream::iter(events)
        .map(|(number, event)| async move { (number, table.restore_event(operator, &event).await) })
        .buffer_unordered(CONCURRENCY);
    let mut replayed = Replayed::default();
    while let Some((number, restored)) = restoring.next().await {
        match restored {
            Ok(true) => replayed.restored += 1,
            Ok(false) => replayed.present += 1,
            Err(error) => {
                replayed.failed += 1;
                report(number, &error);
            }
        }
    }
    drop(restoring);
    unread.map_or(Ok(replayed), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_what_keyward_logged_and_nothing_that_a_caller_sent() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","fields":{"message":"m","event":"{}"},"target":"keyward::audit"}"#;
        for prefix in ["", "2026-01-01T00:00:00 ", "2026-01-01T00:00:00.123+00:00 "] {
            assert_eq!(event_in(&format!("{prefix}{line}")).as_deref(), Some("{}"), "{prefix}");
        }
        let quoted = serde_json::to_string(line).unwrap();
        let escaped = &quoted[1..quoted.len() - 1];
        for other in [
            String::new(),
            "START RequestId: 1".into(),
            format!("GET /users {line}"),
            format!("2026-01-01T00:00:00 INFO {line}"),
            line.replace("keyward::audit", "keyward::request"),
            line.replace(r#","event":"{}""#, ""),
            format!(r#"{{"level":"INFO","fields":{{"message":"{escaped}"}},"target":"keyward::request"}}"#),
        ] {
            assert_eq!(event_in(&other), None, "{other}");
        }
    }
}
