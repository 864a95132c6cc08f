//! A read that decides nothing blocks no response, and a failure of one check fails that check alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use futures::future::{BoxFuture, pending};
use keyward_audit::Recorder;
use keyward_cli::dev::TABLE;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::WrappedPepper;
use keyward_core::target::Target;
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_pepper::{KeyProvider, PepperError, PlainPepper};
use keyward_store::{Error, Store, Table, dynamodb_client, system_entropy};
use keyward_tests::{Backend, Keyward, check_body, operator, text};
use keyward_verifier::{Accepted, Check, CheckError, Verifier};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// The key with another secret.
pub fn with_another_secret(key: &str) -> String {
    let token = ApiKeyToken { secret: Secret::from_random(&[7; 32]), ..ApiKeyToken::parse(key).unwrap() };
    token.reveal().expose_secret().to_owned()
}

async fn create_scheme(backend: &Backend, slug: &str) {
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1_000}]);
    let scheme = json!({"slug": slug, "name": "Scheme", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
}

async fn delete_scheme(backend: &Backend, slug: &str) -> u16 {
    backend.delete(&format!("/api-auth/rate-limit-schemes/{slug}")).await.status
}

/// The statuses of a batch of these keys.
async fn statuses(backend: &Backend, keys: &[&str]) -> Vec<u64> {
    let checks: Vec<Value> = keys.iter().map(|key| check_body(key)).collect();
    let response = backend.post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
    response["results"].as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_key_needs_no_rules() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    for slug in ["revoked", "expired", "deleted", "of-app"] {
        create_scheme(&backend, slug).await;
    }
    for slug in ["acme", "gone"] {
        backend.create_app(slug).await;
    }
    backend.patch("/api-auth/apps/gone", json!({"rate_limit_scheme_slug": "of-app"})).await.ok();
    let key = async |app: &str, members: Value| backend.create_key(app, members).await;
    let revoked = key("acme", json!({"rate_limit_scheme_slug": "revoked"})).await;
    let expires_at = keyward.services.store.clock().now() + TimeDelta::hours(1);
    let expired = json!({"rate_limit_scheme_slug": "expired", "expires_at": expires_at});
    let expired = text(&key("acme", expired).await["secret"]);
    let with_own = text(&key("gone", json!({"rate_limit_scheme_slug": "deleted"})).await["secret"]);
    let without = text(&key("gone", json!({})).await["secret"]);
    let working = text(&key("acme", json!({})).await["secret"]);
    backend.revoke("acme", &text(&revoked["id"])).await.ok();
    let revoked = text(&revoked["secret"]);
    keyward.pass(TimeDelta::hours(2));
    backend.delete("/api-auth/apps/gone").await.ok();
    for slug in ["revoked", "expired", "deleted", "of-app"] {
        assert_eq!(delete_scheme(&backend, slug).await, 204, "{slug}");
    }
    let dead = [
        (&revoked, 403, "key_revoked"),
        (&expired, 401, "key_expired"),
        (&with_own, 403, "app_deleted"),
        (&without, 403, "app_deleted"),
    ];
    for (key, status, code) in dead {
        let refused = keyward.check(key).await;
        refused.is_error(status, code);
        assert!(text(&refused.body["request_id"]).starts_with("req_"), "it is recorded");
        keyward.check(&with_another_secret(key)).await.is_error(401, "invalid_api_key");
    }
    keyward.settle().await;
    let log = backend.get("/api-auth/apps/acme/audit/logs?outcome=blocked").await.ok();
    let rules = log["data"].as_array().unwrap().iter().map(|row| text(&row["blocked_by_rule"]));
    assert_eq!(rules.collect::<Vec<_>>(), ["key_expired", "key_revoked"]);

    let mut batch = vec![working.as_str(); 96];
    batch.extend([revoked.as_str(), &expired, &with_own, &without]);
    let responses = statuses(&backend, &batch).await;
    assert_eq!(responses, [vec![200; 96], vec![403, 401, 403, 403]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_that_only_dead_keys_name_can_be_deleted() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let expires_at = keyward.services.store.clock().now() + TimeDelta::hours(1);
    let own = json!({"rate_limit_scheme_slug": "own"});
    let expiring = json!({"rate_limit_scheme_slug": "own", "expires_at": expires_at});
    create_scheme(&backend, "own").await;
    for slug in ["acme", "gone"] {
        backend.create_app(slug).await;
    }
    let working = backend.create_key("acme", own.clone()).await;
    let expired = backend.create_key("acme", expiring.clone()).await;
    // More than lose their scheme at a time.
    for _ in 0..30 {
        backend.create_key("gone", own.clone()).await;
    }
    for _ in 0..2 {
        let refused = backend.delete("/api-auth/rate-limit-schemes/own").await;
        assert!(text(&refused.is_error(400, "in_use").body["message"]).ends_with("active API keys"));
        keyward.pass(TimeDelta::hours(2));
    }
    backend.revoke("acme", &text(&working["id"])).await.ok();
    let refused = backend.delete("/api-auth/rate-limit-schemes/own").await;
    refused.is_error(400, "in_use");
    backend.delete("/api-auth/apps/gone").await.ok();
    assert_eq!(delete_scheme(&backend, "own").await, 204, "one has expired, the others' app is gone");
    let released = Client::new(keyward.sdk_config())
        .scan()
        .table_name(TABLE)
        .filter_expression("#action = :released")
        .expression_attribute_names("#action", "action")
        .expression_attribute_values(":released", AttributeValue::S("scheme.released".into()));
    assert_eq!(released.send().await.unwrap().count(), 2, "25 keys at a time, each time with its event");

    // A scheme that is made anew has nothing to do with them.
    create_scheme(&backend, "own").await;
    backend.revoke("acme", &text(&expired["id"])).await.ok();
    let disabled = backend.create_key("acme", own.clone()).await;
    backend.patch("/api-auth/apps/acme", json!({"is_active": false})).await.ok();
    let refused = backend.delete("/api-auth/rate-limit-schemes/own").await;
    refused.is_error(400, "in_use");
    backend.patch("/api-auth/apps/acme", json!({"is_active": true})).await.ok();
    assert_eq!(keyward.check(&text(&disabled["secret"])).await.ok()["rate_limits"][0]["limit"], 1_000);
    backend.revoke("acme", &text(&disabled["id"])).await.ok();
    assert_eq!(delete_scheme(&backend, "own").await, 204);
}

/// The table, as somebody changes it who knows nothing of what it holds.
struct Rows(Client);

impl Rows {
    async fn set(&self, pk: &str, sk: &str, attribute: &str, value: Option<AttributeValue>) {
        let update = self.0.update_item().table_name(TABLE);
        let update = update.key("pk", AttributeValue::S(pk.into())).key("sk", AttributeValue::S(sk.into()));
        let update = update.expression_attribute_names("#name", attribute);
        let update = match value {
            Some(value) => {
                update.update_expression("SET #name = :value").expression_attribute_values(":value", value)
            }
            None => update.update_expression("REMOVE #name"),
        };
        update.send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_key_is_reported_to_the_holder_of_its_secret_and_stops_no_other() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rows = Rows(Client::new(keyward.sdk_config()));
    let deployment = keyward.deployment();
    let mut secrets = HashMap::new();
    for slug in ["working", "key", "app", "scheme", "no-scheme", "pepper", "tag"] {
        create_scheme(&backend, slug).await;
        let app = json!({
            "app_slug": slug, "name": slug, "rate_limit_scheme_slug": slug, "on_store_error": "allow",
        });
        backend.post("/api-auth/apps", app).await.ok();
        secrets.insert(slug, text(&backend.create_key(slug, json!({})).await["secret"]));
    }
    let number = |slug| format!("APP#{}", ApiKeyToken::parse(&secrets[slug]).unwrap().app.base62());
    let id = |slug| format!("KEY#{}", ApiKeyToken::parse(&secrets[slug]).unwrap().id.base62());
    let schemes = format!("DEPLOYMENT#{deployment}#SCHEMES");
    let wrong = || Some(AttributeValue::Bool(true));
    rows.set(&id("key"), "KEY", "name", wrong()).await;
    rows.set(&number("app"), "APP", "name", wrong()).await;
    rows.set(&schemes, "scheme", "rules", wrong()).await;
    let no_scheme = rows.0.delete_item().table_name(TABLE).key("pk", AttributeValue::S(schemes.clone()));
    no_scheme.key("sk", AttributeValue::S("no-scheme".into())).send().await.unwrap();
    rows.set(&id("pepper"), "KEY", "pepper", Some(AttributeValue::N("99".into()))).await;
    rows.set(&id("tag"), "KEY", "tag", None).await;

    let faulty = ["key", "app", "scheme", "no-scheme", "pepper", "tag"];
    for slug in faulty {
        let failed = keyward.check(&secrets[slug]).await;
        failed.is_error(500, "internal_error");
        assert_eq!(failed.body["allowed"], false, "{slug}");
    }
    for slug in ["key", "app", "scheme", "no-scheme"] {
        keyward.check(&with_another_secret(&secrets[slug])).await.is_error(401, "invalid_api_key");
    }
    let keys = ["working", "key", "app", "scheme", "no-scheme", "pepper", "tag", "working"];
    let keys = keys.map(|slug| secrets[slug].as_str());
    assert_eq!(statuses(&backend, &keys).await, [200, 500, 500, 500, 500, 500, 500, 200]);
    assert_eq!(statuses(&backend, &keys[1..2]).await, [500], "also where it is the only one");
}

/// A provider that does not answer about the second version.
#[derive(Debug)]
struct Silent(Arc<dyn KeyProvider>);

impl KeyProvider for Silent {
    fn generate(&self, version: PepperVersion) -> BoxFuture<'_, Result<WrappedPepper, PepperError>> {
        self.0.generate(version)
    }

    fn unwrap<'a>(&'a self, pepper: &'a WrappedPepper) -> BoxFuture<'a, Result<PlainPepper, PepperError>> {
        if pepper.version == PepperVersion(2) { Box::pin(pending()) } else { self.0.unwrap(pepper) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pepper_that_is_waited_for_takes_no_time_from_other_keys() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    create_scheme(&backend, "s").await;
    backend.create_app("acme").await;
    let limited = json!({"rate_limit_scheme_slug": "s"});
    let old = text(&backend.create_key("acme", limited.clone()).await["secret"]);
    let client = dynamodb_client(keyward.sdk_config());
    let table = Table::new(client, TABLE, keyward.services.store.clock().clone(), system_entropy());
    let store = Store::open(table, Arc::new(Silent(keyward.provider()))).await.unwrap();
    let verifier = Verifier::new(store.clone(), Recorder::start(store), keyward.deployment());
    keyward.services.store.table().rotate_pepper(&operator(), &*keyward.provider()).await.unwrap();
    keyward.pass(keyward_store::PROPAGATION_TIME * 2);
    let new = text(&backend.create_key("acme", limited).await["secret"]);

    let target = Target::parse("GET", "/").unwrap();
    let check = |presented| Check {
        presented,
        accepted: &Accepted::ANY,
        target: &target,
        required_permissions: &[],
        client_ip: None,
        user_agent: None,
        request_id: None,
    };
    let checks = [check(&new), check(&old), check(&new)];
    // Twice as long as a call of the table is given on another engine, which is how long the new key is waited for.
    let decided = tokio::time::timeout(Duration::from_secs(60), verifier.check_all(&checks, None));
    let decided = decided.await.unwrap().unwrap();
    assert!(decided[1].as_ref().unwrap().allowed(), "{decided:?}");
    for waiting in [&decided[0], &decided[2]] {
        let error = waiting.as_ref().unwrap_err();
        assert!(matches!(error, CheckError::Store(Error::Unavailable(_))), "{error}");
    }
}
