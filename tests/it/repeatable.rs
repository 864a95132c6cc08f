//! A run whose time and random bytes are given is repeatable to the byte: nothing reaches for others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chrono::{DateTime, TimeDelta};
use keyward_cli::dev::{Installation, TABLE};
use keyward_cli::embedded::EmbeddedDynamoDb;
use keyward_core::{Clock, Entropy};
use keyward_http::application;
use keyward_runtime::{Services, Settings, TrustedProxies, VerifyAuth};
use keyward_store::{Table, dynamodb_client};
use keyward_tests::{FLUSH_TIME, check_body, text};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Numbers that follow from a seed (SplitMix64).
fn drawn_from(seed: u64) -> Entropy {
    let state = AtomicU64::new(seed);
    Entropy::new(move |bytes| {
        for chunk in bytes.chunks_mut(8) {
            let mut mixed = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    })
}

/// An installation in which a second passes with each request.
struct Run {
    routes: Router,
    services: Services,
    second: Arc<AtomicI64>,
    root_key: String,
    responses: Mutex<Vec<String>>,
}

impl Run {
    async fn send(&self, method: &str, path: &str, body: Value) -> Value {
        self.second.fetch_add(1, Ordering::SeqCst);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.root_key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        // Work after the response draws random bytes and asks the time as well.
        self.services.recorder.flush(FLUSH_TIME).await;
        self.responses
            .lock()
            .unwrap()
            .push(format!("{method} {path}: {} {:?} {body}", parts.status, parts.headers));
        serde_json::from_str(&body).unwrap_or_default()
    }
}

/// A value with the attributes of maps in order.
fn written(value: &AttributeValue) -> String {
    match value {
        AttributeValue::M(map) => {
            let sorted: BTreeMap<_, _> = map.iter().map(|(name, value)| (name, written(value))).collect();
            format!("{sorted:?}")
        }
        AttributeValue::L(list) => format!("{:?}", list.iter().map(written).collect::<Vec<_>>()),
        value => format!("{value:?}"),
    }
}

/// The responses of a run, and the rows that it leaves.
async fn run(seed: u64) -> (Vec<String>, BTreeMap<String, String>) {
    let database = EmbeddedDynamoDb::open(None).unwrap();
    let dynamodb = EmbeddedDynamoDb::serve(database, 0, "AKIAKEYWARDTEST".to_owned().into()).await.unwrap();
    let config = dynamodb.sdk_config().await;
    let second = Arc::new(AtomicI64::new(1_800_000_000));
    let now = second.clone();
    let clock = Clock::new(move || DateTime::UNIX_EPOCH + TimeDelta::seconds(now.load(Ordering::SeqCst)));
    let entropy = drawn_from(seed);
    let installation = Installation::create_in(config.clone(), clock.clone(), entropy.clone()).await.unwrap();
    let settings = Settings {
        public_url: "http://127.0.0.1:1".parse().unwrap(),
        verify_auth: VerifyAuth::Required,
        allowed_origins: vec![],
        trusted_proxies: TrustedProxies::default(),
    };
    let table = Table::new(dynamodb_client(&config), TABLE, clock, entropy);
    let services = Services::start(table, installation.provider(), settings).await.unwrap();
    let root_key = installation.describe(&services).await.unwrap().root_key;
    let routes = application(keyward_cli::routes(&services), services.clone());
    let run = Run { routes, services, second, root_key, responses: Mutex::default() };

    let rules = json!([
        {"unit": "minute", "duration": 1, "max_requests": 2},
        {"unit": "second", "duration": 1, "max_requests": 1_000, "mode": "per_app"},
    ]);
    run.send("POST", "/api-auth/rate-limit-schemes", json!({"slug": "s", "name": "S", "rules": rules})).await;
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s"});
    run.send("POST", "/api-auth/apps", app).await;
    let created = run.send("POST", "/api-auth/apps/acme/keys", json!({"name": "Key"})).await;
    let (id, secret) = (text(&created["id"]), text(&created["secret"]));
    for _ in 0..3 {
        run.send("POST", "/v1/authz/check", check_body(&secret)).await;
    }
    let ticket = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "acme", "user_id": "u"});
    let ticket = text(&run.send("POST", "/session/tickets", ticket).await["ticket"]);
    run.send("GET", &format!("/session/ticket/exchange?ticket={ticket}"), Value::Null).await;
    run.send("POST", &format!("/api-auth/apps/acme/keys/{id}/rotate"), json!({})).await;
    run.send("POST", "/v1/authz/check", check_body(&secret)).await;
    run.send("POST", &format!("/api-auth/apps/acme/keys/{id}/revoke"), json!({"reason": "Lost"})).await;
    run.send("GET", "/api-auth/apps/acme/audit/logs", Value::Null).await;
    run.send("PATCH", "/api-auth/apps/acme", json!({"name": null})).await;

    let scan = Client::new(&config).scan().table_name(TABLE).send().await.unwrap();
    let mut rows = BTreeMap::new();
    for item in scan.items() {
        let mut item = item.clone();
        // The key pair that it is of is made by a library that takes no source of random bytes.
        item.remove("public_key");
        rows.insert(format!("{:?} {:?}", item["pk"], item["sk"]), written(&AttributeValue::M(item)));
    }
    (run.responses.into_inner().unwrap(), rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_time_and_the_same_random_bytes_give_the_same_answers_and_rows() {
    let (responses, rows) = run(1).await;
    let (again, rows_again) = run(1).await;
    for (one, other) in responses.iter().zip(&again) {
        assert_eq!(one, other);
    }
    for (key, row) in &rows {
        assert_eq!(Some(row), rows_again.get(key), "{key}");
    }
    assert_eq!((responses.len(), rows.len()), (again.len(), rows_again.len()));
    assert!(responses.len() > 12 && rows.len() > 25, "{} answers, {} rows", responses.len(), rows.len());
    let (others, other_rows) = run(2).await;
    let same = responses.iter().zip(&others).filter(|(one, other)| one == other).count();
    assert_eq!(same, 0, "each answer has an id at least");
    assert!(rows.keys().filter(|key| other_rows.contains_key(*key)).count() < 8, "{rows:?}");
}
