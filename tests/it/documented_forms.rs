//! The forms of the public guides that differ from what the current SDKs send.

use serde_json::json;

use keyward_tests::{Keyward, text};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_by_slug_and_without_a_prefix() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let scheme = json!({
        "slug": "standard_tier", "name": "Standard", "rules": [{"unit": "minute", "duration": 1, "max_requests": 100}],
    });
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({
        "name": "Acme public API V2",
        "slug": "acme-v2",
        "permissions": ["read:data", "write:data"],
        "rate_limit_scheme_slug": "standard_tier",
        "organization_id": "org_abc123",
    });
    let app = backend.post("/api-auth/apps", app).await.ok();
    assert_eq!(app["app_slug"], "acme-v2");
    assert_eq!(app["key_prefix"], "wk_live");
    assert_eq!(app["rate_limits"][0]["max_requests"], 100);

    let key = json!({"name": "Production Backend Key", "owner_user_id": "usr_abc123"});
    let key = backend.post("/api-auth/apps/acme-v2/keys", key).await.ok();
    assert!(text(&key["secret"]).starts_with("wk_live_"));
    assert_eq!(key["owner_user_id"], "usr_abc123");
    assert_eq!(key["organization_id"], "org_abc123", "the app's");
    assert_eq!(key["key"]["owner_user_id"], "usr_abc123");

    let key = json!({"name": "m", "organization_membership_id": "om_1", "workspace_membership_id": 2});
    let key = backend.post("/api-auth/apps/acme-v2/keys", key).await.ok();
    assert_eq!(key["organization_membership_id"], "om_1");
    assert_eq!(key["workspace_membership_id"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_by_their_id_alone() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let created = backend.create_key("acme", json!({})).await;
    let number: i64 = text(&created["id"]).parse().unwrap();
    for id in
        [json!({"key_id": created["id"]}), json!({"api_key_id": created["id"]}), json!({"key_id": number})]
    {
        let rotated = backend.post("/api-auth/keys/rotate", id).await.ok();
        assert_eq!(rotated["id"], created["id"]);
        assert_eq!(keyward.check(&text(&rotated["secret"])).await.ok()["allowed"], true);
    }
    let revoke = json!({"api_key_id": created["id"], "reason": "Key no longer needed"});
    assert_eq!(backend.post("/api-auth/keys/revoke", revoke.clone()).await.ok(), json!({}));
    backend.post("/api-auth/keys/revoke", revoke).await.is_error(404, "not_found");
    backend.post("/api-auth/keys/revoke", json!({})).await.is_error(400, "invalid_field");
    backend.post("/api-auth/keys/revoke", json!({"key_id": "key_123"})).await.is_error(400, "invalid_key_id");
    backend.post("/api-auth/keys/rotate", json!({"key_id": "123"})).await.is_error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_as_the_guides_ask_for_it() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let app = json!({
        "app_slug": "aa_42", "name": "Acme Public API", "key_prefix": "acme_live",
        "description": "API keys for deployment 42",
    });
    backend.post("/api-auth/apps", app).await.ok();
    let ask = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "aa_42", "expires_in": 120});
    let ticket = backend.post("/session/tickets", ask).await.ok();
    assert!(ticket["ticket"].is_string() && ticket["expires_at"].is_i64() && ticket["url"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_as_clients_really_send_them() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let path = |created: &serde_json::Value, verb: &str| {
        format!("/api-auth/apps/acme/keys/{}/{verb}", text(&created["id"]))
    };

    // A serialized client object with its own credentials as the body of a revocation.
    let created = backend.create_key("acme", json!({})).await;
    let body = json!({"apiKey": backend.root_key, "config": {"headers": {"x": [1, 2]}}, "reason": null});
    backend.post(&path(&created, "revoke"), body).await.ok();

    // No body, an empty object, a blank reason.
    let created = backend.create_key("acme", json!({})).await;
    backend.send(reqwest::Method::POST, &path(&created, "rotate"), None).await.ok();
    backend.post(&path(&created, "rotate"), json!({})).await.ok();
    backend.post(&path(&created, "revoke"), json!({"reason": " "})).await.ok();

    // JSON instead of a form, an empty form, `?` with nothing behind it, a blank expiry.
    let mut browser = backend.browser("acme").await;
    let request = browser.request(reqwest::Method::POST, "/api-auth/keys").json(&json!({"name": "JSON"}));
    let created = browser.send(request).await.ok();
    browser.post_form("/api-auth/keys", &[("name", "Form"), ("expires_at", "")]).await.ok();
    let revoke = format!("/api-auth/keys/{}/revoke", text(&created["data"]["id"]));
    browser.post_form(&revoke, &[]).await.ok();
    let again = browser.post_form(&revoke, &[("reason", "again")]).await.ok();
    assert_eq!(again["data"]["success"], true, "revoking again is a success");
    browser.get("/api-auth/audit/logs?").await.ok();
    let revoked = browser.get("/api-auth/keys?status=%20REVOKED%20").await.ok();
    assert_eq!(revoked["data"][0]["revoked_reason"], serde_json::Value::Null, "which changes nothing");
}
