//! `GET /health`.

use axum::extract::State;
use keyward_core::instant::Instant;
use keyward_http::Data;
use keyward_runtime::Services;
use serde::Serialize;
use utoipa::ToSchema;

/// The health of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `healthy`.
    status: &'static str,
    timestamp: Instant,
}

/// Reports that the API responds.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "Installation", responses((status = 200, body = Health)))]
pub(crate) async fn health(State(services): State<Services>) -> Data<Health> {
    Data(Health { status: "healthy", timestamp: services.store.clock().now().into() })
}
