//! Scenarios of people who use an installation, wherever it runs.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{ApiResponse, Backend, Browser, check_body, text};

/// The time limit for a decision to show in the log.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An app, a ticket, a session, a key; the key is used, revoked and refused, and all of it is in the log.
///
/// Returns every secret that was handed out on the way.
pub async fn main_job(backend: &Backend) -> Vec<String> {
    let slug = unique("main-job");
    let app = backend.create_app(&slug).await;
    assert_eq!(app["app_slug"], slug.as_str());
    let ticket = backend.ticket(&slug).await;
    let mut browser = Browser::new(backend);
    browser.exchange(&ticket).await.ok();

    let session = browser.get("/api-auth/session").await.ok();
    assert_eq!(session["data"]["api_auth_app"]["id"], slug.as_str());
    assert_eq!(session["data"]["session_id"], session["session"]["id"]);

    let created = browser.post_form("/api-auth/keys", &[("name", "CI key")]).await.ok();
    let (key, secret) = (created["data"]["key"].clone(), text(&created["data"]["secret"]));
    assert_eq!(created["data"]["id"], key["id"], "flat and nested");
    assert!(secret.starts_with("sk_test_") && secret.ends_with(&text(&key["key_suffix"])));

    let allowed = check(backend, &secret).await.ok();
    assert_eq!(allowed["allowed"], true);
    assert_eq!(allowed["identity"]["key_id"], key["id"]);

    let revoke = format!("/api-auth/keys/{}/revoke", text(&key["id"]));
    let revoked = browser.post_form(&revoke, &[("reason", "Leaked")]).await.ok();
    assert_eq!(revoked["data"], json!({"success": true}));
    check(backend, &secret).await.is_error(403, "key_revoked");

    let start = Instant::now();
    let rows = loop {
        let log = browser.get("/api-auth/audit/logs").await.ok();
        let rows = log["data"]["data"].as_array().expect("rows").clone();
        if rows.len() >= 2 || start.elapsed() > TIMEOUT {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let told = |rows: &[Value]| -> Value {
        rows.iter().map(|row| json!([row["action"], row["outcome"], row["blocked_by_rule"]])).collect()
    };
    let requests = json!([["verification", "blocked", "key_revoked"], ["verification", "allowed", null]]);
    assert_eq!(told(&rows), requests);
    assert_eq!(rows[0]["path"], "GET /v1/users");
    assert_eq!(rows[0]["key_name"], "CI key");
    assert_eq!(rows[1]["request_id"], allowed["request_id"]);

    let events = browser.get("/api-auth/audit/events").await.ok()["data"]["data"].clone();
    let events = events.as_array().expect("events");
    assert_eq!(told(events), json!([["key.revoked", "allowed", null], ["key.created", "allowed", null]]));
    assert_eq!((&events[0]["key_id"], &events[0]["reason"]), (&key["id"], &json!("Leaked")));
    assert_eq!(events[0]["actor"]["type"], "session");
    let events = backend.get(&format!("/api-auth/apps/{slug}/audit/events")).await.ok()["data"].clone();
    let all = ["key.revoked", "key.created", "session.created", "ticket.issued", "app.created"];
    let all: Value = all.iter().map(|action| json!([action, "allowed", null])).collect();
    assert_eq!(told(events.as_array().expect("events")), all);
    vec![ticket, secret, browser.session, backend.root_key.clone()]
}

/// A check by a backend that sends its root key, which an installation may want.
async fn check(backend: &Backend, key: &str) -> ApiResponse {
    backend.post("/v1/authz/check", check_body(key)).await
}

/// A slug that no other run of a scenario has.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", Utc::now().timestamp_micros())
}

/// Changes of apps, keys and schemes through the routes, each followed by a check of its effect. `pause` waits for more
/// than a minute, after which the use of a session is recorded.
///
/// Every function makes every kind of access that it ever makes: a permission that its role lacks fails this.
pub async fn every_access(backend: &Backend, pause: impl AsyncFnOnce(TimeDelta)) {
    let (slug, scheme) = (unique("app"), unique("scheme"));
    for path in ["/health", "/deployment", "/.well-known/jwk", "/.well-known/jwks.json"] {
        backend.get(path).await.ok();
    }
    schemes(backend, &scheme).await;
    let app = format!("/api-auth/apps/{slug}");
    let created =
        json!({"app_slug": slug, "name": "All", "key_prefix": "sk_all", "rate_limit_scheme_slug": scheme});
    backend.post("/api-auth/apps", created).await.ok();
    let [mut reader, mut manager, mut auditor] =
        [backend.browser(&slug).await, backend.browser(&slug).await, backend.browser(&slug).await];
    apps(backend, &slug).await;

    let own = json!({"metadata": {"plan": "pro"}, "rate_limit_scheme_slug": scheme});
    let key = backend.create_key(&slug, own).await;
    let id = text(&key["id"]);
    let rotated = text(&backend.rotate(&slug, &id).await.ok()["secret"]);
    check(backend, &text(&key["secret"])).await.is_error(401, "invalid_api_key");
    assert_eq!(check(backend, &rotated).await.ok()["allowed"], true);
    let listed = backend.get(&format!("{app}/keys")).await.ok();
    assert_eq!(listed["keys"][0]["id"], id.as_str(), "{listed}");
    let own = manager.post_form("/api-auth/keys", &[("name", "Own")]).await.ok();
    let own = text(&own["data"]["id"]);
    let both = manager.get("/api-auth/keys").await.ok();
    assert_eq!(both["data"].as_array().map(Vec::len), Some(2), "{both}");
    manager.post(&format!("/api-auth/keys/{own}/rotate")).await.ok();
    manager.post(&format!("/api-auth/keys/{own}/revoke")).await.ok();
    let flat = json!({"key_id": id});
    let rotated = text(&backend.post("/api-auth/keys/rotate", flat).await.ok()["secret"]);
    assert_eq!(check(backend, &rotated).await.ok()["allowed"], true);
    backend.revoke(&slug, &id).await.ok();
    check(backend, &rotated).await.is_error(403, "key_revoked");

    let unknown = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": unique("unknown")});
    backend.post("/session/tickets", unknown).await.is_error(404, "not_found");
    let used = backend.ticket(&slug).await;
    Browser::new(backend).exchange(&used).await.ok();
    Browser::new(backend).exchange(&used).await.is_error(401, "invalid_ticket");

    for figures in ["logs", "analytics", "timeseries?interval=hour"] {
        backend.get(&format!("{app}/audit/{figures}")).await.ok();
        auditor.get(&format!("/api-auth/audit/{figures}")).await.ok();
    }
    pause(TimeDelta::seconds(61)).await;
    reader.get("/api-auth/session").await.ok();
    assert_eq!(manager.get("/api-auth/keys").await.ok()["data"], json!([]), "only what still works");
    auditor.get("/api-auth/audit/logs").await.ok();

    // A key that still names the scheme when its app is gone.
    backend.create_key(&slug, json!({"rate_limit_scheme_slug": scheme})).await;
    backend.delete(&app).await.ok();
    backend.get(&app).await.is_error(404, "not_found");
    assert_eq!(backend.delete(&format!("/api-auth/rate-limit-schemes/{scheme}")).await.status, 204);
    let done = backend.get("/api-auth/deployment/audit/events?limit=10").await.ok();
    let is_of =
        |event: &&Value| event["rate_limit_scheme_slug"] == scheme && event["action"] == "scheme.deleted";
    assert_eq!(done["data"].as_array().expect("events").iter().filter(is_of).count(), 1, "{done}");
    let done = backend.get(&format!("{app}/audit/events?limit=1")).await.ok();
    assert_eq!(done["data"][0]["action"], "app.deleted", "{done}");
}

async fn schemes(backend: &Backend, slug: &str) {
    let rules = json!([
        {"unit": "day", "duration": 1, "max_requests": 100},
        {"unit": "day", "duration": 1, "max_requests": 100, "mode": "per_app"},
    ]);
    let path = format!("/api-auth/rate-limit-schemes/{slug}");
    let created = json!({"slug": slug, "name": "Scheme", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", created.clone()).await.ok();
    backend.post("/api-auth/rate-limit-schemes", created).await.is_error(409, "conflict");
    backend.patch(&path, json!({"name": "Renamed"})).await.ok();
    assert_eq!(backend.get(&path).await.ok()["name"], "Renamed");
    backend.get("/api-auth/rate-limit-schemes").await.ok();
}

async fn apps(backend: &Backend, slug: &str) {
    let app = format!("/api-auth/apps/{slug}");
    backend.patch(&app, json!({"is_active": false})).await.ok();
    let ticket = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": slug});
    backend.post("/session/tickets", ticket).await.is_error(403, "forbidden");
    backend.patch(&app, json!({"is_active": true, "rate_limit_scheme_slug": null})).await.ok();
    assert_eq!(backend.get(&app).await.ok()["is_active"], true);
    let listed = backend.get("/api-auth/apps?include_inactive=true").await.ok();
    let slugs: Vec<&Value> =
        listed["data"].as_array().expect("apps").iter().map(|app| &app["app_slug"]).collect();
    assert!(slugs.contains(&&json!(slug)), "{listed}");
}
