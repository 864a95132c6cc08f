//! What people do with an installation, wherever it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Backend, Browser, text};

/// How long what was decided may take to show in the log.
const PATIENCE: Duration = Duration::from_secs(10);

/// An app, a ticket, a session, a key; the key is used, revoked and refused, and all of it is in the log.
///
/// Returns every secret that was handed out on the way.
pub async fn main_job(backend: &Backend) -> Vec<String> {
    let app = backend.create_app("main-job").await;
    assert_eq!(app["app_slug"], "main-job");
    let ticket = backend.ticket("main-job").await;
    let mut browser = Browser::new(backend);
    browser.exchange(&ticket).await.ok();

    let session = browser.get("/api-auth/session").await.ok();
    assert_eq!(session["data"]["api_auth_app"]["id"], "main-job");
    assert_eq!(session["data"]["session_id"], session["session"]["id"]);

    let made = browser.post_form("/api-auth/keys", &[("name", "CI key")]).await.ok();
    let (key, secret) = (made["data"]["key"].clone(), text(&made["data"]["secret"]));
    assert_eq!(made["data"]["id"], key["id"], "flat and nested");
    assert!(secret.starts_with("sk_test_") && secret.ends_with(&text(&key["key_suffix"])));

    let allowed = backend.check(&secret).await.ok();
    assert_eq!(allowed["allowed"], true);
    assert_eq!(allowed["identity"]["key_id"], key["id"]);

    let revoke = format!("/api-auth/keys/{}/revoke", text(&key["id"]));
    let revoked = browser.post_form(&revoke, &[("reason", "Leaked")]).await.ok();
    assert_eq!(revoked["data"], json!({"success": true}));
    backend.check(&secret).await.is_error(403, "key_revoked");

    let start = Instant::now();
    let rows = loop {
        let log = browser.get("/api-auth/audit/logs").await.ok();
        let rows = log["data"]["data"].as_array().expect("rows").clone();
        if rows.len() >= 7 || start.elapsed() > PATIENCE {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let told: Vec<[&Value; 3]> =
        rows.iter().map(|row| [&row["action"], &row["outcome"], &row["blocked_by_rule"]]).collect();
    assert_eq!(
        json!(told),
        json!([
            ["verification", "blocked", "key_revoked"],
            ["key.revoked", "allowed", null],
            ["verification", "allowed", null],
            ["key.created", "allowed", null],
            ["session.created", "allowed", null],
            ["ticket.issued", "allowed", null],
            ["app.created", "allowed", null],
        ])
    );
    assert_eq!(rows[0]["path"], "GET /v1/users");
    assert_eq!(rows[0]["key_name"], "CI key");
    assert_eq!(rows[1]["reason"], "Leaked");
    assert_eq!(rows[1]["actor"]["type"], "session");
    assert_eq!(rows[2]["request_id"], allowed["request_id"]);
    vec![ticket, secret, browser.session, backend.root_key.clone()]
}
