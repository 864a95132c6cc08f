//! The suites that need DynamoDB or KMS, against LocalStack in a container that this starts and removes.
//!
//! Needs a Docker engine, which `tests/localstack/image` gives the image. `LOCALSTACK_IMAGE` names another image than the last one that starts without an account; those
//! after it want `LOCALSTACK_AUTH_TOKEN`, which is passed on.

use std::env;
use std::path::Path;
use std::time::Duration;

use aws_config::Region;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use keyward_cli::dev::Installation;
use keyward_store::{system_clock, system_entropy};
use keyward_tests::process::outside;
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

const IMAGE: &str = "localstack/localstack:4.14.0";
const PORT: u16 = 4566;
const TOKEN: &str = "LOCALSTACK_AUTH_TOKEN";
/// The time limit for its start, and for each of its first calls.
const TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn store_kms_and_scenarios() {
    let image = env::var("LOCALSTACK_IMAGE").unwrap_or_else(|_| IMAGE.to_owned());
    let (name, tag) = image.rsplit_once(':').expect("LOCALSTACK_IMAGE is an image with its tag");
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(PORT.tcp())
        .with_env_var("SERVICES", "dynamodb,kms")
        .with_env_var("EAGER_SERVICE_LOADING", "1")
        // Nothing of it is kept, and a line for each request takes as long as the request.
        .with_env_var("DYNAMODB_IN_MEMORY", "1")
        .with_env_var("LS_LOG", "warning");
    if let Some(token) = env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
        request = request.with_env_var(TOKEN, token);
    }
    let container =
        request.start().await.expect("a container: start a Docker engine, and let it have the image");
    let port = container.get_host_port_ipv4(PORT).await.expect("a port");
    let url = format!("http://127.0.0.1:{port}");
    wait_for(&format!("{url}/_localstack/health")).await;
    warm_up(&url).await;

    let suites = outside(env!("CARGO"))
        .args(["test", "--no-fail-fast", "--test", "it", "--test", "kms", "--test", "scenarios"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("AWS_ENDPOINT_URL_DYNAMODB", &url)
        .env("AWS_ENDPOINT_URL_KMS", &url)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env_remove("KEYWARD_URL")
        .env_remove("KEYWARD_ROOT_KEY")
        .status();
    assert!(suites.is_ok_and(|status| status.success()), "a suite fails on {image}");
}

async fn wait_for(url: &str) {
    for _ in 0..TIMEOUT.as_secs() {
        if reqwest::get(url).await.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{url} does not respond");
}

/// Makes the calls that each test begins with: its first calls take longer than Keyward waits for a response.
async fn warm_up(url: &str) {
    let patient =
        TimeoutConfig::builder().operation_timeout(TIMEOUT).operation_attempt_timeout(TIMEOUT).build();
    let config = keyward_runtime::sdk_config()
        .endpoint_url(url)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "emulator"))
        .timeout_config(patient)
        .load()
        .await;
    Installation::create_in(config.clone(), system_clock(), system_entropy()).await.expect("an installation");
    aws_sdk_kms::Client::new(&config).create_key().send().await.expect("a KMS key");
}
