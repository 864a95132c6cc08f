//! What a browser asks first: exchange a ticket, who am I, which deployment is this; and the public keys.

mod deployment;
mod session;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use keyward_core::instant::Instant;
use keyward_http::{Data, Services, backend, frontend};
use serde::Serialize;

/// The routes of this function.
pub fn routes(services: &Services) -> Router<Services> {
    let browser = Router::new()
        .route("/session/ticket/exchange", get(session::exchange).head(session::no_head))
        .route("/api-auth/session", get(session::current))
        .route("/deployment", get(deployment::describe))
        .route("/.well-known/jwk", get(deployment::jwk));
    let open =
        Router::new().route("/.well-known/jwks.json", get(deployment::jwks)).route("/health", get(health));
    frontend(browser, services.clone()).merge(backend(open))
}

/// That requests are answered.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    timestamp: Instant,
}

async fn health(State(services): State<Services>) -> Data<Health> {
    Data(Health { status: "healthy", timestamp: services.store.clock().now().into() })
}
