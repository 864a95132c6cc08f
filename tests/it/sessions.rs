//! Tickets and sessions: lifetimes, both transports, origins.

use chrono::TimeDelta;
use keyward_core::deployment::Mode;
use keyward_core::root_key::Scope;
use keyward_runtime::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use keyward_tests::{ApiResponse, Browser, Keyward, text};

const PAGE: &str = "https://app.example.com";

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_used_once_and_the_browser_that_won_may_ask_again() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let ticket = backend.ticket("acme").await;
    let mut winner = Browser::new(&backend);
    let won = winner.exchange(&ticket).await.ok();
    let session = winner.session.clone();
    let again = winner.exchange(&ticket).await.ok();
    assert_eq!(again["data"]["session_id"], won["data"]["session_id"]);
    assert_eq!(winner.session, session, "no second session");

    Browser::new(&backend).exchange(&ticket).await.is_error(401, "invalid_ticket");
    let mut somebody_else = backend.browser("acme").await;
    somebody_else.exchange(&ticket).await.is_error(401, "invalid_ticket");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_used_and_expired_tickets_are_answered_alike() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let expired = backend.ticket_with("acme", json!({"expires_in": 60})).await;
    keyward.pass(TimeDelta::seconds(60));
    let used = backend.ticket("acme").await;
    Browser::new(&backend).exchange(&used).await.ok();
    let unknown = Keyward::start().await;
    unknown.backend().create_app("acme").await;
    let unknown = unknown.backend().ticket("acme").await;
    let deleted = {
        backend.create_app("gone").await;
        let ticket = backend.ticket("gone").await;
        backend.delete("/api-auth/apps/gone").await.ok();
        ticket
    };
    let mut bodies = vec![];
    for ticket in [expired.as_str(), &used, &unknown, &deleted, "garbage", &backend.root_key] {
        let response = Browser::new(&backend).exchange(ticket).await;
        bodies.push(response.is_error(401, "invalid_ticket").without_id());
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    Browser::new(&backend).exchange("").await.is_error(400, "ticket_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_idle_and_at_last_however_busy() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut idle = backend.browser("acme").await;
    keyward.pass(TimeDelta::minutes(29));
    idle.get("/api-auth/session").await.ok();
    keyward.pass(TimeDelta::minutes(29));
    idle.get("/api-auth/session").await.ok();
    keyward.pass(TimeDelta::minutes(30));
    idle.get("/api-auth/session").await.is_error(401, "no_session");

    let mut busy = backend.browser("acme").await;
    for _ in 0..35 {
        keyward.pass(TimeDelta::minutes(20));
        busy.get("/api-auth/session").await.ok();
    }
    keyward.pass(TimeDelta::minutes(20));
    busy.get("/api-auth/session").await.is_error(401, "no_session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_do_what_its_ticket_says() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let id = text(&backend.create_key("acme", json!({})).await["id"]);
    let ticket = backend
        .ticket_with("acme", json!({"user_id": "usr_1", "capabilities": ["keys:read", "keys:rotate"]}))
        .await;
    let mut browser = Browser::new(&backend);
    browser.exchange(&ticket).await.ok();
    browser.get("/api-auth/keys").await.ok();
    browser.post(&format!("/api-auth/keys/{id}/rotate")).await.ok();
    for refused in [
        browser.post_form("/api-auth/keys", &[("name", "x")]).await,
        browser.post(&format!("/api-auth/keys/{id}/revoke")).await,
        browser.get("/api-auth/audit/logs").await,
        browser.get("/api-auth/audit/analytics").await,
        browser.get("/api-auth/audit/timeseries").await,
    ] {
        refused.is_error(403, "forbidden");
    }
    let log = backend.get("/api-auth/apps/acme/audit/logs").await.ok();
    assert_eq!(log["data"][0]["action"], "key.rotated");
    assert_eq!(log["data"][0]["actor"]["user_id"], "usr_1");
}

#[tokio::test(flavor = "multi_thread")]
async fn issuing_checks_the_app_and_audits_refusals() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let ask = |members: Value| {
        let mut body = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "acme"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        backend.post("/session/tickets", body)
    };
    ask(json!({"api_auth_app_slug": "nope"})).await.is_error(404, "not_found");
    backend.patch("/api-auth/apps/acme", json!({"is_active": false})).await.ok();
    ask(json!({})).await.is_error(403, "forbidden");
    let log = backend.get("/api-auth/apps/acme/audit/logs").await.ok();
    assert_eq!(log["data"][0]["action"], "ticket.refused");
    assert_eq!(log["data"][0]["blocked_by_rule"], "app_disabled");
    backend.patch("/api-auth/apps/acme", json!({"is_active": true})).await.ok();

    for (members, status, code) in [
        (json!({"expires_in": 0}), 400, "invalid_field"),
        (json!({"expires_in": 3601}), 400, "invalid_field"),
        (json!({"expires_in": -1}), 422, "invalid_body"),
        (json!({"expires_in": 1.5}), 422, "invalid_body"),
        (json!({"ticket_type": "nonsense"}), 400, "invalid_ticket_type"),
        (json!({"ticket_type": "impersonation"}), 400, "unsupported_ticket_type"),
        (json!({"api_auth_app_slug": null}), 400, "invalid_field"),
        (json!({"api_auth_app_slug": ""}), 400, "invalid_field"),
        (json!({"capabilities": []}), 400, "invalid_field"),
        (json!({"capabilities": ["keys:delete"]}), 400, "invalid_field"),
        (json!({"user_id": ""}), 400, "invalid_field"),
        (json!({"ticket_type": null}), 422, "invalid_body"),
    ] {
        ask(members).await.is_error(status, code);
    }
    ask(json!({"expires_in": 3600, "user_id": 42, "agent_ids": null})).await.ok();
    let only_manage = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    let body = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "acme"});
    only_manage.post("/session/tickets", body).await.is_error(403, "forbidden");
    let log = backend.get("/api-auth/apps/acme/audit/logs").await.ok();
    assert_eq!(log["data"][0]["action"], "ticket.refused");
    assert_eq!(log["data"][0]["blocked_by_rule"], "forbidden");
}

