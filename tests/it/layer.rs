//! The layer that checks keys in front of a service in Rust.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::request::Builder;
use axum::http::{Method, Request, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use chrono::TimeDelta;
use keyward_core::deployment::Mode;
use keyward_tests::{ApiResponse, Keyward, text};
use keyward_verifier::{AcceptedDeployment, ApiKeyLayer, Decision, Verifier};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

/// A verifier that may do to the table what the authorizer may.
fn verifier(keyward: &Keyward) -> Verifier {
    let services = &keyward.authorizer;
    Verifier::new(services.store.clone(), services.recorder.clone(), services.public.deployment_id())
}

fn layer(keyward: &Keyward) -> ApiKeyLayer {
    ApiKeyLayer::app(verifier(keyward), "acme").unwrap()
}

async fn show_caller(Extension(decision): Extension<Arc<Decision>>) -> Json<Value> {
    Json(json!({"key_id": decision.key.id, "permissions": decision.permissions}))
}

/// An API whose one path is behind this layer.
fn guarded(layer: ApiKeyLayer) -> Router {
    Router::new().route("/v1/users", get(show_caller)).route_layer(layer)
}

fn asking(path: &str) -> Builder {
    Request::builder().uri(path)
}

fn with(key: &str) -> Builder {
    asking("/v1/users").header("authorization", format!("Bearer {key}"))
}

async fn send(router: &Router, request: Builder) -> ApiResponse {
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    ApiResponse { status: parts.status.as_u16(), body, headers: parts.headers }
}

/// An app and a key of it with these members, as it was made.
async fn key(keyward: &Keyward, members: Value) -> Value {
    keyward.backend().create_app("acme").await;
    keyward.backend().create_key("acme", members).await
}

/// The newest row of the audit log about a verification.
async fn logged(keyward: &Keyward) -> Value {
    keyward.settle().await;
    let logs = keyward.backend().get("/api-auth/apps/acme/audit/logs").await.ok();
    let rows = logs["data"].as_array().unwrap();
    rows.iter().find(|row| row["action"] == "verification").unwrap().clone()
}

#[track_caller]
fn is_refused<'a>(
    response: &'a ApiResponse,
    status: u16,
    code: &str,
    challenge: Option<&str>,
) -> &'a ApiResponse {
    response.is_error(status, code);
    assert_eq!(response.body["errors"][0]["code"], status);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("www-authenticate"), challenge);
    response
}

