//! The example of the verifier, in processes of the operating system's.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use keyward_cli::dev::{Dev, Options, TABLE};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{Backend, text};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The number of tasks that ask a process which is to be killed.
const TASKS: usize = 8;

/// A process of the example.
pub struct Saas {
    process: Child,
    /// The URL of its users.
    pub users: String,
}

impl Saas {
    /// Starts this program on the local run in this folder, for keys of the app `acme`.
    pub async fn start(program: &str, folder: &Path) -> Self {
        let env = std::fs::read_to_string(folder.join("functions.env")).expect("a local run");
        let mut process = Command::new(program)
            .envs(env.lines().map(|line| line.split_once('=').expect("a variable")))
            .env("KEYWARD_APP", "acme")
            // An attempt that is given up on a busy machine may be counted twice.
            .env("STORE_TIMEOUT", TIMEOUT.as_secs().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let url = timeout(TIMEOUT, lines.next_line()).await.expect("it starts in time").expect("a line");
        Self { process, users: format!("{}/v1/users", url.expect("it prints its URL")) }
    }

    /// Tells it to stop, and requires that it exits without an error.
    pub async fn stop(mut self) {
        let id = self.process.id().expect("an id").to_string();
        assert!(Command::new("kill").arg(id).status().await.is_ok_and(|status| status.success()));
        let status = timeout(TIMEOUT, self.process.wait()).await.expect("it stops").expect("a status");
        assert!(status.success(), "{status}");
    }
}

/// A local run, and processes on it that are killed.
pub struct Kills {
    program: &'static str,
    folder: TempDir,
    dev: Dev,
    backend: Backend,
    key: String,
}

/// The outcome of requests to processes that were killed.
#[derive(Debug)]
pub struct OfKills {
    /// The number that were answered.
    pub answered: usize,
    /// How long before the kill those were answered of which there is no event.
    pub lost: Vec<Duration>,
    /// The number of events that are in the table more than once.
    pub twice: usize,
}

impl Kills {
    /// A local run for processes of this program.
    pub async fn start(program: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { port: 0, data_dir: Some(folder.path().to_owned()), ephemeral: false };
        let dev = Dev::start(&options).await.expect("a local run");
        let described = dev.dev_json();
        let backend = Backend::new(&described.url, &described.root_key, reqwest::Client::new());
        backend.create_app("acme").await;
        let key = backend.create_key("acme", json!({"permissions": ["users:read"]})).await;
        Self { program, folder, dev, backend, key: text(&key["secret"]) }
    }

    /// Starts so many processes, one after the other, asks each until it is killed without warning, and counts.
    pub async fn measure(&self, durability: &str, kills: u64) -> OfKills {
        let change = json!({"audit_durability": durability});
        self.backend.patch("/api-auth/apps/acme", change).await.ok();
        let mut answered = vec![];
        for kill in 0..kills {
            answered.extend(self.answered_before_a_kill(durability, kill).await);
        }
        let logged = self.logged().await;
        let lost = answered.iter().filter(|(agent, _)| !logged.contains_key(agent));
        OfKills {
            answered: answered.len(),
            lost: lost.map(|(_, before)| *before).collect(),
            twice: logged.values().filter(|times| **times > 1).count(),
        }
    }

    pub async fn stop(self) {
        self.dev.stop().await;
    }

    /// The user agents of the requests that a process answered, each with the time from then to the kill.
    async fn answered_before_a_kill(&self, durability: &str, kill: u64) -> Vec<(String, Duration)> {
        let mut saas = Saas::start(self.program, self.folder.path()).await;
        let http = reqwest::Client::new();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (http, users, key) = (http.clone(), saas.users.clone(), self.key.clone());
            let name = format!("{durability}-{kill}-{task}");
            tasks.spawn(async move {
                let mut answered = vec![];
                for request in 0.. {
                    let agent = format!("{name}-{request}");
                    let request = http.get(&users).bearer_auth(&key).header("user-agent", &agent);
                    match request.send().await {
                        Ok(response) => {
                            assert_eq!(response.status(), 200);
                            answered.push((agent, Instant::now()));
                        }
                        Err(_killed) => break,
                    }
                }
                answered
            });
        }
        sleep(Duration::from_millis(50 + 7 * (kill % 10))).await;
        let killed = Instant::now();
        saas.process.kill().await.expect("a process");
        let answered = tasks.join_all().await.into_iter().flatten();
        answered.map(|(agent, at)| (agent, killed.saturating_duration_since(at))).collect()
    }

    /// The events of checks in the table: how often there is one with each user agent.
    async fn logged(&self) -> HashMap<String, usize> {
        let client = Client::new(self.dev.installation().sdk_config());
        let mut logged = HashMap::new();
        let scan = client.scan().table_name(TABLE).consistent_read(true);
        let mut pages = scan.into_paginator().items().send();
        while let Some(item) = pages.next().await {
            if let Some(agent) = item.expect("an item").get("user_agent").and_then(|agent| agent.as_s().ok())
            {
                *logged.entry(agent.clone()).or_default() += 1;
            }
        }
        logged
    }
}
