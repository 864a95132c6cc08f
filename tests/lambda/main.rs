//! The functions as Lambda functions: `cargo lambda watch` serves them on their plain paths, over the embedded DynamoDB
//! that `keyward dev --only-store` runs, the main job is done on them, and the authorizer is asked as API Gateway asks it.
//!
//! Needs `cargo lambda` on the PATH (`pip install -r infra/local/requirements.txt`).

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyward_cli::dev::DevJson;
use keyward_tests::{ApiResponse, Backend, REQUEST_LOG_BYTES, outside, scenario, text};
use reqwest::Method;
use serde_json::{Value, json};

/// The time limit for the emulator to build a function on its first request.
const BUILD: Duration = Duration::from_secs(600);

/// A process with all the processes that it starts.
struct Group(Child);

impl Group {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("a log");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Self(command.process_group(0).spawn().expect("a process"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _told = Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        let _ended = self.0.wait();
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn run(command: &mut Command) {
    let status = command.current_dir(workspace()).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_lambda_functions() {
    run(Command::new("cargo").args(["lambda", "--version"]));
    run(outside("cargo").args(["build", "--bin", "keyward"]));
    let folder = tempfile::tempdir().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    // This test is in target/<profile>/deps.
    let test = std::env::current_exe().expect("a path");
    let keyward = test.ancestors().nth(2).expect("a target folder").join("keyward");
    let mut store = Command::new(keyward);
    store.args(["dev", "--only-store", "--port", "0", "--public-url", &url, "--data-dir"]).arg(folder.path());
    let _store = Group::start(&mut store, &folder.path().join("store.log"));
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
    let watch = Group::start(&mut watch, &watch_log);
    let http = reqwest::Client::builder().timeout(BUILD).build().expect("a client");
    let backend = Backend::new(&url, &dev.root_key, http.clone());
    let log = || fs::read_to_string(&watch_log).unwrap_or_default();
    for path in ["/health", "/session/tickets", "/api-auth/apps", "/v1/authz/check", "/api-auth/audit/logs"] {
        let method =
            if path.ends_with("tickets") || path.ends_with("check") { Method::POST } else { Method::GET };
        let start = Instant::now();
        let response = loop {
            // The emulator refuses connections until it is up.
            match http.request(method.clone(), format!("{url}{path}")).send().await {
                Ok(response) => break ApiResponse::of(response).await,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}: {}", log()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(
            response.status == 200 || response.body["code"].is_string(),
            "{path}: {}: {}",
            response.body,
            log()
        );
    }
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