const NO_KEY: Option<&str> = Some("Bearer realm=\"api\"");
const INVALID: Option<&str> = Some("Bearer realm=\"api\", error=\"invalid_token\"");

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_valid_key_is_answered_with_401() {
    let keyward = Keyward::start().await;
    let api = guarded(layer(&keyward));
    let expires = keyward.services.store.clock().now() + TimeDelta::hours(1);
    let secret = text(&key(&keyward, json!({"expires_at": expires})).await["secret"]);
    let other_scheme = asking("/v1/users").header("authorization", "Basic eA==");
    for request in [asking("/v1/users"), with(""), other_scheme] {
        let response = send(&api, request).await;
        is_refused(&response, 401, "missing_api_key", NO_KEY);
        assert!(response.body["request_id"].is_null(), "it is in no log");
    }
    let last = if secret.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("{}{last}", &secret[..secret.len() - 1]);
    for wrong in ["x", mistyped.as_str(), keyward.described.root_key.as_str()] {
        is_refused(&send(&api, with(wrong)).await, 401, "invalid_api_key", INVALID);
    }
    assert_eq!(send(&api, with(&secret)).await.status, 200);
    keyward.pass(TimeDelta::hours(2));
    let response = send(&api, with(&secret)).await;
    is_refused(&response, 401, "key_expired", INVALID);
    assert_eq!(logged(&keyward).await["request_id"], response.body["request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_either_header() {
    let keyward = Keyward::start().await;
    let api = guarded(layer(&keyward));
    let created = key(&keyward, json!({})).await;
    let secret = text(&created["secret"]);
    for request in [
        with(&secret),
        asking("/v1/users").header("authorization", format!("bEARER  {secret}")),
        asking("/v1/users").header("x-api-key", &secret),
        asking("/v1/users").header("x-api-key", &secret).header("authorization", "Basic eA=="),
        with(&secret).header("x-api-key", "another"),
    ] {
        assert_eq!(send(&api, request).await.ok()["key_id"], created["id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_and_a_disabled_app_are_answered_with_403() {
    let keyward = Keyward::start().await;
    let api = guarded(layer(&keyward));
    let created = key(&keyward, json!({})).await;
    let other = keyward.backend().create_key("acme", json!({})).await;
    let (secret, other) = (text(&created["secret"]), text(&other["secret"]));
    assert_eq!(send(&api, with(&secret)).await.status, 200);
    keyward.backend().revoke("acme", &text(&created["id"])).await.ok();
    let response = send(&api, with(&secret)).await;
    is_refused(&response, 403, "key_revoked", None);
    let row = logged(&keyward).await;
    assert_eq!((&row["request_id"], &row["outcome"]), (&response.body["request_id"], &json!("blocked")));

    keyward.backend().patch("/api-auth/apps/acme", json!({"is_active": false})).await.ok();
    is_refused(&send(&api, with(&other)).await, 403, "app_disabled", None);
    keyward.backend().delete("/api-auth/apps/acme").await.ok();
    is_refused(&send(&api, with(&other)).await, 403, "app_deleted", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_the_layer_requires_is_needed() {
    let keyward = Keyward::start().await;
    let reads = text(&key(&keyward, json!({"permissions": ["users:read"]})).await["secret"]);
    let both = keyward.backend().create_key("acme", json!({"permissions": ["users:*"]})).await;
    let both = text(&both["secret"]);
    let layer = layer(&keyward).require("users:read OR admin").unwrap();
    assert_eq!(send(&guarded(layer.clone()), with(&reads)).await.ok()["permissions"], json!(["users:read"]));
    let api = guarded(layer.require("users:write").unwrap());
    assert_eq!(send(&api, with(&both)).await.status, 200);
    let response = send(&api, with(&reads)).await;
    let challenge = Some("Bearer realm=\"api\", error=\"insufficient_scope\"");
    is_refused(&response, 403, "permission_denied", challenge);
    assert!(response.body["request_id"].is_string());

    let wrong = ApiKeyLayer::any_app(verifier(&keyward)).require("users:read AND").unwrap_err().to_string();
    assert_eq!(wrong, "permissions is wrong at character 15: expected a permission or '('");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_in_headers_and_reached_with_429() {
    let keyward = Keyward::start().await;
    let api = guarded(layer(&keyward));
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1}]);
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    keyward.backend().post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let secret = text(&key(&keyward, json!({"rate_limit_scheme_slug": "s"})).await["secret"]);
    let allowed = send(&api, with(&secret)).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("ratelimit-policy"), Some("\"1/86400s\";q=1;w=86400"));
    assert!(allowed.header("ratelimit").unwrap().starts_with("\"1/86400s\";r=0;t="));
    assert_eq!(allowed.header("x-ratelimit-86400s-remaining"), Some("0"));
    let response = send(&api, with(&secret)).await;
    is_refused(&response, 429, "rate_limited", None);
    let retry_after: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!(retry_after > 86_000, "{retry_after}");
    assert_eq!(response.header("ratelimit-policy"), Some("\"1/86400s\";q=1;w=86400"));
    assert_eq!(response.header("x-ratelimit-86400s-reset"), Some(retry_after.to_string().as_str()));
    assert_eq!(logged(&keyward).await["request_id"], response.body["request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_answered_with_503() {
    let keyward = Keyward::start().await;
    let api = guarded(layer(&keyward));
    let secret = text(&key(&keyward, json!({})).await["secret"]);
    keyward.calls.fail(true);
    let response = send(&api, with(&secret)).await;
    is_refused(&response, 503, "store_unavailable", None);
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(
        !response.body.to_string().contains("made to fail"),
        "details are for the log: {}",
        response.body
    );
    is_refused(&send(&api, with("x")).await, 401, "invalid_api_key", INVALID);
    keyward.calls.fail(false);
    assert_eq!(send(&api, with(&secret)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_link_to_their_pages_where_the_installation_is_known() {
    let keyward = Keyward::start().await;
    let url = "https://keys.example.com/installation/";
    let api = guarded(layer(&keyward).public_url(url).unwrap());
    for (request, code) in [(asking("/v1/users"), "missing_api_key"), (with("x"), "invalid_api_key")] {
        let response = send(&api, request).await;
        assert_eq!(response.body["doc_url"], format!("{url}errors/{code}"));
    }
    assert!(send(&guarded(layer(&keyward)), asking("/v1/users")).await.body.get("doc_url").is_none());
    let refused = layer(&keyward).public_url("keys.example.com").unwrap_err();
    assert!(refused.to_string().starts_with("public_url must be a URL"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_is_that_which_the_client_asked_for() {
    let keyward = Keyward::start().await;
    let secret = text(&key(&keyward, json!({"permissions": ["users:read"]})).await["secret"]);
    let routes = json!({"route_permissions": [{"path": "/api/users/*", "permissions": ["users:write"]}]});
    keyward.backend().patch("/api-auth/apps/acme", routes).await.ok();
    let users = || Router::new().route("/users/{id}", get(show_caller));
    let inside = Router::new().nest("/api", users().route_layer(layer(&keyward)));
    let outside = Router::new().nest("/api", users()).layer(layer(&keyward));
    let elsewhere = Router::new().nest("/other", users().route_layer(layer(&keyward)));
    let bearing =
        |path: &str| Request::builder().uri(path).header("authorization", format!("Bearer {secret}"));
    for api in [inside, outside] {
        let response = send(&api, bearing("/api/users/1?secret=x")).await;
        response.is_error(403, "permission_denied");
        let row = logged(&keyward).await;
        assert_eq!(
            (&row["request_id"], &row["path"]),
            (&response.body["request_id"], &json!("GET /api/users/1"))
        );
    }
    assert_eq!(send(&elsewhere, bearing("/other/users/1")).await.status, 200);
    let long = format!("/other/users/{}", "a".repeat(3_000));
    send(&elsewhere, bearing(&long)).await.is_error(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_needs_a_key_preflights_too() {
    let keyward = Keyward::start().await;
    let secret = text(&key(&keyward, json!({})).await["secret"]);
    let api = guarded(layer(&keyward));
    let head = send(&api, asking("/v1/users").method(Method::HEAD)).await;
    assert_eq!((head.status, head.header("www-authenticate"), &head.body), (401, NO_KEY, &Value::Null));
    assert_eq!(send(&api, with(&secret).method(Method::HEAD)).await.status, 200);
    assert_eq!(send(&api, asking("/v1/others")).await.status, 404, "outside of route_layer");

    let everywhere = Router::new().route("/v1/users", get(show_caller)).layer(layer(&keyward));
    let preflight = || {
        let request = asking("/v1/users").method(Method::OPTIONS).header("origin", "https://app.example.com");
        request.header("access-control-request-method", "GET")
    };
    is_refused(&send(&everywhere, preflight()).await, 401, "missing_api_key", NO_KEY);
    send(&everywhere, with(&secret).method("PROPFIND")).await.is_error(400, "invalid_field");
    for path in ["/x/../v1/users", "/x/..;/v1/users", "/x/%2e%2e%3b/v1/users", "/v1/users/%00", "*"] {
        let sent = asking(path).header("authorization", format!("Bearer {secret}"));
        send(&everywhere, sent).await.is_error(400, "invalid_field");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_whoever_is_connected_or_whom_a_function_names() {
    let keyward = Keyward::start().await;
    let secret = text(&key(&keyward, json!({})).await["secret"]);
    let peer: SocketAddr = "192.0.2.7:1234".parse().unwrap();
    let from = |peer: SocketAddr| {
        let claims = with(&secret).header("user-agent", "curl/8");
        claims.extension(ConnectInfo(peer))
    };
    let claiming = |client: &str| from(peer).header("x-forwarded-for", client);
    let api = guarded(layer(&keyward));
    send(&api, claiming("203.0.113.9")).await.ok();
    let row = logged(&keyward).await;
    assert_eq!((&row["client_ip"], &row["user_agent"]), (&json!("192.0.2.7"), &json!("curl/8")));
    let forwarded = layer(&keyward).client_ip(|parts| {
        let hop = parts.headers.get("x-forwarded-for")?.to_str().ok()?;
        hop.parse().ok()
    });
    let api = guarded(forwarded);
    for (claimed, client) in [
        ("203.0.113.9:1111", "203.0.113.9"),
        ("unknown", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
    ] {
        send(&api, claiming(claimed)).await.ok();
        assert_eq!(logged(&keyward).await["client_ip"], client, "{claimed}");
    }
}

/// A service of which a clone is not ready until it was asked.
#[derive(Default)]
struct AskedFirst(bool);

impl Clone for AskedFirst {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Service<Request<String>> for AskedFirst {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(self.0, "called before it was ready");
        let decision = request.extensions().get::<Arc<Decision>>();
        ready(Ok(Response::new(decision.map(|decision| decision.key.id.to_string()).unwrap_or_default())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_service_can_be_inside_and_is_called_when_it_is_ready() {
    let keyward = Keyward::start().await;
    let created = key(&keyward, json!({})).await;
    let mut service = layer(&keyward).layer(AskedFirst::default());
    for _ in 0..2 {
        let request = with(&text(&created["secret"])).body(String::new()).unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.body(), created["id"].as_str().unwrap());
    }
    let request = asking("/").body(String::new()).unwrap();
    assert_eq!(service.ready().await.unwrap().call(request).await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_app_is_no_key_here() {
    let keyward = Keyward::start().await;
    let (_, elsewhere) = keyward.other_deployment(Mode::Staging, &[]).await;
    let mut secrets = vec![];
    for (backend, slug) in [
        (&keyward.backend(), "acme"),
        (&keyward.backend(), "beta"),
        (&keyward.backend(), "gamma"),
        (&elsewhere, "acme"),
    ] {
        backend.create_app(slug).await;
        secrets.push(text(&backend.create_key(slug, json!({})).await["secret"]));
    }
    let statuses = async |layer: ApiKeyLayer| {
        let api = guarded(layer);
        let mut statuses = vec![];
        for secret in &secrets {
            let response = send(&api, with(secret)).await;
            if response.status != 200 {
                is_refused(&response, 401, "invalid_api_key", INVALID);
                assert_eq!(response.body, send(&api, with("x")).await.body, "as what is no key");
            }
            statuses.push(response.status);
        }
        statuses
    };
    let acme = || ApiKeyLayer::app(verifier(&keyward), "acme").unwrap();
    let any = || ApiKeyLayer::any_app(verifier(&keyward));
    assert_eq!(statuses(acme()).await, [200, 401, 401, 401]);
    assert_eq!(statuses(acme().or_app("beta").unwrap()).await, [200, 200, 401, 401]);
    assert_eq!(statuses(any()).await, [200, 200, 200, 401], "of the first deployment");
    assert_eq!(statuses(any().or_app("beta").unwrap()).await, [200, 200, 200, 401]);
    let there = AcceptedDeployment::Id(
        text(&elsewhere.get("/api-auth/apps/acme").await.ok()["deployment_id"]).parse().unwrap(),
    );
    assert_eq!(statuses(acme().deployment(there)).await, [401, 401, 401, 200]);
    assert_eq!(statuses(any().deployment(AcceptedDeployment::Any)).await, [200; 4]);
    let wrong = ApiKeyLayer::app(verifier(&keyward), "Acme").unwrap_err().to_string();
    assert!(wrong.starts_with("app must be 1 to 64 lower-case letters"), "{wrong}");
    keyward.settle().await;
    let log = elsewhere.get("/api-auth/apps/acme/audit/logs?outcome=blocked").await.ok();
    assert_eq!(log["data"], json!([]), "no log tells of requests to another's API");
}
