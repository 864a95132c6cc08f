//! Metrics of CloudWatch from log events.
//!
//! Every event that names a [`keyward_core::metric::Metric`] in its field `metric` is counted: one line on standard output in
//! the embedded metric format, which CloudWatch Logs turns into a metric of the namespace `Keyward`, by installation.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::fmt::Debug;

use keyward_store::system_clock;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The namespace of all metrics.
const NAMESPACE: &str = "Keyward";
/// Their one dimension.
const DIMENSION: &str = "Installation";

/// Counts log events that name a metric.
pub(crate) struct EmbeddedMetrics {
    /// The installation's name.
    pub(crate) installation: String,
}

impl<S: Subscriber> Layer<S> for EmbeddedMetrics {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut name = MetricName(None);
        event.record(&mut name);
        if let MetricName(Some(name)) = name {
            println!("{}", one(&self.installation, &name, system_clock().now().timestamp_millis()));
        }
    }
}

struct MetricName(Option<String>);

impl Visit for MetricName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "metric" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}

/// The line that counts this metric once, at this instant in Unix milliseconds.
fn one(installation: &str, name: &str, at: i64) -> Value {
    json!({
        "_aws": {
            "Timestamp": at,
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [[DIMENSION]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }],
        },
        DIMENSION: installation,
        name: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_named_where_its_value_is() {
        let line = one("here", "KmsFailures", 1_767_225_600_000);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(line[directive["Metrics"][0]["Name"].as_str().unwrap()], 1);
        assert_eq!(line[directive["Dimensions"][0][0].as_str().unwrap()], "here");
        assert_eq!(line["_aws"]["Timestamp"], 1_767_225_600_000_i64);
    }
}
