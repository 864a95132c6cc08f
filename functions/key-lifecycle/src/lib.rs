//! Apps, keys and rate-limit schemes: for backends with a root key, and keys for browsers with a session.

mod apps;
mod body;
mod keys;
mod schemes;
mod session_keys;

use axum::Router;
use axum::routing::{get, post};
use keyward_http::{Services, backend, frontend};

/// The routes of this function.
pub fn routes(services: &Services) -> Router<Services> {
    let server = Router::new()
        .route("/api-auth/apps", get(apps::list).post(apps::create))
        .route("/api-auth/apps/{slug}", get(apps::get).patch(apps::update).delete(apps::delete))
        .route("/api-auth/apps/{slug}/keys", get(keys::list).post(keys::create))
        .route("/api-auth/apps/{slug}/keys/{id}/rotate", post(keys::rotate))
        .route("/api-auth/apps/{slug}/keys/{id}/revoke", post(keys::revoke))
        .route("/api-auth/keys/rotate", post(keys::rotate_by_id))
        .route("/api-auth/keys/revoke", post(keys::revoke_by_id))
        .route("/api-auth/rate-limit-schemes", get(schemes::list).post(schemes::create))
        .route(
            "/api-auth/rate-limit-schemes/{slug}",
            get(schemes::get).patch(schemes::update).delete(schemes::delete),
        );
    let browser = Router::new()
        .route("/api-auth/keys", get(session_keys::list).post(session_keys::create))
        .route("/api-auth/keys/{id}/rotate", post(session_keys::rotate))
        .route("/api-auth/keys/{id}/revoke", post(session_keys::revoke));
    backend(server).merge(frontend(browser, services.clone()))
}
