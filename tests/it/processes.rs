//! The example of the verifier, in processes of the operating system's on one table.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use keyward_cli::dev::{Dev, Options, TABLE};
use keyward_tests::saas::{Kills, Saas};
use keyward_tests::{Backend, text};
use keyward_verifier::{BuildError, Verifier};
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROCESSES: usize = 4;

/// A local run in this process.
async fn run() -> (TempDir, Dev, Backend) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { port: 0, data_dir: Some(folder.path().to_owned()), ephemeral: false };
    let dev = Dev::start(&options).await.unwrap();
    let described = dev.dev_json();
    let backend = Backend::new(&described.url, &described.root_key, reqwest::Client::new());
    (folder, dev, backend)
}

/// Starts four processes of the example.
async fn start_all(folder: &Path) -> Vec<Saas> {
    join_all((0..PROCESSES).map(|_| Saas::start(env!("CARGO_BIN_EXE_saas"), folder))).await
}

/// An app whose keys these rules limit, and so many keys of it that may read users.
async fn limited(backend: &Backend, rules: Value, keys: usize) -> Vec<String> {
    let scheme = json!({"slug": "s", "name": "S", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "s"});
    backend.post("/api-auth/apps", app).await.ok();
    let mut created = vec![];
    for _ in 0..keys {
        created
            .push(text(&backend.create_key("acme", json!({"permissions": ["users:read"]})).await["secret"]));
    }
    created
}

/// The number of requests with this key, made one after another, that are allowed; the others must be told to wait.
async fn ask(users: &str, key: &str, times: usize) -> usize {
    let http = reqwest::Client::new();
    let mut allowed = 0;
    for _ in 0..times {
        let response = http.get(users).bearer_auth(key).send().await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let body = response.text().await.unwrap();
        match status {
            200 => allowed += 1,
            429 => assert!(retry_after.unwrap().parse::<u32>().unwrap() > 0, "{body}"),
            _ => panic!("{status} {body}"),
        }
    }
    allowed
}

/// As `ask`, in concurrent tasks on each process, with the keys in turn; by key.
async fn race(apis: &[Saas], keys: &[String], tasks: usize, times: usize) -> Vec<usize> {
    let mut running = vec![];
    for api in apis {
        for task in 0..tasks {
            let place = task % keys.len();
            let (users, key) = (api.users.clone(), keys[place].clone());
            running.push((place, tokio::spawn(async move { ask(&users, &key, times).await })));
        }
    }
    let mut allowed = vec![0; keys.len()];
    for (place, task) in running {
        allowed[place] += task.await.unwrap();
    }
    allowed
}

/// The counters in the table, by partition.
async fn counters(dev: &Dev) -> HashMap<String, HashMap<String, AttributeValue>> {
    let client = Client::new(dev.installation().sdk_config());
    let mut counters = HashMap::new();
    let mut pages = client.scan().table_name(TABLE).into_paginator().items().send();
    while let Some(item) = pages.next().await {
        let item = item.unwrap();
        let partition = item["pk"].as_s().unwrap().clone();
        if partition.starts_with("LIMIT#") {
            counters.insert(partition, item);
        }
    }
    counters
}

/// The most requests that a window of this counter has let through. Its attributes are a rule of three characters and the
/// window's number.
fn counted(counter: &HashMap<String, AttributeValue>) -> usize {
    let of_windows = counter.iter().filter(|(name, _)| name.len() > 3 && *name != "purge_at");
    of_windows.filter_map(|(_, count)| count.as_n().ok()?.parse().ok()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_tasks_on_4_processes_a_limit_lets_through_as_many_as_it_says() {
    let (folder, dev, backend) = run().await;
    let keys = limited(&backend, json!([{"unit": "day", "duration": 1, "max_requests": 1_000}]), 1).await;
    let apis = start_all(folder.path()).await;
    assert_eq!(race(&apis, &keys, 16, 25).await, [1_000], "of 1600 requests");
    let before = counters(&dev).await;
    assert_eq!(before.values().map(counted).collect::<Vec<_>>(), [1_000]);

    let denied = apis.iter().cycle().take(50).map(|api| ask(&api.users, &keys[0], 1));
    assert_eq!(join_all(denied).await, [0; 50]);
    assert_eq!(counters(&dev).await, before, "a denial changes no counter");

    for api in apis {
        api.stop().await;
    }
    let figures = backend.get("/api-auth/apps/acme/audit/analytics").await.ok();
    let figures = (&figures["allowed_requests"], &figures["blocked_requests"]);
    assert_eq!(figures, (&json!(1_000), &json!(650)), "what was decided is written before a process ends");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rules_in_two_modes_a_request_is_counted_by_both_or_by_none() {
    let (folder, dev, backend) = run().await;
    let rule =
        |mode: &str, max: u32| json!({"unit": "day", "duration": 1, "max_requests": max, "mode": mode});
    let keys = limited(&backend, json!([rule("per_key", 100), rule("per_app", 150)]), 2).await;
    let apis = start_all(folder.path()).await;
    let allowed = race(&apis, &keys, 8, 10).await;
    assert_eq!(allowed.iter().sum::<usize>(), 150, "of 320 requests: {allowed:?}");
    assert!(allowed.iter().all(|of_key| *of_key <= 100), "{allowed:?}");
    let mut of_keys = vec![];
    for (partition, counter) in counters(&dev).await {
        match partition.starts_with("LIMIT#APP#") {
            true => assert_eq!(counted(&counter), 150),
            false => of_keys.push(counted(&counter)),
        }
    }
    of_keys.sort_unstable();
    let mut expected = allowed;
    expected.sort_unstable();
    assert_eq!(of_keys, expected, "what the app's rule denied counts for no key");
    for api in apis {
        api.stop().await;
    }
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_that_cannot_be_built_says_what_to_do() {
    let (folder, dev, _) = run().await;
    let key_file = folder.path().join("pepper.key");
    let builder = || Verifier::builder(dev.installation().sdk_config());
    let whole = || builder().installation(TABLE).table(TABLE).key_file(&key_file);
    whole().build().await.unwrap().close().await;
    for (builder, message) in [
        (builder().table(TABLE).key_file(&key_file), "installation()"),
        (builder().installation(TABLE).key_file(&key_file), "table()"),
        (builder().installation(TABLE).table(TABLE), "kms_key()"),
        (whole().table("none"), "the table none cannot be read"),
        (whole().installation("other"), "of the installation other cannot be unwrapped"),
        (whole().key_file(folder.path().join("none")), "cannot read the key file"),
    ] {
        let error = builder.build().await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error = whole().kms_key("a key").build().await.unwrap_err();
    assert!(matches!(error, BuildError::Peppers(..)), "another provider's: {error}");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_loses_its_last_events_at_most_and_one_that_writes_first_loses_none() {
    let kills = Kills::start(env!("CARGO_BIN_EXE_saas")).await;
    for durability in ["after_answer", "before_answer"] {
        let of_kills = kills.measure(durability, 10).await;
        assert!(of_kills.answered > 100, "{of_kills:?}");
        assert_eq!(of_kills.twice, 0, "{of_kills:?}");
        // How long before the kill, tests/bench measures: here the machine is not its own.
        let longest = Duration::from_millis(if durability == "after_answer" { 500 } else { 0 });
        assert!(of_kills.lost.iter().all(|before| *before <= longest), "{of_kills:?}");
        assert!(durability == "after_answer" || of_kills.lost.is_empty(), "{of_kills:?}");
    }
    kills.stop().await;
}
