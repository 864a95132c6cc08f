//! The Lambda function `authorizer`.

use authorizer::{Settings, authorize};
use lambda_http::{LambdaEvent, lambda_runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let services = &keyward_http::start().await?;
    let settings = Settings::from_env();
    let settings = &settings.inspect_err(|error| tracing::error!(%error, "the function cannot start"))?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<_>| authorize(services, settings, event.payload)))
        .await
}
