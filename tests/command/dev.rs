//! `keyward dev`: starting again, stopping, refusing to start.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::json;

use crate::process::{Dev, keyward, refused};

#[tokio::test]
async fn a_second_start_finds_its_data_and_the_same_root_key() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/data");
    let first = Dev::start(&dir, "info");
    assert!(first.json.url.starts_with("http://127.0.0.1:"));
    let page = format!("{}/vanity/api-auth?ticket=kw_ticket_", first.json.url);
    assert!(first.json.hosted_page_url.starts_with(&page));
    for value in
        [&first.json.url, &first.json.root_key, &first.json.publishable_key, &first.json.hosted_page_url]
    {
        assert!(first.printed().contains(value.as_str()), "{}", first.printed());
    }
    let page = reqwest::get(&first.json.hosted_page_url).await.unwrap();
    assert!(page.status() == 200 && page.text().await.unwrap().starts_with("<!doctype html>"));
    let mode = fs::metadata(dir.join("dev.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = first.backend("POST", "/api-auth/apps/demo/keys", Some(json!({"name": "kept"}))).await;
    let (root_key, deployment) = (first.json.root_key.clone(), first.json.deployment_id.clone());
    first.stop("INT");

    let second = Dev::start(&dir, "info");
    assert_eq!((second.json.root_key.clone(), second.json.deployment_id.clone()), (root_key, deployment));
    let secret = key["secret"].as_str().unwrap();
    assert_eq!(second.check(&reqwest::Client::new(), secret).await.unwrap(), 200);
    second.stop("TERM");

    // Without dev.json there is a new root key for the same data.
    fs::remove_file(dir.join("dev.json")).unwrap();
    let third = Dev::start(&dir, "info");
    let keys = third.backend("GET", "/api-auth/apps/demo/keys", None).await;
    assert_eq!(keys["keys"][0]["name"], "kept");
    third.stop("TERM");
}

#[tokio::test]
async fn a_stop_under_load_loses_no_answered_check() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "info");
    let key = dev.backend("POST", "/api-auth/apps/demo/keys", Some(json!({"name": "busy"}))).await;
    let secret = key["secret"].as_str().unwrap().to_owned();
    let (dev, completed) = (std::sync::Arc::new(dev), std::sync::Arc::new(AtomicI64::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (dev, secret, completed) = (dev.clone(), secret.clone(), completed.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                while let Ok(200) = dev.check(&http, &secret).await {
                    completed.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    while completed.load(Ordering::SeqCst) < 100 && !callers.iter().all(|caller| caller.is_finished()) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    dev.signal("TERM");
    for caller in callers {
        caller.await.unwrap();
    }
    let completed = completed.load(Ordering::SeqCst);
    let mut dev = std::sync::Arc::into_inner(dev).unwrap();
    assert_eq!(dev.wait().code(), Some(0), "{}", dev.log());
    assert!(completed >= 100, "a check failed after {completed}");

    let again = Dev::start(folder.path(), "info");
    let figures = again.backend("GET", "/api-auth/apps/demo/audit/analytics", None).await;
    let recorded = figures["total_requests"].as_i64().unwrap();
    // A caller whose connection was closed under it may have been decided on without having read the response.
    assert!((completed..=completed + 8).contains(&recorded), "{completed} answered, {recorded} recorded");
    again.stop("TERM");
}

#[tokio::test]
async fn completed_requests_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path(), "info");
    let kept = dev.backend("POST", "/api-auth/apps/demo/keys", Some(json!({"name": "kept"}))).await;
    let gone = dev.backend("POST", "/api-auth/apps/demo/keys", Some(json!({"name": "gone"}))).await;
    let revoke = format!("/api-auth/apps/demo/keys/{}/revoke", gone["id"].as_str().unwrap());
    assert_eq!(dev.backend("POST", &revoke, None).await, json!({}));
    dev.signal("KILL");
    dev.wait();
    let again = Dev::start(folder.path(), "info");
    let http = reqwest::Client::new();
    assert_eq!(again.check(&http, kept["secret"].as_str().unwrap()).await.unwrap(), 200);
    assert_eq!(again.check(&http, gone["secret"].as_str().unwrap()).await.unwrap(), 403);
    again.stop("TERM");
}

#[tokio::test]
async fn one_line_for_each_request_without_its_query() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "info");
    dev.backend("GET", "/api-auth/apps?include_inactive=true", None).await;
    let log = dev.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("keyward::request")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["method=GET", "route=\"/api-auth/apps\"", "status=200", "ms="] {
        assert!(lines[0].contains(part), "{log}");
    }
    dev.stop("TERM");
}