/// A browser in production mode: the session travels in a cookie.
struct CookieBrowser<'k> {
    keyward: &'k Keyward,
    cookie: String,
}

impl CookieBrowser<'_> {
    async fn send(&self, method: Method, path: &str, origin: Option<&str>) -> ApiResponse {
        let url = format!("{}{path}", self.keyward.url);
        let mut request = self.keyward.http.request(method, url).header("cookie", &self.cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        ApiResponse::of(request.send().await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_production_the_session_is_a_cookie_and_changes_need_an_allowed_origin() {
    let keyward = Keyward::start().await;
    let (_, backend) = keyward.other_deployment(Mode::Production, &[PAGE]).await;
    backend.create_app("acme").await;
    let ticket = backend.ticket("acme").await;
    let url = format!("{}/session/ticket/exchange?ticket={ticket}", keyward.url);
    let response = ApiResponse::of(keyward.http.get(url).header("origin", PAGE).send().await.unwrap()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert!(response.header("x-development-session").is_none());
    let set = response.header("set-cookie").unwrap().to_owned();
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-session=kw_session_"), "{pair}");
    assert_eq!(attributes, "Path=/; Max-Age=1800; HttpOnly; Secure; SameSite=None; Partitioned");

    let browser = CookieBrowser { keyward: &keyward, cookie: format!("other=1; {pair}; theme=dark") };
    let listed = browser.send(Method::GET, "/api-auth/keys", Some(PAGE)).await;
    assert!(listed.header("set-cookie").is_some_and(|set| set.starts_with(pair)), "sliding");
    listed.ok();
    let forms = "/api-auth/keys/1/rotate";
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let refused = browser.send(Method::POST, forms, origin).await;
        refused.is_error(403, "origin_not_allowed");
        assert!(refused.header("access-control-allow-origin").is_none());
    }
    browser.send(Method::POST, forms, Some(PAGE)).await.is_error(404, "not_found");
    browser.send(Method::POST, forms, Some(&keyward.url)).await.is_error(404, "not_found");

    // The query parameter is for staging only.
    let token = pair.strip_prefix("__Host-session=").unwrap();
    let url = format!("{}/api-auth/session?__dev_session__={token}", keyward.url);
    let response = ApiResponse::of(keyward.http.get(url).send().await.unwrap()).await;
    response.is_error(401, "no_session");
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_are_compared_by_scheme_host_and_port_also_where_the_public_url_has_a_path() {
    let with_path = |settings: &mut Settings| {
        settings.public_url = format!("{}/keys/", settings.public_url).parse().unwrap();
    };
    let keyward = Keyward::start_set(with_path).await;
    let (_, backend) = keyward.other_deployment(Mode::Production, &["HTTPS://App.Example.com:443"]).await;
    backend.create_app("acme").await;
    let url = format!("{}/session/ticket/exchange?ticket={}", keyward.url, backend.ticket("acme").await);
    let response =
        ApiResponse::of(keyward.http.get(url).header("origin", &keyward.url).send().await.unwrap()).await;
    let (pair, _) = response.header("set-cookie").unwrap().split_once("; ").unwrap();
    let browser = CookieBrowser { keyward: &keyward, cookie: pair.to_owned() };
    let rotate = "/api-auth/keys/1/rotate";
    for origin in [keyward.url.as_str(), "https://app.example.com"] {
        let response = browser.send(Method::POST, rotate, Some(origin)).await;
        response.is_error(404, "not_found");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
    }
    for origin in [&format!("{}0", keyward.url), "http://app.example.com", "https://app.example.com:8443"] {
        browser.send(Method::POST, rotate, Some(origin)).await.is_error(403, "origin_not_allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_staging_any_origin_may_read_the_session_header() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut browser = Browser::new(&backend);
    let response = browser.exchange(&backend.ticket("acme").await).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(response.header("access-control-expose-headers"), Some("X-Request-Id, X-Development-Session"));
    assert!(response.header("set-cookie").is_none());
    let preflight = browser
        .request(Method::OPTIONS, "/api-auth/keys")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let response = ApiResponse::of(preflight.send().await.unwrap()).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-headers"), Some("content-type"));
    assert!(response.header("access-control-allow-methods").unwrap().contains("POST"));
    // Errors can be read too.
    let mut stranger = Browser::new(&backend);
    let response = stranger.get("/api-auth/session").await;
    response.is_error(401, "no_session");
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployment_as_pages_read_it() {
    let keyward = Keyward::start().await;
    let mut browser = Browser::new(&keyward.backend());
    let data = browser.get("/deployment").await.ok()["data"].clone();
    assert_eq!(data["mode"], "staging");
    assert_eq!(data["id"], keyward.described.deployment_id.as_str());
    assert_eq!(data["publishable_key"], keyward.described.publishable_key.as_str());
    use base64::Engine;
    let encoded = keyward.described.publishable_key.strip_prefix("pk_test_").unwrap();
    let decoded = base64::prelude::BASE64_STANDARD.decode(encoded).unwrap();
    assert_eq!(decoded, keyward.url.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_a_root_key_do_not_stand_in_for_each_other() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut browser = backend.browser("acme").await;
    let request = keyward.http.get(format!("{}/api-auth/apps", keyward.url)).bearer_auth(&browser.session);
    ApiResponse::of(request.send().await.unwrap()).await.is_error(401, "not_a_root_key");
    backend.get("/api-auth/session").await.is_error(401, "no_session");
    browser.session = backend.root_key.clone();
    browser.get("/api-auth/session").await.is_error(401, "no_session");
    let cookie =
        CookieBrowser { keyward: &keyward, cookie: "__Host-session=eyJhbGciOiJFUzI1NiJ9.e30.x".into() };
    cookie.send(Method::GET, "/api-auth/session", None).await.is_error(401, "no_session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_app_was_deleted_leads_nowhere() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut browser = backend.browser("acme").await;
    backend.delete("/api-auth/apps/acme").await.ok();
    browser.get("/api-auth/session").await.is_error(400, "app_deleted");
    browser.get("/api-auth/keys").await.is_error(404, "not_found");
}
