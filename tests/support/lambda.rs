//! An execution environment of Lambda: the Runtime API and the Extensions API, and a process that is frozen when it has
//! asked both for what comes next, and killed when an invocation takes longer than it may.
//!
//! - <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//! - <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::Utc;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// The time that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time after SIGTERM at which a process with an internal extension is killed.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// The properties of an environment.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The time that an invocation may take.
    pub timeout: Duration,
    /// Whether extensions can be registered.
    pub takes_extensions: bool,
    /// The number of invocations at once: several on Managed Instances alone, which are never frozen.
    pub concurrency: usize,
}

impl Default for Kind {
    fn default() -> Self {
        Self { timeout: PATIENCE, takes_extensions: true, concurrency: 1 }
    }
}

/// A function's process in its environment.
pub struct Environment {
    apis: Arc<Apis>,
    process: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

struct Apis {
    kind: Kind,
    invocations: mpsc::UnboundedSender<Invocation>,
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    told: mpsc::UnboundedSender<Value>,
    next_told: tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>,
    state: Mutex<Running>,
    /// Whether the process is frozen.
    frozen: watch::Sender<bool>,
}

#[derive(Default)]
struct Running {
    process: Option<Pid>,
    /// The events that the extension is registered for; none where there is no extension.
    events: Option<Vec<String>>,
    /// Whether these ask for what comes next.
    runtime_waits: bool,
    extension_waits: bool,
    invoked: usize,
    responses: HashMap<String, oneshot::Sender<(bool, Value)>>,
}

struct Invocation {
    id: String,
    deadline_ms: i64,
    event: Value,
}

impl Apis {
    fn state(&self) -> std::sync::MutexGuard<'_, Running> {
        self.state.lock().expect("a lock")
    }

    fn is_told(running: &Running) -> bool {
        running.events.as_ref().is_some_and(|events| events.iter().any(|event| event == "INVOKE"))
    }

    /// Notes that one of the two asks for what comes next, and freezes the process if that is both.
    fn waits(&self, one: impl FnOnce(&mut Running)) {
        let mut running = self.state();
        one(&mut running);
        let is_done = running.runtime_waits && (running.events.is_none() || running.extension_waits);
        if let (true, 1, Some(process)) = (is_done, self.kind.concurrency, running.process) {
            kill_process(process, Signal::STOP).expect("a process");
            self.frozen.send_replace(true);
        }
    }

    fn thaw(&self, running: &Running) {
        if self.frozen.send_replace(false) {
            kill_process(running.process.expect("a process"), Signal::CONT).expect("a process");
        }
    }
}

async fn next(State(apis): State<Arc<Apis>>) -> Response {
    apis.waits(|running| running.runtime_waits = true);
    let mut invocations = apis.next.lock().await;
    let Some(Invocation { id, deadline_ms, event }) = invocations.recv().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:123456789012:function:x".to_owned(),
        ),
    ];
    (headers, Json(event)).into_response()
}

