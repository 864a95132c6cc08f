//! Rate limits, as whoever checks requests sees them.

use aws_sdk_dynamodb::Client;
use chrono::{NaiveTime, TimeDelta};
use futures::future::join_all;
use keyward_cli::dev::TABLE;
use keyward_tests::{ApiResponse, Backend, Keyward, check_body, text};
use serde_json::{Value, json};

/// An app whose keys these rules limit, and a key of it.
async fn limited(keyward: &Keyward, rules: Value) -> String {
    let backend = keyward.backend();
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s"});
    backend.post("/api-auth/apps", app).await.ok();
    key(&backend).await
}

async fn key(backend: &Backend) -> String {
    text(&backend.create_key("acme", json!({})).await["secret"])
}

/// Stops the clock at midnight, at which sub-windows of all units begin.
fn to_midnight(keyward: &Keyward) {
    let now = keyward.services.store.clock().now();
    let midnight = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    keyward.freeze(midnight + TimeDelta::days(1));
}

async fn request(keyward: &Keyward, key: &str, members: Value) -> ApiResponse {
    let mut body = check_body(key);
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    keyward.check_with(body).await
}

fn remaining(body: &Value) -> Vec<i64> {
    let limits = body["rate_limits"].as_array().unwrap();
    limits.iter().map(|limit| limit["remaining"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_lets_as_many_through_as_it_says() {
    let keyward = Keyward::start().await;
    let key = limited(&keyward, json!([{"unit": "minute", "duration": 1, "max_requests": 2}])).await;
    to_midnight(&keyward);
    for left in [1, 0] {
        let body = keyward.check(&key).await.ok();
        assert_eq!(body["allowed"], true);
        assert_eq!(body["rate_limits"], json!([{"rule": "2/60s", "remaining": left, "limit": 2}]));
        let headers = &body["headers"];
        assert_eq!(headers["x-ratelimit-60s-limit"], "2");
        assert_eq!(headers["x-ratelimit-60s-remaining"], left.to_string());
        for name in ["x-ratelimit-60s-reset", "retry-after"] {
            assert!(headers[name].is_null(), "only where it stopped the request");
        }
        assert_eq!(headers["ratelimit-policy"], "\"2/60s\";q=2;w=60");
        let state = text(&headers["ratelimit"]);
        assert!(state.starts_with(&format!("\"2/60s\";r={left};t=")), "{state}");
    }
    let body = keyward.check(&key).await.ok();
    assert_eq!(body["allowed"], false);
    assert_eq!((&body["reason"], &body["blocked_rule"]), (&json!("rate_limited"), &json!("2/60s")));
    assert_eq!(body["code"], "rate_limited");
    assert!(text(&body["message"]).contains("2/60s"), "{body}");
    assert_eq!(body["rate_limits"], json!([{"rule": "2/60s", "remaining": 0, "limit": 2}]));
    let retry_after = body["retry_after"].as_i64().unwrap();
    assert!((60..=66).contains(&retry_after), "{retry_after}");
    for name in ["x-ratelimit-60s-reset", "retry-after"] {
        assert_eq!(body["headers"][name], retry_after.to_string(), "{name}");
    }
    assert!(body["identity"]["key_id"].is_string(), "clients need it on every 200");

    keyward.pass(TimeDelta::seconds(retry_after));
    assert_eq!(keyward.check(&key).await.ok()["allowed"], true, "as promised");
    keyward.settle().await;
    let logs = keyward.backend().get("/api-auth/apps/acme/audit/logs").await.ok();
    let blocked = logs["data"].as_array().unwrap().iter().find(|row| row["outcome"] == "blocked").unwrap();
    assert_eq!(blocked["blocked_by_rule"], "2/60s");
    assert_eq!(blocked["rate_limits"], json!([{"rule": "2/60s", "remaining": 0, "limit": 2}]));
    let path = "/api-auth/apps/acme/audit/analytics?include_rate_limits=true";
    let stats = keyward.backend().get(path).await.ok();
    assert_eq!(stats["rate_limit_stats"]["total_hits"], 1);
    let mut browser = keyward.backend().browser("acme").await;
    let seen = browser.get("/api-auth/audit/logs?outcome=blocked").await.ok();
    let seen = text(&seen["data"]["data"][0]["rate_limits"]);
    assert_eq!(seen, r#"[{"limit":2,"remaining":0,"rule":"2/60s"}]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_is_counted_by_no_rule() {
    let keyward = Keyward::start().await;
    let rules = json!([
        {"unit": "hour", "duration": 1, "max_requests": 10, "mode": "per_app", "priority": 1},
        {"unit": "minute", "duration": 1, "max_requests": 2, "priority": 2},
        {"unit": "day", "duration": 1, "max_requests": 5, "priority": 3},
    ]);
    let key = limited(&keyward, rules).await;
    to_midnight(&keyward);
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [9, 1, 4]);
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [8, 0, 3]);
    for _ in 0..5 {
        let body = keyward.check(&key).await.ok();
        assert_eq!((&body["allowed"], &body["blocked_rule"]), (&json!(false), &json!("2/60s")));
        assert_eq!(remaining(&body), [8, 0, 3]);
    }
    keyward.pass(TimeDelta::seconds(67));
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [7, 1, 2]);
    keyward.pass(TimeDelta::seconds(67));
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [6, 1, 1]);
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [5, 0, 0]);
    let body = keyward.check(&key).await.ok();
    assert_eq!(body["blocked_rule"], "2/60s", "the first in the order of priority");
    keyward.pass(TimeDelta::seconds(67));
    let body = keyward.check(&key).await.ok();
    assert_eq!(body["blocked_rule"], "5/86400s");
    assert!(body["retry_after"].as_i64().unwrap() > 86_000, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_counts_whose_requests_it_says() {
    let keyward = Keyward::start().await;
    let rule = |mode: &str, max: u32| json!({"unit": "calendar_day", "duration": 1, "max_requests": max, "mode": mode});
    let modes = [("per_key", 5), ("per_app", 6), ("per_key_and_ip", 3), ("per_ip", 4)];
    let rules: Vec<Value> = modes.iter().map(|(mode, max)| rule(mode, *max)).collect();
    let one = limited(&keyward, json!(rules)).await;
    let other = key(&keyward.backend()).await;
    to_midnight(&keyward);
    let ask = |key: &str, ip: &str| {
        let (keyward, key, ip) = (&keyward, key.to_owned(), ip.to_owned());
        async move { request(keyward, &key, json!({"client_ip": ip})).await.ok() }
    };
    assert_eq!(remaining(&ask(&one, "192.0.2.1").await), [4, 5, 2, 3]);
    assert_eq!(remaining(&ask(&one, "192.0.2.2").await), [3, 4, 2, 3]);
    assert_eq!(remaining(&ask(&other, "192.0.2.1").await), [4, 3, 2, 2]);
    assert_eq!(remaining(&ask(&other, "::ffff:192.0.2.1").await), [3, 2, 1, 1]);
    assert_eq!(remaining(&ask(&one, "192.0.2.1").await), [2, 1, 1, 0]);
    assert_eq!(ask(&other, "192.0.2.1").await["blocked_rule"], "4/86400s");
    assert_eq!(remaining(&ask(&other, "2001:db8::1").await), [2, 0, 2, 3]);
    assert_eq!(ask(&one, "2001:db8:0:1::1").await["blocked_rule"], "6/86400s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_for_its_endpoints_however_they_are_spelled() {
    let keyward = Keyward::start().await;
    let rules = json!([
        {"unit": "day", "duration": 1, "max_requests": 2, "endpoints": ["POST /v1/users/*", "/health"]},
        {"unit": "day", "duration": 1, "max_requests": 9, "endpoints": ["*"]},
    ]);
    let key = limited(&keyward, rules).await;
    let ask = async |method: &str, resource: &str| {
        request(&keyward, &key, json!({"method": method, "resource": resource})).await.ok()
    };
    assert_eq!(remaining(&ask("GET", "/v1/users/1").await), [8]);
    assert_eq!(remaining(&ask("POST", "/v1/users/1").await), [1, 7]);
    assert_eq!(remaining(&ask("GET", "/Health/").await), [0, 6], "one count for all its endpoints");
    for spelled in
        ["/v1//users/2", "/V1/users/%32", "http://h/v1/users/2?a=b", "/v1/users;x/2", "/v1/users%2f2"]
    {
        let body = ask("POST", spelled).await;
        assert_eq!(body["blocked_rule"], "2/86400s", "{spelled}");
    }
    assert_eq!(remaining(&ask("PUT", "/v1/users/1").await), [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_s_own_scheme_wins_and_changes_hold_for_the_next_check() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let one = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 2}])).await;
    let own =
        json!({"slug": "own", "name": "Own", "rules": [{"unit": "day", "duration": 1, "max_requests": 3}]});
    backend.post("/api-auth/rate-limit-schemes", own).await.ok();
    let created = backend.create_key("acme", json!({"rate_limit_scheme_slug": "own"})).await;
    assert_eq!(created["rate_limit_scheme_slug"], "own");
    assert_eq!(created["rate_limits"][0]["max_requests"], 3);
    let listed = backend.get("/api-auth/apps/acme/keys").await.ok();
    let limits: Vec<&Value> =
        listed["keys"].as_array().unwrap().iter().map(|key| &key["rate_limits"][0]["max_requests"]).collect();
    assert_eq!(limits, [&json!(3), &json!(2)]);
    let of_own = text(&created["secret"]);
    assert_eq!(remaining(&keyward.check(&of_own).await.ok()), [2]);
    assert_eq!(remaining(&keyward.check(&one).await.ok()), [1]);

    let rules = |max: u32| json!({"rules": [{"unit": "day", "duration": 1, "max_requests": max}]});
    backend.patch("/api-auth/rate-limit-schemes/s", rules(1)).await.ok();
    assert_eq!(
        keyward.check(&one).await.ok()["blocked_rule"],
        "1/86400s",
        "a lower limit, with what was counted"
    );
    backend.patch("/api-auth/rate-limit-schemes/s", rules(5)).await.ok();
    assert_eq!(remaining(&keyward.check(&one).await.ok()), [3], "a higher one too");
    backend.patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": "own"})).await.ok();
    assert_eq!(remaining(&keyward.check(&one).await.ok()), [0], "2 of 3 were counted by the same rule");
    backend.patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": null})).await.ok();
    assert_eq!(keyward.check(&one).await.ok()["rate_limits"], json!([]));
    assert_eq!(remaining(&keyward.check(&of_own).await.ok()), [1]);

    assert_eq!(backend.delete("/api-auth/rate-limit-schemes/s").await.status, 204);
    let used = backend.delete("/api-auth/rate-limit-schemes/own").await;
    assert!(text(&used.is_error(400, "in_use").body["message"]).ends_with("active API keys"));
    backend.revoke("acme", &text(&created["id"])).await.ok();
    assert_eq!(backend.delete("/api-auth/rate-limit-schemes/own").await.status, 204);
    let dangling = json!({"name": "x", "rate_limit_scheme_slug": "own"});
    let refused = backend.post("/api-auth/apps/acme/keys", dangling).await;
    refused.is_error(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_permission_denies_are_not_counted() {
    let keyward = Keyward::start().await;
    let key = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 1}])).await;
    let denied = request(&keyward, &key, json!({"required_permissions": ["users:read"]})).await.ok();
    assert_eq!((&denied["reason"], &denied["rate_limits"]), (&json!("permission_denied"), &json!([])));
    assert_eq!(denied["code"], "permission_denied");
    assert_eq!(keyward.check(&key).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn calendar_limits_begin_anew_at_midnight_utc() {
    let keyward = Keyward::start().await;
    let rules = json!([{"unit": "calendar_day", "duration": 1, "max_requests": 1}]);
    let key = limited(&keyward, rules).await;
    to_midnight(&keyward);
    keyward.pass(TimeDelta::hours(23) + TimeDelta::minutes(59));
    assert_eq!(keyward.check(&key).await.ok()["allowed"], true);
    let body = keyward.check(&key).await.ok();
    assert_eq!(body["allowed"], false);
    assert!((1..=60).contains(&body["retry_after"].as_i64().unwrap()), "{body}");
    keyward.pass(TimeDelta::minutes(1));
    assert_eq!(keyward.check(&key).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_rules_of_one_mode_are_one_update() {
    let keyward = Keyward::start().await;
    let rules: Vec<Value> = (1..=20)
        .map(|minutes| json!({"unit": "minute", "duration": minutes, "max_requests": 100 + minutes}))
        .collect();
    let key = limited(&keyward, json!(rules)).await;
    for _ in 0..2 {
        let body = keyward.check(&key).await.ok();
        assert_eq!(body["rate_limits"].as_array().map(Vec::len), Some(20), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bound_holds_over_shards() {
    let keyward = Keyward::start().await;
    let rules = json!([{"unit": "second", "duration": 1, "max_requests": 600}]);
    let key = limited(&keyward, rules).await;
    to_midnight(&keyward);
    let mut allowed = 0;
    for _ in 0..7 {
        let responses = join_all((0..100).map(|_| keyward.check(&key))).await;
        allowed += responses.into_iter().filter(|response| response.clone().ok()["allowed"] == true).count();
    }
    assert_eq!(allowed, 600);
    keyward.pass(TimeDelta::milliseconds(1_100));
    assert_eq!(keyward.check(&key).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_in_order() {
    let keyward = Keyward::start().await;
    let key = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 3}])).await;
    let checks: Vec<Value> = (0..5).map(|_| check_body(&key)).collect();
    let response = keyward.backend().post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
    let allowed: Vec<bool> =
        response["results"].as_array().unwrap().iter().map(|one| one["allowed"].as_bool().unwrap()).collect();
    assert_eq!(allowed, [true, true, true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_s_count_outlives_requests_of_keys_with_shorter_windows() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let month = json!([{"unit": "calendar_month", "duration": 1, "max_requests": 2, "mode": "per_app"}]);
    let one = limited(&keyward, month).await;
    let second = json!([{"unit": "second", "duration": 1, "max_requests": 50, "mode": "per_app"}]);
    let own = json!({"slug": "own", "name": "Own", "rules": second});
    backend.post("/api-auth/rate-limit-schemes", own).await.ok();
    let other = text(&backend.create_key("acme", json!({"rate_limit_scheme_slug": "own"})).await["secret"]);
    let purge_at = async || -> i64 {
        let scan = Client::new(keyward.sdk_config()).scan().table_name(TABLE).send().await.unwrap();
        let items = scan.items().iter().filter(|item| item["pk"].as_s().unwrap().starts_with("LIMIT#APP#"));
        let of_app: Vec<i64> = items.map(|item| item["purge_at"].as_n().unwrap().parse().unwrap()).collect();
        assert_eq!(of_app.len(), 1, "both schemes count in it");
        of_app[0]
    };
    keyward.freeze(keyward.services.store.clock().now() + TimeDelta::minutes(1));
    assert_eq!(keyward.check(&one).await.ok()["allowed"], true);
    let before = purge_at().await;
    keyward.pass(TimeDelta::seconds(5));
    assert_eq!(keyward.check(&other).await.ok()["allowed"], true);
    assert!(purge_at().await >= before, "a later request makes no count die sooner");
    let end_of_any_month = keyward.services.store.clock().now() + TimeDelta::days(31);
    assert!(before > end_of_any_month.timestamp());
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_go_on_when_a_rule_gets_another_limit_or_spelling() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rules = |max: u32, endpoints: &[&str]| json!([{"unit": "minute", "duration": 1, "max_requests": max, "endpoints": endpoints}]);
    let key = limited(&keyward, rules(30_000, &["/v1/users", "POST /v1/reports"])).await;
    to_midnight(&keyward);
    let ask = async || request(&keyward, &key, json!({"method": "GET", "resource": "/v1/users"})).await.ok();
    for _ in 0..5 {
        assert_eq!(ask().await["allowed"], true);
    }
    let change = async |rules: Value| {
        backend.patch("/api-auth/rate-limit-schemes/s", json!({"rules": rules})).await.ok();
    };
    change(rules(7, &["/v1/users", "POST /v1/reports"])).await;
    assert_eq!(remaining(&ask().await), [1], "in one counter instead of two");
    change(rules(7, &["post  v1//reports/", "/V1/%75sers"])).await;
    assert_eq!(remaining(&ask().await), [0]);
    assert_eq!(ask().await["blocked_rule"], "7/60s");
    change(rules(i32::MAX.unsigned_abs(), &["/v1/users", "POST /v1/reports"])).await;
    assert_eq!(ask().await["allowed"], true);
    change(rules(8, &["/v1/users", "POST /v1/reports"])).await;
    assert_eq!(ask().await["blocked_rule"], "8/60s", "with what sixteen counters had counted");
    change(rules(8, &["/v1/users"])).await;
    assert_eq!(remaining(&ask().await), [7], "another rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_window_is_asked_for_and_shown() {
    let keyward = Keyward::start().await;
    let rules = json!([{"unit": "minute", "duration": 1, "max_requests": 2, "window": "fixed"}]);
    let key = limited(&keyward, rules).await;
    let backend = keyward.backend();
    for path in ["/api-auth/rate-limit-schemes/s", "/api-auth/apps/acme"] {
        let shown = backend.get(path).await.ok();
        let rules = if shown["rules"].is_null() { &shown["rate_limits"] } else { &shown["rules"] };
        assert_eq!(rules[0]["window"], "fixed", "{path}");
    }
    to_midnight(&keyward);
    keyward.pass(TimeDelta::seconds(50));
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [1]);
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [0]);
    let refused = keyward.check(&key).await.ok();
    assert_eq!((&refused["blocked_rule"], &refused["retry_after"]), (&json!("2/60s"), &json!(10)));
    keyward.pass(TimeDelta::seconds(10));
    assert_eq!(remaining(&keyward.check(&key).await.ok()), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_rules_are_rejected_by_name() {
    let keyward = Keyward::start().await;
    let refused = async |rules: Value| {
        let scheme = json!({"slug": "s", "name": "S", "rules": rules});
        let response = keyward.backend().post("/api-auth/rate-limit-schemes", scheme).await;
        text(&response.is_error(400, "invalid_field").body["message"])
    };
    let rule = json!({"unit": "day", "duration": 1, "max_requests": 1});
    let twice = refused(json!([rule, rule])).await;
    assert!(twice.starts_with("rules[1] counts the same as rules[0]"), "{twice}");
    let mut wrong = rule.clone();
    wrong["endpoints"] = json!(["/ok", "FETCH /v1"]);
    let wrong = refused(json!([wrong])).await;
    assert!(wrong.starts_with("rules[0].endpoints[1] must be one of GET"), "{wrong}");
    let mut long = rule.clone();
    long["endpoints"] = json!((0..20).map(|n| format!("/{n:02}{}", "x".repeat(125))).collect::<Vec<_>>());
    let mut longer = long.clone();
    longer["duration"] = 2.into();
    let size = refused(json!([long, longer])).await;
    assert!(size.contains("1536"), "{size}");
    assert_eq!(keyward.backend().get("/api-auth/rate-limit-schemes").await.ok()["total"], 0);
}
