//! Running as a Lambda function.

use std::convert::Infallible;
use std::env;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures::future::{BoxFuture, FutureExt};
use keyward_core::ErrorCode;
use keyward_core::metric::Metric;
use keyward_pepper::forbid_core_dumps;
use keyward_store::{system_clock, system_entropy};
use lambda_http::service_fn;
use tokio::sync::OnceCell;
use tower::ServiceExt;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::edge::refuse;
use crate::log::log_filter;
use crate::metrics::EmbeddedMetrics;
use crate::{ApiError, RequestId, Services, SettingsError, application};

/// How long a request waits for a function that could not start at first.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// What a function needs before it can answer: had when it starts or, where that failed, as soon as it can be had at a
/// later request.
pub struct Starting<T> {
    start: Start<T>,
    started: OnceCell<T>,
}

type Start<T> = Box<dyn Fn() -> BoxFuture<'static, Result<T, SettingsError>> + Send + Sync>;

impl<T> Starting<T> {
    /// What `start` makes, which is not called yet.
    pub fn new<F: Future<Output = Result<T, SettingsError>> + Send + 'static>(
        start: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { start: Box::new(move || start().boxed()), started: OnceCell::new() }
    }

    /// What was made, by this call if by none before.
    ///
    /// # Errors
    /// 503: it could not be made, which is in the log.
    pub async fn started(&self) -> Result<&T, ApiError> {
        let started = self.started.get_or_try_init(&*self.start).await;
        started.map_err(|error| {
            tracing::error!(metric = error.metric().name(), %error, "the function cannot start");
            not_ready()
        })
    }

    /// As [`Self::started`], for a request: in time to answer within two seconds.
    ///
    /// # Errors
    /// As [`Self::started`].
    pub async fn ready(&self) -> Result<&T, ApiError> {
        let in_time = tokio::time::timeout(PATIENCE, self.started()).await;
        in_time.unwrap_or_else(|_| {
            let metric = Metric::InternalErrors.name();
            tracing::error!(metric, "the function cannot start in time");
            Err(not_ready())
        })
    }
}

fn not_ready() -> ApiError {
    let message = "The service cannot start right now; try again";
    ApiError::new(ErrorCode::NotReady, message)
}

/// Serves the routes that `routes` gives, until the Lambda runtime ends the process. What a request decided is written
/// before it is answered, because the process may be frozen right after. A function that cannot start answers 503, and
/// tries again at the next request.
///
/// # Errors
/// As the Lambda runtime.
pub async fn run(routes: fn(&Services) -> Router<Services>) -> Result<(), lambda_http::Error> {
    forbid_core_dumps()?;
    start_log();
    let function = &function(Services::from_env, routes);
    // At once, so that the first request need not wait for it.
    let _tried = function.started().await;
    let answer = |request: lambda_http::Request| answer(function, request.map(Body::new));
    lambda_http::run(service_fn(answer)).await
}

/// A function with the routes that `routes` gives, on what `start` makes.
pub fn function<F: Future<Output = Result<Services, SettingsError>> + Send + 'static>(
    start: impl Fn() -> F + Send + Sync + 'static,
    routes: fn(&Services) -> Router<Services>,
) -> Starting<Router> {
    Starting::new(move || {
        let starting = start();
        async move {
            let services = starting.await?;
            let routes = routes(&services);
            Ok(application(routes, services.clone()).layer(from_fn_with_state(services, flush)))
        }
    })
}

/// The answer of a function that has started, or else 503.
///
/// # Errors
/// None.
pub async fn answer(function: &Starting<Router>, request: Request) -> Result<Response, Infallible> {
    let id = RequestId::mint(&system_clock(), &system_entropy());
    match function.ready().instrument(id.span(None)).await {
        Ok(application) => application.clone().oneshot(request).await,
        Err(error) => Ok(refuse(id, error, request).await),
    }
}

/// Starts the log of a function: JSON to standard output, with metrics in CloudWatch's embedded format.
pub fn start_log() {
    // The innermost span carries the ids of the request, which each line is to name.
    let lines = fmt::layer().json().with_span_list(false).with_filter(log_filter("info"));
    let installation = env::var("KEYWARD_INSTALLATION").unwrap_or_default();
    registry().with(lines).with(EmbeddedMetrics { installation }).init();
}

async fn flush(State(services): State<Services>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    services.recorder.flush().await;
    response
}
