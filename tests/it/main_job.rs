//! The main job from end to end, as a backend, a browser and the SaaS's API do it.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use keyward_http::application;
use keyward_tests::{Keyward, scenario, text};
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_used_revoked_and_refused_and_all_of_it_is_in_the_log() {
    let keyward = Keyward::start().await;
    scenario::main_job(&keyward.backend()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_keeps_the_id_and_ends_the_old_secret() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let members = json!({"metadata": {"plan": "pro"}, "permissions": ["users:read"]});
    let created = backend.create_key("acme", members).await;
    let old = text(&created["secret"]);
    let rotated = backend.rotate("acme", &text(&created["id"])).await.ok();
    let new = text(&rotated["secret"]);
    for member in ["id", "name", "metadata", "permissions", "created_at", "key_prefix"] {
        assert_eq!(rotated[member], created[member], "{member}");
    }
    assert_ne!(old, new);
    keyward.check(&old).await.is_error(401, "invalid_api_key");
    assert_eq!(keyward.check(&new).await.ok()["allowed"], true);

    let mut browser = backend.browser("acme").await;
    let path = format!("/api-auth/keys/{}/rotate", text(&created["id"]));
    let again = browser.post(&path).await.ok();
    assert_eq!(again["data"]["id"], created["id"]);
    keyward.check(&new).await.is_error(401, "invalid_api_key");
    assert_eq!(keyward.check(&text(&again["data"]["secret"])).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_answered_by_the_function_that_the_router_names() {
    let keyward = Keyward::start().await;
    let services = &keyward.services;
    for route in crate::tenancy::routes() {
        let routes = match route.function.as_str() {
            "ticket-issuance" => ticket_issuance::routes(services),
            "ticket-exchange" => ticket_exchange::routes(services),
            "key-lifecycle" => key_lifecycle::routes(services),
            "verify" => verify::routes(services),
            "audit-query" => audit_query::routes(services),
            "hosted-page" => hosted_page::routes(services),
            unknown => panic!("{unknown}"),
        };
        let path = route.path.replace("{slug}", "x").replace("{id}", "1");
        let request = Request::builder().method(route.method.as_str()).uri(&path);
        let request = request.body(Body::empty()).unwrap();
        let response = application(routes, services.clone()).oneshot(request).await.unwrap();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        // The hosted page is not JSON, but every error is.
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        assert_ne!(body["code"], "route_not_found", "{} {path}", route.method);
        assert_ne!(body["code"], "method_not_allowed", "{} {path}", route.method);
    }
}
