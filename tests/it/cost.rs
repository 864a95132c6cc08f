//! The cost of a verification, and the requests that cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::target::Target;
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_runtime::{Services, VerifyAuth};
use keyward_store::dynamodb_client;
use keyward_verifier::{Accepted, Check, CheckError, Verifier};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use keyward_tests::{Browser, Call, FLUSH_TIME, Keyward, check_body, counts_as_dynamodb, text};

/// The largest app and key that are accepted.
async fn largest(keyward: &Keyward) -> (String, String) {
    let backend = keyward.backend();
    let permissions: Vec<String> = (0..17).map(|n| format!("{n:02}{}", "p".repeat(126))).collect();
    let app = json!({
        "app_slug": "a".repeat(64), "name": "n".repeat(128), "key_prefix": "k".repeat(32), "permissions": permissions,
        "description": "d", "audit_sample_one_in": 10_000, "audit_client_ip": "truncated",
        "audit_user_agent": false, "audit_request_days": 3_650, "audit_change_days": 3_650,
    });
    let slug = text(&backend.post("/api-auth/apps", app).await.ok()["app_slug"]);
    let metadata = json!({"text": "m".repeat(2_290)});
    let key = backend.create_key(&slug, json!({"metadata": metadata})).await;
    (slug, text(&key["secret"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_without_limits_is_one_call_of_two_read_units() {
    let keyward = Keyward::start().await;
    let (slug, secret) = largest(&keyward).await;
    let id = text(&keyward.check(&secret).await.ok()["identity"]["key_id"]);
    keyward.settle().await;
    keyward.calls.take();
    keyward.calls.take_units();
    keyward.calls.take_put_units();

    for _ in 0..3 {
        assert_eq!(keyward.check(&secret).await.ok()["allowed"], true);
    }
    keyward.settle().await;
    let (checks, writes): (Vec<_>, Vec<_>) =
        keyward.calls.take().into_iter().partition(|call| call.operation != "PutItem");
    assert_eq!(checks.len(), 3, "{checks:?}");
    for call in &checks {
        assert_eq!(call.operation, "BatchGetItem");
        let table = &call.sent["RequestItems"]["keyward"];
        assert_eq!(table["ConsistentRead"], true);
        assert_eq!(table["Keys"].as_array().map(Vec::len), Some(2));
    }
    let units = keyward.calls.take_units();
    assert_eq!(units.len(), 3);
    assert!(units.iter().all(|units| *units > 0.0 && *units <= 2.0), "{units:?}");
    assert_eq!(writes.len(), 3, "one event each, after the answer");
    assert_eq!(keyward.calls.take_put_units(), [1.0, 1.0, 1.0]);

    // Also when the key has been revoked with the longest reason.
    let revoke = json!({"reason": "r".repeat(512)});
    let path = format!("/api-auth/apps/{slug}/keys/{id}/revoke");
    keyward.backend().post(&path, revoke).await.ok();
    keyward.calls.take_units();
    keyward.check(&secret).await.is_error(403, "key_revoked");
    let units = keyward.calls.take_units();
    assert!(units.len() == 1 && units[0] <= 2.0, "{units:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_as_many_routes_as_it_may_list_is_read_in_one_unit() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let routes = |path: usize| {
        let route = |n: usize| json!({"path": format!("/{n:02}{}", "p".repeat(path)), "permissions": ["a"]});
        (0..32).map(route).collect::<Vec<_>>()
    };
    let app = |path: usize| json!({"app_slug": "a", "name": "n", "key_prefix": "k", "route_permissions": routes(path)});
    let mut path = 50;
    while backend.post("/api-auth/apps", app(path)).await.status != 200 {
        path -= 1;
    }
    assert!(path > 20, "{path}");
    let secret =
        text(&backend.create_key("a", json!({"metadata": {"text": "m".repeat(2_290)}})).await["secret"]);
    keyward.calls.take_units();
    keyward.check(&secret).await.ok();
    let units = keyward.calls.take_units();
    assert!(units.len() == 1 && units[0] <= 2.0, "{units:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_and_keys_that_would_cost_more_are_rejected() {
    let keyward = Keyward::start().await;
    let (slug, _) = largest(&keyward).await;
    let backend = keyward.backend();
    let key = json!({"name": "Large", "metadata": {"text": "m".repeat(2_600)}});
    let refused = backend.post(&format!("/api-auth/apps/{slug}/keys"), key).await;
    refused.is_error(400, "invalid_field");
    assert!(text(&refused.body["message"]).contains("2560"), "{}", refused.body);
    let patch = json!({"description": "d".repeat(500)});
    let refused = backend.patch(&format!("/api-auth/apps/{slug}"), patch).await;
    refused.is_error(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_reaches_no_store() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let good = text(&backend.create_key("acme", json!({})).await["secret"]);
    let ticket = backend.ticket("acme").await;
    let root = backend.root_key.clone();
    let session = backend.browser("acme").await.session;
    keyward.calls.forbid();

    let flipped = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        String::from_utf8(bytes).unwrap()
    };
    let mut bad_keys = vec![
        String::new(),
        "garbage".into(),
        "wk_live_abc".into(),
        "ü".repeat(80),
        "a".repeat(100_000),
        format!("Other{good}"),
        format!("1{good}"),
        good.replace("sk_test", "sk_live"),
        good[..good.len() - 1].into(),
        format!("{good}0"),
        root.clone(),
        ticket.clone(),
        session.clone(),
    ];
    bad_keys.extend((0..good.len()).map(|at| flipped(&good, at)));
    for bad in &bad_keys {
        keyward.check_with(check_body(bad)).await.is_error(401, "invalid_api_key");
    }

    let mut browser = Browser::new(&backend);
    for bad in ["garbage", &flipped(&ticket, 20), &good, &root, &session] {
        browser.session.clear();
        browser.exchange(bad).await.is_error(401, "invalid_ticket");
    }
    for bad in ["garbage", &flipped(&session, 20), &good, &root, &ticket] {
        browser.session = bad.into();
        browser.get("/api-auth/session").await.is_error(401, "no_session");
    }

    for (bad, code) in [
        ("garbage", "invalid_root_key"),
        (&flipped(&root, 20), "invalid_root_key"),
        (&good, "invalid_root_key"),
        (&ticket, "not_a_root_key"),
        (&session, "not_a_root_key"),
    ] {
        let request = keyward.http.get(format!("{}/api-auth/apps", keyward.url)).bearer_auth(bad);
        let response = keyward_tests::ApiResponse::of(request.send().await.unwrap()).await;
        assert!(response.status == 401 && response.body["code"].is_string(), "{}", response.body);
        if bad != good {
            response.is_error(401, code);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_is_an_error_and_never_an_allowed() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let good = text(&backend.create_key("acme", json!({})).await["secret"]);
    keyward.calls.fail(true);
    let response = keyward.check(&good).await;
    response.is_error(503, "store_unavailable");
    assert_eq!(response.body["allowed"], false);
    assert_eq!(response.header("retry-after"), Some("1"));
    let body = response.body.to_string();
    assert!(!body.contains("made to fail"), "details are for the log");
    backend.get("/api-auth/apps").await.is_error(503, "store_unavailable");
    keyward.calls.fail(false);
    assert_eq!(keyward.check(&good).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_each_item_once() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    let mut secrets = vec![];
    for slug in ["acme", "other"] {
        backend.create_app(slug).await;
        for _ in 0..2 {
            secrets.push(text(&backend.create_key(slug, json!({})).await["secret"]));
        }
    }
    let checks: Vec<_> = secrets.iter().cycle().take(100).map(|secret| check_body(secret)).collect();
    keyward.calls.take_units();
    backend.post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
    assert_eq!(keyward.calls.take_units(), [7.0], "four keys, two apps and the root key, in one request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_that_is_required_comes_in_the_same_read() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    keyward.calls.take();
    keyward.calls.take_units();
    let response = backend.post("/v1/authz/check", check_body(&secret)).await.ok();
    assert_eq!(response["allowed"], true);
    keyward.settle().await;
    let calls = keyward.calls.take();
    let reads = calls.iter().filter(|call| call.operation.contains("Get") || call.operation == "Query");
    assert_eq!(reads.count(), 1, "{calls:?}");
    assert_eq!(keyward.calls.take_units(), [3.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_after_a_secret_is_written() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1}]);
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let last = || keyward.calls.take().last().map(|call| call.operation.clone());
    let written = Some("TransactWriteItems".to_owned());
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s"});
    backend.post("/api-auth/apps", app).await.ok();
    assert_eq!(last(), written, "an app");
    let created = backend.create_key("acme", json!({})).await;
    assert_eq!(last(), written, "a key");
    backend.rotate("acme", &text(&created["id"])).await.ok();
    assert_eq!(last(), written, "a rotated key");
    let ticket = backend.ticket("acme").await;
    assert_eq!(last(), written, "a ticket");
    let mut browser = Browser::new(&backend);
    browser.exchange(&ticket).await.ok();
    assert_eq!(last(), written, "a session");
    browser.post_form("/api-auth/keys", &[("name", "x")]).await.ok();
    assert_eq!(last(), written, "a browser's key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_collides_is_tried_again_and_at_last_refused() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    keyward.calls.collide(3);
    let created = backend.create_key("acme", json!({})).await;
    assert_eq!(keyward.check(&text(&created["secret"])).await.ok()["allowed"], true);

    keyward.calls.collide(usize::MAX);
    let refused = backend.rotate("acme", &text(&created["id"])).await;
    refused.is_error(503, "store_unavailable");
    keyward.calls.collide(0);
    assert_eq!(keyward.check(&text(&created["secret"])).await.ok()["allowed"], true, "nothing was changed");
}

/// The operations that a check of this key performs before its response, and their units.
async fn of_a_check(keyward: &Keyward, key: &str) -> Vec<(String, f64)> {
    keyward.settle().await;
    keyward.calls.take();
    keyward.calls.take_units();
    assert_eq!(keyward.check(key).await.ok()["allowed"], true);
    keyward.settle().await;
    let is_of_the_check = |operation: &str| !matches!(operation, "PutItem");
    let calls = keyward.calls.take().into_iter().map(|call| call.operation);
    calls.filter(|operation| is_of_the_check(operation)).zip(keyward.calls.take_units()).collect()
}

async fn limited(keyward: &Keyward, rules: serde_json::Value) -> String {
    let backend = keyward.backend();
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s"});
    backend.post("/api-auth/apps", app).await.ok();
    let key = text(&backend.create_key("acme", json!({})).await["secret"]);
    // The first check notes the key's last use; both let the process know where the rules are.
    for _ in 0..2 {
        keyward.check(&key).await.ok();
    }
    key
}

fn call(operation: &str, units: f64) -> (String, f64) {
    (operation.to_owned(), units)
}

#[tokio::test(flavor = "multi_thread")]
async fn four_rules_of_a_key_are_one_more_call_of_one_write_unit() {
    let keyward = Keyward::start().await;
    let rule =
        |unit: &str, duration: u32| json!({"unit": unit, "duration": duration, "max_requests": 20_000});
    let rules = json!([rule("minute", 1), rule("hour", 1), rule("day", 1), rule("month", 1)]);
    let key = limited(&keyward, rules).await;
    keyward.freeze(Utc::now());
    for hours in [0, 0, 0, 1, 1, 3, 24, 100] {
        keyward.pass(TimeDelta::hours(hours));
        let sent = of_a_check(&keyward, &key).await;
        let [read, count] = &sent[..2] else { panic!("{sent:?}") };
        assert_eq!((read, count), (&call("BatchGetItem", 3.0), &call("UpdateItem", 1.0)), "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_counts_are_removed_before_they_cost_more() {
    let keyward = Keyward::start().await;
    let rules = json!([{"unit": "minute", "duration": 1, "max_requests": 1_000}]);
    let key = limited(&keyward, rules).await;
    keyward.freeze(Utc::now());
    let mut tidied = 0;
    for _ in 0..40 {
        keyward.pass(TimeDelta::minutes(10));
        keyward.settle().await;
        keyward.calls.take();
        keyward.calls.take_units();
        keyward.check(&key).await.ok();
        keyward.settle().await;
        let mut units = keyward.calls.take_units();
        units.sort_by(f64::total_cmp);
        // The versions of the pepper are read, too: it has been ten minutes.
        assert_eq!(units, [1.0, 1.0, 3.0]);
        let updates = keyward.calls.take();
        let is_tidying = |call: &&Call| text(&call.sent["UpdateExpression"]).starts_with("REMOVE");
        tidied += updates.iter().filter(|call| call.operation == "UpdateItem").filter(is_tidying).count();
    }
    assert!((5..=20).contains(&tidied), "{tidied} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_over_its_limit_costs_no_writes() {
    let keyward = Keyward::start().await;
    let key = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 2}])).await;
    assert_eq!(keyward.check(&key).await.ok()["allowed"], false);
    keyward.settle().await;
    keyward.calls.take();
    for _ in 0..3 {
        assert_eq!(keyward.check(&key).await.ok()["blocked_rule"], "2/86400s");
    }
    keyward.settle().await;
    let operations: Vec<String> = keyward.calls.take().into_iter().map(|call| call.operation).collect();
    assert!(!operations.iter().any(|operation| operation == "UpdateItem"), "{operations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_check_of_a_limited_app_reads_twice() {
    let keyward = Keyward::start().await;
    let key = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 9}])).await;
    keyward.backend().patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": null})).await.ok();
    assert_eq!(of_a_check(&keyward, &key).await, [call("BatchGetItem", 3.0)], "it looked where they were");
    assert_eq!(of_a_check(&keyward, &key).await, [call("BatchGetItem", 2.0)]);
    keyward.backend().patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": "s"})).await.ok();
    let reads = [call("BatchGetItem", 2.0), call("BatchGetItem", 1.0)];
    assert_eq!(of_a_check(&keyward, &key).await[..2], reads);
    assert_eq!(of_a_check(&keyward, &key).await[0], call("BatchGetItem", 3.0));
}

/// The reads and computations of a check of this key by this process: the units of each call, and the HMACs.
async fn read_and_computed(keyward: &Keyward, process: &Services, key: &str) -> (Vec<f64>, u64) {
    keyward.calls.take();
    keyward.calls.take_units();
    let before = process.store.hmacs_compared();
    let verifier =
        Verifier::new(process.store.clone(), process.recorder.clone(), process.public.deployment_id());
    let target = Target::parse("GET", "/v1/users").unwrap();
    let check = Check {
        presented: key,
        accepted: &Accepted::ANY,
        target: &target,
        required_permissions: &[],
        client_ip: None,
        user_agent: None,
        request_id: None,
    };
    let refused = verifier.check(&check, None).await;
    assert!(matches!(refused, Err(CheckError::InvalidKey)), "{refused:?}");
    let (calls, units) = (keyward.calls.take(), keyward.calls.take_units());
    assert_eq!(calls.len(), units.len(), "{calls:?}");
    let units = units.into_iter().map(|units| if counts_as_dynamodb() { units } else { 0.0 }).collect();
    (units, process.store.hmacs_compared() - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_key_costs_the_same_whatever_is_wrong_with_it_and_whatever_a_process_has_seen() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 100}]);
    for slug in ["own", "of-app"] {
        let scheme = json!({"slug": slug, "name": "S", "rules": rules});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    }
    for (slug, scheme) in [("limited", json!("of-app")), ("free", Value::Null)] {
        let app = json!({"app_slug": slug, "name": slug, "rate_limit_scheme_slug": scheme});
        backend.post("/api-auth/apps", app).await.ok();
    }
    let mut keys = vec![];
    for app in ["limited", "free"] {
        for members in [json!({}), json!({"rate_limit_scheme_slug": "own"})] {
            keys.push(backend.create_key(app, members).await);
        }
        let revoked = backend.create_key(app, json!({"rate_limit_scheme_slug": "own"})).await;
        backend.revoke(app, &text(&revoked["id"])).await.ok();
        keys.push(revoked);
    }
    let client = dynamodb_client(keyward.sdk_config());
    let client = client.config().to_builder().interceptor(keyward.calls.clone()).build();
    let client = aws_sdk_dynamodb::Client::from_conf(client);
    let process = keyward.process(keyward.services.store.clock().clone(), client).await;
    let tokens: Vec<ApiKeyToken> =
        keys.iter().map(|key| ApiKeyToken::parse(&text(&key["secret"])).unwrap()).collect();
    let other = || Secret::from_random(&[9; 32]);
    let unknown_id = KeyId::mint(Utc::now(), 5);
    // By the app that the presented key names: what else it says must make no difference.
    let mut costs = BTreeMap::new();
    let known = tokens.iter().map(|token| token.app).chain([AppNumber::mint(77)]);
    let apps: BTreeSet<String> = known.map(AppNumber::base62).collect();
    for seen in ["nothing", "the keys"] {
        for app in &apps {
            let app = AppNumber::from_base62(app).unwrap();
            let copy = |token: &ApiKeyToken| ApiKeyToken::parse(token.reveal().expose_secret()).unwrap();
            let of_others = tokens.iter().filter(|token| token.app != app).map(copy);
            let presented = tokens.iter().map(|token| ApiKeyToken { secret: other(), ..copy(token) });
            let presented = presented.chain(of_others).map(|token| ApiKeyToken { app, ..token });
            let unknown = ApiKeyToken { app, id: unknown_id, secret: other(), ..copy(&tokens[0]) };
            for token in presented.chain([unknown]) {
                let key = token.reveal().expose_secret().to_owned();
                let cost = read_and_computed(&keyward, &process, &key).await;
                let first = costs.entry((seen, app.base62())).or_insert_with(|| cost.clone());
                assert_eq!(&cost, first, "{token:?} after {seen}");
                assert_eq!((cost.0.len(), cost.1), (1, 1), "one call, one HMAC");
            }
        }
        if seen == "nothing" && counts_as_dynamodb() {
            assert!(costs.values().all(|cost| cost.0 == [2.0]), "{costs:?}");
        }
        let verifier =
            Verifier::new(process.store.clone(), process.recorder.clone(), process.public.deployment_id());
        let target = Target::parse("GET", "/v1/users").unwrap();
        for token in tokens.iter().chain(&tokens) {
            let key = token.reveal();
            let check = Check {
                presented: key.expose_secret(),
                accepted: &Accepted::ANY,
                target: &target,
                required_permissions: &[],
                client_ip: None,
                user_agent: None,
                request_id: None,
            };
            assert!(!matches!(verifier.check(&check, None).await, Err(CheckError::InvalidKey)));
        }
        process.recorder.flush(FLUSH_TIME).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_rules_once_and_none_that_do_not_decide() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let key = limited(&keyward, json!([{"unit": "day", "duration": 1, "max_requests": 100}])).await;
    let mut keys = vec![key];
    for _ in 0..3 {
        keys.push(text(&backend.create_key("acme", json!({})).await["secret"]));
    }
    for slug in ["a", "b", "c"] {
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": 100}]);
        backend
            .post("/api-auth/rate-limit-schemes", json!({"slug": slug, "name": "S", "rules": rules}))
            .await
            .ok();
        let key = backend.create_key("acme", json!({"rate_limit_scheme_slug": slug})).await;
        if slug == "c" {
            backend.revoke("acme", &text(&key["id"])).await.ok();
        }
        keys.push(text(&key["secret"]));
    }
    let checks: Vec<_> = keys.iter().cycle().take(100).map(|key| check_body(key)).collect();
    let reads = async || {
        keyward.settle().await;
        keyward.calls.take();
        keyward.calls.take_units();
        backend.post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
        let calls = keyward.calls.take().into_iter().map(|call| call.operation);
        // They are answered before anything is counted or recorded.
        let reads = calls.filter(|operation| operation == "BatchGetItem").zip(keyward.calls.take_units());
        reads.collect::<Vec<_>>()
    };
    let first = reads().await;
    let expected = [call("BatchGetItem", 9.0), call("BatchGetItem", 2.0)];
    assert_eq!(first, expected, "seven keys, the app and its rules; the rules of two keys");
    assert_eq!(
        reads().await,
        [call("BatchGetItem", 12.0)],
        "the rules of the revoked key were not asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_two_modes_are_one_transaction_and_a_read() {
    let keyward = Keyward::start().await;
    let rules = json!([
        {"unit": "day", "duration": 1, "max_requests": 9},
        {"unit": "day", "duration": 1, "max_requests": 9, "mode": "per_app"},
    ]);
    let key = limited(&keyward, rules).await;
    let sent = of_a_check(&keyward, &key).await;
    let written = if counts_as_dynamodb() { 4.0 } else { 2.0 };
    let expected =
        [call("BatchGetItem", 3.0), call("TransactWriteItems", written), call("BatchGetItem", 2.0)];
    assert_eq!(sent, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_scheme_is_read_for_one_unit() {
    let keyward = Keyward::start().await;
    let rule = |n: usize| {
        json!({
            "unit": "millisecond", "duration": 10_000 + n, "max_requests": 1_000_000_000 + n, "mode": "per_key_and_ip",
            "priority": 1_000_000_000 + n, "window": "fixed", "endpoints": [format!("/{n:02}{}", "x".repeat(66))],
        })
    };
    let rules: Vec<_> = (0..20).map(rule).collect();
    let key = limited(&keyward, json!(rules)).await;
    assert_eq!(
        of_a_check(&keyward, &key).await,
        [call("BatchGetItem", 3.0)],
        "none of them holds for the request"
    );
}

/// The items that a check reads and writes, besides the key, its app and the rules.
async fn items_of_a_check(keyward: &Keyward, key: &str) -> (serde_json::Value, usize) {
    keyward.settle().await;
    keyward.calls.take();
    let response = keyward.check(key).await.ok();
    keyward.settle().await;
    let of = |call: &Call| match call.operation.as_str() {
        "BatchGetItem" => call.sent["RequestItems"]["keyward"]["Keys"].as_array().map_or(0, Vec::len),
        "TransactWriteItems" => call.sent["TransactItems"].as_array().map_or(0, Vec::len),
        "UpdateItem" => 1,
        _ => 0,
    };
    let calls = keyward.calls.take();
    (response, calls.iter().map(of).sum::<usize>() - 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_rule_beside_a_very_large_one_refuses_for_little() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rules = json!([
        {"unit": "minute", "duration": 1, "max_requests": 1},
        {"unit": "minute", "duration": 1, "max_requests": i32::MAX, "mode": "per_app", "priority": 1},
    ]);
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({
        "app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s", "on_store_error": "allow",
    });
    backend.post("/api-auth/apps", app).await.ok();
    let keys = [0, 1].map(|_| async { text(&backend.create_key("acme", json!({})).await["secret"]) });
    let [one, other] = futures::future::join_all(keys).await.try_into().unwrap();
    keyward.freeze(Utc::now());
    for key in [&one, &other] {
        let (response, items) = items_of_a_check(&keyward, key).await;
        assert_eq!(response["allowed"], true);
        assert!(items <= 2 * 16 + 10, "{items} items for the first requests, with all shards of the app");
    }
    let (response, items) = items_of_a_check(&keyward, &one).await;
    assert_eq!((&response["allowed"], &response["blocked_rule"]), (&json!(false), &json!("1/60s")));
    assert_eq!(response["rate_limits"][1]["limit"], i32::MAX);
    assert!(items <= 3, "{items} items to learn that it is used up: two written, one read");
    for _ in 0..3 {
        let (response, items) = items_of_a_check(&keyward, &one).await;
        assert_eq!((&response["allowed"], &response["blocked_rule"]), (&json!(false), &json!("1/60s")));
        assert!(items <= 1, "{items} items once that is known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_in_shards_is_one_update_once_they_are_laid_out_and_then_refuses_from_one_read() {
    let keyward = Keyward::start().await;
    let rules = json!([{"unit": "millisecond", "duration": 20, "max_requests": 40}]);
    let key = limited(&keyward, rules).await;
    keyward.freeze(Utc::now() + TimeDelta::hours(1));
    let (mut allowed, mut refused, mut last) = (0, 0, vec![]);
    for _ in 0..60 {
        let (response, items) = items_of_a_check(&keyward, &key).await;
        match response["allowed"] == true {
            true => (allowed, last) = (allowed + 1, [last, vec![items]].concat()),
            false => refused += items,
        }
    }
    assert_eq!(allowed, 40);
    let many = last.iter().filter(|items| **items > 1).count();
    assert!(many <= 2 * 5, "five shards are laid out once and found full once: {last:?}");
    assert!(last.iter().all(|items| *items <= 16 + 3 + 3 + 2 * 5), "{last:?}");
    assert!(refused <= 2 * 5, "{refused} items for 20 refusals");
}
