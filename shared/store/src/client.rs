//! The DynamoDB client: TLS through `ring`, and time limits that leave an API room to answer.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;

/// A client that gives up after 1.8 s, so that an answer is there within two: three attempts of at most 900 ms each. Where
/// the configuration has an operation timeout or an operation attempt timeout of its own, that holds.
pub fn dynamodb_client(config: &SdkConfig) -> Client {
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
    let config = Builder::from(config).timeout_config(timeouts).retry_config(retries).build();
    Client::from_conf(config)
}

#[cfg(test)]
mod tests {
    use aws_config::BehaviorVersion;

    use super::*;

    fn timeouts(own: Option<TimeoutConfig>) -> (Option<Duration>, Option<Duration>) {
        let mut config = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
        config.set_timeout_config(own);
        let client = dynamodb_client(&config.build());
        let timeouts = client.config().timeout_config().unwrap();
        (timeouts.operation_attempt_timeout(), timeouts.operation_timeout())
    }

    #[test]
    fn a_timeout_that_the_configuration_sets_holds() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(timeouts(None), (ms(900), ms(1_800)));
        let connecting = TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).build();
        assert_eq!(timeouts(Some(connecting)), (ms(900), ms(1_800)), "as the SDK's own has it");
        let patient = TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build();
        assert_eq!(timeouts(Some(patient)), (ms(900), ms(30_000)));
    }
}
