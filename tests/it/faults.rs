//! The outcome of a check when DynamoDB fails, in each way and at each call.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, TimeToLiveStatus};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use chrono::Utc;
use keyward_cli::dev::TABLE;
use keyward_cli::table_shape;
use keyward_core::Clock;
use keyward_core::audit::Origin;
use keyward_core::text::Slug;
use keyward_core::token::{RootKey, Token};
use keyward_http::{ApiError, application, function, respond};
use keyward_pepper::PepperError;
use keyward_runtime::{AssemblyError, Services, Settings, SettingsError};
use keyward_store::{Table, system_entropy};
use keyward_tests::{Fault, Faults, Keyward, Metrics, check_body, operator, text};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A process whose DynamoDB can be made to fail, with the time limits of production.
struct Process {
    keyward: Keyward,
    faults: Faults,
    routes: Router,
    /// A key that two rules of one mode limit.
    one_mode: String,
    /// A key that two rules of two modes limit.
    two_modes: String,
}

impl Process {
    async fn start() -> Self {
        let keyward = Keyward::start().await;
        let backend = keyward.backend();
        let rule = |unit: &str, mode: &str| json!({"unit": unit, "duration": 1, "max_requests": 1_000, "mode": mode});
        let mut keys = vec![];
        for (slug, mode) in [("one", "per_key"), ("two", "per_app")] {
            let rules = json!([rule("day", "per_key"), rule("calendar_month", mode)]);
            let scheme = json!({"slug": slug, "name": "S", "rules": rules});
            backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
            let app = json!({"app_slug": slug, "name": "App", "rate_limit_scheme_slug": slug});
            backend.post("/api-auth/apps", app).await.ok();
            keys.push(text(&backend.create_key(slug, json!({})).await["secret"]));
        }
        let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
        let services = keyward.process(keyward.services.store.clock().clone(), client).await;
        let routes = application(verify::routes(&services), services);
        let [one_mode, two_modes] = keys.try_into().unwrap();
        let process = Self { keyward, faults, routes, one_mode, two_modes };
        for key in [&process.one_mode, &process.two_modes] {
            assert_eq!(process.check(key).await.1["allowed"], true);
        }
        process
    }

    async fn check(&self, key: &str) -> (u16, Value, Option<String>) {
        self.post("/v1/authz/check", check_body(key)).await
    }

    /// The results of a batch of checks of these keys: the status of each, and whether it is allowed.
    async fn check_all(&self, keys: &[String]) -> Vec<(u64, bool)> {
        let checks: Vec<Value> = keys.iter().map(|key| check_body(key)).collect();
        let (status, body, _) = self.post("/v1/authz/check/batch", json!({"checks": checks})).await;
        assert_eq!(status, 200, "{body}");
        let results = body["results"].as_array().unwrap().iter();
        results.map(|one| (one["status"].as_u64().unwrap(), one["allowed"].as_bool().unwrap())).collect()
    }

    /// The status, the body and the header `Retry-After`.
    async fn post(&self, path: &str, body: Value) -> (u16, Value, Option<String>) {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap(), retry_after)
    }

    /// The number of requests that each rule has counted, by the partition of its counter and its name there.
    async fn counts(&self) -> BTreeMap<(String, String), i64> {
        let client = Client::new(self.keyward.sdk_config());
        let limits = client
            .scan()
            .table_name(TABLE)
            .filter_expression("begins_with(pk, :limit)")
            .expression_attribute_values(":limit", AttributeValue::S("LIMIT#".into()));
        let mut counts = BTreeMap::new();
        for item in limits.send().await.unwrap().items() {
            let pk = item["pk"].as_s().unwrap();
            for (name, value) in item.iter().filter(|(name, _)| name.len() > 3 && *name != "purge_at") {
                let count: i64 = value.as_n().unwrap().parse().unwrap();
                let most = counts.entry((pk.clone(), name[..3].to_owned())).or_insert(0);
                *most = count.max(*most);
            }
        }
        counts
    }
}

/// A call that a check of this key makes, and how many of the same operation come before it.
type Call<'p> = (&'p str, &'static str, usize);

