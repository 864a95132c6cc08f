//! Metrics of events that concern an operator.
//!
//! A log event with a field `metric` that names one of these counts it once. On Lambda such an event becomes a metric of
//! CloudWatch; alarms on them are in `template.yaml`.

/// A metric besides those that AWS has for its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// An audit event that the table rejected, and that is in the log instead.
    RefusedWrites,
    /// A request that failed with 503, or a start that failed, because the KMS key of the table or of the peppers
    /// could not be used.
    KmsFailures,
    /// A request that failed with 503, or a start that failed, because the table failed, throttled or was slow.
    StoreFailures,
    /// A request that failed with 500, or a start that failed, for another reason: a setting, a permission, an item
    /// that is not as it was written, also where a list only leaves that out; and a start that took too long.
    InternalErrors,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RefusedWrites, Self::KmsFailures, Self::StoreFailures, Self::InternalErrors];

    /// Its name in logs and in CloudWatch.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefusedWrites => "RefusedWrites",
            Self::KmsFailures => "KmsFailures",
            Self::StoreFailures => "StoreFailures",
            Self::InternalErrors => "InternalErrors",
        }
    }
}
