//! The functions as Lambda functions: `cargo lambda watch` serves them on their plain paths, over the embedded DynamoDB
//! that `keyward dev --only-store` runs, the main job is done on them, and the authorizer is asked as API Gateway asks it.
//!
//! Needs `cargo lambda` on the PATH (`pip install -r infra/local/requirements.txt`).

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keyward_cli::dev::DevJson;
use keyward_tests::process::{ProcessGroup, functions_respond, keyward, outside, run, workspace};
use keyward_tests::{Backend, REQUEST_LOG_BYTES, scenario, text};
use serde_json::{Value, json};

/// The time limit for the emulator to build a function on its first request.
const BUILD: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_lambda_functions() {
    run(Command::new("cargo").args(["lambda", "--version"]));
    run(outside("cargo").args(["build", "--bin", "keyward"]).current_dir(workspace()));
    let folder = tempfile::tempdir().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    let mut store = Command::new(keyward());
    store.args(["dev", "--only-store", "--port", "0", "--public-url", &url, "--data-dir"]).arg(folder.path());
    let _store = ProcessGroup::start(&mut store, &folder.path().join("store.log"));
    let dev = wait_for(&folder.path().join("dev.json")).await;
    assert_eq!(dev.url, url);

    let watch_log = folder.path().join("watch.log");
    let mut watch = outside("cargo");
    watch
        .args([
            "lambda",
            "watch",
            "--ignore-changes",
            "--disable-cors",
            "-A",
            "127.0.0.1",
            "-P",
            &port.to_string(),
        ])
        .arg("--env-file")
        .arg(folder.path().join("functions.env"))
        .env("KEYWARD_LOG", "trace")
        .current_dir(workspace());
    let watch = ProcessGroup::start(&mut watch, &watch_log);
    let http = reqwest::Client::builder().timeout(BUILD).build().expect("a client");
    let backend = Backend::new(&url, &dev.root_key, http);
    let log = || fs::read_to_string(&watch_log).unwrap_or_default();
    functions_respond(&backend, log).await;
    let mut secrets = scenario::main_job(&backend).await;
    secrets.push(check_authorizer(&backend).await);
    drop(watch);
    let log = log();
    let is_check = |line: &&str| line.contains("keyward::request") && line.contains("/v1/authz/check");
    let longest = log.lines().filter(is_check).map(str::len).max();
    assert!(longest.is_some_and(|bytes| bytes <= REQUEST_LOG_BYTES), "{longest:?}: {log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
}

/// Each kind of event is answered in its form, with a key and without. Returns the key.
async fn check_authorizer(backend: &Backend) -> String {
    let slug = scenario::unique("authorizer");
    backend.create_app(&slug).await;
    let secret = text(&backend.create_key(&slug, json!({})).await["secret"]);
    let invoke = async |event: &Value| {
        let url = format!("{}/2015-03-31/functions/authorizer/invocations", backend.url);
        let response = backend.http.post(url).json(event).send().await.expect("an answer");
        response.json::<Value>().await.expect("JSON")
    };
    let event = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let mut simple = event(include_str!("../it/events/http-api-2.0.json"));
    assert_eq!(invoke(&simple).await["isAuthorized"], false);
    simple["headers"]["x-api-key"] = secret.as_str().into();
    let response = invoke(&simple).await;
    assert_eq!(response["isAuthorized"], true, "{response}");
    assert_eq!(response["context"]["app_slug"], slug.as_str());
    for text in [
        include_str!("../it/events/http-api-1.0.json"),
        include_str!("../it/events/rest-api-request.json"),
        include_str!("../it/events/rest-api-token.json"),
    ] {
        let mut asked = event(text);
        assert_eq!(
            invoke(&asked).await["errorMessage"],
            "Unauthorized",
            "which API Gateway answers with 401"
        );
        asked["authorizationToken"] = secret.as_str().into();
        asked["headers"]["x-api-key"] = secret.as_str().into();
        asked["multiValueHeaders"]["x-api-key"] = json!([secret]);
        let response = invoke(&asked).await;
        assert_eq!(response["policyDocument"]["Statement"][0]["Effect"], "Allow", "{response}");
        assert_eq!(response["context"]["app_slug"], slug.as_str());
    }
    secret
}

async fn wait_for(dev_json: &Path) -> DevJson {
    for _ in 0..500 {
        if let Ok(text) = fs::read(dev_json) {
            return serde_json::from_slice(&text).expect("JSON");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the store does not start");
}
