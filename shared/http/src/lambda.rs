//! Running as a Lambda function.

use std::env;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use keyward_core::metric::Metric;
use keyward_pepper::PepperError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::metrics::EmbeddedMetrics;
use crate::{Services, SettingsError, application};

/// Serves the routes that `routes` gives, until the Lambda runtime ends the process. What a request decided is written
/// before it is answered, because the process may be frozen right after.
///
/// # Errors
/// As [`start`].
pub async fn run(routes: impl FnOnce(&Services) -> Router<Services>) -> Result<(), lambda_http::Error> {
    let services = start().await?;
    let routes = routes(&services);
    let application = application(routes, services.clone()).layer(from_fn_with_state(services, flush));
    lambda_http::run(application).await
}

/// Starts the log and what all handlers share, as the environment says.
///
/// # Errors
/// The function cannot start, which Lambda reports as an initialisation error.
pub async fn start() -> Result<Services, lambda_http::Error> {
    // The span of the runtime carries the id of the request, which each line is to name.
    let lines = fmt::layer().json().with_span_list(false).with_filter(filter());
    let installation = env::var("KEYWARD_INSTALLATION").unwrap_or_default();
    registry().with(lines).with(EmbeddedMetrics { installation }).init();
    match Services::from_env().await {
        Ok(services) => Ok(services),
        Err(error) => {
            if let SettingsError::Pepper(PepperError::Kms(_)) = error {
                tracing::error!(metric = Metric::KmsFailures.name(), %error, "the function cannot start");
            } else {
                tracing::error!(%error, "the function cannot start");
            }
            Err(error.into())
        }
    }
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
