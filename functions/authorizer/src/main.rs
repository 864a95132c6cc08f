//! The Lambda function `authorizer`.

// The future of a start within that of a request is nested deeper than the compiler goes by itself.
#![recursion_limit = "256"]

use authorizer::{Event, Settings, authorize};
use keyward_core::metric::Metric;
use keyward_pepper::forbid_core_dumps;
use keyward_runtime::{ColdStart, Services, start_log};
use lambda_http::{LambdaEvent, lambda_runtime, service_fn};
use tracing::{Instrument, field};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    forbid_core_dumps()?;
    start_log();
    let settings = Settings::from_env();
    let metric = Metric::InternalErrors.name();
    let settings =
        &settings.inspect_err(|error| tracing::error!(metric, %error, "the function cannot start"))?;
    let services = &ColdStart::new(Services::from_env);
    // At once, so that the first request need not wait for it.
    let _tried = services.started().await;
    let handler = async |event: LambdaEvent<Event>| {
        // As soon as it is known, the request's id is in it.
        let aws_request_id = event.context.request_id;
        let span = tracing::error_span!("request", request_id = field::Empty, aws_request_id);
        let authorized = async {
            match services.ready().await {
                Ok(services) => authorize(services, settings, event.payload).await,
                Err(error) => Err(error.into()),
            }
        };
        authorized.instrument(span).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
