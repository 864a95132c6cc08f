//! The authorizer of an API Gateway, with the events that AWS documents for each of its kinds.

use std::sync::Arc;

use authorizer::{Event, Guarded, Settings, authorize};
use chrono::{TimeDelta, Utc};
use keyward_core::deployment::Mode;
use keyward_runtime::Services;
use keyward_tests::{FLUSH_TIME, Keyward, text};
use serde_json::{Value, json};

const HTTP_API_2: &str = include_str!("events/http-api-2.0.json");
const HTTP_API_1: &str = include_str!("events/http-api-1.0.json");
const REST_REQUEST: &str = include_str!("events/rest-api-request.json");
const REST_TOKEN: &str = include_str!("events/rest-api-token.json");
const EVENTS: [&str; 4] = [HTTP_API_2, HTTP_API_1, REST_REQUEST, REST_TOKEN];

/// Settings for any app of the first deployment.
fn any(key_header: &str) -> Settings {
    let settings = Settings::parse(key_header).unwrap();
    Settings { guarded: Guarded::parse("ANY", "").unwrap(), ..settings }
}

/// A recorded event of `GET /v1/users`.
struct Recorded(Value);

impl Recorded {
    fn of(event: &str) -> Self {
        Self(serde_json::from_str(event).unwrap())
    }

    fn is_token(&self) -> bool {
        self.0["type"] == "TOKEN"
    }

    fn is_simple(&self) -> bool {
        self.0["version"] == "2.0"
    }

    /// Adds a header, or the token that API Gateway would have taken from it.
    fn with(mut self, name: &str, value: &str) -> Self {
        if self.is_token() {
            self.0["authorizationToken"] = value.into();
            return self;
        }
        self.0["headers"][name] = value.into();
        if self.0["multiValueHeaders"].is_object() {
            self.0["multiValueHeaders"][name] = json!([value]);
        }
        self
    }

    fn asking(mut self, method: &str, path: &str) -> Self {
        let arn = format!("arn:aws:execute-api:us-east-1:123456789012:abcdef123/test/{method}{path}");
        if self.is_simple() {
            self.0["routeArn"] = arn.into();
            self.0["rawPath"] = format!("/test{path}").into();
            self.0["requestContext"]["http"]["method"] = method.into();
        } else {
            self.0["methodArn"] = arn.into();
            if !self.is_token() {
                self.0["path"] = path.into();
                self.0["httpMethod"] = method.into();
            }
        }
        self
    }

    async fn respond_with_services(self, services: &Services, settings: &Settings) -> Result<Value, String> {
        let event: Event = serde_json::from_value(self.0).unwrap();
        let response = authorize(services, settings, event).await;
        services.recorder.flush(FLUSH_TIME).await;
        response.map(|response| serde_json::to_value(response).unwrap()).map_err(|error| error.to_string())
    }

    async fn respond_with(self, keyward: &Keyward, settings: &Settings) -> Result<Value, String> {
        self.respond_with_services(&keyward.authorizer, settings).await
    }

    async fn response(self, keyward: &Keyward) -> Result<Value, String> {
        self.respond_with(keyward, &any("")).await
    }
}

/// Whether this response, in whichever form, allows the request.
fn is_allowed(response: &Value) -> bool {
    match &response["isAuthorized"] {
        Value::Bool(is_authorized) => *is_authorized,
        _ => response["policyDocument"]["Statement"][0]["Effect"] == "Allow",
    }
}

#[track_caller]
fn is_refused(response: &Result<Value, String>, code: &str) {
    let response = response.as_ref().unwrap();
    assert!(!is_allowed(response), "{response}");
    assert_eq!(response["context"]["code"], code, "{response}");
    assert!(!text(&response["context"]["message"]).is_empty(), "{response}");
}

