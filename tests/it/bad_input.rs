//! Bad input: a clear error, and nothing is changed.

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use keyward_tests::{ApiResponse, Backend, Keyward, text};

/// All that the API shows of what is stored.
async fn everything(backend: &Backend) -> Value {
    json!({
        "apps": backend.get("/api-auth/apps?include_inactive=true").await.ok(),
        "keys": backend.get("/api-auth/apps/acme/keys?include_inactive=true").await.ok(),
        "schemes": backend.get("/api-auth/rate-limit-schemes").await.ok(),
        "log": backend.get("/api-auth/apps/acme/audit/logs").await.ok()["data"],
    })
}

async fn acme(keyward: &Keyward) -> Backend {
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let scheme =
        json!({"slug": "s", "name": "S", "rules": [{"unit": "day", "duration": 1, "max_requests": 1}]});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    backend
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_not_acceptable() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let key = text(&backend.create_key("acme", json!({})).await["id"]);
    let before = everything(&backend).await;
    let long = "x".repeat(129);
    let past = Utc::now() - TimeDelta::seconds(1);
    let app = |members: Value| {
        let mut app = json!({"app_slug": "new", "name": "New", "key_prefix": "sk"});
        app.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        (Method::POST, "/api-auth/apps".to_owned(), app)
    };
    let route = |members: Value| {
        let mut route = json!({"path": "/a", "permissions": ["a"]});
        route.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        app(json!({"route_permissions": [route]}))
    };
    let patch = |members: Value| (Method::PATCH, "/api-auth/apps/acme".to_owned(), members);
    let new_key = |members: Value| {
        let mut key = json!({"name": "New"});
        key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        (Method::POST, "/api-auth/apps/acme/keys".to_owned(), key)
    };
    let scheme = |members: Value| {
        let mut scheme = json!({
            "slug": "new", "name": "New", "rules": [{"unit": "day", "duration": 1, "max_requests": 1}],
        });
        scheme.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        (Method::POST, "/api-auth/rate-limit-schemes".to_owned(), scheme)
    };
    let rule = |members: Value| {
        let mut rule = json!({"unit": "day", "duration": 1, "max_requests": 1});
        rule.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        scheme(json!({"rules": [rule]}))
    };
    let revoke = |body: Value| (Method::POST, format!("/api-auth/apps/acme/keys/{key}/revoke"), body);
    for ((method, path, body), status, names) in [
        (app(json!({"app_slug": "Bad Slug"})), 400, "app_slug"),
        (app(json!({"app_slug": "-a"})), 400, "app_slug"),
        (app(json!({"app_slug": ""})), 400, "app_slug"),
        (app(json!({"app_slug": "a".repeat(65)})), 400, "app_slug"),
        (app(json!({"app_slug": null})), 422, "app_slug"),
        (app(json!({"app_slug": 5})), 422, "app_slug must be text"),
        (app(json!({"name": " "})), 400, "name"),
        (app(json!({"name": long})), 400, "name"),
        (app(json!({"name": null})), 422, "name must be text"),
        (app(json!({"key_prefix": "a_"})), 400, "key_prefix"),
        (app(json!({"key_prefix": "Sk"})), 400, "key_prefix"),
        (app(json!({"key_prefix": "1k"})), 400, "key_prefix"),
        (app(json!({"key_prefix": "kw_root"})), 400, "key_prefix"),
        (app(json!({"key_prefix": "k".repeat(33)})), 400, "key_prefix"),
        (app(json!({"permissions": "users:read"})), 422, "permissions must be a list"),
        (app(json!({"permissions": ["a b"]})), 400, "permissions"),
        (app(json!({"resources": [""]})), 400, "resources"),
        (app(json!({"route_permissions": {}})), 422, "route_permissions must be a list"),
        (route(json!({"path": null})), 422, "route_permissions[0].path must be text"),
        (route(json!({"permissions": "a"})), 422, "route_permissions[0].permissions must be a list"),
        (route(json!({"method": "TRACE"})), 400, "route_permissions[0].method"),
        (route(json!({"path": "/a b"})), 400, "route_permissions[0].path"),
        (route(json!({"permissions": []})), 400, "route_permissions[0].permissions must have"),
        (
            route(json!({"permissions": ["a", "b AND"]})),
            400,
            "route_permissions[0].permissions[1] is wrong at",
        ),
        (
            app(json!({"route_permissions": vec![json!({"path": "/", "permissions": ["a"]}); 33]})),
            400,
            "at most 32",
        ),
        (
            patch(json!({"route_permissions": [{"path": "/", "permissions": [""]}]})),
            400,
            "permissions[0] is wrong",
        ),
        (app(json!({"description": "d".repeat(513)})), 400, "description"),
        (app(json!({"user_id": ""})), 400, "user_id"),
        (app(json!({"organization_id": 1.5})), 422, "organization_id must be an id: text, or a whole number"),
        (app(json!({"rate_limit_scheme_slug": "nope"})), 400, "rate_limit_scheme_slug"),
        (app(json!({"app_slug": "acme"})), 409, "already exists"),
        (patch(json!({"name": null})), 400, "name"),
        (patch(json!({"is_active": null})), 400, "is_active"),
        (patch(json!({"is_active": "yes"})), 422, "is_active must be true or false"),
        (patch(json!({"key_prefix": "_"})), 400, "key_prefix"),
        (patch(json!({"rate_limit_scheme_slug": "nope"})), 400, "rate_limit_scheme_slug"),
        (new_key(json!({"name": "\u{7}"})), 400, "name"),
        (new_key(json!({"name": long})), 400, "name"),
        (new_key(json!({"expires_at": past})), 400, "expires_at"),
        (new_key(json!({"expires_at": "tomorrow"})), 422, "such as 2027-06-01T00:00:00Z"),
        (new_key(json!({"expires_at": "2030-01-01T00:00:00"})), 422, "expires_at must be"),
        (new_key(json!({"metadata": [1]})), 400, "metadata"),
        (new_key(json!({"metadata": {"m": "m".repeat(3_000)}})), 400, "metadata"),
        (new_key(json!({"permissions": ["*:*:*"]})), 400, "permissions"),
        (new_key(json!({"owner_user_id": "a\nb"})), 400, "owner_user_id"),
        (revoke(json!({"reason": "r".repeat(513)})), 400, "reason"),
        (revoke(json!({"reason": 1})), 422, "reason must be text"),
        (revoke(json!("reason")), 422, "it must be an object"),
        (scheme(json!({"slug": ""})), 400, "slug"),
        (scheme(json!({"name": ""})), 400, "name"),
        (scheme(json!({"rules": []})), 400, "at least one rule"),
        (scheme(json!({"rules": null})), 422, "rules must be a list"),
        (scheme(json!({"slug": "s"})), 409, "already exists"),
        (rule(json!({"unit": "fortnight"})), 422, "rules[0].unit must be one of 'millisecond'"),
        (rule(json!({"duration": 0})), 400, "rules[0].duration"),
        (rule(json!({"duration": 31})), 400, "rules[0].duration"),
        (rule(json!({"max_requests": 0})), 400, "rules[0].max_requests"),
        (
            rule(json!({"max_requests": 3_000_000_000_u64})),
            422,
            "rules[0].max_requests must be a whole number from -2147483648 to 2147483647",
        ),
        (rule(json!({"mode": "per_planet"})), 422, "rules[0].mode must be one of 'per_app'"),
        (rule(json!({"endpoints": [""]})), 400, "rules[0].endpoints"),
    ] {
        let response = backend.send(method, &path, Some(body.clone())).await;
        let message = text(&response.body["message"]);
        assert_eq!(response.status, status, "{path} {body}: {message}");
        assert!(message.contains(names), "{path} {body}: {message}");
        assert_eq!(response.body["errors"], json!([{"code": status, "message": message}]));
        assert!(response.body["code"].is_string(), "{}", response.body);
    }
    assert_eq!(everything(&backend).await, before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_beyond_the_apps() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    backend.patch("/api-auth/apps/acme", json!({"permissions": ["users:*"]})).await.ok();
    let key = |permissions: Value| json!({"name": "New", "permissions": permissions});
    let path = "/api-auth/apps/acme/keys";
    backend.post(path, key(json!(["users:read", "users:*"]))).await.ok();
    let refused = backend.post(path, key(json!(["users:read", "orgs:read"]))).await;
    refused.is_error(400, "invalid_field");
    assert!(text(&refused.body["message"]).contains("orgs:read"));
    backend.post(path, key(json!(["*"]))).await.is_error(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let before = everything(&backend).await;
    let apps = |kind: Option<&str>, body: Vec<u8>| {
        let mut request = backend.request(Method::POST, "/api-auth/apps").body(body);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        async { ApiResponse::of(request.send().await.unwrap()).await }
    };
    let json = Some("application/json");
    for broken in ["", "{", "{\"app_slug\":", "nonsense", "{\"app_slug\":\"new\",\"name\":\"New\"}}", "\u{0}"]
    {
        apps(json, broken.into()).await.is_error(400, "malformed_json");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    apps(json, deep.into()).await.is_error(400, "malformed_json");
    apps(json, vec![b'"', 0xff, 0xfe, b'"']).await.is_error(400, "malformed_json");
    for wrong in ["[]", "5", "\"text\"", "null"] {
        apps(json, wrong.into()).await.is_error(422, "invalid_body");
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")] {
        apps(kind, b"{}".to_vec()).await.is_error(415, "unsupported_media_type");
    }
    let app = json!({"app_slug": "new", "name": "New", "x": "x".repeat(256 * 1024)}).to_string();
    apps(json, app.into_bytes()).await.is_error(413, "body_too_large");
    assert_eq!(everything(&backend).await, before, "nothing was changed");

    let exactly = {
        let mut app = json!({"app_slug": "new", "name": "New", "x": ""});
        let rest = 256 * 1024 - app.to_string().len();
        app["x"] = "x".repeat(rest).into();
        app.to_string()
    };
    apps(Some("application/json; charset=utf-8"), exactly.into_bytes()).await.ok();

    // The client has sent all of it when it is answered, so the connection goes on.
    for length in [300_000, 3_000_000] {
        let large = json!({"app_slug": "new", "name": "x".repeat(length)}).to_string();
        let unauthorized = keyward.http.post(format!("{}/api-auth/apps", keyward.url)).body(large.clone());
        ApiResponse::of(unauthorized.send().await.unwrap()).await.is_error(401, "missing_root_key");
        apps(json, large.into_bytes()).await.is_error(413, "body_too_large");
        backend.get("/api-auth/apps").await.ok();
    }

    let mut browser = backend.browser("acme").await;
    let request =
        browser.request(Method::POST, "/api-auth/keys").header(CONTENT_TYPE, "text/plain").body("name=x");
    browser.send(request).await.is_error(415, "unsupported_media_type");
    let large = "x".repeat(256 * 1024);
    browser.post_form("/api-auth/keys", &[("name", &large)]).await.is_error(413, "body_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_browsers() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let mut browser = backend.browser("acme").await;
    for (form, names) in [
        (vec![], "name is required"),
        (vec![("name", "  ")], "name is required"),
        (vec![("name", "x"), ("expires_at", "soon")], "expires_at must be RFC3339"),
        (vec![("name", "x"), ("expires_at", "2020-01-01T00:00:00Z")], "expires_at must be in the future"),
    ] {
        let response = browser.post_form("/api-auth/keys", &form).await;
        response.is_error(400, "invalid_field");
        assert_eq!(response.body["status"], 400);
        assert_eq!(response.body["data"], Value::Null);
        assert_eq!(response.body["errors"][0]["code"], "invalid_field");
        assert!(text(&response.body["message"]).contains(names), "{}", response.body);
    }
    browser.get("/api-auth/keys?status=lost").await.is_error(400, "invalid_status");
    browser.post("/api-auth/keys/abc/rotate").await.is_error(400, "invalid_key_id");
    browser.post("/api-auth/keys/0/revoke").await.is_error(400, "invalid_key_id");
    browser.post("/api-auth/keys/5/revoke").await.is_error(404, "not_found");
    assert_eq!(browser.get("/api-auth/keys").await.ok()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_queries() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    for (path, status, code) in [
        ("/nowhere", 404, "route_not_found"),
        ("/api-auth/apps/nope", 404, "not_found"),
        ("/api-auth/apps/Bad%20Slug", 404, "not_found"),
        ("/api-auth/apps/%ff", 404, "not_found"),
        ("/api-auth/apps/nope/keys", 404, "not_found"),
        ("/api-auth/apps/nope/audit/logs", 404, "not_found"),
        ("/api-auth/rate-limit-schemes/nope", 404, "not_found"),
        ("/api-auth/apps?limit=0", 400, "invalid_query"),
        ("/api-auth/apps?limit=1001", 400, "invalid_query"),
        ("/api-auth/apps?limit=-1", 400, "invalid_query"),
        ("/api-auth/apps?include_inactive=maybe", 400, "invalid_query"),
        ("/api-auth/apps/acme/keys?cursor=x", 400, "invalid_cursor"),
        ("/api-auth/apps/acme/keys?limit=0", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/logs?cursor=x", 400, "invalid_cursor"),
        ("/api-auth/apps/acme/audit/logs?cursor=MTIzfHJlcV8x", 400, "invalid_cursor"),
        ("/api-auth/apps/acme/audit/logs?cursor_id=req_1", 400, "invalid_cursor"),
        ("/api-auth/apps/acme/audit/logs?start_date=yesterday", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/logs?key_id=abc", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/logs?start_date=2026-02-01&end_date=2026-01-01", 400, "invalid_field"),
        ("/api-auth/apps/acme/audit/analytics?include_top_keys=1", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/timeseries?end_date=x", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/timeseries?end_date=-262143-01-01", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/logs?end_date=%2B262142-12-31", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/analytics?start_date=0000-12-31", 400, "invalid_query"),
        ("/api-auth/apps/acme/audit/logs?start_date=2099-01-01", 400, "invalid_field"),
    ] {
        let response = backend.get(path).await;
        assert_eq!(
            (response.status, response.body["code"].as_str()),
            (status, Some(code)),
            "{path} {}",
            response.body
        );
    }
    let wrong_method = backend.send(Method::PUT, "/api-auth/apps", None).await;
    wrong_method.is_error(405, "method_not_allowed");
    let allowed = wrong_method.header("allow").unwrap_or_default();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    backend.post("/api-auth/apps/acme/keys/x/revoke", json!({})).await.is_error(400, "invalid_key_id");
    backend.revoke("acme", "12345").await.is_error(404, "not_found");
    backend.revoke("acme", "9223372036854775808").await.is_error(400, "invalid_key_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_keys_that_do_not_extend_to_it() {
    use keyward_core::root_key::Scope;
    let keyward = Keyward::start().await;
    acme(&keyward).await;
    let tickets = keyward.backend_with(keyward.deployment(), &[Scope::Tickets]).await;
    let audit = keyward.backend_with(keyward.deployment(), &[Scope::Audit]).await;
    for path in
        ["/api-auth/apps", "/api-auth/apps/acme", "/api-auth/apps/acme/keys", "/api-auth/rate-limit-schemes"]
    {
        tickets.get(path).await.is_error(403, "forbidden");
        let refused = audit.get(path).await;
        refused.is_error(403, "forbidden");
        let challenge = "Bearer realm=\"keyward\", error=\"insufficient_scope\"";
        assert_eq!(refused.header("www-authenticate"), Some(challenge));
    }
    tickets.get("/api-auth/apps/acme/audit/logs").await.is_error(403, "forbidden");
    audit.get("/api-auth/apps/acme/audit/logs").await.ok();
    audit.post("/api-auth/apps/acme/keys", json!({"name": "x"})).await.is_error(403, "forbidden");

    let no_header = keyward.http.get(format!("{}/api-auth/apps", keyward.url)).send().await.unwrap();
    let response = ApiResponse::of(no_header).await;
    response.is_error(401, "missing_root_key");
    assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"keyward\""));
    let basic = keyward.http.get(format!("{}/api-auth/apps", keyward.url)).basic_auth("a", Some("b"));
    ApiResponse::of(basic.send().await.unwrap()).await.is_error(401, "missing_root_key");
}