/// The calls that checks make.
fn calls(process: &Process) -> [Call<'_>; 5] {
    [
        (&process.one_mode, "BatchGetItem", 0),
        (&process.one_mode, "UpdateItem", 0),
        (&process.two_modes, "BatchGetItem", 0),
        (&process.two_modes, "TransactWriteItems", 0),
        (&process.two_modes, "BatchGetItem", 1),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_a_503_in_time_and_counts_whole_requests_or_none() {
    let process = Process::start().await;
    for (key, operation, after) in calls(&process) {
        for fault in Fault::ALL {
            let before = process.counts().await;
            // A machine that is busy with other tests may be late: of three answers one must be in time.
            let mut times = vec![];
            let mut responses = vec![];
            while times.iter().all(|time| *time >= Duration::from_secs(2)) && times.len() < 3 {
                process.faults.plan(operation, after, fault, usize::MAX);
                let start = Instant::now();
                responses.push(process.check(key).await);
                times.push(start.elapsed());
            }
            process.faults.clear();
            let what = format!("{operation} after {after}, {fault:?}: {responses:?}");
            assert!(times.iter().any(|time| *time < Duration::from_secs(2)), "{times:?} {what}");
            for (status, body, retry_after) in &responses {
                assert_eq!((*status, &body["code"]), (503, &json!("store_unavailable")), "{what}");
                assert_eq!(body["allowed"], false, "{what}");
                assert_eq!(retry_after.as_deref(), Some("1"), "{what}");
            }
            let counted: Vec<i64> =
                process.counts().await.iter().map(|(rule, after)| after - before[rule]).collect();
            let is_lost =
                matches!(fault, Fault::ResponseLost | Fault::Slow(_)) && operation != "BatchGetItem";
            if !is_lost && after == 0 {
                assert!(counted.iter().all(|count| *count == 0), "{counted:?} {what}");
            } else {
                // Each rule of the key has counted each request as often as the others; those of the other key none.
                let counted: Vec<i64> = counted.into_iter().filter(|count| *count > 0).collect();
                assert!(counted.len() == 2 && counted[0] == counted[1], "{counted:?} {what}");
            }
            assert_eq!(process.check(key).await.1["allowed"], true, "as soon as it works again: {what}");
        }
    }
}

/// The metrics that report a fault.
const REPORTED: [(Fault, &str); 4] = [
    (Fault::KeyDisabled, "KmsFailures"),
    (Fault::Failed, "StoreFailures"),
    (Fault::Garbage, "StoreFailures"),
    (Fault::Denied, "InternalErrors"),
];

#[tokio::test]
async fn an_operator_is_told_whether_the_key_the_table_or_the_role_fails_at_each_call_of_a_check() {
    let process = Process::start().await;
    let metrics = Metrics::watch();
    for (key, operation, after) in calls(&process) {
        for (fault, metric) in REPORTED {
            process.faults.plan(operation, after, fault, usize::MAX);
            let (status, body, _) = process.check(key).await;
            process.faults.clear();
            let wanted =
                if fault == Fault::Denied { (500, "internal_error") } else { (503, "store_unavailable") };
            assert_eq!(
                (status, body["code"].as_str().unwrap()),
                wanted,
                "{operation} after {after}, {fault:?}"
            );
            assert_eq!(metrics.take(), [metric], "{operation} after {after}, {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_table_whose_making_is_interrupted_or_unanswered_is_made_whole() {
    let keyward = Keyward::start().await;
    let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
    let shape = table_shape().unwrap();
    for operation in ["CreateTable", "UpdateTimeToLive"] {
        for (kind, fault) in [("unanswered", Fault::ResponseLost), ("interrupted", Fault::Denied)] {
            let name = format!("{operation}-{kind}");
            let table = Table::new(client.clone(), &name, Clock::new(Utc::now), system_entropy());
            faults.plan(operation, 0, fault, 1);
            let created = table.create(&operator(), &shape).await;
            assert_eq!(created.is_err(), fault == Fault::Denied, "{name}: {created:?}");
            table.create(&operator(), &shape).await.unwrap();
            let described = Client::new(keyward.sdk_config())
                .describe_time_to_live()
                .table_name(&name)
                .send()
                .await
                .unwrap();
            let ttl = described.time_to_live_description.unwrap();
            assert_eq!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled), "{name}");
            assert_eq!(ttl.attribute_name.as_deref(), Some("purge_at"), "{name}");
        }
    }
}

type Failure = fn() -> SettingsError;

#[tokio::test]
async fn every_start_that_fails_is_counted() {
    let keyward = Keyward::start().await;
    let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
    let (provider, settings) = (keyward.provider(), Settings::clone(&keyward.services.settings));
    let start = move |table: &'static str| {
        let table = Table::new(client.clone(), table, Clock::new(Utc::now), system_entropy());
        Services::start(table, provider.clone(), settings.clone())
    };
    let metrics = Metrics::watch();
    let request = || Request::post("/v1/authz/check").body(Body::empty()).unwrap();

    let of_table = function(move || start(TABLE), verify::routes);
    for (operation, after) in [("Query", 0), ("GetItem", 0)] {
        for (fault, metric) in REPORTED {
            faults.plan(operation, after, fault, usize::MAX);
            let response = respond(&of_table, request()).await.unwrap();
            assert_eq!(response.status(), 503, "{operation} after {after}, {fault:?}");
            assert_eq!(metrics.take(), [metric], "{operation} after {after}, {fault:?}");
        }
    }
    faults.clear();
    assert_eq!(respond(&of_table, request()).await.unwrap().status(), 415, "it starts as soon as it can");
    assert_eq!(metrics.take(), [""; 0]);

    let cases: [(Failure, &str); 4] = [
        (|| SettingsError::Variable("KEYWARD_TABLE", "is missing"), "InternalErrors"),
        (|| AssemblyError::NoDeployment.into(), "InternalErrors"),
        (|| PepperError::Missing.into(), "InternalErrors"),
        (|| PepperError::Kms("throttled".into()).into(), "KmsFailures"),
    ];
    for (error, metric) in cases {
        let failing = function(move || async move { Err(error()) }, verify::routes);
        assert_eq!(respond(&failing, request()).await.unwrap().status(), 503);
        assert_eq!(metrics.take(), [metric], "{:?}", error());
    }
    let late = function(std::future::pending::<Result<Services, SettingsError>>, verify::routes);
    assert_eq!(respond(&late, request()).await.unwrap().status(), 503);
    assert_eq!(metrics.take(), ["InternalErrors"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_attempt_that_fails_is_made_up_for_and_counted_once() {
    let process = Process::start().await;
    for (key, operation, after) in calls(&process) {
        for fault in [Fault::Refused, Fault::ResponseLost, Fault::Throttled, Fault::Failed] {
            let before = process.counts().await;
            process.faults.plan(operation, after, fault, 1);
            let (status, body, _) = process.check(key).await;
            assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{operation} {fault:?} {body}");
            let counted: i64 = process.counts().await.iter().map(|(rule, after)| after - before[rule]).sum();
            assert_eq!(counted, 2, "once in each of two rules: {operation} {fault:?}");
        }
    }
}

/// The log names the failure for whoever fixes it; nobody else learns of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_knows_its_call_the_kind_of_item_and_the_place_in_the_code() {
    let keyward = Keyward::start().await;
    let (faults, client) = Faults::before_dynamodb(keyward.sdk_config());
    let store = keyward.process(keyward.services.store.clock().clone(), client).await.store;
    let token = Token::<RootKey>::parse(&keyward.backend().root_key).unwrap();
    let access = store.authenticate_root_key(token, Origin::default()).await.unwrap();
    let slug = Slug::parse("slug", "acme").unwrap();
    for fault in [Fault::Refused, Fault::Garbage, Fault::Denied, Fault::KeyDisabled] {
        faults.plan("GetItem", 0, fault, usize::MAX);
        let error = store.app_access(&access, &slug).await.unwrap_err();
        let failure = error.failure().unwrap_or_else(|| panic!("{error}"));
        let partition = failure.partition.as_deref();
        assert_eq!(
            (failure.operation, partition),
            (Some("GetItem"), Some("DEPLOYMENT#*#SLUG#*")),
            "{fault:?}"
        );
        assert!(failure.place.file().starts_with("shared/store/src/"), "{}", failure.place);
        let sentence = ApiError::from(error.clone()).message;
        assert!(!sentence.contains("GetItem") && error.to_string().contains("GetItem"), "{sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_rather_be_reached_than_counted() {
    let process = Process::start().await;
    let backend = process.keyward.backend();
    let app = backend.patch("/api-auth/apps/one", json!({"on_store_error": "allow"})).await.ok();
    assert_eq!(app["on_store_error"], "allow");
    let other = backend.get("/api-auth/apps/two").await.ok();
    assert_eq!(other["on_store_error"], "deny");
    for fault in Fault::ALL {
        process.faults.plan("UpdateItem", 0, fault, usize::MAX);
        let (status, body, _) = process.check(&process.one_mode).await;
        assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{fault:?}");
        assert_eq!(body["rate_limits"], json!([]), "it was not counted: {fault:?}");
        process.faults.plan("BatchGetItem", 0, fault, usize::MAX);
        let (status, body, _) = process.check(&process.one_mode).await;
        assert_eq!((status, &body["allowed"]), (503, &json!(false)), "a key that is not known: {fault:?}");
    }
    process.faults.clear();
    let wrong = backend.patch("/api-auth/apps/one", json!({"on_store_error": "maybe"})).await;
    wrong.is_error(400, "invalid_field");
    let cleared = backend.patch("/api-auth/apps/one", json!({"on_store_error": null})).await.ok();
    assert_eq!(cleared["on_store_error"], "deny");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_for_one_check_of_a_batch_fails_alone_and_leaves_the_others_time() {
    let process = Process::start().await;
    let backend = process.keyward.backend();
    backend.create_app("free").await;
    let mut keys = vec![process.one_mode.clone()];
    for _ in 1..100 {
        keys.push(text(&backend.create_key("free", json!({})).await["secret"]));
    }
    process.faults.plan("BatchGetItem", 0, Fault::Unprocessed, 1);
    assert_eq!(process.check_all(&keys[..2]).await, [(200, true); 2], "it is asked for again");
    process.faults.plan("BatchGetItem", 0, Fault::Unprocessed, usize::MAX);
    assert_eq!(process.check_all(&keys[..2]).await, [(200, true), (503, false)]);
    // A hundred keys, their apps and the rules of one are two requests.
    for fault in [Fault::Slow(Duration::from_secs(10)), Fault::Failed] {
        process.faults.plan("BatchGetItem", 1, fault, usize::MAX);
        let responses = process.check_all(&keys).await;
        let expected = [vec![(200, true); 97], vec![(503, false); 3]].concat();
        assert_eq!(responses, expected, "{fault:?}");
    }
    process.faults.clear();
    assert_eq!(process.check_all(&keys).await, [(200, true); 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_a_caller_s_own_counters_is_not_a_store_that_fails() {
    let process = Process::start().await;
    let backend = process.keyward.backend();
    for slug in ["one", "two"] {
        backend.patch(&format!("/api-auth/apps/{slug}"), json!({"on_store_error": "allow"})).await.ok();
    }
    process.faults.plan("UpdateItem", 0, Fault::Hot, usize::MAX);
    let (status, body, retry_after) = process.check(&process.one_mode).await;
    assert_eq!((status, &body["allowed"]), (503, &json!(false)), "its item is hot: {body}");
    assert_eq!(retry_after.as_deref(), Some("1"));
    process.faults.plan("UpdateItem", 0, Fault::Contended(Duration::from_millis(300)), usize::MAX);
    let (status, body, _) = process.check(&process.one_mode).await;
    assert_eq!(
        (status, &body["allowed"]),
        (503, &json!(false)),
        "it meets others until its time is over: {body}"
    );
    process.faults.clear();
    process.keyward.calls.collide(usize::MAX);
    let response = process.keyward.check(&process.two_modes).await;
    process.keyward.calls.collide(0);
    response.is_error(503, "store_unavailable");
    assert_eq!(response.body["allowed"], false, "its transactions met others");
}
