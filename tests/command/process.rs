//! A running `keyward dev`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, Region};
use keyward_cli::dev::DevJson;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

pub fn keyward(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the command to its end and returns its sentence, of a start that must fail.
#[track_caller]
pub fn refused(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = keyward(args).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stdout, b"");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.strip_prefix("keyward: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

pub struct Dev {
    child: Child,
    pub dir: PathBuf,
    pub json: DevJson,
}

impl Dev {
    /// Starts in this folder on a free port, and returns when `dev.json` is there and what it says is printed.
    pub fn start(dir: &Path, log: &str) -> Self {
        let dev_json = dir.join("dev.json");
        let last = fs::read(&dev_json).ok();
        fs::create_dir_all(dir).unwrap();
        let child = keyward(&["dev", "--port", "0", "--data-dir", dir.to_str().unwrap()])
            .env("KEYWARD_LOG", log)
            .stdout(File::create(dir.join("stdout")).unwrap())
            .stderr(File::options().create(true).append(true).open(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut dev = Self {
            child,
            dir: dir.to_owned(),
            json: serde_json::from_value(json!({
                "url": "", "root_key": "", "publishable_key": "", "deployment_id": "", "app_slug": "", "hosted_page_url": "",
            }))
            .unwrap(),
        };
        let start = Instant::now();
        loop {
            let now = fs::read(&dev_json).ok();
            if let Some(text) = now.filter(|text| Some(text) != last.as_ref()) {
                dev.json = serde_json::from_slice(&text).unwrap();
                if dev.printed().contains(&dev.json.hosted_page_url) {
                    return dev;
                }
            }
            if let Some(status) = dev.child.try_wait().unwrap() {
                panic!("{status}: {}", dev.log());
            }
            assert!(start.elapsed() < TIMEOUT, "{}", dev.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap()
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(self.dir.join("stdout")).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not stop: {}", self.log());
    }

    /// Tells it to stop, and requires that it exits without an error.
    pub fn stop(mut self, signal: &str) {
        self.signal(signal);
        let status = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", self.log());
    }

    /// The environment of the functions, and a client of its DynamoDB.
    pub async fn dynamodb(&self) -> (HashMap<String, String>, Client) {
        let env = fs::read_to_string(self.dir.join("functions.env")).unwrap();
        let env = env.lines().filter_map(|line| line.split_once('='));
        let env: HashMap<_, _> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = keyward_runtime::sdk_config()
            .endpoint_url(&env["AWS_ENDPOINT_URL_DYNAMODB"])
            .region(Region::new(env["AWS_REGION"].clone()))
            .credentials_provider(Credentials::new(&env["AWS_ACCESS_KEY_ID"], "none", None, None, "test"));
        let client = Client::new(&config.load().await);
        (env, client)
    }

    pub async fn backend(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.json.url);
        let mut request =
            reqwest::Client::new().request(method.parse().unwrap(), url).bearer_auth(&self.json.root_key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The status of a check of this key.
    pub async fn check(&self, http: &reqwest::Client, key: &str) -> Result<u16, reqwest::Error> {
        let body = json!({
            "principal": {"type": "api_key", "value": key}, "resource": "/v1/users", "method": "GET",
        });
        let response = http.post(format!("{}/v1/authz/check", self.json.url)).json(&body).send().await?;
        let status = response.status().as_u16();
        response.bytes().await?;
        Ok(status)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}
