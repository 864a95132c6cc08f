//! The Lambda function `authorizer`.

// The future of a start within that of a request is nested deeper than the compiler goes by itself.
#![recursion_limit = "256"]

use std::sync::Arc;

use authorizer::{Event, Settings, authorize};
use keyward_runtime::{ColdStart, Services, block_on};
use lambda_http::lambda_runtime::Runtime;
use lambda_http::{LambdaEvent, service_fn};
use tracing::{Instrument, field};

type Function = ColdStart<(Settings, Services)>;

fn main() -> Result<(), lambda_http::Error> {
    let function = Function::new(|| async { Ok((Settings::from_env()?, Services::from_env().await?)) });
    let runtime = |function: Arc<Function>| {
        Runtime::new(service_fn(move |event: LambdaEvent<Event>| {
            let function = function.clone();
            // As soon as it is known, the request's id is in it.
            let aws_request_id = event.context.request_id;
            let span = tracing::error_span!("request", request_id = field::Empty, aws_request_id);
            let authorized = async move {
                let (settings, services) = function.ready().await?;
                authorize(services, settings, event.payload).await
            };
            authorized.instrument(span)
        }))
    };
    block_on(function.serve(|(_, services)| &services.recorder, runtime))
}
