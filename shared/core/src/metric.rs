//! What an operator is to be told of, counted.
//!
//! A log event with a field `metric` that names one of these counts it once. On Lambda such an event becomes a metric of
//! CloudWatch; alarms on them are in `template.yaml`.

/// What is counted beside the metrics that AWS keeps of its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// An audit event that the table refused, and that is in the log instead.
    RefusedWrites,
    /// A start that failed because KMS did not unwrap a pepper.
    KmsFailures,
    /// A request that was answered with 503 because the table failed, throttled or was slow.
    StoreFailures,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RefusedWrites, Self::KmsFailures, Self::StoreFailures];

    /// Its name in logs and in CloudWatch.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefusedWrites => "RefusedWrites",
            Self::KmsFailures => "KmsFailures",
            Self::StoreFailures => "StoreFailures",
        }
    }
}
