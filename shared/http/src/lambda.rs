//! Running routes as a Lambda function.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tracing_subscriber::EnvFilter;

use crate::{Services, application};

/// Serves the routes that `routes` gives, until the Lambda runtime ends the process. What a request decided is written
/// before it is answered, because the process may be frozen right after.
///
/// # Errors
/// The function cannot start, which Lambda reports as an initialisation error.
pub async fn run(routes: impl FnOnce(&Services) -> Router<Services>) -> Result<(), lambda_http::Error> {
    let filter = EnvFilter::try_from_env("KEYWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    let services = match Services::from_env().await {
        Ok(services) => services,
        Err(error) => {
            tracing::error!(%error, "the function cannot start");
            return Err(error.into());
        }
    };
    let routes = routes(&services);
    let application = application(routes, services.clone()).layer(from_fn_with_state(services, flush));
    lambda_http::run(application).await
}

async fn flush(State(services): State<Services>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    services.recorder.flush().await;
    response
}
