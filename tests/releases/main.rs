//! The previous release and this one on one table, through an upgrade and a rollback with traffic: neither loses or widens
//! anything that the other wrote. The earlier one is built from its commit, which `tests/releases/earlier` names, and runs
//! as Lambda functions.
//!
//! Its writes are recorded in `tests/releases/recording.json`, which `tests/it/coexistence.rs` replays on every machine.
//!
//! Needs `cargo lambda` on the PATH (`pip install -r infra/local/requirements.txt`) and that commit in the repository.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::Utc;
use keyward_cli::dev::{DevJson, Installation, Options, TABLE};
use keyward_core::deployment::Mode;
use keyward_tests::coexistence::{self, Recording, Release, Stage, Step, Write};
use keyward_tests::process::{ProcessGroup, functions_respond, outside, run, workspace};
use keyward_tests::{Backend, Keyward, text};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The time limit for the emulator to build a function on its first request.
const BUILD: Duration = Duration::from_secs(900);

/// The sources of the earlier release, and where they are built.
struct Earlier {
    commit: String,
    sources: PathBuf,
    target: PathBuf,
}

impl Earlier {
    fn check_out() -> Self {
        let commit = include_str!("earlier").trim().to_owned();
        let target = workspace().join("target/earlier");
        let sources = target.join("sources");
        if !sources.exists() {
            let mut add = Command::new("git");
            run(add
                .args(["worktree", "add", "--force", "--detach"])
                .arg(&sources)
                .arg(&commit)
                .current_dir(workspace()));
        }
        run(Command::new("git").args(["checkout", "--quiet", "--detach", &commit]).current_dir(&sources));
        Self { commit, sources, target }
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = outside("cargo");
        cargo.args(args).current_dir(&self.sources).env("CARGO_TARGET_DIR", self.target.join("target"));
        cargo
    }
}

/// A proxy for the requests of the earlier release to DynamoDB.
#[derive(Clone)]
struct Recorder {
    dynamodb: String,
    http: reqwest::Client,
    writes: Arc<Mutex<Vec<Write>>>,
}

