//! Versions of the pepper: how rows move, what to do after a leak, what a version that no row needs becomes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use keyward_cli::dev::TABLE;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::{self, PepperRecord};
use keyward_pepper::{KeyProvider, LocalKeyProvider, PepperError};
use keyward_runtime::VerifyAuth;
use keyward_store::{Error, PROPAGATION_TIME, Progress, Sweep, Table, dynamodb_client, system_entropy};
use keyward_tests::{ApiResponse, Backend, Browser, Keyward, check_body, conforms, operator, text};
use serde_json::json;

/// A sweep at full speed, without progress reports.
fn fast() -> Sweep<'static> {
    Sweep { units_per_second: NonZeroU32::MAX, progress: &|_| {} }
}

/// The versions that it takes to compare a row's tag, the innermost first.
fn versions_of(row: &std::collections::HashMap<String, AttributeValue>) -> Vec<u32> {
    let number = |value: &AttributeValue| value.as_n().unwrap().parse().unwrap();
    let layers = row.get("peppers_beneath").map(|list| list.as_l().unwrap().clone()).unwrap_or_default();
    layers.iter().chain([&row["pepper"]]).map(number).collect()
}

/// The rows with a tag: by their partition, the versions that each needs.
async fn rows(keyward: &Keyward) -> BTreeMap<String, Vec<u32>> {
    let client = Client::new(keyward.sdk_config());
    let scan = client.scan().table_name(TABLE).filter_expression("attribute_exists(tag)");
    let found = scan.send().await.unwrap();
    assert!(found.last_evaluated_key.is_none());
    found.items().iter().map(|row| (row["pk"].as_s().unwrap().clone(), versions_of(row))).collect()
}

fn of<'r>(rows: &'r BTreeMap<String, Vec<u32>>, kind: &str) -> Vec<&'r [u32]> {
    rows.iter().filter(|(pk, _)| pk.starts_with(kind)).map(|(_, versions)| versions.as_slice()).collect()
}

trait Rotated {
    async fn rotate(&self) -> u32;
    async fn counts(&self) -> Vec<(u32, u64, u64)>;
}

impl Rotated for Keyward {
    async fn rotate(&self) -> u32 {
        self.services.store.table().rotate_pepper(&operator(), &*self.provider()).await.unwrap().0
    }

    /// Version, rows, layered rows.
    async fn counts(&self) -> Vec<(u32, u64, u64)> {
        let counted = self.services.store.table().count_pepper_rows(&operator(), &fast()).await.unwrap();
        let count = |record: &PepperRecord| {
            let count = record.counted.unwrap();
            (record.version.0, count.rows, count.layered)
        };
        counted.iter().map(count).collect()
    }
}

async fn keys(backend: &Backend, count: usize) -> Vec<String> {
    let mut secrets = vec![];
    for _ in 0..count {
        secrets.push(text(&backend.create_key("acme", json!({})).await["secret"]));
    }
    secrets
}

async fn all_allowed(keyward: &Keyward, secrets: &[String]) {
    for secret in secrets {
        assert_eq!(keyward.check(secret).await.ok()["allowed"], true);
    }
}

