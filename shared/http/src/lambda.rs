//! Serving routes as a Lambda function.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use keyward_audit::Recorder;
use keyward_core::ErrorCode;
use keyward_runtime::{ColdStart, NotReady, Services, SettingsError, block_on};
use keyward_store::{system_clock, system_entropy};
use lambda_http::{IntoResponse, service_fn};
use tower::ServiceExt;
use tracing::Instrument;

use crate::edge::refuse;
use crate::{ApiError, RequestId, application};

impl From<NotReady> for ApiError {
    fn from(error: NotReady) -> Self {
        Self::new(ErrorCode::NotReady, error.to_string())
    }
}

/// The routes of a function, and what records its decisions.
pub struct Application {
    routes: Router,
    recorder: Recorder,
}

/// Serves the routes that `routes` gives, until the Lambda runtime ends the process. What a request decided is written
/// after the response. A function that cannot start responds with 503, and tries again at the next request.
///
/// # Errors
/// As the Lambda runtime.
pub fn run(routes: fn(&Services) -> Router<Services>) -> Result<(), lambda_http::Error> {
    let function = function(Services::from_env, routes);
    let runtime = |function: Arc<ColdStart<Application>>| {
        lambda_http::runtime_concurrent(service_fn(move |request: lambda_http::Request| {
            let function = function.clone();
            async move {
                let Ok(response) = respond(&function, request.map(Body::new)).await;
                Ok::<_, Infallible>(response.into_response().await)
            }
        }))
    };
    block_on(function.serve(|application| &application.recorder, runtime))
}

/// A function with the routes that `routes` gives, on what `start` makes.
pub fn function<F: Future<Output = Result<Services, SettingsError>> + Send + 'static>(
    start: impl Fn() -> F + Send + Sync + 'static,
    routes: fn(&Services) -> Router<Services>,
) -> ColdStart<Application> {
    ColdStart::new(move || {
        let starting = start();
        async move {
            let services = starting.await?;
            let recorder = services.recorder.clone();
            Ok(Application { routes: application(routes(&services), services), recorder })
        }
    })
}

/// The response of a function that has started, or else 503.
///
/// # Errors
/// None.
pub async fn respond(function: &ColdStart<Application>, request: Request) -> Result<Response, Infallible> {
    let id = RequestId::mint(&system_clock(), &system_entropy());
    match function.ready().instrument(id.span(None)).await {
        Ok(application) => application.routes.clone().oneshot(request).await,
        Err(error) => Ok(refuse(id, error.into(), request).await),
    }
}
