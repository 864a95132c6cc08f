//! Time limits of calls to AWS that leave time for a response.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;

/// This configuration, with which a call is given up after 1.8 s, so that a response is there within two: three attempts of
/// at most 900 ms each. Where it has an operation timeout or an operation attempt timeout of its own, that holds.
pub fn with_timeouts(config: &SdkConfig) -> SdkConfig {
    let own = config.timeout_config();
    let attempt = own.and_then(TimeoutConfig::operation_attempt_timeout);
    let operation = own.and_then(TimeoutConfig::operation_timeout);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(500))
        .operation_attempt_timeout(attempt.unwrap_or(Duration::from_millis(900)))
        .operation_timeout(operation.unwrap_or(Duration::from_millis(1_800)))
        .build();
    let retries =
        RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(50));
    // An attempt ends with the body of its response, so that none can stall for longer; watching each body's throughput costs
    // some 3 % of a check's CPU.
    let no_watch = StalledStreamProtectionConfig::disabled();
    config
        .to_builder()
        .timeout_config(timeouts)
        .retry_config(retries)
        .stalled_stream_protection(no_watch)
        .build()
}