#[tokio::test]
async fn the_local_key_provider_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let provider = LocalKeyProvider::open_or_create(&path, "here", system_entropy()).unwrap();
    let elsewhere = LocalKeyProvider::open(&path, "elsewhere", system_entropy()).unwrap();
    let other = LocalKeyProvider::in_memory("here", system_entropy()).unwrap();
    conforms(&provider, &elsewhere).await;
    let created = provider.generate(PepperVersion(1)).await.unwrap();
    let mut changed = created.clone();
    changed.wrapped[20] ^= 1;
    let foreign = |unwrapped| matches!(unwrapped, Err(PepperError::Foreign(PepperVersion(1))));
    assert!(foreign(provider.unwrap(&changed).await), "a changed byte");
    assert!(foreign(other.unwrap(&created).await), "another key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_moves_each_row_when_it_is_used() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secrets = keys(&backend, 3).await;
    let mut browser = backend.browser("acme").await;
    let ticket = backend.ticket("acme").await;
    assert!(rows(&keyward).await.values().all(|versions| *versions == [1]));

    assert_eq!(keyward.rotate().await, 2);
    keyward.pass(PROPAGATION_TIME);
    // One key is used, and the root key with it.
    let check = async |secret: &str| backend.post("/v1/authz/check", check_body(secret)).await;
    assert_eq!(check(&secrets[0]).await.ok()["allowed"], true);
    keyward.settle().await;
    // The process of `verify` has read of version 2 after that response: the next use moves the rows.
    assert_eq!(check(&secrets[0]).await.ok()["allowed"], true);
    keyward.settle().await;
    let now = rows(&keyward).await;
    let mut of_keys = of(&now, "KEY#");
    of_keys.sort_unstable();
    assert_eq!(of_keys, [&[1], &[1], &[2]]);
    assert_eq!(of(&now, "ROOTKEY#"), [&[2]]);

    // A wrong secret moves nothing, and what was not used works all the same.
    let wrong = text(&backend.rotate("acme", &id_of(&secrets[1])).await.ok()["secret"]);
    check(&secrets[1]).await.is_error(401, "invalid_api_key");
    assert_eq!(check(&wrong).await.ok()["allowed"], true);
    assert_eq!(check(&secrets[2]).await.ok()["allowed"], true);
    browser.get("/api-auth/session").await.ok();
    Browser::new(&backend).exchange(&ticket).await.ok();
    keyward.settle().await;
    let now = rows(&keyward).await;
    assert!(of(&now, "KEY#").iter().all(|versions| *versions == [2]), "{now:?}");
    let mut sessions = of(&now, "SESSION#");
    sessions.sort_unstable();
    assert_eq!(sessions, [&[1], &[2]], "sessions stay as they are");
}

