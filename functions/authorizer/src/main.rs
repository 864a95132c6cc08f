//! The Lambda function `authorizer`.

use lambda_http::{LambdaEvent, lambda_runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let services = &keyward_http::start().await?;
    let authorize = |event: LambdaEvent<_>| authorizer::authorize(services, event.payload);
    lambda_runtime::run(service_fn(authorize)).await
}
