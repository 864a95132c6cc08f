//! No secret in any log line, error or stored item: the main job at trace level, then a search for each of them.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use crate::process::Dev;

/// All lines of all crates, those that are named too.
const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,aws_smithy_runtime=trace,aws_sigv4=trace,axum::rejection=trace,\
                          dynoxide=trace,[{method}]=trace";

/// The whole text, and its 43 digits alone.
fn forms(secret: &str) -> [String; 2] {
    let end = secret.len() - 6;
    [secret.to_owned(), secret[end - 43..end].to_owned()]
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

#[tokio::test]
async fn the_main_job_leaves_no_secret_in_the_log_in_errors_or_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), EVERYTHING);
    let http = reqwest::Client::new();
    let url = dev.json.url.clone();
    let mut secrets = vec![dev.json.root_key.clone()];
    secrets.extend(dev.json.hosted_page_url.split_once("ticket=").map(|(_, ticket)| ticket.to_owned()));

    let ask = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "demo"});
    let ticket = text(&dev.backend("POST", "/session/tickets", Some(ask)).await["ticket"]);
    let exchange = format!("{url}/session/ticket/exchange?ticket={ticket}&__dev_session__=");
    let response = http.get(&exchange).send().await.unwrap();
    let session = response.headers()["x-development-session"].to_str().unwrap().to_owned();
    let keys = format!("{url}/api-auth/keys?__dev_session__={session}");
    let created: Value = http.post(&keys).form(&[("name", "CI")]).send().await.unwrap().json().await.unwrap();
    let (id, first) = (text(&created["data"]["id"]), text(&created["data"]["secret"]));
    let rotate = format!("{url}/api-auth/keys/{id}/rotate?__dev_session__={session}");
    let rotated: Value = http.post(&rotate).send().await.unwrap().json().await.unwrap();
    let second = text(&rotated["data"]["secret"]);
    assert_eq!(dev.check(&http, &second).await.unwrap(), 200);
    assert_eq!(dev.check(&http, &first).await.unwrap(), 401);
    secrets.extend([ticket.clone(), session.clone(), first, second.clone()]);

    // Secrets in the wrong places: the responses must not repeat them.
    let mut errors = vec![http.get(&exchange).send().await.unwrap().text().await.unwrap()];
    for secret in &secrets {
        for body in [
            json!({"principal": secret, "resource": "/", "method": "GET"}),
            json!({"principal": {"type": secret, "value": secret}, "resource": "/", "method": "GET"}),
            json!({"principal": {"type": "api_key", "value": [secret]}, "resource": "/", "method": "GET"}),
            json!({"principal": {"type": "api_key", "value": secret}, "resource": "/", "method": secret}),
            json!(secret),
        ] {
            let check = http.post(format!("{url}/v1/authz/check")).json(&body);
            errors.push(check.send().await.unwrap().text().await.unwrap());
        }
        for request in [
            http.get(format!("{url}/api-auth/apps")).bearer_auth(format!("{secret}x")),
            http.post(format!("{url}/api-auth/apps")).bearer_auth(&dev.json.root_key).body(secret.clone()),
            http.post(format!("{url}/api-auth/apps"))
                .bearer_auth(&dev.json.root_key)
                .json(&json!({"app_slug": [secret]})),
            http.post(format!("{url}/api-auth/keys/revoke"))
                .bearer_auth(&dev.json.root_key)
                .json(&json!({"key_id": secret})),
            http.get(format!("{url}/api-auth/session")).header("cookie", format!("__Host-session={secret}x")),
            http.get(format!("{url}/api-auth/apps/demo/audit/logs?cursor={secret}"))
                .bearer_auth(&dev.json.root_key),
        ] {
            errors.push(request.send().await.unwrap().text().await.unwrap());
        }
    }
    for secret in &secrets {
        for path in [
            format!("/api-auth/keys/{secret}/revoke?__dev_session__={session}"),
            format!("/api-auth/apps/{secret}/keys/{secret}/rotate"),
            format!("/{secret}"),
        ] {
            let request = http.post(format!("{url}{path}")).bearer_auth(&dev.json.root_key);
            errors.push(request.send().await.unwrap().text().await.unwrap());
        }
    }
    let revoke = format!("{url}/api-auth/keys/{id}/revoke?__dev_session__={session}");
    http.post(&revoke).form(&[("reason", "Leaked")]).send().await.unwrap();
    assert_eq!(dev.check(&http, &second).await.unwrap(), 403);
    let log = http.get(format!("{url}/api-auth/audit/logs?__dev_session__={session}"));
    errors.push(log.send().await.unwrap().text().await.unwrap());

    // While it runs, the newest pages are in the write-ahead log.
    let running = fs::read(folder.path().join("dynamodb.sqlite-wal")).unwrap();
    let dir = dev.dir.clone();
    dev.stop("TERM");
    let log = fs::read(dir.join("stderr")).unwrap();
    let stored = fs::read(dir.join("dynamodb.sqlite")).unwrap();
    let lines = String::from_utf8_lossy(&log);
    assert!(lines.contains(": keyward::request:"), "{lines}");
    for line in lines.lines().filter(|line| line.contains(" TRACE ") || line.contains(" DEBUG ")) {
        assert!(line.contains(" keyward"), "what is received and sent may be in this: {line}");
    }
    assert!(stored.windows(2).any(|window| window == b"CI"), "the table is where it is looked for");
    let contains = |haystack: &[u8], needle: &str| {
        haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    for secret in secrets.iter().flat_map(|secret| forms(secret)) {
        for (place, bytes) in [("log", &log), ("table", &stored), ("write-ahead log", &running)] {
            assert!(!contains(bytes, &secret), "a secret is in the {place}");
        }
        for error in &errors {
            assert!(!error.contains(&secret), "a secret is in an answer: {error}");
        }
    }
    let pepper_key = fs::read(dir.join("pepper.key")).unwrap();
    assert!(!stored.windows(32).any(|window| window == pepper_key), "the key file's key is in the table");
}

#[test]
fn a_run_leaves_no_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path(), "info");
    let limits = fs::read_to_string(format!("/proc/{}/limits", dev.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{limit}");
    dev.signal("ABRT");
    let status = dev.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status}");
}