fn id_of(secret: &str) -> String {
    keyward_core::token::ApiKeyToken::parse(secret).unwrap().id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_picks_a_version_up_within_a_minute_or_at_once() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let old = keys(&backend, 1).await;
    keyward.rotate().await;

    // Within the minute it may go on with the last version; after it, it does not.
    keyward.pass(PROPAGATION_TIME);
    let new = keys(&backend, 1).await;
    assert_eq!(of(&rows(&keyward).await, "KEY#").iter().filter(|versions| **versions == [2]).count(), 1);

    // `verify` has not read of version 2, and is shown a row that names it.
    keyward.calls.take();
    keyward.rotate().await;
    keyward.calls.take();
    let queries = |keyward: &Keyward| {
        let calls = keyward.calls.take();
        calls.iter().filter(|call| call.function == "verify" && call.operation == "Query").count()
    };
    all_allowed(&keyward, &new).await;
    keyward.settle().await;
    assert_eq!(queries(&keyward), 1, "it reads the versions once");
    all_allowed(&keyward, &new).await;
    all_allowed(&keyward, &old).await;
    keyward.settle().await;
    assert_eq!(queries(&keyward), 0, "and not for each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_costs_what_a_wrong_secret_costs_in_every_state() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let [direct, moved] = keys(&backend, 2).await.try_into().unwrap();
    let lost = keys(&backend, 1).await.remove(0);
    let old = keys(&backend, 1).await.remove(0);
    backend.rotate("acme", &id_of(&old)).await.ok();
    let other = Keyward::start().await;
    other.backend().create_app("acme").await;
    let unknown = keys(&other.backend(), 1).await.remove(0);
    keyward.rotate().await;
    keyward.pass(PROPAGATION_TIME * 2);
    let store = &keyward.services.store;
    store.repepper(&operator(), &fast()).await.unwrap();
    all_allowed(&keyward, &[moved]).await;
    keyward.settle().await;

    let compared = async |secret: &str| {
        let before = store.hmacs_compared();
        crate::check::is_recognised(&keyward, secret).await;
        store.hmacs_compared() - before
    };
    for secret in [&direct, &lost, &old, &unknown] {
        assert_eq!(compared(secret).await, 2, "one for each version");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_leak_every_row_is_put_under_the_new_version() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secrets = keys(&backend, 5).await;
    let revoked = keys(&backend, 1).await.remove(0);
    backend.revoke("acme", &id_of(&revoked)).await.ok();
    let mut browser = backend.browser("acme").await;
    let ticket = backend.ticket("acme").await;

    let store = &keyward.services.store;
    assert_eq!(
        store.repepper(&operator(), &fast()).await.unwrap().rows,
        0,
        "with one version there is nothing to do"
    );
    keyward.rotate().await;
    keyward.pass(PROPAGATION_TIME * 2);
    let message = Mutex::new(vec![]);
    let sweep = Sweep {
        units_per_second: NonZeroU32::MAX,
        progress: &|progress| message.lock().unwrap().push(progress),
    };
    let done = store.repepper(&operator(), &sweep).await.unwrap();
    // Six keys and the root key; the browser's session and ticket, and the ticket that nobody used, with that of
    // the page that a local run prints.
    assert_eq!((done.rows, done.ended), (7, 4));
    assert!(matches!(message.lock().unwrap().last(), Some(Progress::Items(1..))));
    let now = rows(&keyward).await;
    assert!(now.values().all(|versions| *versions == [1, 2]), "{now:?}");
    assert_eq!(keyward.counts().await, [(2, 7, 0), (1, 0, 7)]);

    browser.get("/api-auth/session").await.is_error(401, "no_session");
    Browser::new(&backend).exchange(&ticket).await.is_error(401, "invalid_ticket");
    keyward.check(&revoked).await.is_error(403, "key_revoked");
    let other_secret = keys(&backend, 1).await.remove(0);
    let forged =
        format!("{}{}", &secrets[0][..secrets[0].len() - 49], &other_secret[other_secret.len() - 49..]);
    assert!(keyward.check(&forged).await.status == 401, "another key's secret");
    all_allowed(&keyward, &secrets).await;
    keyward.settle().await;
    let now = rows(&keyward).await;
    let flat = of(&now, "KEY#").iter().filter(|versions| **versions == [2]).count();
    assert_eq!(flat, secrets.len() + 2, "{now:?}");

    // The rest needs version 1 until it is used, too.
    keyward.rotate().await;
    keyward.pass(PROPAGATION_TIME * 2);
    store.repepper(&operator(), &fast()).await.unwrap();
    assert!(of(&rows(&keyward).await, "KEY#").iter().all(|versions| **versions == [2, 3]));
    all_allowed(&keyward, &secrets).await;
    all_allowed(&keyward, &[other_secret]).await;
    keyward.check(&revoked).await.is_error(403, "key_revoked");
    backend.get("/api-auth/apps").await.ok();
    keyward.settle().await;
    let now = rows(&keyward).await;
    assert!(now.values().all(|versions| *versions == [3]), "{now:?}");
    all_allowed(&keyward, &secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeppering_that_is_stopped_goes_on() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secrets = keys(&backend, 5).await;
    keyward.rotate().await;
    let store = &keyward.services.store;
    // The first pass is done, and it waits for the processes that may still use version 1.
    keyward.pass(PROPAGATION_TIME);
    let stopped = tokio::time::timeout(Duration::from_secs(3), store.repepper(&operator(), &fast())).await;
    assert!(stopped.is_err(), "it waits");
    let under = |now: &BTreeMap<String, Vec<u32>>| of(now, "KEY#").iter().filter(|of| **of == [1, 2]).count();
    assert_eq!(under(&rows(&keyward).await), 5);

    // One of those processes makes a row meanwhile.
    let late = Client::new(keyward.sdk_config());
    let copy = late
        .get_item()
        .table_name(TABLE)
        .key(
            "pk",
            AttributeValue::S(format!(
                "KEY#{}",
                keyward_core::token::ApiKeyToken::parse(&secrets[0]).unwrap().id.base62()
            )),
        )
        .key("sk", AttributeValue::S("KEY".into()));
    let mut row = copy.send().await.unwrap().item.unwrap();
    row.remove("peppers_beneath");
    row.insert("pepper".into(), AttributeValue::N("1".into()));
    row.insert("pk".into(), AttributeValue::S("KEY#00000000001".into()));
    late.put_item().table_name(TABLE).set_item(Some(row)).send().await.unwrap();

    keyward.pass(PROPAGATION_TIME);
    let done = store.repepper(&operator(), &fast()).await.unwrap();
    assert_eq!(done.rows, 7, "five keys, the root key and the late row, counted once each");
    assert_eq!(under(&rows(&keyward).await), 6);
    assert_eq!(store.repepper(&operator(), &fast()).await.unwrap().rows, 0);
    all_allowed(&keyward, &secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_retired_when_no_row_needs_it() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secrets = keys(&backend, 2).await;
    let table = keyward.services.store.table();
    let retire = async |version: u32| table.retire_pepper(&operator(), PepperVersion(version), &fast()).await;
    let refused = |result: Result<(), Error>, word: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(retire(7).await, "no such version");
    refused(retire(1).await, "makes new tags");
    keyward.rotate().await;
    refused(retire(1).await, "so recently");
    keyward.pass(PROPAGATION_TIME * 2);
    refused(retire(1).await, "needed by rows: 4 directly");
    keyward.services.store.repepper(&operator(), &fast()).await.unwrap();
    refused(retire(1).await, "needed by rows: 0 directly, 3 under another version");
    all_allowed(&keyward, &secrets).await;
    backend.get("/api-auth/apps").await.ok();
    keyward.settle().await;

    retire(1).await.unwrap();
    refused(retire(1).await, "retired");
    let peppers = table.peppers(&operator()).await.unwrap();
    let first = peppers.iter().find(|pepper| pepper.version.0 == 1).unwrap();
    assert!(first.wrapped.is_none() && first.retired_at.is_some() && first.wrapped().is_none());
    assert_eq!(pepper::current(&peppers), Some(PepperVersion(2)));
    all_allowed(&keyward, &secrets).await;
    // A process that starts now loads version 2 alone, and another rotation makes version 3.
    let clock = keyward.services.store.clock().clone();
    let later = keyward.process(clock, dynamodb_client(keyward.sdk_config())).await;
    assert_eq!(later.store.hmacs_compared(), 0);
    assert_eq!(keyward.rotate().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_at_the_same_time_make_versions_that_all_work() {
    let keyward = Keyward::start().await;
    let table: &Table = keyward.services.store.table();
    let provider = keyward.provider();
    let operator = operator();
    let created = join_all((0..8).map(|_| table.rotate_pepper(&operator, &*provider))).await;
    let mut created: Vec<u32> = created.into_iter().map(|created| created.unwrap().0).collect();
    created.sort_unstable();
    created.dedup();
    let peppers = table.peppers(&operator).await.unwrap();
    let last = peppers[0].version.0;
    assert_eq!(created, (2..=last).collect::<Vec<_>>());
    assert!(peppers.iter().all(PepperRecord::is_active));
    let clock = keyward.services.store.clock().clone();
    keyward.process(clock, dynamodb_client(keyward.sdk_config())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_names_no_version_of_the_table_is_an_error_and_not_an_answer() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let secret = keys(&backend, 1).await.remove(0);
    let id = keyward_core::token::ApiKeyToken::parse(&secret).unwrap().id;
    let change = Client::new(keyward.sdk_config())
        .update_item()
        .table_name(TABLE)
        .key("pk", AttributeValue::S(format!("KEY#{}", id.base62())))
        .key("sk", AttributeValue::S("KEY".into()))
        .update_expression("SET pepper = :none")
        .expression_attribute_values(":none", AttributeValue::N("9".into()));
    change.send().await.unwrap();
    let response: ApiResponse = keyward.check(&secret).await;
    assert_eq!(response.status, 500, "{}", response.body);
    assert_ne!(response.body["allowed"], true);
}
