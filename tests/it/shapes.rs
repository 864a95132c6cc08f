//! Requests of another shape: whatever is wrong with a member or a parameter, the response names it in plain words.

use std::collections::BTreeSet;

use regex::Regex;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use keyward_tests::{ApiResponse, Backend, Keyward, check_body, operations, text};

/// Every route that takes a body in JSON, with a body that holds all its members.
fn bodies(key: &str, id: &str) -> Vec<(Method, String, Value)> {
    let routes = json!([{"method": "GET", "path": "/a", "permissions": ["a"]}]);
    let app = json!({
        "app_slug": "new", "slug": "new", "name": "New", "key_prefix": "sk", "description": "d",
        "permissions": ["a"], "resources": ["/a"], "route_permissions": routes, "rate_limit_scheme_slug": "s",
        "on_store_error": "deny", "audit_durability": "before_answer", "audit_level": "sampled",
        "audit_sample_one_in": 2, "audit_client_ip": "none", "audit_user_agent": false, "audit_request_days": 7,
        "audit_change_days": 7, "user_id": "u", "organization_id": "o", "workspace_id": "w",
    });
    let mut patch = app.clone();
    patch["is_active"] = true.into();
    for created_only in ["app_slug", "slug", "user_id"] {
        patch.as_object_mut().unwrap().remove(created_only);
    }
    let new_key = json!({
        "name": "New", "permissions": ["a"], "org_role_permissions": ["a"], "workspace_role_permissions": ["a"],
        "rate_limit_scheme_slug": "s", "metadata": {"m": [1]}, "expires_at": "2999-01-01T00:00:00Z",
        "owner_user_id": "u", "organization_id": "o", "workspace_id": "w", "organization_membership_id": "om",
        "workspace_membership_id": "wm",
    });
    let rule = json!({
        "unit": "day", "duration": 1, "max_requests": 1, "mode": "per_key", "endpoints": ["/a"], "priority": 1,
        "window": "sliding",
    });
    let scheme = json!({"slug": "new", "name": "New", "description": "d", "rules": [rule]});
    let mut check = check_body(key);
    check["client_ip"] = "192.0.2.1".into();
    check["user_agent"] = "test".into();
    check["required_permissions"] = json!(["a"]);
    check["apps"] = json!(["acme"]);
    check["deployment_id"] = "1".into();
    let by_id = json!({"key_id": id, "api_key_id": id, "reason": "r"});
    let ticket = json!({
        "ticket_type": "api_auth_access", "api_auth_app_slug": "acme", "user_id": "u",
        "capabilities": ["keys:read"], "expires_in": 60,
    });
    let posts = [
        ("/api-auth/apps".to_owned(), app),
        ("/api-auth/apps/acme/keys".to_owned(), new_key),
        (format!("/api-auth/apps/acme/keys/{id}/revoke"), json!({"reason": "r"})),
        (format!("/api-auth/apps/acme/keys/{id}/rotate"), json!({})),
        ("/api-auth/keys/rotate".to_owned(), by_id.clone()),
        ("/api-auth/keys/revoke".to_owned(), by_id),
        ("/api-auth/rate-limit-schemes".to_owned(), scheme.clone()),
        ("/session/tickets".to_owned(), ticket),
        ("/v1/authz/check".to_owned(), check.clone()),
        ("/v1/authz/check/batch".to_owned(), json!({"checks": [check]})),
        ("/api-auth/keys".to_owned(), json!({"name": "New", "expires_at": "2999-01-01T00:00:00Z"})),
        (format!("/api-auth/keys/{id}/revoke"), json!({"reason": "r"})),
        (format!("/api-auth/keys/{id}/rotate"), json!({})),
    ];
    let patches =
        [("/api-auth/apps/acme".to_owned(), patch), ("/api-auth/rate-limit-schemes/s".to_owned(), scheme)];
    let posts = posts.map(|(path, body)| (Method::POST, path, body));
    posts.into_iter().chain(patches.map(|(path, body)| (Method::PATCH, path, body))).collect()
}

/// Every route that takes a query, with all its parameters.
fn queries() -> Vec<(&'static str, Vec<&'static str>)> {
    let logs = vec![
        "limit",
        "offset",
        "outcome",
        "key_id",
        "start_date",
        "end_date",
        "cursor",
        "cursor_ts",
        "cursor_id",
    ];
    let analytics = vec![
        "start_date",
        "end_date",
        "key_id",
        "include_top_keys",
        "include_top_paths",
        "include_blocked_reasons",
        "include_rate_limits",
        "top_limit",
    ];
    let events = vec!["limit", "key_id", "start_date", "end_date", "cursor"];
    let timeseries = vec!["start_date", "end_date", "interval", "key_id"];
    vec![
        ("/api-auth/apps", vec!["include_inactive", "limit", "offset", "search"]),
        ("/api-auth/apps/acme/keys", vec!["include_inactive", "limit", "cursor"]),
        ("/api-auth/apps/acme/audit/logs", logs.clone()),
        ("/api-auth/apps/acme/audit/events", events.clone()),
        ("/api-auth/apps/acme/audit/analytics", analytics.clone()),
        ("/api-auth/apps/acme/audit/timeseries", timeseries.clone()),
        ("/api-auth/keys", vec!["status", "include_inactive"]),
        ("/api-auth/deployment/audit/events", events.clone()),
        ("/api-auth/audit/logs", logs),
        ("/api-auth/audit/events", events),
        ("/api-auth/audit/analytics", analytics),
        ("/api-auth/audit/timeseries", timeseries),
        ("/session/ticket/exchange", vec!["ticket"]),
    ]
}

