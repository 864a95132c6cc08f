//! The Lambda function `authorizer`.

// The future of a start within that of a request is nested deeper than the compiler goes by itself.
#![recursion_limit = "256"]

use authorizer::{Event, Settings, authorize};
use keyward_runtime::{ColdStart, Services};
use lambda_http::{LambdaEvent, lambda_runtime, service_fn};
use tracing::{Instrument, field};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let function = ColdStart::new(|| async { Ok((Settings::from_env()?, Services::from_env().await?)) });
    let function = &function.begin().await?;
    let handler = async |event: LambdaEvent<Event>| {
        // As soon as it is known, the request's id is in it.
        let aws_request_id = event.context.request_id;
        let span = tracing::error_span!("request", request_id = field::Empty, aws_request_id);
        let authorized = async {
            let (settings, services) = function.ready().await?;
            authorize(services, settings, event.payload).await
        };
        authorized.instrument(span).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
