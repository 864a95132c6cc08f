//! `GET /openapi.json`.

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};

use crate::page::{REVALIDATE, response};

/// `docs/openapi.json`, which `cargo xtask routes` writes.
const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

/// Describes this API, as an OpenAPI 3.1 document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "Installation",
    responses((status = 200, body = Object)),
)]
pub(crate) async fn document() -> Response {
    response("application/json", REVALIDATE, Bytes::from_static(DOCUMENT.as_bytes())).into_response()
}
