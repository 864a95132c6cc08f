//! The permissions that an app asks for on its routes.

use keyward_tests::{Backend, Keyward, check_body, text};
use serde_json::{Value, json};

/// An app with these routes, and a key with these permissions.
async fn guarded(backend: &Backend, routes: Value, permissions: Value) -> String {
    let app = json!({"app_slug": "acme", "name": "Acme", "key_prefix": "sk", "route_permissions": routes});
    backend.post("/api-auth/apps", app).await.ok();
    text(&backend.create_key("acme", json!({"permissions": permissions})).await["secret"])
}

async fn is_allowed(keyward: &Keyward, key: &str, method: &str, path: &str) -> bool {
    let mut check = check_body(key);
    check["method"] = method.into();
    check["resource"] = path.into();
    let response = keyward.check_with(check).await.ok();
    let denied = response["reason"] == "permission_denied";
    assert_eq!(response["allowed"], !denied, "{response}");
    !denied
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_written_read_changed_and_cleared() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let routes = json!([
        {"method": "post", "path": "/v1/Users/*", "permissions": ["users:write", " a OR (b AND c) "]},
        {"path": "/v1/*", "permissions": ["api"]},
    ]);
    let kept = json!([
        {"method": "POST", "path": "/v1/Users/*", "permissions": ["users:write", "a OR (b AND c)"]},
        {"method": "*", "path": "/v1/*", "permissions": ["api"]},
    ]);
    guarded(&backend, routes, json!([])).await;
    let app = "/api-auth/apps/acme";
    assert_eq!(backend.get(app).await.ok()["route_permissions"], kept);
    assert_eq!(backend.get("/api-auth/apps").await.ok()["apps"][0]["route_permissions"], kept);
    let patched = backend.patch(app, json!({"name": "Other"})).await.ok();
    assert_eq!(patched["route_permissions"], kept, "what is absent stays");
    let other = json!([{"method": "*", "path": "*", "permissions": ["other"]}]);
    let patched = backend.patch(app, json!({"route_permissions": other})).await.ok();
    assert_eq!(patched["route_permissions"], other);
    for cleared in [json!(null), json!([])] {
        backend.patch(app, json!({"route_permissions": other})).await.ok();
        let patched = backend.patch(app, json!({"route_permissions": cleared})).await.ok();
        assert_eq!(patched["route_permissions"], json!([]));
    }
    assert_eq!(backend.create_app("plain").await["route_permissions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_that_concerns_a_request_must_be_satisfied() {
    let keyward = Keyward::start().await;
    let routes = json!([
        {"path": "/v1/*", "permissions": ["users:read"]},
        {"method": "POST", "path": "/v1/users/*", "permissions": ["users:write", "a OR b"]},
        {"method": "GET", "path": "/v1/admin", "permissions": ["admin"]},
    ]);
    let key = guarded(&keyward.backend(), routes, json!(["users:read", "b"])).await;
    assert!(is_allowed(&keyward, &key, "GET", "/v1/users/1").await);
    assert!(!is_allowed(&keyward, &key, "POST", "/v1/users/1").await, "users:write is missing");
    assert!(!is_allowed(&keyward, &key, "GET", "/v1/admin").await);
    assert!(!is_allowed(&keyward, &key, "HEAD", "/v1/admin").await);
    assert!(is_allowed(&keyward, &key, "POST", "/v1/admin").await, "of another method nothing more is asked");
    assert!(is_allowed(&keyward, &key, "GET", "/v2/anything").await, "of another path nothing is asked");

    let mut asks_for_more = check_body(&key);
    asks_for_more["required_permissions"] = json!(["missing"]);
    let response = keyward.check_with(asks_for_more).await.ok();
    assert_eq!(response["reason"], "permission_denied", "what the check asks for counts as before");

    let more = json!({"permissions": ["users:*", "a"]});
    let able = text(&keyward.backend().create_key("acme", more).await["secret"]);
    assert!(is_allowed(&keyward, &able, "POST", "/v1/users/1").await);
    let unable = text(
        &keyward.backend().create_key("acme", json!({"permissions": ["users:write", "a"]})).await["secret"],
    );
    assert!(
        !is_allowed(&keyward, &unable, "POST", "/v1/users/1").await,
        "the wider route asks for users:read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_escapes_its_route() {
    let keyward = Keyward::start().await;
    let routes = json!([{"method": "GET", "path": "/v1/admin/*", "permissions": ["admin"]}]);
    let key = guarded(&keyward.backend(), routes, json!([])).await;
    for path in [
        "/v1/admin/users",
        "/v1/Admin/users",
        "/v1//admin/users",
        "/v1/admin/users/",
        "/v1/%61dmin/users",
        "/v1/%2561dmin/users",
        "/v1%2fadmin%2Fusers",
        "/v1\\admin\\users",
        "v1/admin/users?x=1",
        "/v1/admin/",
        "/v1/admin;a=b/users",
        "/v1/admin%3Ba=b/users",
        "//h/v1/admin/users",
        "/\\h/v1/admin/users",
        "http://h/v1/admin/users",
        "HTTPS://h:443/v1/admin/users",
        "/v1/admin./users",
        "/v1/admin%20/users",
    ] {
        assert!(!is_allowed(&keyward, &key, "GET", path).await, "{path}");
    }
    assert!(is_allowed(&keyward, &key, "GET", "/v1/users;v=1/a.b").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_servers_do_not_agree_on_is_refused_and_alone_in_a_batch() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let key = guarded(&backend, json!([]), json!([])).await;
    let asking = |path: &str| {
        let mut body = check_body(&key);
        body["resource"] = path.into();
        body
    };
    for path in [
        "/x/../admin/y",
        "/x/..;/admin/y",
        "/x/%2e%2e%3b/admin/y",
        "/x/%252e%252e/admin/y",
        "/x/..%5cadmin/y",
        "/%c0%ae%c0%ae/admin/y",
        "/%u0061dmin/y",
        "/ad%09min/y",
        "http:/admin/y",
        "http://u@h/admin/y",
        "h:443",
        "*",
    ] {
        let refused = backend.check_with(asking(path)).await;
        let message = refused.is_error(400, "invalid_field").body["message"].clone();
        assert!(text(&message).starts_with("resource must"), "{path}: {message}");
        let checks = json!({"checks": [asking("/a"), asking(path), asking("/b")]});
        let response = backend.post("/v1/authz/check/batch", checks).await.ok();
        let results = response["results"].as_array().unwrap();
        let statuses: Vec<&Value> = results.iter().map(|one| &one["status"]).collect();
        assert_eq!(statuses, [200, 400, 200], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_holds_for_the_next_check_and_for_batches() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let key = guarded(&backend, json!([]), json!([])).await;
    assert!(is_allowed(&keyward, &key, "GET", "/v1/users").await);
    let routes = json!([{"path": "/v1/users", "permissions": ["users:read"]}]);
    backend.patch("/api-auth/apps/acme", json!({"route_permissions": routes})).await.ok();
    assert!(!is_allowed(&keyward, &key, "GET", "/v1/users").await);
    let batch = json!({"checks": [check_body(&key)]});
    let results = backend.post("/v1/authz/check/batch", batch).await.ok();
    assert_eq!(results["results"][0]["reason"], "permission_denied", "{results}");
}