/// An installation with a backend and what both kinds of callers send.
struct Callers {
    keyward: Keyward,
    backend: Backend,
    session: String,
    key: String,
    id: String,
}

impl Callers {
    async fn start() -> Self {
        let keyward = Keyward::start().await;
        let backend = keyward.backend();
        backend.create_app("acme").await;
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1_000_000}]);
        let scheme = json!({"slug": "s", "name": "S", "rules": rules});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
        let key = backend.create_key("acme", json!({})).await;
        let session = backend.browser("acme").await.session;
        Self { keyward, backend, session, key: text(&key["secret"]), id: text(&key["id"]) }
    }

    /// A request of a backend, or of a browser where the path is one of browsers.
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let for_browsers = ["/api-auth/keys", "/api-auth/audit", "/session/ticket/"];
        let by_id = ["/api-auth/keys/rotate", "/api-auth/keys/revoke"];
        if for_browsers.iter().any(|start| path.starts_with(start)) && !by_id.contains(&path) {
            let joint = if path.contains('?') { '&' } else { '?' };
            let url = format!("{}{path}{joint}__dev_session__={}", self.keyward.url, self.session);
            return self.keyward.http.request(method, url);
        }
        self.backend.request(method, path)
    }

    /// The response, or that to the only check of a batch.
    async fn send(&self, method: &Method, path: &str, body: &Value) -> ApiResponse {
        let response =
            ApiResponse::of(self.request(method.clone(), path).json(body).send().await.unwrap()).await;
        match &response.body["results"] {
            Value::Array(results) => {
                let [only] = results.as_slice() else { panic!("{results:?}") };
                let status = only["status"].as_u64().unwrap().try_into().unwrap();
                ApiResponse { status, body: only.clone(), ..response }
            }
            _ => response,
        }
    }
}

/// The name that an error gives this member: within a check of a batch, the same as in that check alone.
fn called(name: &str) -> &str {
    let name = name.strip_prefix("checks[0]").map_or(name, |within| within.trim_start_matches('.'));
    if name.is_empty() { "it" } else { name }
}

/// Whether a sentence is free of terms of Rust and of its libraries.
fn is_plain(message: &str) -> bool {
    let words = r"(?ix) \b (
        struct | enum | variant | visitor | sequence | map | tuple | [iu](8|16|32|64|128) | usize | f64 | bool | boolean
        | premature | digit\ found | invalid\ (type|value|length) | missing\ field | expected\ (a\ )?(struct|string)
        | floating\ point | newtype | deserial\w*
    ) \b";
    !Regex::new(words).unwrap().is_match(message)
}

/// The place of each member and each item, as pointer and as errors name it.
fn places(value: &Value, pointer: &str, name: &str, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let dot = if name.is_empty() { "" } else { "." };
                let (pointer, name) = (format!("{pointer}/{member}"), format!("{name}{dot}{member}"));
                all.push((pointer.clone(), name.clone()));
                // The contents of metadata are the caller's own.
                if member != "metadata" {
                    places(value, &pointer, &name, all);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let (pointer, name) = (format!("{pointer}/{index}"), format!("{name}[{index}]"));
                all.push((pointer.clone(), name.clone()));
                places(item, &pointer, &name, all);
            }
        }
        _ => {}
    }
}

