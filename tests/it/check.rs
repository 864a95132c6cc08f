//! `POST /v1/authz/check`: the response member by member, the states, and who may ask.

use chrono::{TimeDelta, Utc};
use keyward_core::deployment::Mode;
use keyward_core::root_key::Scope;
use keyward_core::token::ApiKeyToken;
use keyward_runtime::VerifyAuth;
use serde_json::{Value, json};

use keyward_tests::{ApiResponse, Backend, Keyward, check_body, text};

async fn acme(keyward: &Keyward) -> Backend {
    let backend = keyward.backend();
    backend.create_app("acme").await;
    backend
}

/// Whether the key is recognised.
pub async fn is_recognised(keyward: &Keyward, key: &str) -> bool {
    let (store, token) = (&keyward.services.store, ApiKeyToken::parse(key).unwrap());
    let found = store.find_keys(store.deadline(), vec![token], None).await.unwrap();
    let recognised = store.verify(store.deadline(), found.candidates, None).await.remove(0);
    recognised.unwrap().is_some()
}

fn blank(response: &ApiResponse) {
    assert_eq!(response.body["allowed"], false);
    assert_eq!(response.body["identity"], Value::Null);
    assert_eq!(response.body["permissions"], json!([]));
    assert_eq!(response.body["rate_limits"], json!([]));
    assert_eq!(response.body["headers"], json!({}));
    for member in ["reason", "blocked_rule", "metadata", "retry_after"] {
        assert_eq!(response.body[member], Value::Null, "{member}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_request() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend
        .create_key(
            "acme",
            json!({
                "permissions": ["users:write", "users:read"],
                "metadata": {"plan": "pro", "seats": 5, "principal_type": "oauth_access_token"},
                "owner_user_id": "usr_abc123",
                "organization_id": "org_1",
                "organization_membership_id": 77,
            }),
        )
        .await;
    let mut body = check_body(&text(&created["secret"]));
    body["method"] = " get ".into();
    body["resource"] = " v1/users?page=2#top ".into();
    body["required_permissions"] = json!(["users:read"]);
    body["unknown"] = json!({"members": "are ignored"});
    let response = keyward.check_with(body).await.ok();
    let id = text(&response["request_id"]);
    assert!(id.starts_with("req_") && id.len() == 30, "{id}");
    assert_eq!(
        response,
        json!({
            "request_id": id,
            "allowed": true,
            "reason": null,
            "blocked_rule": null,
            "identity": {
                "principal_type": "api_key",
                "key_id": created["id"],
                "deployment_id": keyward.deployment().to_string(),
                "app_slug": "acme",
                "key_name": "Test key",
                "owner_user_id": "usr_abc123",
                "organization_id": "org_1",
                "workspace_id": null,
                "organization_membership_id": "77",
                "workspace_membership_id": null,
            },
            "permissions": ["users:read", "users:write"],
            "metadata": {"plan": "pro", "seats": 5, "principal_type": "api_key"},
            "rate_limits": [],
            "retry_after": null,
            "headers": {
                "x-wacht-key-id": created["id"],
                "x-wacht-deployment-id": keyward.deployment().to_string(),
                "x-wacht-app-slug": "acme",
                "x-wacht-key-name": "Test key",
                "x-wacht-organization-id": "org_1",
                "x-wacht-organization-membership-id": "77",
                "x-wacht-permissions": "users:read,users:write",
                "x-wacht-metadata": "plan=pro",
            },
        })
    );
    keyward.settle().await;
    let log = backend.get("/api-auth/apps/acme/audit/logs?limit=1").await.ok();
    assert_eq!(log["data"][0]["path"], "GET /v1/users");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend.create_key("acme", json!({"permissions": ["users:read"]})).await;
    let mut body = check_body(&text(&created["secret"]));
    body["required_permissions"] = json!(["users:read", "users:write"]);
    let response = keyward.check_with(body).await.ok();
    assert_eq!(response["allowed"], false);
    assert_eq!(response["reason"], "permission_denied");
    assert_eq!(response["blocked_rule"], "permission_denied");
    assert_eq!(response["permissions"], json!(["users:read"]));
    assert_eq!(response["identity"]["key_id"], created["id"]);
    assert_eq!(response["headers"]["x-wacht-permission-denied"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn requirements_may_be_expressions() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend.create_key("acme", json!({"permissions": ["users:*", "audit:read"]})).await;
    let secret = text(&created["secret"]);
    let asking = |required: Value| {
        let mut body = check_body(&secret);
        body["required_permissions"] = required;
        keyward.check_with(body)
    };
    for (required, allowed) in [
        (json!(["users:read AND audit:read"]), true),
        (json!(["users:read, audit:read"]), true),
        (json!(["admin OR users:read"]), true),
        (json!(["admin OR (users:read AND audit:write)"]), false),
        (json!(["users:read", "admin OR audit:read", " "]), true),
        (json!(["users:read", "admin"]), false),
    ] {
        assert_eq!(asking(required.clone()).await.ok()["allowed"], allowed, "{required}");
    }
    let wrong = asking(json!(["users:read", "(audit:read OR"])).await;
    let message = wrong.is_error(400, "invalid_field").body["message"].clone();
    assert_eq!(message, "required_permissions[1] is wrong at character 15: expected a permission or '('");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_bounds_which_paths_its_keys_reach() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let app = json!({"app_slug": "acme", "name": "Acme", "key_prefix": "sk_test", "resources": ["users/*", "/v1/health"]});
    backend.post("/api-auth/apps", app).await.ok();
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let asking = |resource: &str| {
        let mut body = check_body(&secret);
        body["resource"] = resource.into();
        keyward.check_with(body)
    };
    for reached in [
        "/users/1",
        "users/1/keys?page=2",
        "/Users//1",
        "/v1/health/",
        "/%75sers/1",
        "https://api.example.com/users/1",
        "/users/1;2",
    ] {
        assert_eq!(asking(reached).await.ok()["allowed"], true, "{reached}");
    }
    for out_of_bounds in
        ["/users", "/admin", "/users;a=b/1", "//h/users/1", "/%2575sers/1", "/users\\1", "/v1/health/x"]
    {
        let response = asking(out_of_bounds).await.ok();
        assert_eq!(response["allowed"], false, "{out_of_bounds}");
        assert_eq!(response["reason"], "permission_denied");
        assert_eq!(response["blocked_rule"], "permission_denied");
    }
    // Changed bounds hold for the very next check.
    backend.patch("/api-auth/apps/acme", json!({"resources": []})).await.ok();
    assert_eq!(asking("/admin").await.ok()["allowed"], true);
    for wrong in ["a b", "", "/a?b"] {
        let refused = backend.patch("/api-auth/apps/acme", json!({"resources": [wrong]})).await;
        refused.is_error(400, "invalid_field");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_and_texts_that_are_not_ascii() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let key = json!({"name": "Schlüssel", "metadata": {"stadt": "Köln"}});
    let created = backend.post("/api-auth/apps/acme/keys", key).await.ok();
    let mut body = check_body(&text(&created["secret"]));
    for member in ["client_ip", "user_agent", "required_permissions"] {
        body[member] = Value::Null;
    }
    let response = keyward.check_with(body).await.ok();
    assert_eq!(response["identity"]["key_name"], "Schlüssel");
    assert_eq!(response["headers"]["x-wacht-key-name"], "Schl%C3%BCssel");
    assert_eq!(response["headers"]["x-wacht-metadata"], "stadt=K%C3%B6ln");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_bounds_and_disables_its_keys_from_the_next_check_on() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend.create_key("acme", json!({"permissions": ["users:read", "users:write"]})).await;
    let secret = text(&created["secret"]);
    let patch = |body: Value| backend.patch("/api-auth/apps/acme", body);

    patch(json!({"permissions": ["users:read"]})).await.ok();
    assert_eq!(keyward.check(&secret).await.ok()["permissions"], json!(["users:read"]));
    patch(json!({"permissions": null})).await.ok();
    assert_eq!(keyward.check(&secret).await.ok()["permissions"], json!(["users:read", "users:write"]));
    patch(json!({"is_active": false})).await.ok();
    let refused = keyward.check(&secret).await;
    blank(refused.is_error(403, "app_disabled"));
    assert!(text(&refused.body["request_id"]).starts_with("req_"));
    patch(json!({"is_active": true})).await.ok();
    assert_eq!(keyward.check(&secret).await.ok()["allowed"], true);
    backend.delete("/api-auth/apps/acme").await.ok();
    blank(keyward.check(&secret).await.is_error(403, "app_deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_expires_at_its_instant() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let expires_at = Utc::now() + TimeDelta::hours(1);
    let created = backend.create_key("acme", json!({"expires_at": expires_at})).await;
    let secret = text(&created["secret"]);
    assert_eq!(keyward.check(&secret).await.ok()["allowed"], true);
    keyward.pass(TimeDelta::hours(1));
    let refused = keyward.check(&secret).await;
    blank(refused.is_error(401, "key_expired"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"keyward\", error=\"invalid_token\""));
    let listed = backend.get("/api-auth/apps/acme/keys").await.ok();
    assert_eq!(listed["keys"][0]["is_active"], true, "an expired key is not a revoked one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_and_a_wrong_secret_are_answered_alike() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend.create_key("acme", json!({})).await;
    let old = text(&created["secret"]);
    let new = text(&backend.rotate("acme", &text(&created["id"])).await.ok()["secret"]);
    let wrong = keyward.check(&old).await;
    blank(wrong.is_error(401, "invalid_api_key"));
    let elsewhere = Keyward::start().await;
    let unknown = elsewhere.check(&old).await;
    let garbage = keyward.check("garbage").await;
    assert_eq!(wrong.without_id(), unknown.without_id());
    assert_eq!(wrong.without_id(), garbage.without_id());

    let compared = async |keyward: &Keyward, key: &str| {
        let before = keyward.services.store.hmacs_compared();
        (is_recognised(keyward, key).await, keyward.services.store.hmacs_compared() - before)
    };
    assert_eq!(compared(&keyward, &new).await, (true, 1));
    assert_eq!(compared(&keyward, &old).await, (false, 1), "a wrong secret");
    assert_eq!(compared(&elsewhere, &old).await, (false, 1), "an unknown key");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_must_be_well_formed() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let with = |member: &str, value: Value| {
        let mut body = check_body(&secret);
        body[member] = value;
        body
    };
    for (body, status, code) in [
        (with("method", "TRACE".into()), 400, "invalid_field"),
        (with("resource", "  ".into()), 400, "invalid_field"),
        (with("resource", "?x".into()), 400, "invalid_field"),
        (with("method", Value::Null), 422, "invalid_body"),
        (with("resource", "/a%00".into()), 400, "invalid_field"),
        (with("required_permissions", json!([1])), 422, "invalid_body"),
        (with("required_permissions", json!(["users:read AND"])), 400, "invalid_field"),
        (with("required_permissions", json!(["a b"])), 400, "invalid_field"),
        (with("principal", json!({"type": "m2m", "value": secret})), 422, "invalid_body"),
        (
            with("principal", json!({"type": "oauth_access_token", "value": "x"})),
            401,
            "unsupported_principal",
        ),
        (with("principal", json!({"type": "api_key", "value": ""})), 401, "invalid_api_key"),
        (with("principal", json!({"type": "api_key"})), 422, "invalid_body"),
    ] {
        let response = keyward.check_with(body).await;
        blank(response.is_error(status, code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_as_each_check_alone() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let other =
        json!({"app_slug": "other", "name": "Other", "key_prefix": "sk_test", "resources": ["users/*"]});
    backend.post("/api-auth/apps", other).await.ok();
    let reader = text(&backend.create_key("acme", json!({"permissions": ["users:read"]})).await["secret"]);
    let bounded = text(&backend.create_key("other", json!({})).await["secret"]);
    let revoked = backend.create_key("acme", json!({})).await;
    backend.revoke("acme", &text(&revoked["id"])).await.ok();
    let with = |secret: &str, member: &str, value: Value| {
        let mut body = check_body(secret);
        body[member] = value;
        body
    };
    let checks = [
        with(&reader, "required_permissions", json!(["users:read"])),
        with(&reader, "required_permissions", json!(["users:write"])),
        check_body("garbage"),
        check_body(&text(&revoked["secret"])),
        with(&bounded, "resource", "/users/1".into()),
        with(&bounded, "resource", "/admin".into()),
        with(&reader, "method", "TRACE".into()),
        with(&reader, "required_permissions", json!(["users:read OR"])),
        with("x", "principal", json!({"type": "oauth_access_token", "value": "x"})),
        with(&reader, "principal", json!({"type": "api_key"})),
        with(&reader, "method", json!(["GET"])),
        json!("GET /v1/users"),
        with(&reader, "required_permissions", json!(["users:read"])),
    ];
    keyward.calls.take();
    let response = backend.post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
    let reads = keyward.calls.take();
    assert_eq!(reads.iter().filter(|call| call.operation == "BatchGetItem").count(), 1, "{reads:?}");
    let results = response["results"].as_array().unwrap();
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 401, 403, 200, 200, 400, 400, 401, 422, 422, 422, 200]);
    for (check, result) in checks.iter().zip(results) {
        let mut alone = keyward.check_with(check.clone()).await.body;
        let mut result = result.clone();
        for body in [&mut alone, &mut result] {
            let members = body.as_object_mut().unwrap();
            members.remove("request_id");
            members.remove("status");
        }
        assert_eq!(result, alone, "{check}");
    }
    assert_eq!(results[0]["allowed"], true);
    assert_eq!(results[5]["blocked_rule"], "permission_denied");
    // Each has an event of its own.
    keyward.settle().await;
    let log = backend.get("/api-auth/apps/acme/audit/logs?limit=100").await.ok();
    for result in [&results[0], &results[1], &results[3], &results[12]] {
        let rows = log["data"].as_array().unwrap().iter();
        assert_eq!(rows.filter(|row| row["request_id"] == result["request_id"]).count(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_1_to_100_checks_of_one_root_key() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    let mut secrets = vec![];
    for n in 0..60 {
        let slug = format!("app-{n}");
        backend.create_app(&slug).await;
        secrets.push(text(&backend.create_key(&slug, json!({})).await["secret"]));
    }
    let batch = |count: usize| {
        let checks: Vec<Value> =
            secrets.iter().cycle().take(count).map(|secret| check_body(secret)).collect();
        json!({"checks": checks})
    };
    let response = backend.post("/v1/authz/check/batch", batch(100)).await.ok();
    let results = response["results"].as_array().unwrap();
    assert!(results.len() == 100 && results.iter().all(|result| result["allowed"] == true));
    let slugs: Vec<&Value> = results.iter().map(|result| &result["identity"]["app_slug"]).collect();
    assert!(slugs.iter().enumerate().all(|(n, slug)| **slug == format!("app-{}", n % 60)), "{slugs:?}");
    for count in [0, 101] {
        backend.post("/v1/authz/check/batch", batch(count)).await.is_error(400, "invalid_field");
    }
    for no_list in [json!({}), json!({"checks": {}}), json!([check_body(&secrets[0])])] {
        backend.post("/v1/authz/check/batch", no_list).await.is_error(422, "invalid_body");
    }
    let lacking = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    lacking.post("/v1/authz/check/batch", batch(2)).await.is_error(403, "forbidden");
    let nobody = Backend::new(&backend.url, "kw_root_x", backend.http.clone());
    assert_eq!(nobody.post("/v1/authz/check/batch", batch(2)).await.status, 401);
    // Keys of another deployment are no keys here.
    let (_, other) = keyward.other_deployment(keyward_core::deployment::Mode::Staging, &[]).await;
    let response = other.post("/v1/authz/check/batch", batch(2)).await.ok();
    assert!(response["results"].as_array().unwrap().iter().all(|result| result["code"] == "invalid_api_key"));
    let garbage = json!({"checks": [check_body("garbage")]});
    let response = backend.post("/v1/authz/check/batch", garbage).await.ok();
    assert_eq!(response["results"][0]["status"], 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_where_one_is_required() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let check = |backend: Backend| async move { backend.post("/v1/authz/check", check_body(&secret)).await };

    keyward.check("garbage").await.is_error(401, "missing_root_key");
    assert_eq!(check.clone()(backend.clone()).await.ok()["allowed"], true);
    let wrong_key = backend.post("/v1/authz/check", check_body("garbage")).await;
    wrong_key.is_error(401, "invalid_api_key");

    let lacking = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    check.clone()(lacking).await.is_error(403, "forbidden");
    let (_, other) = keyward.other_deployment(keyward_core::deployment::Mode::Staging, &[]).await;
    check(other).await.is_error(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_the_apps_that_it_is_for() {
    let keyward = Keyward::start().await;
    let (id, elsewhere) = keyward.other_deployment(Mode::Staging, &[]).await;
    let first = keyward.deployment();
    let mut secrets = vec![];
    for (backend, slug) in [(&keyward.backend(), "acme"), (&keyward.backend(), "beta"), (&elsewhere, "acme")]
    {
        backend.create_app(slug).await;
        secrets.push(text(&backend.create_key(slug, json!({"permissions": ["a"]})).await["secret"]));
    }
    let unknown = keyward.check("garbage").await;
    for (members, allowed) in [
        (json!({}), [true, true, true]),
        (json!({"apps": null, "deployment_id": null}), [true, true, true]),
        (json!({"apps": ["acme"]}), [true, false, false]),
        (json!({"apps": ["beta", "acme"]}), [true, true, false]),
        (json!({"apps": ["other"]}), [false, false, false]),
        (json!({"apps": ["acme"], "deployment_id": first}), [true, false, false]),
        (json!({"apps": ["acme"], "deployment_id": id}), [false, false, true]),
        (json!({"deployment_id": first.get()}), [true, true, false]),
        (json!({"deployment_id": id}), [false, false, true]),
        (json!({"deployment_id": "1"}), [false, false, false]),
    ] {
        let mut checks = vec![];
        for (secret, is_allowed) in secrets.iter().zip(allowed) {
            let mut body = check_body(secret);
            body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            checks.push(body.clone());
            let response = keyward.check_with(body).await;
            if is_allowed {
                assert_eq!(response.ok()["allowed"], true, "{members}");
            } else {
                assert_eq!(
                    (response.status, response.without_id()),
                    (401, unknown.without_id()),
                    "as what is no key: {members}"
                );
                assert_eq!(response.header("www-authenticate"), unknown.header("www-authenticate"));
            }
        }
        let batch = elsewhere.post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
        let results = batch["results"].as_array().unwrap().iter().map(|result| result["allowed"] == true);
        assert_eq!(results.collect::<Vec<_>>(), allowed, "{members}");
    }
    for (members, status, code, expected) in [
        (json!({"apps": []}), 400, "invalid_field", "apps must name 1 to 100 apps by their slugs"),
        (
            json!({"apps": ["acme", "Acme"]}),
            400,
            "invalid_field",
            "apps[1] must be 1 to 64 lower-case letters",
        ),
        (json!({"apps": vec!["a"; 101]}), 400, "invalid_field", "apps must name 1 to 100"),
        (json!({"apps": "acme"}), 422, "invalid_body", ""),
        (json!({"apps": [1]}), 422, "invalid_body", ""),
        (json!({"deployment_id": "acme"}), 422, "invalid_body", ""),
        (json!({"deployment_id": 0}), 422, "invalid_body", ""),
    ] {
        let mut body = check_body(&secrets[0]);
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let response = keyward.check_with(body).await;
        blank(response.is_error(status, code));
        assert!(text(&response.body["message"]).contains(expected), "{}", response.body);
    }
    // A key that is sent to another app's API is in no log, neither of its app nor of the other.
    keyward.settle().await;
    let log = elsewhere.get("/api-auth/apps/acme/audit/logs?outcome=blocked").await.ok();
    assert_eq!(log["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_says_of_which_deployment_the_named_apps_are() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let (id, elsewhere) = keyward.other_deployment(Mode::Staging, &[]).await;
    let here = keyward.backend();
    let mut secrets = vec![];
    for backend in [&here, &elsewhere] {
        backend.create_app("acme").await;
        secrets.push(text(&backend.create_key("acme", json!({})).await["secret"]));
    }
    let ask = async |backend: &Backend, secret: &str, members: Value| {
        let mut body = check_body(secret);
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        backend.post("/v1/authz/check", body).await
    };
    for members in [json!({"apps": ["acme"]}), json!({"apps": ["acme"], "deployment_id": id})] {
        assert_eq!(ask(&elsewhere, &secrets[1], members.clone()).await.ok()["allowed"], true, "{members}");
        ask(&elsewhere, &secrets[0], members).await.is_error(401, "invalid_api_key");
    }
    // Whether the key is one or none.
    for key in [secrets[0].clone(), secrets[1].clone(), crate::alone::with_another_secret(&secrets[0])] {
        let response = ask(&here, &key, json!({"apps": ["acme"], "deployment_id": id})).await;
        response.is_error(400, "invalid_field");
        assert_eq!(response.body["message"], "deployment_id must be the deployment of the root key");
    }
}
