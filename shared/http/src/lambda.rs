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
    tracing_subscriber::fmt().json().with_span_list(false).with_env_filter(filter()).init();
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

/// What `KEYWARD_LOG` asks for, but never the runtime's own account of the events that it receives: those hold tickets
/// and session tokens.
fn filter() -> EnvFilter {
    let asked = EnvFilter::try_from_env("KEYWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    ["lambda_http=info", "lambda_runtime=info", "lambda_runtime_api_client=info"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(asked, EnvFilter::add_directive)
}

async fn flush(State(services): State<Services>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    services.recorder.flush().await;
    response
}
