//! The DynamoDB client: TLS through `ring`, and time limits that leave an API room to answer.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;

/// A client that gives up after 1.8 s, so that an answer is there within two: three attempts of at most 900 ms each.
pub fn dynamodb_client(config: &SdkConfig) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(500))
        .operation_attempt_timeout(Duration::from_millis(900))
        .operation_timeout(Duration::from_millis(1_800))
        .build();
    let retries =
        RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(50));
    let config = Builder::from(config).timeout_config(timeouts).retry_config(retries).build();
    Client::from_conf(config)
}
