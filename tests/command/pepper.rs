//! `keyward pepper` on a running installation: what it says, and a rotation and a re-peppering under load.

use std::collections::HashMap;
use std::fs;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::id::KeyId;
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_pepper::{LocalKeyProvider, unlock};
use keyward_store::{OperatorAccess, Table, system_clock, system_entropy};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::process::{Dev, keyward, refused};

/// The number of keys, and of those that are used while the pepper changes.
const KEYS: usize = 5_000;
const USED: usize = 1_000;

fn pepper(dev: &Dev, args: &[&str]) -> Output {
    let folder = dev.dir.to_str().unwrap();
    let [command, rest @ ..] = args else { panic!("{args:?}") };
    keyward(&[&["pepper", command, "--data-dir", folder][..], rest].concat()).output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// State, rows and layered rows, by version, as `status` prints them.
fn status(dev: &Dev) -> HashMap<u32, (String, u64, u64)> {
    let printed = done(&pepper(dev, &["status", "--units-per-second", "1000000"]));
    let lines = printed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let number = |cell: &str| cell.parse().unwrap_or_else(|_| panic!("{printed}"));
    lines.map(|of| (of[0].parse().unwrap(), (of[1].to_owned(), number(of[4]), number(of[5])))).collect()
}

#[test]
fn it_says_what_it_did_and_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let message = refused(&["pepper", "status", "--data-dir", nowhere.to_str().unwrap()]);
    assert!(message.contains("start one with 'keyward dev'"), "{message}");

    let mut dev = Dev::start(folder.path(), "info");
    assert_eq!(done(&pepper(&dev, &["init"])), "there is a pepper already; nothing was changed\n");
    let listed = done(&pepper(&dev, &["status", "--last"]));
    assert!(listed.starts_with("VERSION  STATE "), "{listed}");
    assert!(listed.lines().nth(1).unwrap().trim().starts_with("1  current "), "{listed}");
    assert!(listed.trim_end().ends_with('-'), "nothing was counted yet: {listed}");
    // The root key and the ticket of the page.
    assert_eq!(status(&dev)[&1], ("current".to_owned(), 2, 0));
    let listed = done(&pepper(&dev, &["status", "--last"]));
    assert!(listed.trim_end().ends_with('Z'), "when it was counted: {listed}");

    let message = String::from_utf8(pepper(&dev, &["retire", "1"]).stderr).unwrap();
    assert!(message.contains("version 1 makes new tags"), "{message}");
    let rotated = done(&pepper(&dev, &["rotate"]));
    assert_eq!(rotated, "version 2 makes all tags, in every process within a minute\n");
    let message = String::from_utf8(pepper(&dev, &["retire", "1"]).stderr).unwrap();
    assert!(message.contains("try again after"), "{message}");
    let message = String::from_utf8(pepper(&dev, &["retire", "7"]).stderr).unwrap();
    assert!(message.contains("no such version"), "{message}");
    let wrong = keyward(&["pepper", "retire", "x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let now = status(&dev);
    assert_eq!((now[&2].0.as_str(), now[&1].0.as_str()), ("current", "earlier"));

    dev.signal("TERM");
    dev.wait();
    let message = refused(&["pepper", "rotate", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(message.contains("restart it with 'keyward dev'"), "{message}");
}

/// The results of the load so far.
#[derive(Default)]
struct Seen {
    checks: AtomicUsize,
    stop: AtomicBool,
}

impl Seen {
    /// Waits for so many checks, a minute at most.
    async fn reach(&self, checks: usize) {
        let start = Instant::now();
        while self.checks.load(Ordering::Relaxed) < checks && start.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Checks these keys, each a secret and the status that its check must have, in turn until it is told to stop.
async fn load(dev: Arc<Dev>, keys: Arc<Vec<(String, u16)>>, first: usize, seen: Arc<Seen>) {
    let http = reqwest::Client::new();
    for (secret, status) in keys.iter().cycle().skip(first) {
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        assert_eq!(dev.check(&http, secret).await.unwrap(), *status);
        seen.checks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes so many keys of the app `acme`, and returns their secrets. The first is made by the API; the rows of the others
/// are as that one's, with an id and the tag of a secret of their own, since writing them alone is faster.
async fn make(dev: &Dev, count: usize) -> Vec<String> {
    let created = dev.backend("POST", "/api-auth/apps/acme/keys", Some(json!({"name": "First"}))).await;
    let first = created["secret"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
    let token = ApiKeyToken::parse(&first).unwrap();
    let (env, client) = dev.dynamodb().await;
    let table = &env["KEYWARD_TABLE"];
    let key = |pk: String, sk: &str| {
        [("pk", pk), ("sk", sk.to_owned())].map(|(k, v)| (k.to_owned(), AttributeValue::S(v)))
    };
    let get = |pk: String, sk: &str| {
        let key = HashMap::from(key(pk, sk));
        client.get_item().table_name(table).set_key(Some(key)).consistent_read(true).send()
    };
    let row = get(format!("KEY#{}", token.id.base62()), "KEY").await.unwrap().item.unwrap();
    let peppers = Table::new(client.clone(), table, system_clock(), system_entropy())
        .peppers(&OperatorAccess::assume())
        .await
        .unwrap();
    let provider =
        LocalKeyProvider::open(&dev.dir.join("pepper.key"), &env["KEYWARD_INSTALLATION"], system_entropy())
            .unwrap();
    let ring = unlock(&provider, &peppers, None).await.unwrap();
    let deployment = dev.json.deployment_id.parse().unwrap();

    let mut secrets = vec![first];
    let mut rows = vec![];
    for n in 1..count {
        let id = KeyId::new(token.id.get() + n as i64).unwrap();
        let secret = Secret::from_random(&system_entropy().bytes().unwrap());
        let token = ApiKeyToken { id, secret, prefix: token.prefix.clone(), ..token };
        let tag = ring.tag_api_key(deployment, &token).unwrap();
        let mut own = row.clone();
        own.extend(key(format!("KEY#{}", id.base62()), "KEY"));
        own.insert("id".into(), AttributeValue::S(id.to_string()));
        own.insert("tag".into(), AttributeValue::B(Blob::new(tag.bytes)));
        let put = PutRequest::builder().set_item(Some(own)).build().unwrap();
        rows.push(WriteRequest::builder().put_request(put).build());
        secrets.push(token.reveal().expose_secret().to_owned());
    }
    for rows in rows.chunks(25) {
        let written = client.batch_write_item().request_items(table, rows.to_vec()).send().await.unwrap();
        assert!(written.unprocessed_items.unwrap_or_default().is_empty());
    }
    secrets
}

/// Changes when a version of the pepper was activated.
async fn activated(dev: &Dev, version: u32, at: DateTime<Utc>) {
    let (env, client) = dev.dynamodb().await;
    client
        .update_item()
        .table_name(&env["KEYWARD_TABLE"])
        .key("pk", AttributeValue::S("PEPPERS".into()))
        .key("sk", AttributeValue::S(format!("{version:010}")))
        .condition_expression("attribute_exists(activated_at)")
        .update_expression("SET activated_at = :at")
        .expression_attribute_values(":at", serde_dynamo::to_attribute_value(at).unwrap())
        .send()
        .await
        .unwrap();
}

/// The statuses of checks of these keys, fifty in a request.
async fn check_all(dev: &Dev, secrets: &[String]) -> Vec<u16> {
    let http = reqwest::Client::new();
    let mut statuses = vec![];
    for secrets in secrets.chunks(50) {
        let check = |secret| json!({"principal": {"type": "api_key", "value": secret}, "resource": "/v1/users", "method": "GET"});
        let body = json!({"checks": secrets.iter().map(check).collect::<Vec<_>>()});
        let response =
            http.post(format!("{}/v1/authz/check/batch", dev.json.url)).json(&body).send().await.unwrap();
        let response: Value = response.json().await.unwrap();
        for result in response["results"].as_array().unwrap_or_else(|| panic!("{response}")) {
            statuses.push(if result["allowed"] == true {
                200
            } else {
                result["errors"][0]["code"].as_u64().unwrap() as u16
            });
        }
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_and_a_repeppering_under_load_fail_no_check() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Arc::new(Dev::start(folder.path(), "warn"));
    let app = json!({"app_slug": "acme", "name": "Acme", "key_prefix": "acme"});
    dev.backend("POST", "/api-auth/apps", Some(app)).await;
    let secrets = make(&dev, KEYS).await;
    let id = |secret: &str| ApiKeyToken::parse(secret).unwrap().id;

    // Of those in use: nine of ten are good, one is revoked, and one has an old secret.
    let mut used: Vec<(String, u16)> =
        secrets.iter().take(USED).map(|secret| (secret.clone(), 200)).collect();
    for (n, (secret, status)) in used.iter_mut().enumerate().filter(|(n, _)| n % 20 == 0) {
        let change = if n % 40 == 0 { "revoke" } else { "rotate" };
        let path = format!("/api-auth/apps/acme/keys/{}/{change}", id(secret));
        dev.backend("POST", &path, Some(json!({}))).await;
        *status = if change == "revoke" { 403 } else { 401 };
    }
    let (used, seen) = (Arc::new(used), Arc::new(Seen::default()));
    let callers: Vec<_> = (0..4)
        .map(|caller| tokio::spawn(load(dev.clone(), used.clone(), caller * USED / 4, seen.clone())))
        .collect();

    done(&pepper(&dev, &["rotate"]));
    // Killed in the middle: some rows are under version 2, others are not.
    let job = ["pepper", "repepper", "--data-dir", folder.path().to_str().unwrap(), "--units-per-second"];
    let mut killed =
        keyward(&[&job[..], &["500"]].concat()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while status(&dev)[&1].2 == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let rows = KEYS as u64 + 1;
    let between = status(&dev);
    assert!(between[&1].1 > 0 && between[&1].1 < rows, "it was in the middle: {between:?}");
    seen.reach(USED + 1).await;
    // The next one waits until a minute and a half after the rotation, when every process has read of version 2. The only
    // one here has, from the rows that it has checked: three seconds of that are enough.
    activated(&dev, 2, system_clock().now() - TimeDelta::seconds(87)).await;

    let again = job.map(str::to_owned);
    let again = tokio::task::spawn_blocking(move || {
        let mut command = keyward(&[]);
        command.args(again).arg("5000").output().unwrap()
    });
    let message = done(&again.await.unwrap());
    assert!(message.contains("rows moved under the current version: "), "{message}");
    let after = status(&dev);
    assert_eq!(after[&1].1, 0, "no row is left under version 1: {after:?}");
    let seen_then = seen.checks.load(Ordering::Relaxed);
    assert!(seen_then > USED, "it was under load: {seen_then} checks");
    seen.reach(seen_then + USED).await;
    seen.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }

    // Every key is as it was. Using it frees its row of version 1.
    let wanted = used.iter().map(|(_, status)| *status).chain(std::iter::repeat(200));
    for (n, (status, wanted)) in check_all(&dev, &secrets).await.into_iter().zip(wanted).enumerate() {
        assert_eq!(status, wanted, "key {n}");
    }
    // More than nine of ten have moved; where many were used at once, some do so at a later use.
    let now = status(&dev);
    assert_eq!((now[&1].1, now[&2].1), (0, rows), "{now:?}");
    assert!(now[&1].2 < rows / 10, "{now:?}");
    let log = fs::read_to_string(dev.dir.join("stderr")).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
}
