//! What runs beside a test: commands of this workspace and of cargo.

use std::env;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;

use crate::{ApiResponse, Backend};

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

/// This workspace's `keyward`, in the profile of the test.
pub fn keyward() -> PathBuf {
    // The test is in target/<profile>/deps.
    let test = env::current_exe().expect("a path");
    test.ancestors().nth(2).expect("a target folder").join("keyward")
}

/// A command without what cargo tells a test about its package: build scripts would run again for it, and with them the
/// compiler.
pub fn outside(program: &str) -> Command {
    let mut command = Command::new(program);
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| of_package.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command, which must succeed.
pub fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
}

/// A process with all the processes that it starts, until this is dropped.
pub struct ProcessGroup(Child);

impl ProcessGroup {
    /// Starts a command that writes to this log.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("a log");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Self(command.process_group(0).spawn().expect("a process"))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _told = Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        let _ended = self.0.wait();
    }
}

/// Waits until each function responds that `cargo lambda watch` serves, which builds it at its first request.
///
/// # Panics
/// Nobody listens, or a function responds with something else; with this log.
pub async fn functions_respond(backend: &Backend, log: impl Fn() -> String) {
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::POST, "/session/tickets"),
        (Method::GET, "/api-auth/apps"),
        (Method::POST, "/v1/authz/check"),
        (Method::GET, "/api-auth/audit/logs"),
    ] {
        let start = Instant::now();
        let response = loop {
            // The emulator refuses connections until it is up.
            match backend.request(method.clone(), path).send().await {
                Ok(response) => break ApiResponse::of(response).await,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}: {}", log()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let is_ours = response.status == 200 || response.body["code"].is_string();
        assert!(is_ours, "{path}: {}: {}", response.body, log());
    }
}
