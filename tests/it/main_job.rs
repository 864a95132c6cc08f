//! The main job from end to end, as a backend, a browser and the SaaS's API do it.

use serde_json::{Value, json};

use crate::support::{Keyward, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_used_revoked_and_refused_and_all_of_it_is_in_the_log() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut browser = backend.browser("acme").await;

    let session = browser.get("/api-auth/session").await.ok();
    assert_eq!(session["data"]["api_auth_app"]["id"], "acme");
    assert_eq!(session["data"]["session_id"], session["session"]["id"]);

    let made = browser
        .post_form("/api-auth/keys", &[("name", "CI key")])
        .await
        .ok();
    let (key, secret) = (made["data"]["key"].clone(), text(&made["data"]["secret"]));
    assert_eq!(made["data"]["id"], key["id"], "flat and nested");
    assert!(secret.starts_with("sk_test_") && secret.ends_with(&text(&key["key_suffix"])));

    let allowed = keyward.check(&secret).await.ok();
    assert_eq!(allowed["allowed"], true);
    assert_eq!(allowed["identity"]["key_id"], key["id"]);

    let revoke = format!("/api-auth/keys/{}/revoke", text(&key["id"]));
    let revoked = browser.post_form(&revoke, &[("reason", "Leaked")]).await.ok();
    assert_eq!(revoked["data"], json!({"success": true}));
    keyward.check(&secret).await.is_error(403, "key_revoked");

    keyward.settle().await;
    let log = browser.get("/api-auth/audit/logs").await.ok();
    let rows: Vec<[&Value; 3]> = log["data"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [&row["action"], &row["outcome"], &row["blocked_by_rule"]])
        .collect();
    assert_eq!(
        json!(rows),
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
    let first = &log["data"]["data"][0];
    assert_eq!(first["path"], "GET /v1/users");
    assert_eq!(first["key_name"], "CI key");
    assert_eq!(first["client_ip"], "127.0.0.1");
    let revocation = &log["data"]["data"][1];
    assert_eq!(revocation["reason"], "Leaked");
    assert_eq!(revocation["actor"]["type"], "session");
    assert_eq!(log["data"]["data"][2]["request_id"], allowed["request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_keeps_the_id_and_ends_the_old_secret() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let members = json!({"metadata": {"plan": "pro"}, "permissions": ["users:read"]});
    let made = backend.create_key("acme", members).await;
    let old = text(&made["secret"]);
    let rotated = backend.rotate("acme", &text(&made["id"])).await.ok();
    let new = text(&rotated["secret"]);
    for member in [
        "id",
        "name",
        "metadata",
        "permissions",
        "created_at",
        "key_prefix",
    ] {
        assert_eq!(rotated[member], made[member], "{member}");
    }
    assert_ne!(old, new);
    keyward.check(&old).await.is_error(401, "invalid_api_key");
    assert_eq!(keyward.check(&new).await.ok()["allowed"], true);

    let mut browser = backend.browser("acme").await;
    let path = format!("/api-auth/keys/{}/rotate", text(&made["id"]));
    let again = browser.post(&path).await.ok();
    assert_eq!(again["data"]["id"], made["id"]);
    keyward.check(&new).await.is_error(401, "invalid_api_key");
    assert_eq!(
        keyward.check(&text(&again["data"]["secret"])).await.ok()["allowed"],
        true
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_router_is_there() {
    let keyward = Keyward::start().await;
    for route in crate::tenancy::routes() {
        let path = route.path.replace("{slug}", "x").replace("{id}", "1");
        let request = keyward
            .http
            .request(route.method.clone(), format!("{}{path}", keyward.url));
        let answer = crate::support::Answer::of(request.send().await.unwrap()).await;
        let code = &answer.body["code"];
        assert!(
            code != "route_not_found" && code != "method_not_allowed",
            "{} {path}: {}",
            route.method,
            answer.body
        );
    }
}