async fn respond(
    State(apis): State<Arc<Apis>>,
    Path((id, kind)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let response = serde_json::from_slice(&body).expect("JSON");
    if let Some(caller) = apis.state().responses.remove(&id) {
        let _gone = caller.send((kind == "response", response));
    }
    StatusCode::ACCEPTED
}

async fn register(State(apis): State<Arc<Apis>>, Json(registered): Json<Value>) -> Response {
    if !apis.kind.takes_extensions {
        return (StatusCode::FORBIDDEN, Json(json!({"errorType": "Extension.NotAllowed"}))).into_response();
    }
    let events = serde_json::from_value(registered["events"].clone()).expect("events");
    apis.state().events = Some(events);
    let function = json!({"functionName": "x", "functionVersion": "1", "handler": "bootstrap"});
    ([("lambda-extension-identifier", "0a5ad5c6-0b3e-4f3e-9a6c-3d5f3d8c2f11")], Json(function))
        .into_response()
}

async fn extension_next(State(apis): State<Arc<Apis>>) -> Response {
    apis.waits(|running| running.extension_waits = true);
    let mut told = apis.next_told.lock().await;
    match told.recv().await {
        Some(event) => Json(event).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Environment {
    /// Starts this program with these variables, and waits until it is ready for its first event.
    pub async fn start(program: &str, variables: &[(String, String)], kind: Kind) -> Self {
        let (invocations, next_invocations) = mpsc::unbounded_channel();
        let (told, next_told) = mpsc::unbounded_channel();
        let apis = Arc::new(Apis {
            kind,
            invocations,
            next: tokio::sync::Mutex::new(next_invocations),
            told,
            next_told: tokio::sync::Mutex::new(next_told),
            state: Mutex::default(),
            frozen: watch::Sender::new(false),
        });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(respond))
            .route("/2020-01-01/extension/register", post(register))
            .route("/2020-01-01/extension/event/next", get(extension_next))
            .with_state(apis.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async { axum::serve(listener, routes).await });

        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("a log");
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "x")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .kill_on_drop(true);
        if kind.concurrency > 1 {
            command.env("AWS_LAMBDA_MAX_CONCURRENCY", kind.concurrency.to_string());
        }
        let process = {
            // It cannot ask for anything before its id is known here: then it would not be frozen.
            let mut running = apis.state();
            let process = command.spawn().expect("a process");
            let id = process.id().expect("an id").try_into().expect("an id");
            running.process = Pid::from_raw(id);
            process
        };
        let environment = Self { apis, process, log, _folder: folder };
        if kind.concurrency == 1 {
            environment.frozen().await;
        }
        environment
    }

    /// The response to an event, as soon as there is one.
    ///
    /// # Errors
    /// The function failed: with this.
    pub async fn invoke(&self, event: Value) -> Result<Value, Value> {
        let (caller, response) = oneshot::channel();
        let deadline_ms = Utc::now().timestamp_millis()
            + i64::try_from(self.apis.kind.timeout.as_millis()).expect("milliseconds");
        {
            let mut running = self.apis.state();
            running.invoked += 1;
            let id = format!("8476a536-e9f4-11e8-9739-{:012}", running.invoked);
            running.responses.insert(id.clone(), caller);
            running.runtime_waits = false;
            self.apis.thaw(&running);
            if Apis::is_told(&running) {
                running.extension_waits = false;
                let told = json!({
                    "eventType": "INVOKE", "deadlineMs": deadline_ms, "requestId": id,
                    "invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:x",
                    "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2"},
                });
                self.apis.told.send(told).expect("a process");
            }
            let sent = self.apis.invocations.send(Invocation { id, deadline_ms, event });
            assert!(sent.is_ok(), "its APIs are served until it is dropped");
            if self.apis.kind.concurrency == 1 {
                tokio::spawn(kill_when_late(self.apis.clone(), running.invoked));
            }
        }
        match timeout(PATIENCE, response).await {
            Ok(Ok((true, response))) => Ok(response),
            Ok(Ok((false, error))) => Err(error),
            _ => panic!("no response: {}", self.log()),
        }
    }

    /// Whether the process is frozen now.
    pub fn is_frozen(&self) -> bool {
        *self.apis.frozen.borrow()
    }

    /// Waits until the process is frozen.
    pub async fn frozen(&self) {
        let mut frozen = self.apis.frozen.subscribe();
        let frozen = timeout(PATIENCE, frozen.wait_for(|frozen| *frozen)).await;
        assert!(frozen.is_ok(), "it goes on: {}", self.log());
    }

    /// Ends the environment as Lambda does where there is an extension: by SIGTERM and, 500 ms later, SIGKILL.
    pub async fn shut_down(&mut self) -> ExitStatus {
        {
            let running = self.apis.state();
            kill_process(running.process.expect("a process"), Signal::TERM).expect("a process");
            self.apis.thaw(&running);
        }
        if let Ok(ended) = timeout(SHUTDOWN, self.process.wait()).await {
            return ended.expect("an exit status");
        }
        self.process.kill().await.expect("a process");
        self.process.wait().await.expect("an exit status")
    }

    /// The output of the process so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Kills the process if this invocation is not over by its deadline.
async fn kill_when_late(apis: Arc<Apis>, invocation: usize) {
    sleep(apis.kind.timeout).await;
    let running = apis.state();
    if running.invoked == invocation
        && !*apis.frozen.borrow()
        && let Some(process) = running.process
    {
        // It may have ended by itself.
        let _ended = kill_process(process, Signal::KILL);
    }
}
