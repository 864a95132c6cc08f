//! The audit log: pages, filters, figures, and what they read.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use chrono::{DateTime, TimeDelta, Utc};
use keyward_cli::audit;
use keyward_cli::dev::TABLE;
use keyward_core::ErrorCode;
use keyward_core::audit::{BlockedBy, Event, EventId, Origin};
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::target::Target;
use keyward_core::text::Slug;
use keyward_core::token::{RootKey, Token};
use keyward_core::verified::Verification;
use keyward_runtime::Services;
use keyward_store::{MAX_ANALYZED, dynamodb_client, system_entropy};
use keyward_verifier::{Accepted, Check, CheckError, Verifier};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::edge::Log;
use keyward_tests::{Backend, FLUSH_TIME, Fault, Faults, Gate, Keyward, check_body, text, verified};

async fn checks(keyward: &Keyward, secret: &str, required: &str, path: &str, times: usize) {
    let mut body = check_body(secret);
    body["required_permissions"] = json!([required]);
    body["resource"] = path.into();
    for _ in 0..times {
        keyward.check_with(body.clone()).await.ok();
    }
    keyward.settle().await;
}

/// An id for an event of this instant that no other one has.
fn new_id(at: DateTime<Utc>) -> EventId {
    EventId::mint(at, u128::from_be_bytes(system_entropy().bytes().unwrap()))
}

async fn acme(keyward: &Keyward) -> Backend {
    let backend = keyward.backend();
    backend.create_app("acme").await;
    backend
}

async fn logs(backend: &Backend, query: &str) -> Value {
    backend.get(&format!("/api-auth/apps/acme/audit/logs{query}")).await.ok()
}

/// The events of verifications, as they are in the table.
async fn verifications(keyward: &Keyward) -> Vec<HashMap<String, AttributeValue>> {
    let events = Client::new(keyward.sdk_config())
        .scan()
        .table_name(TABLE)
        .consistent_read(true)
        .filter_expression("#action = :verification")
        .expression_attribute_names("#action", "action")
        .expression_attribute_values(":verification", AttributeValue::S("verification".into()));
    events.send().await.unwrap().items.unwrap()
}

