//! Serving routes as a Lambda function.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use keyward_core::ErrorCode;
use keyward_runtime::{ColdStart, NotReady, Services, SettingsError};
use keyward_store::{system_clock, system_entropy};
use lambda_http::service_fn;
use tower::ServiceExt;
use tracing::Instrument;

use crate::edge::refuse;
use crate::{ApiError, RequestId, application};

impl From<NotReady> for ApiError {
    fn from(error: NotReady) -> Self {
        Self::new(ErrorCode::NotReady, error.to_string())
    }
}

/// Serves the routes that `routes` gives, until the Lambda runtime ends the process. What a request decided is written
/// before the response, because the process may be frozen right after. A function that cannot start responds with 503, and
/// tries again at the next request.
///
/// # Errors
/// As the Lambda runtime.
pub async fn run(routes: fn(&Services) -> Router<Services>) -> Result<(), lambda_http::Error> {
    let function = &function(Services::from_env, routes).begin().await?;
    let handler = |request: lambda_http::Request| respond(function, request.map(Body::new));
    lambda_http::run(service_fn(handler)).await
}

/// A function with the routes that `routes` gives, on what `start` makes.
pub fn function<F: Future<Output = Result<Services, SettingsError>> + Send + 'static>(
    start: impl Fn() -> F + Send + Sync + 'static,
    routes: fn(&Services) -> Router<Services>,
) -> ColdStart<Router> {
    ColdStart::new(move || {
        let starting = start();
        async move {
            let services = starting.await?;
            let routes = routes(&services);
            Ok(application(routes, services.clone()).layer(from_fn_with_state(services, flush)))
        }
    })
}

/// The response of a function that has started, or else 503.
///
/// # Errors
/// None.
pub async fn respond(function: &ColdStart<Router>, request: Request) -> Result<Response, Infallible> {
    let id = RequestId::mint(&system_clock(), &system_entropy());
    match function.ready().instrument(id.span(None)).await {
        Ok(application) => application.clone().oneshot(request).await,
        Err(error) => Ok(refuse(id, error.into(), request).await),
    }
}

async fn flush(State(services): State<Services>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    services.recorder.flush().await;
    response
}