/// The values of a member in place of it, in the order in which it has them: what an array would stand for an object with.
fn as_array(object: &Value) -> Value {
    object.as_object().unwrap().values().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_no_object_on_any_route_at_any_depth() {
    let callers = Callers::start().await;
    let mut tried = 0;
    for (method, path, body) in bodies(&callers.key, &callers.id) {
        let mut all = vec![(String::new(), String::new())];
        places(&body, "", "", &mut all);
        for (pointer, name) in all {
            if !body.pointer(&pointer).unwrap().is_object() || name == "metadata" {
                continue;
            }
            let subject = called(&name);
            let array = as_array(body.pointer(&pointer).unwrap());
            for wrong in [array, json!([]), json!(["arr", null]), json!("text"), json!(5)] {
                let mut sent = body.clone();
                *sent.pointer_mut(&pointer).unwrap() = wrong;
                let response = callers.send(&method, &path, &sent).await;
                response.is_error(422, "invalid_body");
                assert_eq!(
                    response.body["message"],
                    format!("invalid body: {subject} must be an object"),
                    "{method} {path}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 90, "{tried}");
    let keys = callers.backend.get("/api-auth/apps/acme/keys?include_inactive=true").await.ok();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_type_is_named_in_plain_words() {
    let callers = Callers::start().await;
    let mut refused = 0;
    for (method, path, body) in bodies(&callers.key, &callers.id) {
        let mut all = vec![];
        places(&body, "", "", &mut all);
        for (pointer, name) in all {
            for wrong in [json!(true), json!(-1.5), json!("\u{7}"), json!([[]]), json!({"x": 1}), json!(null)]
            {
                let mut sent = body.clone();
                *sent.pointer_mut(&pointer).unwrap() = wrong;
                let response = callers.send(&method, &path, &sent).await;
                let code = response.body["code"].as_str().unwrap_or_default();
                // What else is refused was of the right type.
                if !["invalid_body", "invalid_field", "invalid_key_id"].contains(&code) {
                    continue;
                }
                refused += 1;
                let message = text(&response.body["message"]);
                assert!(is_plain(&message), "{method} {path} {sent}: {message}");
                let name = called(&name);
                let outer = name.split(['[', '.']).next().unwrap();
                let message = message.trim_start_matches("invalid body: ");
                let named = message.starts_with(name) || code != "invalid_body" && message.contains(outer);
                let required = message == "app_slug is required";
                // Something else in place of a check.
                let expected = ["it must be an object", "principal is required"];
                let item = ["checks", "it"].contains(&name) && expected.contains(&message);
                assert!(
                    named || required || item || code == "invalid_key_id",
                    "{method} {path} {sent}: {message}"
                );
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_of_another_type_is_named_in_plain_words() {
    let callers = Callers::start().await;
    let mut refused = 0;
    for (path, parameters) in queries() {
        for parameter in parameters {
            for wrong in ["x", "-1", "1.5", "", "99999999999999999999", "1", "%00", "2026-13-01", "a&x=1"] {
                let path = format!("{path}?{parameter}={wrong}");
                let response =
                    ApiResponse::of(callers.request(Method::GET, &path).send().await.unwrap()).await;
                if response.status == 200 {
                    continue;
                }
                refused += 1;
                let message = text(&response.body["message"]);
                let word = parameter.split('_').next().unwrap();
                assert!(is_plain(&message) && message.contains(word), "{path}: {message}");
            }
            let value = match parameter {
                flag if flag.starts_with("include_") => "true",
                "start_date" | "end_date" | "cursor_ts" => "2026-01-01",
                _ => "1",
            };
            let twice = format!("{path}?{parameter}={value}&{parameter}={value}");
            let response = ApiResponse::of(callers.request(Method::GET, &twice).send().await.unwrap()).await;
            response.is_error(400, "invalid_query");
            let expected = format!("The query parameter {parameter} must not be given twice");
            assert_eq!(response.body["message"], expected, "{twice}");
        }
    }
    assert!(refused > 120, "{refused}");
}

#[test]
fn every_member_and_parameter_is_tried() {
    let tried: BTreeSet<String> =
        queries().into_iter().flat_map(|(_, parameters)| parameters).map(str::to_owned).collect();
    let mut members = BTreeSet::new();
    for (_, _, body) in bodies("", "1") {
        let mut all = vec![];
        places(&body, "", "", &mut all);
        members
            .extend(all.into_iter().filter_map(|(pointer, _)| pointer.rsplit('/').next().map(str::to_owned)));
    }
    let mut known = 0;
    for operation in operations().iter().filter(|operation| !operation.path.starts_with("/vanity/")) {
        let query = operation.query.iter().filter(|name| !tried.contains(*name));
        let body = operation.members.iter().filter(|name| !members.contains(*name));
        let missed: Vec<&String> = query.chain(body).collect();
        assert!(missed.is_empty(), "{} {}: {missed:?}", operation.method, operation.path);
        known += operation.query.len() + operation.members.len();
    }
    assert!(known > 100, "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_answers_errors_in_json() {
    let callers = Callers::start().await;
    for route in crate::tenancy::routes() {
        let path = route.path.replace("{slug}", "acme").replace("{id}", &callers.id);
        let response = ApiResponse::of(callers.request(Method::PUT, &path).send().await.unwrap()).await;
        response.is_error(405, "method_not_allowed");
        assert_eq!(response.header("content-type"), Some("application/json"), "{path}");
        let response =
            ApiResponse::of(callers.request(route.method, &format!("{path}x/y/z")).send().await.unwrap())
                .await;
        response.is_error(404, "route_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_encoded_is_refused_with_what_is_taken() {
    let callers = Callers::start().await;
    for (method, path, body) in bodies(&callers.key, &callers.id) {
        for coding in ["gzip", "br", "identity, gzip", "x"] {
            let request = callers.request(method.clone(), &path).header(CONTENT_ENCODING, coding).json(&body);
            let response = ApiResponse::of(request.send().await.unwrap()).await;
            response.is_error(415, "unsupported_content_encoding");
            assert_eq!(response.header("accept-encoding"), Some("identity"));
        }
    }
    let app = || callers.request(Method::POST, "/api-auth/apps").header(CONTENT_TYPE, "application/json");
    let app = app().header(CONTENT_ENCODING, "Identity").body("{\"app_slug\":\"new\",\"name\":\"New\"}");
    ApiResponse::of(app.send().await.unwrap()).await.ok();
}