/// A new key of an app `guarded`, which two rules limit.
async fn key(keyward: &Keyward) -> (String, String) {
    let backend = keyward.backend();
    let rules = json!([
        {"unit": "day", "duration": 1, "max_requests": 100},
        {"unit": "day", "duration": 1, "max_requests": 1_000, "mode": "per_app"},
    ]);
    let scheme = json!({"slug": "guarded", "name": "Guarded", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({
        "app_slug": "guarded", "name": "Guarded", "key_prefix": "sk", "rate_limit_scheme_slug": "guarded",
    });
    backend.post("/api-auth/apps", app).await.ok();
    let members = json!({
        "permissions": ["users:read", "users:write"],
        "metadata": {"plan": "gold", "seats": 5},
        "owner_user_id": "usr_1",
        "organization_id": "org_1",
        "workspace_id": "ws_1",
        "organization_membership_id": "om_1",
        "workspace_membership_id": "wm_1",
    });
    let key = backend.create_key("guarded", members).await;
    (text(&key["id"]), text(&key["secret"]))
}

/// A new key goes through in every event. Returns its id and its secret.
pub async fn allows_a_key(keyward: &Keyward) -> (String, String) {
    let (id, secret) = key(keyward).await;
    for (left, event) in (96..100).rev().zip(EVENTS) {
        let event = Recorded::of(event).with("Authorization", &format!("Bearer {secret}"));
        let response = event.response(keyward).await.unwrap();
        assert!(is_allowed(&response), "{response}");
        let context = response["context"].as_object().unwrap();
        assert!(context.values().all(Value::is_string), "{response}");
        assert!(text(&context["request_id"]).starts_with("req_"));
        for (name, message) in [
            ("key_id", id.as_str()),
            ("key_name", "Test key"),
            ("app_slug", "guarded"),
            ("deployment_id", &keyward.deployment().to_string()),
            ("permissions", "users:read,users:write"),
            ("metadata", r#"{"plan":"gold","seats":5}"#),
            ("owner_user_id", "usr_1"),
            ("organization_id", "org_1"),
            ("workspace_id", "ws_1"),
            ("organization_membership_id", "om_1"),
            ("workspace_membership_id", "wm_1"),
        ] {
            assert_eq!(context[name], message, "{name}");
        }
        let limits: Value = serde_json::from_str(&text(&context["rate_limits"])).unwrap();
        assert_eq!(limits[0], json!({"rule": "100/86400s", "remaining": left, "limit": 100}));
        assert_eq!(context.len(), 13, "{response}");
    }
    (id, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_with_a_key_and_shows_in_the_log() {
    let keyward = Keyward::start().await;
    allows_a_key(&keyward).await;
    let log = keyward.backend().get("/api-auth/apps/guarded/audit/logs?outcome=allowed").await.ok();
    let mut rows: Vec<&Value> = log["data"].as_array().unwrap().iter().collect();
    rows.retain(|row| row["action"] == "verification");
    assert_eq!(rows.len(), EVENTS.len(), "written before the answer: {log}");
    let token = rows.remove(0);
    for row in rows {
        assert_eq!(row["path"], "GET /v1/users", "without the stage");
        assert_eq!(row["client_ip"], "192.0.2.10");
        assert_eq!(row["user_agent"], "example-agent/1.0");
    }
    assert_eq!(token["path"], "GET /v1/users", "from the ARN alone");
    assert_eq!(token["client_ip"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_about_the_one_request_and_names_the_key() {
    let keyward = Keyward::start().await;
    let (id, secret) = key(&keyward).await;
    for event in [HTTP_API_1, REST_REQUEST, REST_TOKEN] {
        let event = Recorded::of(event);
        let (arn, is_rest) = (event.0["methodArn"].clone(), event.0["version"].is_null());
        let response = event.with("X-Api-Key", &secret).response(&keyward).await.unwrap();
        let statement = json!({"Action": ["execute-api:Invoke"], "Effect": "Allow", "Resource": [arn]});
        assert_eq!(response["policyDocument"], json!({"Version": "2012-10-17", "Statement": [statement]}));
        assert_eq!(response["principalId"], id.as_str());
        match response.get("usageIdentifierKey") {
            Some(usage) => {
                assert_eq!(*usage, format!("keyward{id:0>19}"));
                assert!((20..=128).contains(&text(usage).len()), "as API Gateway's own keys");
            }
            None => assert!(!is_rest, "{response}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_key_nothing_goes_through() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    let root_key = keyward.backend().root_key;
    let wrong_secret = format!("{secret}0");
    for event in EVENTS {
        for (presented, code) in [
            (None, "missing_api_key"),
            (Some("garbage"), "invalid_api_key"),
            (Some(root_key.as_str()), "invalid_api_key"),
            (Some(wrong_secret.as_str()), "invalid_api_key"),
            (Some(""), "invalid_api_key"),
        ] {
            let mut event = Recorded::of(event);
            let is_simple = event.is_simple();
            if let Some(presented) = presented {
                event = event.with("x-api-key", presented);
            }
            let response = event.response(&keyward).await;
            if is_simple {
                is_refused(&response, code);
            } else {
                // The error to which API Gateway responds with 401.
                assert_eq!(response.unwrap_err(), "Unauthorized", "{presented:?}");
            }
        }
    }
    let other_scheme = Recorded::of(HTTP_API_2).with("authorization", &format!("Basic {secret}"));
    is_refused(&other_scheme.response(&keyward).await, "missing_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_work_is_refused_and_told_why() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let (revoked, secret) = key(&keyward).await;
    backend.revoke("guarded", &revoked).await.ok();
    let expires = json!({"expires_at": Utc::now() + TimeDelta::hours(1)});
    let expiring = backend.create_key("guarded", expires).await;
    keyward.pass(TimeDelta::hours(2));
    for event in EVENTS {
        let response = Recorded::of(event).with("x-api-key", &secret).response(&keyward).await;
        is_refused(&response, "key_revoked");
        let response = response.unwrap();
        assert_eq!(response["context"]["key_id"], revoked.as_str());
        assert!(text(&response["context"]["request_id"]).starts_with("req_"));
        assert!(response["principalId"].is_null() || response["principalId"] == revoked.as_str());
        let response =
            Recorded::of(event).with("x-api-key", &text(&expiring["secret"])).response(&keyward).await;
        is_refused(&response, "key_expired");
    }
    let working = text(&backend.create_key("guarded", json!({})).await["secret"]);
    backend.patch("/api-auth/apps/guarded", json!({"is_active": false})).await.ok();
    for event in EVENTS {
        is_refused(&Recorded::of(event).with("x-api-key", &working).response(&keyward).await, "app_disabled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_no_decision() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    keyward.calls.fail(true);
    for event in EVENTS {
        let failed = Recorded::of(event).with("x-api-key", &secret).response(&keyward).await;
        assert_ne!(failed.unwrap_err(), "Unauthorized", "which would be the client's fault");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_ask_for_permissions_however_a_path_is_spelled() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let (id, secret) = key(&keyward).await;
    let ask = async |event: &str, method: &str, path: &str| {
        Recorded::of(event).asking(method, path).with("x-api-key", &secret).response(&keyward).await
    };
    let patch = async |routes: Value| {
        backend.patch("/api-auth/apps/guarded", json!({"route_permissions": routes})).await.ok();
    };
    patch(json!([{"method": "DELETE", "path": "/v1/users/*", "permissions": ["users:delete OR admin"]}]))
        .await;
    for event in EVENTS {
        for path in [
            "/v1/users/1",
            "/V1/Users/1",
            "/v1//users/1/",
            "/v1/%75sers/1",
            "/v1/users;a=b/1",
            "//h/v1/users/1",
            "/v1%2Fusers%2f1",
        ] {
            let response = ask(event, "DELETE", path).await;
            is_refused(&response, "permission_denied");
            let context = &response.unwrap()["context"];
            assert_eq!(context["key_id"], id.as_str());
            assert_eq!(context["permissions"], "users:read,users:write");
        }
        for path in ["/v1/x/../users/1", "/x/..;/v1/users/1", "/x/%2e%2e%3b/v1/users/1", "/v1/users/%ff"] {
            is_refused(&ask(event, "DELETE", path).await, "invalid_field");
        }
        assert!(is_allowed(&ask(event, "GET", "/v1/users/1").await.unwrap()));
        assert!(is_allowed(&ask(event, "DELETE", "/v1/orgs/1").await.unwrap()));
    }
    patch(json!([{"path": "/v1/users/*", "permissions": ["users:read AND users:write"]}])).await;
    for event in EVENTS {
        assert!(is_allowed(&ask(event, "DELETE", "/v1/users/1").await.unwrap()));
    }
    patch(json!([{"path": "/v1/users/*", "permissions": ["admin"]}])).await;
    for event in EVENTS {
        is_refused(&ask(event, "GET", "/v1/users/1").await, "permission_denied");
    }
    patch(Value::Null).await;
    for event in EVENTS {
        assert!(is_allowed(&ask(event, "GET", "/v1/users/1").await.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_stands_for_more_than_the_request() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    for path in ["/v1/*", "/*", "/v1/user?", "/v1/${aws:username}"] {
        for event in [HTTP_API_1, REST_REQUEST, REST_TOKEN] {
            let event = Recorded::of(event).asking("GET", path).with("x-api-key", &secret);
            is_refused(&event.response(&keyward).await, "invalid_field");
        }
    }
    let simple = Recorded::of(HTTP_API_2).asking("GET", "/v1/*").with("x-api-key", &secret);
    assert!(is_allowed(&simple.response(&keyward).await.unwrap()), "a yes is about no path");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_paths_are_rejected() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    for event in EVENTS {
        for (method, path) in [("GET", "/a%00"), ("TRACE", "/a"), ("GET", &format!("/{}", "a".repeat(2_100)))]
        {
            let event = Recorded::of(event).asking(method, path).with("x-api-key", &secret);
            is_refused(&event.response(&keyward).await, "invalid_field");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_where_it_is_looked_for() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    let bearer = format!("bEaReR {secret}");
    let set = any("X-Acme-Key");
    for event in [HTTP_API_2, HTTP_API_1, REST_REQUEST] {
        let event = || Recorded::of(event);
        for (name, value) in [("authorization", &bearer), ("AUTHORIZATION", &bearer), ("X-API-Key", &secret)]
        {
            assert!(is_allowed(&event().with(name, value).response(&keyward).await.unwrap()), "{name}");
            let elsewhere = event().with(name, value).respond_with(&keyward, &set).await;
            assert!(
                elsewhere.is_err() || !is_allowed(&elsewhere.unwrap()),
                "only in the one that is set: {name}"
            );
        }
        for value in [&bearer, &secret] {
            let found = event().with("x-ACME-key", value).with("Authorization", "Basic dTpw");
            assert!(is_allowed(&found.respond_with(&keyward, &set).await.unwrap()));
        }
    }
    for value in [&bearer, &secret] {
        let token = Recorded::of(REST_TOKEN).with("", value);
        assert!(is_allowed(&token.respond_with(&keyward, &set).await.unwrap()), "API Gateway has looked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_proxies_are_believed_about_the_client() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    let settings = keyward_runtime::Settings {
        trusted_proxies: "192.0.2.0/24,2001:db8:1::/48".parse().unwrap(),
        ..keyward_runtime::Settings::clone(&keyward.authorizer.settings)
    };
    let trusting = Services { settings: Arc::new(settings), ..keyward.authorizer.clone() };
    let sent = "203.0.113.66, 198.51.100.7, 2001:db8:1::5, 192.0.2.11";
    for event in [HTTP_API_2, HTTP_API_1, REST_REQUEST] {
        for (services, client) in [(&keyward.authorizer, "192.0.2.10"), (&trusting, "198.51.100.7")] {
            let event = Recorded::of(event).with("x-api-key", &secret).with("X-Forwarded-For", sent);
            event.respond_with_services(services, &any("")).await.unwrap();
            let log = keyward.backend().get("/api-auth/apps/guarded/audit/logs?limit=1").await.ok();
            assert_eq!(log["data"][0]["client_ip"], client, "{log}");
        }
    }
    let mut several = Recorded::of(REST_REQUEST).with("x-api-key", &secret);
    several.0["multiValueHeaders"]["X-Forwarded-For"] = json!(["203.0.113.66", "198.51.100.8, 192.0.2.11"]);
    several.respond_with_services(&trusting, &any("")).await.unwrap();
    let log = keyward.backend().get("/api-auth/apps/guarded/audit/logs?limit=1").await.ok();
    assert_eq!(log["data"][0]["client_ip"], "198.51.100.8", "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_longer_than_8_kib() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("largest").await;
    // Each quotation mark costs two bytes in the table, and four in the response.
    let mut quotes = 1_280;
    let secret = loop {
        let key = json!({"name": "k", "permissions": ["*"], "metadata": {"text": "\"".repeat(quotes)}});
        let created = backend.post("/api-auth/apps/largest/keys", key).await;
        if created.status == 200 {
            break text(&created.body["secret"]);
        }
        quotes -= 1;
    };
    let permissions: Vec<String> = (0..18).map(|n| format!("{n:02}{}", "p".repeat(126))).collect();
    backend.patch("/api-auth/apps/largest", json!({"permissions": permissions})).await.ok();
    let mut left_out = Vec::new();
    for event in EVENTS {
        for path in ["/v1/users", &format!("/{}", "p".repeat(2_040))] {
            let event = Recorded::of(event).asking("GET", path).with("x-api-key", &secret);
            let response = event.response(&keyward).await.unwrap();
            assert!(is_allowed(&response));
            assert!(response.to_string().len() <= 8_192, "{}", response.to_string().len());
            let context = &response["context"];
            assert_eq!(context["permissions"], permissions.join(","));
            assert_eq!(context["metadata"].is_null(), !context["truncated"].is_null(), "{context}");
            left_out.push(context["truncated"].clone());
        }
    }
    assert!(left_out.contains(&json!("metadata")) && left_out.contains(&Value::Null), "{left_out:?}");
}

#[test]
fn other_events_are_no_requests_and_not_repeated() {
    for event in [
        json!({}),
        json!([]),
        json!({"type": "REQUEST", "headers": 5}),
        json!({"version": "3.0", "type": "REQUEST"}),
        json!({"version": "2.0", "headers": {"x-api-key": "a secret\n"}, "requestContext": {"http": {"method": "GET"}}}),
        json!({"version": "2.0", "rawPath": "/session/ticket/exchange", "body": "a secret"}),
    ] {
        let error = serde_json::from_value::<Event>(event).err().unwrap().to_string();
        assert_eq!(error, "the event is not one that API Gateway sends to a Lambda authorizer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_a_limit_is_refused_and_says_until_when() {
    let keyward = Keyward::start().await;
    let (_, secret) = key(&keyward).await;
    let rules = json!({"rules": [{"unit": "calendar_day", "duration": 1, "max_requests": 1}]});
    keyward.backend().patch("/api-auth/rate-limit-schemes/guarded", rules).await.ok();
    let ask = || Recorded::of(REST_REQUEST).with("x-api-key", &secret).response(&keyward);
    assert!(is_allowed(&ask().await.unwrap()));
    let response = ask().await;
    is_refused(&response, "rate_limited");
    let context = &response.unwrap()["context"];
    assert_eq!(context["blocked_rule"], "1/86400s");
    let seconds: u32 = text(&context["retry_after"]).parse().unwrap();
    assert!((1..=86_400).contains(&seconds));
}

/// Settings for these apps of this deployment.
fn guarding(apps: &str, deployment: &str) -> Settings {
    Settings { guarded: Guarded::parse(apps, deployment).unwrap(), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_is_opened_by_keys_of_its_apps_alone() {
    let keyward = Keyward::start().await;
    let (id, elsewhere) = keyward.other_deployment(Mode::Staging, &[]).await;
    let mut secrets = vec![];
    for (backend, slug) in [
        (&keyward.backend(), "acme"),
        (&keyward.backend(), "beta"),
        (&elsewhere, "acme"),
        (&elsewhere, "beta"),
    ] {
        backend.create_app(slug).await;
        secrets.push(text(&backend.create_key(slug, json!({})).await["secret"]));
    }
    let id = id.to_string();
    for (apps, deployment, opened) in [
        ("acme", "", [true, false, false, false]),
        ("acme, beta", "", [true, true, false, false]),
        ("ANY", "", [true, true, false, false]),
        ("acme", id.as_str(), [false, false, true, false]),
        ("acme", "ANY", [true, false, true, false]),
        ("ANY", "ANY", [true; 4]),
        ("other", "", [false; 4]),
    ] {
        let settings = guarding(apps, deployment);
        for event in EVENTS {
            for (secret, is_opened) in secrets.iter().zip(opened) {
                let asked = Recorded::of(event).with("x-api-key", secret);
                let is_simple = asked.is_simple();
                let response = asked.respond_with(&keyward, &settings).await;
                match response {
                    Ok(response) if is_opened => {
                        assert!(is_allowed(&response), "{apps} {deployment}: {response}")
                    }
                    Ok(response) => {
                        let garbage = Recorded::of(event).with("x-api-key", "garbage");
                        let unknown = garbage.respond_with(&keyward, &settings).await.unwrap();
                        let [message, unknown] = [&response, &unknown].map(|response| {
                            let mut message = response.clone();
                            assert!(message["context"]["request_id"].take().is_string());
                            message
                        });
                        assert_eq!(message, unknown, "as what is no key");
                        assert!(is_simple && !is_allowed(&response), "{apps} {deployment}");
                    }
                    Err(error) => {
                        assert!(!is_opened && !is_simple, "{apps} {deployment}");
                        assert_eq!(error, "Unauthorized");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_says_which_apps_are_its_own_and_without_a_word_nothing_is_opened() {
    let keyward = Keyward::start().await;
    let mut secrets = vec![];
    for slug in ["acme", "beta"] {
        keyward.backend().create_app(slug).await;
        secrets.push(text(&keyward.backend().create_key(slug, json!({})).await["secret"]));
    }
    let ask = async |event: &str, settings: &Settings, variables: Value, secret: &str| {
        let mut asked = Recorded::of(event).with("x-api-key", secret);
        for (name, value) in variables.as_object().unwrap() {
            asked.0["stageVariables"][name] = value.clone();
        }
        asked.respond_with(&keyward, settings).await
    };
    let is_open = |response: Result<Value, String>| response.is_ok_and(|response| is_allowed(&response));
    let (unsaid, acme) = (guarding("", ""), guarding("acme", ""));
    for event in [HTTP_API_2, HTTP_API_1, REST_REQUEST] {
        for (settings, variables, opened) in [
            (&unsaid, json!({"keyward_apps": "beta"}), [false, true]),
            (&acme, json!({"keyward_apps": "beta"}), [false, true]),
            (&acme, json!({"keyward_apps": "acme,beta"}), [true, true]),
            (&acme, json!({"keyward_apps": "ANY"}), [true, true]),
            (&acme, json!({"keyward_deployment": "1"}), [false, false]),
            (&acme, json!({"keyward_apps": "ANY", "keyward_deployment": "ANY"}), [true, true]),
            (&acme, json!({}), [true, false]),
        ] {
            for (secret, is_opened) in secrets.iter().zip(opened) {
                let response = ask(event, settings, variables.clone(), secret).await;
                assert_eq!(is_open(response), is_opened, "{variables}");
            }
        }
        let wrong = ask(event, &acme, json!({"keyward_apps": "Acme"}), &secrets[0]).await.unwrap_err();
        assert!(wrong.starts_with("the stage variable keyward_apps must be ANY or the slugs"), "{wrong}");
    }
    for event in EVENTS {
        let message =
            Recorded::of(event).with("x-api-key", &secrets[0]).respond_with(&keyward, &unsaid).await;
        let message = message.unwrap_err();
        assert!(
            message.contains("set the parameter AuthorizerApps, or the stage variable keyward_apps"),
            "{message}"
        );
    }
}