/// The event that an item of the app `acme` holds.
async fn logged(keyward: &Keyward, item: &HashMap<String, AttributeValue>) -> Event {
    let store = &keyward.services.store;
    let token = Token::<RootKey>::parse(&keyward.described.root_key).unwrap();
    let root = store.authenticate_root_key(token, Origin::default()).await.unwrap();
    let access = store.app_access(&root, &Slug::parse("slug", "acme").unwrap()).await.unwrap();
    let id = item["id"].as_s().unwrap().parse().unwrap();
    store.logged_event(&access, id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_put_once_and_replaces_none() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    keyward.calls.take();
    checks(&keyward, &secret, "", "/a", 1).await;
    let calls = keyward.calls.take();
    let puts: Vec<_> = calls.iter().filter(|call| call.operation == "PutItem").collect();
    assert!(puts.len() == 1 && puts[0].sent["ConditionExpression"] == "attribute_not_exists(pk)", "{puts:?}");

    let [written] = &verifications(&keyward).await[..] else { panic!("one check") };
    let event = logged(&keyward, written).await;
    let key = verified(event.app.unwrap(), event.key_id.unwrap());
    let denied = Some(ErrorCode::PermissionDenied.into());
    let blocked = Verification::new(&key, event.id, denied, vec![], Origin::default());
    keyward.services.store.write_verification(&blocked).await.unwrap();
    assert_eq!(verifications(&keyward).await, std::slice::from_ref(written));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_fails_alone_and_is_tried_again_and_written_once() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    checks(&keyward, &secret, "", "/a", 1).await;
    let [first] = &verifications(&keyward).await[..] else { panic!("one check") };
    let template = logged(&keyward, first).await;
    let key = verified(template.app.unwrap(), template.key_id.unwrap());
    let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
    let recorder = keyward.process(keyward.services.store.clock().clone(), client).await.recorder;
    // More than the attempts of one call fail, but for what is denied.
    for (fault, times, written) in [
        (Fault::Denied, 1, 49),
        (Fault::ResponseLost, 60, 50),
        (Fault::Throttled, 60, 50),
        (Fault::Failed, 60, 50),
        (Fault::Refused, 60, 50),
        (Fault::KeyDisabled, 60, 50),
    ] {
        let before = verifications(&keyward).await.len();
        faults.plan("PutItem", 10, fault, times);
        for _ in 0..50 {
            let id = new_id(template.id.timestamp());
            let event = Verification::new(&key, id, None, vec![], Origin::default());
            recorder.record(event, None).await.unwrap();
        }
        recorder.flush(FLUSH_TIME).await;
        assert_eq!(verifications(&keyward).await.len() - before, written, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_event_once_newest_first() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    checks(&keyward, &secret, "", "/a", 57).await;
    let (mut seen, mut query) = (vec![], "?limit=10".to_owned());
    loop {
        let page = logs(&backend, &query).await;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() == 10 || page["has_more"] == false);
        seen.extend(rows.iter().map(|row| text(&row["request_id"])));
        if page["has_more"] == false {
            break;
        }
        query = format!("?limit=10&cursor={}", text(&page["next_cursor"]));
    }
    assert_eq!(seen.len(), 59, "57 checks, a key, an app");
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]));

    let page = logs(&backend, "?limit=10&offset=50").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 9);
    assert_eq!(page["data"][0]["request_id"], seen[50].as_str());
    let row = &logs(&backend, "?limit=5").await["data"][4];
    let at: DateTime<Utc> = text(&row["timestamp"]).parse().unwrap();
    let pair = format!(
        "?limit=1&cursor_ts={}&cursor_id={}",
        at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
        text(&row["request_id"])
    );
    assert_eq!(logs(&backend, &pair).await["data"][0]["request_id"], seen[5].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_what_it_holds() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    checks(&keyward, &secret, "", "/a", 40).await;
    let read = |query: &'static str| {
        let (keyward, backend) = (&keyward, &backend);
        async move {
            keyward.calls.take_units();
            logs(backend, query).await;
            keyward.calls.take_units().iter().sum::<f64>()
        }
    };
    let few = read("?limit=5").await;
    checks(&keyward, &secret, "", "/a", 400).await;
    let later = read("?limit=5").await;
    assert!(later <= few + 1.0, "{few} before, {later} with ten times the events");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_by_outcome_key_and_time() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let one = backend.create_key("acme", json!({})).await;
    let two = backend.create_key("acme", json!({})).await;
    checks(&keyward, &text(&one["secret"]), "", "/a", 3).await;
    checks(&keyward, &text(&two["secret"]), "never", "/b", 2).await;
    let count = |page: Value| page["data"].as_array().unwrap().len();
    assert_eq!(count(logs(&backend, "?outcome=blocked").await), 2);
    assert_eq!(count(logs(&backend, "?outcome=allowed").await), 6, "3 checks, 2 keys, an app");
    assert_eq!(count(logs(&backend, "?outcome=whatever").await), 8);
    let of_one = format!("?key_id={}", text(&one["id"]));
    assert_eq!(count(logs(&backend, &of_one).await), 4, "3 checks and the creation");
    assert_eq!(count(logs(&backend, "?key_id=12345").await), 0);

    keyward.pass(TimeDelta::days(8));
    assert_eq!(count(logs(&backend, "").await), 0, "the last 7 days");
    let page = logs(&backend, "?start_date=2020-01-01").await;
    assert_eq!(count(page), 8);
    let far = logs(&backend, "?start_date=2020-01-01&end_date=9999-12-31").await;
    assert_eq!(count(far), 8, "an end in the future is now");
    let end = (Utc::now() - TimeDelta::days(1)).format("%Y-%m-%d");
    assert_eq!(count(logs(&backend, &format!("?start_date=2020-01-01&end_date={end}")).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_right() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let one = backend.create_key("acme", json!({"permissions": ["read"]})).await;
    let two = backend.create_key("acme", json!({})).await;
    checks(&keyward, &text(&one["secret"]), "read", "/a", 4).await;
    checks(&keyward, &text(&one["secret"]), "write", "/b", 2).await;
    checks(&keyward, &text(&two["secret"]), "", "/a", 1).await;
    backend.revoke("acme", &text(&two["id"])).await.ok();
    keyward.check(&text(&two["secret"])).await.is_error(403, "key_revoked");
    keyward.check("garbage").await.is_error(401, "invalid_api_key");
    keyward.settle().await;

    let all =
        "include_top_keys=true&include_top_paths=true&include_blocked_reasons=true&include_rate_limits=true";
    let path = format!("/api-auth/apps/acme/audit/analytics?{all}");
    let figures = backend.get(&path).await.ok();
    assert_eq!(
        figures,
        json!({
            "total_requests": 8,
            "allowed_requests": 5,
            "blocked_requests": 3,
            "success_rate": 62.5,
            "keys_used_24h": 2,
            "is_estimate": false,
            "top_keys": [
                {"key_id": one["id"], "key_name": "Test key", "total_requests": 6},
                {"key_id": two["id"], "key_name": "Test key", "total_requests": 2},
            ],
            "top_paths": [
                {"path": "GET /a", "total_requests": 5},
                {"path": "GET /b", "total_requests": 2},
                {"path": "GET /v1/users", "total_requests": 1},
            ],
            "blocked_reasons": [
                {"blocked_by_rule": "permission_denied", "count": 2, "percentage": 200.0 / 3.0},
                {"blocked_by_rule": "key_revoked", "count": 1, "percentage": 100.0 / 3.0},
            ],
            "rate_limit_stats": {"total_hits": 0, "percentage_of_blocked": 0.0, "top_rules": []},
        })
    );
    let top = backend.get(&format!("{path}&top_limit=1&key_id={}", text(&two["id"]))).await.ok();
    assert_eq!(top["total_requests"], 2);
    assert_eq!(top["top_paths"].as_array().map(Vec::len), Some(1));
    assert_eq!(top["keys_used_24h"], 2, "of the app, whatever the key asked for");

    let mut browser = backend.browser("acme").await;
    let plain = browser.get("/api-auth/audit/analytics").await.ok();
    assert_eq!(plain["data"]["total_requests"], 8);
    assert!(plain["data"].get("top_keys").is_none(), "what is not asked for is left out");

    keyward.pass(TimeDelta::days(2));
    let later = backend.get("/api-auth/apps/acme/audit/analytics").await.ok();
    assert_eq!((&later["total_requests"], &later["keys_used_24h"]), (&json!(8), &json!(0)));
    keyward.pass(TimeDelta::days(40));
    let later = backend.get("/api-auth/apps/acme/audit/analytics").await.ok();
    assert_eq!((&later["total_requests"], &later["success_rate"]), (&json!(0), &json!(0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_has_a_point_for_each_bucket_with_requests() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    for times in [1, 2, 3] {
        checks(&keyward, &secret, "", "/a", times).await;
        checks(&keyward, &secret, "never", "/a", 1).await;
        keyward.pass(TimeDelta::hours(2));
    }
    let series = |query: &'static str| {
        let backend = backend.clone();
        async move { backend.get(&format!("/api-auth/apps/acme/audit/timeseries{query}")).await.ok() }
    };
    let hours = series("").await;
    assert_eq!(hours["interval"], "hour");
    // A batch may straddle the top of an hour, so the sums count rather than the number of points.
    let points = hours["data"].as_array().unwrap();
    let sum = |member: &str| points.iter().map(|point| point[member].as_i64().unwrap()).sum::<i64>();
    assert!((3..=6).contains(&points.len()));
    assert_eq!((sum("total_requests"), sum("allowed_requests"), sum("blocked_requests")), (9, 6, 3));
    let times: Vec<&str> = points.iter().map(|point| point["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| time.ends_with(":00:00Z")));
    assert_eq!(series("?interval=fortnight").await["interval"], "hour");
    assert_eq!(series("?interval=week").await["interval"], "week");
    assert_eq!(series("?start_date=2020-01-01&end_date=2020-02-01").await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_noted_once_a_minute() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let last_use =
        || async { backend.get("/api-auth/apps/acme/keys").await.ok()["keys"][0]["last_used_at"].clone() };
    assert_eq!(last_use().await, Value::Null);
    checks(&keyward, &secret, "", "/a", 1).await;
    let first = last_use().await;
    assert!(first.is_string());
    keyward.calls.take();
    checks(&keyward, &secret, "", "/a", 5).await;
    assert!(keyward.calls.take().iter().all(|call| call.operation != "UpdateItem"));
    assert_eq!(last_use().await, first);
    keyward.pass(TimeDelta::minutes(1));
    checks(&keyward, &secret, "never", "/a", 1).await;
    assert_eq!(last_use().await, first, "a blocked request is no use");
    checks(&keyward, &secret, "", "/a", 1).await;
    assert!(text(&last_use().await) > text(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_cross_the_end_of_a_month() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let mut months = HashSet::new();
    for _ in 0..4 {
        checks(&keyward, &secret, "", "/a", 5).await;
        keyward.pass(TimeDelta::days(31));
    }
    let page = logs(&backend, "?start_date=2020-01-01&limit=15").await;
    let rest = logs(&backend, &format!("?start_date=2020-01-01&cursor={}", text(&page["next_cursor"]))).await;
    let rows: Vec<&Value> = [&page, &rest].into_iter().flat_map(|p| p["data"].as_array().unwrap()).collect();
    months.extend(rows.iter().map(|row| text(&row["timestamp"])[..7].to_owned()));
    assert_eq!(rows.len(), 22);
    assert!(months.len() >= 4, "{months:?}");
    let series =
        backend.get("/api-auth/apps/acme/audit/timeseries?interval=month&start_date=2020-01-01").await.ok();
    let total =
        series["data"].as_array().unwrap().iter().map(|p| p["total_requests"].as_i64().unwrap()).sum::<i64>();
    assert_eq!(total, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_cursor_that_has_left_the_range_there_is_nothing() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    checks(&keyward, &secret, "", "/a", 3).await;
    let cursor = text(&logs(&backend, "?limit=2").await["next_cursor"]);
    keyward.pass(TimeDelta::days(8));
    let page = logs(&backend, &format!("?cursor={cursor}")).await;
    assert_eq!((&page["data"], &page["has_more"]), (&json!([]), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_the_log_are_bounded() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let created = backend.create_key("acme", json!({})).await;
    checks(&keyward, &text(&created["secret"]), "never", "/a", 1).await;
    // The blocked check is the oldest, under more allowed ones than a page or an analysis looks at.
    let [blocked] = &verifications(&keyward).await[..] else { panic!("one check") };
    let later = keyward.services.store.clock().now() + TimeDelta::milliseconds(1);
    let requests: Vec<WriteRequest> = (0..MAX_ANALYZED)
        .map(|n| {
            let id = AttributeValue::S(EventId::mint(later, n as u128).to_string());
            let mut item = blocked.clone();
            item.extend([("sk".to_owned(), id.clone()), ("id".to_owned(), id)]);
            item.insert("outcome".to_owned(), AttributeValue::S("allowed".into()));
            WriteRequest::builder()
                .put_request(PutRequest::builder().set_item(Some(item)).build().unwrap())
                .build()
        })
        .collect();
    let client = Client::new(keyward.sdk_config());
    for batch in requests.chunks(25) {
        client.batch_write_item().request_items(TABLE, batch.to_vec()).send().await.unwrap();
    }
    let figures = backend.get("/api-auth/apps/acme/audit/analytics").await;
    figures.is_error(400, "invalid_field");
    assert!(text(&figures.body["message"]).contains("20000"), "{}", figures.body);
    backend.get("/api-auth/apps/acme/audit/timeseries").await.is_error(400, "invalid_field");
    let day = |days| (Utc::now() - TimeDelta::days(days)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let old = format!("?start_date={}&end_date={}", day(9), day(8));
    let figures = backend.get(&format!("/api-auth/apps/acme/audit/analytics{old}")).await.ok();
    assert_eq!(figures["total_requests"], 0, "a range is refused only for what it holds itself");
    assert_eq!(figures["keys_used_24h"], 1, "as many as were seen");

    let (mut pages, mut found, mut query) = (0, 0, "?outcome=blocked".to_owned());
    loop {
        let page = logs(&backend, &query).await;
        pages += 1;
        found += page["data"].as_array().unwrap().len();
        if page["has_more"] == false {
            break;
        }
        query = format!("?outcome=blocked&cursor={}", text(&page["next_cursor"]));
    }
    assert_eq!((pages, found), (5, 1), "each page looks at 5,000 events");
    let far = backend.get("/api-auth/apps/acme/audit/logs?outcome=blocked&offset=1").await;
    far.is_error(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_do_not_see_where_the_backend_is() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    backend.create_key("acme", json!({"metadata": {"internal": "note"}})).await;
    let mut browser = backend.browser("acme").await;
    let created = |rows: &Value| {
        rows.as_array().unwrap().iter().find(|row| row["action"] == "key.created").unwrap().clone()
    };
    let row = created(&browser.get("/api-auth/audit/events").await.ok()["data"]["data"]);
    assert_eq!([&row["actor"], &row["client_ip"], &row["user_agent"]], [&Value::Null; 3]);
    let to_backend = backend.get("/api-auth/apps/acme/audit/events").await.ok();
    for row in [created(&logs(&backend, "").await["data"]), created(&to_backend["data"])] {
        assert_eq!([&row["actor"]["type"], &row["client_ip"]], [&json!("root_key"), &json!("127.0.0.1")]);
    }
    let keys = browser.get("/api-auth/keys").await.ok();
    assert!(keys["data"][0].get("metadata").is_none());
    assert_eq!(backend.get("/api-auth/apps/acme/keys").await.ok()["keys"][0]["metadata"]["internal"], "note");
}

/// A process of the installation whose table is behind a gate, with a recorder of its own.
async fn behind(gate: &Gate, keyward: &Keyward) -> Services {
    let config = keyward.sdk_config().to_builder().endpoint_url(&gate.url).build();
    keyward.process(keyward.services.store.clock().clone(), dynamodb_client(&config)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_waits_for_its_event_only_where_the_app_wants_it() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    let gate = Gate::before(keyward.sdk_config().endpoint_url().unwrap()).await;
    let Services { store, recorder, public, .. } = behind(&gate, &keyward).await;
    let verifier = Verifier::new(store, recorder.clone(), public.deployment_id());
    let target = Target::parse("GET", "/a").unwrap();
    let check = Check {
        presented: &secret,
        accepted: &Accepted::ANY,
        target: &target,
        required_permissions: &[],
        client_ip: None,
        user_agent: None,
        request_id: None,
    };
    gate.close();
    for _ in 0..100 {
        assert!(verifier.check(&check, None).await.unwrap().allowed());
    }
    assert_eq!(verifications(&keyward).await.len(), 0, "they wait");
    gate.open();
    recorder.flush(FLUSH_TIME).await;
    assert_eq!(verifications(&keyward).await.len(), 100);

    let change = |durability: Value| json!({"audit_durability": durability});
    let app = "/api-auth/apps/acme";
    let before = backend.patch(app, change("before_answer".into())).await.ok();
    assert_eq!(before["audit_durability"], "before_answer");
    for logged in 101..111 {
        assert!(verifier.check(&check, None).await.unwrap().allowed());
        assert_eq!(verifications(&keyward).await.len(), logged);
    }
    gate.close();
    let refused = verifier.check(&check, None).await.unwrap_err();
    assert!(matches!(&refused, CheckError::Store(error) if error.is_unavailable()), "{refused}");
    gate.open();
    recorder.flush(FLUSH_TIME).await;

    backend.patch(app, change("never".into())).await.is_error(400, "invalid_field");
    let cleared = backend.patch(app, change(Value::Null)).await.ok();
    assert_eq!(cleared["audit_durability"], "after_answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_refuses_is_restored_from_the_log_once() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    checks(&keyward, &secret, "", "/a", 1).await;
    let [first] = &verifications(&keyward).await[..] else { panic!("one check") };
    let template = logged(&keyward, first).await;
    let key = verified(template.app.unwrap(), template.key_id.unwrap());
    let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
    let recorder = keyward.process(keyward.services.store.clock().clone(), client).await.recorder;
    faults.plan("PutItem", 0, Fault::Denied, usize::MAX);
    let log = Log::start();
    let origin = Origin::new(None, "GET /\u{202E}\"é", Some("{\"target\":\"keyward::audit\"}"));
    let refused: Vec<Verification> = (0..20)
        .map(|_| {
            let id = new_id(template.id.timestamp());
            let rule = Some(BlockedBy::RateLimit("5/60s".into()));
            Verification::new(&key, id, rule, vec![], origin.clone())
        })
        .collect();
    for verification in &refused {
        recorder.record(verification.clone(), None).await.unwrap();
    }
    recorder.flush(FLUSH_TIME).await;
    assert_eq!(verifications(&keyward).await.len(), 1);
    let text = log.text();
    let ids: Vec<String> = refused.iter().map(|one| one.event().id.to_string()).collect();
    let is_of_test = |line: &&str| ids.iter().any(|id| line.contains(id));
    let mut log: Vec<&str> = text.lines().filter(is_of_test).collect();
    assert!(log.len() == 20 && log.iter().all(|line| line.contains("RefusedWrites")), "{log:#?}");
    log.push(r#"{"target":"keyward::audit","fields":{"event":"{\"id\":\"no\"}"}}"#);
    let log = log.join("\n");

    let table = keyward.services.store.table();
    let said = std::sync::Mutex::new(vec![]);
    let report = |line, error: &keyward_store::Error| said.lock().unwrap().push(format!("{line}: {error}"));
    let replayed = audit::replay(table, log.as_bytes(), report).await.unwrap();
    assert_eq!((replayed.restored, replayed.present, replayed.failed), (20, 0, 1));
    let wrong = format!("{}: event is none that this release can read", log.lines().count());
    assert_eq!(*said.lock().unwrap(), [wrong]);
    let again = audit::replay(table, log.as_bytes(), |_, _| {}).await.unwrap();
    assert_eq!((again.restored, again.present, again.failed), (0, 20, 1));
    let in_table = verifications(&keyward).await;
    assert_eq!(in_table.len(), 21);
    for verification in &refused {
        let id = verification.event().id.to_string();
        let item = in_table.iter().find(|item| item["id"].as_s() == Ok(&id)).unwrap();
        assert_eq!(logged(&keyward, item).await, *verification.event());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_ends_in_time_whatever_is_queued_and_nothing_of_it_is_lost() {
    let keyward = Keyward::start().await;
    let gate = Gate::before(keyward.sdk_config().endpoint_url().unwrap()).await;
    let recorder = behind(&gate, &keyward).await.recorder;
    let log = Log::start();
    let key = verified(AppNumber::mint(7), KeyId::new(11).unwrap());
    gate.close();
    let mut ids = vec![];
    for _ in 0..1_000 {
        let id = new_id(Utc::now());
        ids.push(id.to_string());
        recorder.record(Verification::new(&key, id, None, vec![], Origin::default()), None).await.unwrap();
    }
    // 64 are tried at a time, for 20 s each.
    let flushed = timeout(Duration::from_secs(20), recorder.flush(Duration::from_millis(100))).await;
    assert!(flushed.is_ok(), "it takes as long as the table");
    let text = log.text();
    assert!(ids.iter().all(|id| text.contains(id.as_str())), "each is in the log");
    gate.open();
    let event = Verification::new(&key, new_id(Utc::now()), None, vec![], Origin::default());
    recorder.record(event.clone(), None).await.unwrap();
    recorder.flush(FLUSH_TIME).await;
    let written = verifications(&keyward).await;
    let id = event.event().id.to_string();
    assert!(written.iter().any(|item| item["id"].as_s() == Ok(&id)), "it goes on after that");
    recorder.close().await;
    recorder.record(event, None).await.unwrap();
    assert!(log.text().matches(&id).count() == 1, "after it was closed what is recorded is logged");
}