#[test]
fn a_port_that_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let sentence = refused(&["dev", "--port", &port, "--data-dir", dir]);
    assert!(sentence.contains(&port) && sentence.contains("--port"), "{sentence}");
    assert!(!folder.path().join("dev.json").exists());
    refused(&["--port", &port, "--data-dir", dir]);
    refused(&["dev", "--only-store", "--port", &port, "--data-dir", dir]);
}

#[test]
fn a_folder_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for dir in [file.clone(), file.join("below"), "/proc/keyward".into()] {
        let sentence = refused(&["dev", "--port", "0", "--data-dir", dir.to_str().unwrap()]);
        assert!(sentence.contains(dir.to_str().unwrap()) && sentence.contains("--data-dir"), "{sentence}");
    }
}

#[test]
fn a_folder_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "info");
    let sentence = refused(&["dev", "--port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(sentence.contains("in use by another keyward dev"), "{sentence}");
    dev.stop("TERM");
}

#[test]
fn a_damaged_data_file() {
    let folder = tempfile::tempdir().unwrap();
    Dev::start(folder.path(), "info").stop("TERM");
    let file = folder.path().join("dynamodb.sqlite");
    let good = fs::read(&file).unwrap();
    let args = ["dev", "--port", "0", "--data-dir", folder.path().to_str().unwrap()];

    let mut header = good.clone();
    header[..100].fill(0x5a);
    let mut pages = good.clone();
    pages[4_096..].fill(0x5a);
    for damaged in [b"not a database at all".repeat(100), header, pages, good[..5_000].to_vec()] {
        fs::write(&file, damaged).unwrap();
        let sentence = refused(&args);
        assert!(sentence.contains("dynamodb.sqlite") && sentence.contains("damaged"), "{sentence}");
    }
    fs::write(&file, good).unwrap();
    Dev::start(folder.path(), "info").stop("TERM");
}

#[test]
fn a_key_file_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    Dev::start(folder.path(), "info").stop("TERM");
    let file = folder.path().join("pepper.key");
    let good = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let args = ["dev", "--port", "0", "--data-dir", folder.path().to_str().unwrap()];
    fs::remove_file(&file).unwrap();
    let sentence = refused(&args);
    assert!(sentence.contains("pepper.key"), "{sentence}");
    assert!(!file.exists(), "no new key is made beside old data");
    fs::write(&file, [7; 32]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let sentence = refused(&args);
    assert!(sentence.contains("pepper.key") && sentence.contains("restore the key file"), "{sentence}");
    fs::write(&file, good).unwrap();
    Dev::start(folder.path(), "info").stop("TERM");
}

#[tokio::test]
async fn ephemeral_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let mut child = keyward(&["--ephemeral", "--port", "0", "--data-dir", dir])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let dev_json = folder.path().join("dev.json");
    for _ in 0..500 {
        if dev_json.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let dev: serde_json::Value = serde_json::from_slice(&fs::read(&dev_json).unwrap()).unwrap();
    let health = format!("{}/health", dev["url"].as_str().unwrap());
    assert_eq!(reqwest::get(health).await.unwrap().status(), 200);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);

    Dev::start(folder.path(), "info").stop("TERM");
    let sentence = refused(&["--ephemeral", "--port", "0", "--data-dir", dir]);
    assert!(sentence.contains("saved data"), "{sentence}");
}

#[test]
fn help_says_what_there_is() {
    let output = keyward(&["dev", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for option in ["--port", "--data-dir", "--ephemeral", "--only-store", "dev.json"] {
        assert!(help.contains(option), "{help}");
    }
    let wrong = keyward(&["dev", "--prot", "1"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("--port"), "a suggestion");
}
