//! The DynamoDB client: time limits that leave time for a response.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use keyward_pepper::with_timeouts;

/// A client whose calls end as [`with_timeouts`] says: 1.8 s, unless the configuration has timeouts of its own.
pub fn dynamodb_client(config: &SdkConfig) -> Client {
    Client::new(&with_timeouts(config))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_config::BehaviorVersion;
    use aws_config::timeout::TimeoutConfig;

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