impl Recorder {
    async fn start(dynamodb: &str) -> (Self, String) {
        let recorder =
            Self { dynamodb: dynamodb.to_owned(), http: reqwest::Client::new(), writes: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().fallback(Self::pass_on).with_state(recorder.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        (recorder, url)
    }

    async fn pass_on(
        State(recorder): State<Self>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let sent =
            recorder.http.post(&recorder.dynamodb).headers(headers.clone()).body(body.clone()).send().await;
        let response = sent.expect("an answer of the engine");
        let (status, completed) = (response.status(), response.headers().clone());
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        if status.is_success()
            && ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"].contains(&operation)
        {
            let sent = serde_json::from_slice(&body).expect("JSON");
            recorder.writes.lock().expect("a lock").push(Write { operation: operation.to_owned(), sent });
        }
        (status, completed, response.bytes().await.expect("a body"))
    }

    fn take(&self) -> Vec<Write> {
        std::mem::take(&mut self.writes.lock().expect("a lock"))
    }
}

struct Live {
    earlier: Backend,
    this: Backend,
    keyward: Keyward,
    recorder: Recorder,
    /// Texts that identify the writes of the traffic, which are not part of the recording.
    traffic: Vec<String>,
    steps: Vec<Step>,
}

impl Stage for Live {
    async fn send(&mut self, release: Release, method: Method, path: &str, body: Value) -> (u16, Value) {
        let at = Utc::now();
        let backend = if release == Release::Earlier { &self.earlier } else { &self.this };
        let (status, response) = coexistence::send(backend, method.clone(), path, body.clone()).await;
        self.keyward.settle().await;
        let is_of_play = |write: &Write| {
            let sent = write.sent.to_string();
            // The play asks nothing of the events of checks, which would be a quarter of the recording.
            write.sent["Item"]["action"]["S"] != "verification"
                && !self.traffic.iter().any(|text| sent.contains(text))
        };
        let writes = self.recorder.take().into_iter().filter(is_of_play).collect();
        let (method, path) = (method.to_string(), path.to_owned());
        let mut kept = response.clone();
        if let Some(members) = kept.as_object_mut() {
            members.remove("headers");
        }
        self.steps.push(Step { release, at, method, path, body, status, response: kept, writes });
        (status, response)
    }
}

async fn items(config: &SdkConfig) -> Vec<Value> {
    let scan =
        aws_sdk_dynamodb::Client::new(config).scan().table_name(TABLE).consistent_read(true).send().await;
    let items = scan.expect("the table").items.unwrap_or_default();
    items
        .into_iter()
        .map(|item| {
            let item: HashMap<String, serde_dynamo::AttributeValue> =
                item.into_iter().map(|(name, value)| (name, value.into())).collect();
            let item: serde_dynamo::Item = item.into();
            serde_json::to_value(item).expect("JSON")
        })
        .collect()
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

/// Checks of one app's keys by both releases until they are told to stop; how many were answered.
async fn traffic(backends: [Backend; 2], reader: String, revoked: String, stop: Arc<AtomicBool>) -> usize {
    let mut completed = 0;
    while !stop.load(Ordering::Relaxed) {
        // Figures are told of up to 20,000 requests.
        tokio::time::sleep(Duration::from_millis(20)).await;
        for backend in &backends {
            let check = |key: &str, path: &str| json!({"principal": {"type": "api_key", "value": key}, "method": "GET", "resource": path});
            for (key, path, status, allowed) in [
                (&reader, "/v1/a", 200, true),
                (&reader, "/elsewhere", 200, false),
                (&revoked, "/v1/a", 403, false),
            ] {
                let response = backend.check_with(check(key, path)).await;
                assert_eq!(
                    (response.status, &response.body["allowed"]),
                    (status, &json!(allowed)),
                    "{}",
                    response.body
                );
                completed += 1;
            }
        }
    }
    completed
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_release_loses_or_widens_what_the_other_one_wrote() {
    run(Command::new("cargo").args(["lambda", "--version"]));
    let earlier = Earlier::check_out();
    run(&mut earlier.cargo(&["build", "--bin", "keyward"]));
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);

    // The earlier release makes the installation.
    let mut dev = Command::new(earlier.target.join("target/debug/keyward"));
    dev.args(["dev", "--only-store", "--port", "0", "--public-url", "http://127.0.0.1:1", "--data-dir"])
        .arg(folder.path());
    let dev = ProcessGroup::start(&mut dev, &path("dev.log"));
    let start = Instant::now();
    while !path("dev.json").exists() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            fs::read_to_string(path("dev.log")).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(dev);

    let options = Options { port: 0, data_dir: Some(folder.path().to_owned()), ephemeral: false };
    let installation = Installation::open(&options, 0).await.expect("the earlier release's installation");
    let config = installation.sdk_config().clone();
    let at = Utc::now();
    let created: Vec<Value> = items(&config).await;
    let dev: DevJson = serde_json::from_slice(&fs::read(path("dev.json")).expect("JSON")).expect("JSON");
    let root_key = dev.root_key.clone();
    let keyward = Keyward::start_over(config.clone(), installation.provider(), async |_| dev, |_| {}).await;

    let url = format!("http://127.0.0.1:{}", port());
    let (recorder, recorded) = Recorder::start(installation.store_url()).await;
    let env = installation.write_functions_env(&url).expect("an environment");
    let env = fs::read_to_string(env).expect("an environment").replace(installation.store_url(), &recorded);
    fs::write(path("earlier.env"), env).expect("an environment");
    let mut watch =
        earlier.cargo(&["lambda", "watch", "--ignore-changes", "--disable-cors", "-A", "127.0.0.1", "-P"]);
    watch.arg(url.rsplit(':').next().expect("a port")).arg("--env-file").arg(path("earlier.env"));
    let watch = ProcessGroup::start(&mut watch, &path("watch.log"));
    let http = reqwest::Client::builder().timeout(BUILD).build().expect("a client");
    let of_earlier = Backend::new(&url, &root_key, http);
    functions_respond(&of_earlier, || fs::read_to_string(path("watch.log")).unwrap_or_default()).await;

    let of_this = keyward.backend();
    // In a deployment of its own, which this release makes: it is not part of the play.
    let (_, this_traffic) = keyward.other_deployment(Mode::Staging, &[]).await;
    let earlier_traffic = Backend::new(&url, &this_traffic.root_key, of_earlier.http.clone());
    let app =
        json!({"app_slug": "traffic", "name": "Traffic", "key_prefix": "sk_test", "resources": ["/v1/*"]});
    earlier_traffic.post("/api-auth/apps", app).await.ok();
    let reader = earlier_traffic.create_key("traffic", json!({})).await;
    let revoked = this_traffic.create_key("traffic", json!({})).await;
    earlier_traffic.revoke("traffic", &text(&revoked["key"]["id"])).await.ok();
    let [reader, revoked] = [reader, revoked].map(|key| text(&key["secret"]));
    let tokens =
        [&reader, &revoked].map(|secret| keyward_core::token::ApiKeyToken::parse(secret).expect("a key"));
    let traffic_of = tokens.iter().flat_map(|token| [token.app.base62(), token.id.base62()]).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let backends = [earlier_traffic.clone(), this_traffic.clone()];
    let traffic = tokio::spawn(traffic(backends, reader, revoked, stop.clone()));
    recorder.take();

    let mut live =
        Live { earlier: of_earlier, this: of_this, keyward, recorder, traffic: traffic_of, steps: vec![] };
    coexistence::play(&mut live).await;
    stop.store(true, Ordering::Relaxed);
    let completed = traffic.await.expect("all as they must be");
    live.keyward.settle().await;
    for backend in [&earlier_traffic, &this_traffic] {
        let figures = backend.get("/api-auth/apps/traffic/audit/analytics").await.ok();
        assert_eq!(figures["total_requests"], completed, "{figures}");
    }
    println!("{} steps, {completed} checks beside them", live.steps.len());
    drop(watch);

    let key = fs::read(path("pepper.key")).expect("a key");
    let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let recording =
        Recording { commit: earlier.commit, at, key, root_key, items: created, steps: live.steps };
    fs::write(workspace().join("tests/releases/recording.json"), recording.to_json()).expect("a recording");
}
