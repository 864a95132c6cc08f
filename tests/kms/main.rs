//! Peppers on a KMS API, reached through the SDK's own variables (`AWS_ENDPOINT_URL_KMS`, `AWS_REGION`,
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`): an emulator's, in `.ci/run`. The table is in the DynamoDB that
//! `AWS_ENDPOINT_URL_DYNAMODB` names.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chrono::{TimeDelta, Utc};
use keyward_cli::set_up::first_deployment;
use keyward_core::Clock;
use keyward_core::deployment::Mode;
use keyward_core::text::Name;
use keyward_http::{Application, function, respond};
use keyward_pepper::{KmsKeyProvider, PepperError};
use keyward_runtime::{
    AssemblyError, ColdStart, Services, Settings, SettingsError, TrustedProxies, VerifyAuth,
};
use keyward_store::{PROPAGATION_TIME, Store, Table, dynamodb_client, system_entropy};
use keyward_tests::{Fault, Faults, check_body, conforms, create_table, operator};
use keyward_verifier::{Accepted, BuildError, Check, Target, Verifier};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

async fn config() -> SdkConfig {
    for name in ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_DYNAMODB"] {
        assert!(std::env::var(name).is_ok(), "{name} must name an API to test against");
    }
    keyward_runtime::sdk_config().load().await
}

/// The log of the tests so far, including lines of tests that run at the same time.
fn log() -> String {
    static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let lines = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(lines.clone())).init();
        log
    });
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

struct Lines(Arc<Mutex<Vec<u8>>>);

fn settings() -> Settings {
    Settings {
        public_url: "http://127.0.0.1".parse().unwrap(),
        verify_auth: VerifyAuth::Open,
        allowed_origins: vec![],
        trusted_proxies: TrustedProxies::default(),
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn new_key(config: &SdkConfig) -> String {
    let created = Client::new(config).create_key().send().await.expect("a key");
    created.key_metadata.expect("metadata").key_id
}

#[tokio::test]
async fn the_kms_key_provider_conforms() {
    let config = config().await;
    let key = new_key(&config).await;
    let provider = |installation: &str| KmsKeyProvider::new(&config, &key, installation);
    conforms(&provider("here"), &provider("elsewhere")).await;
}

/// An installation whose pepper is wrapped by KMS, and a KMS that can be made to fail for its processes.
struct Installed {
    config: SdkConfig,
    faults: Faults,
    key: String,
    name: String,
    table: Table,
    root_key: String,
    /// The number of seconds by which its clock is ahead.
    shift: Arc<AtomicI64>,
}

impl Installed {
    async fn new() -> Self {
        let config = config().await;
        let key = new_key(&config).await;
        let name = format!("kms-{}", u64::from_be_bytes(keyward_store::system_entropy().bytes().unwrap()));
        let shift = Arc::<AtomicI64>::default();
        let ahead = shift.clone();
        let clock = Clock::new(move || Utc::now() + TimeDelta::seconds(ahead.load(Ordering::SeqCst)));
        let table = Table::new(dynamodb_client(&config), &name, clock, system_entropy());
        create_table(&config, &name).await;
        let provider = Arc::new(KmsKeyProvider::new(&config, &key, "here"));
        table.rotate_pepper(&operator(), &*provider).await.unwrap();
        let store = Store::open(table.clone(), provider).await.unwrap();
        let called = Name::parse("name", "Here").unwrap();
        let (_, root_key) = first_deployment(&operator(), &store, called, Mode::Production).await.unwrap();
        let root_key = root_key.unwrap().reveal().expose_secret().to_owned();
        let faults = Faults::before(config.http_client().unwrap());
        Self { config, faults, key, name, table, root_key, shift }
    }

    /// The key provider of a process.
    fn provider(&self, installation: &str) -> Arc<KmsKeyProvider> {
        let config = self.config.to_builder().http_client(self.faults.clone()).build();
        Arc::new(KmsKeyProvider::new(&config, &self.key, installation))
    }

    /// A process of this installation, or of one that takes itself for another.
    fn function(&self, installation: &'static str) -> ColdStart<Application> {
        let (table, provider) = (self.table.clone(), self.provider(installation));
        let start = move || Services::start(table.clone(), provider.clone(), settings());
        function(start, |services| verify::routes(services).merge(key_lifecycle::routes(services)))
    }

    async fn ask(
        &self,
        function: &ColdStart<Application>,
        path: &str,
        body: Value,
    ) -> (u16, Value, Option<String>) {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.root_key))
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = respond(function, request).await.unwrap();
        let status = response.status().as_u16();
        let retry =
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap(), retry)
    }

    /// Creates an app and a key; returns its secret.
    async fn key_of(&self, function: &ColdStart<Application>, slug: &str) -> String {
        let app = json!({"app_slug": slug, "name": "App", "key_prefix": "sk"});
        assert_eq!(self.ask(function, "/api-auth/apps", app).await.0, 200);
        let (status, created, _) =
            self.ask(function, &format!("/api-auth/apps/{slug}/keys"), json!({"name": "K"})).await;
        assert_eq!(status, 200, "{created}");
        created["secret"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_kms_is_a_503_in_time_and_comes_about_later() {
    let installed = Installed::new().await;
    let first = installed.function("here");
    let secret = installed.key_of(&first, "acme").await;
    for fault in [
        Fault::Denied,
        Fault::Throttled,
        Fault::Failed,
        Fault::Refused,
        Fault::Slow(Duration::from_secs(10)),
        Fault::Garbage,
    ] {
        let function = installed.function("here");
        installed.faults.plan("Decrypt", 0, fault, usize::MAX);
        let before = log().lines().count();
        assert!(function.started().await.is_err(), "{fault:?}");
        let message: Vec<String> = log().lines().skip(before).map(str::to_owned).collect();
        let message: Vec<&String> =
            message.iter().filter(|line| line.contains("the function cannot start")).collect();
        assert!(message.iter().any(|line| line.contains("KMS failed: ")), "{fault:?}: {message:?}");
        let start = Instant::now();
        let (status, body, retry) = installed.ask(&function, "/v1/authz/check", check_body(&secret)).await;
        let took = start.elapsed();
        assert_eq!(
            (status, &body["code"], retry.as_deref()),
            (503, &json!("not_ready"), Some("1")),
            "{fault:?}: {body}"
        );
        assert!(took < Duration::from_secs(2), "{fault:?}: {took:?}");
        installed.faults.clear();
        let (status, body, _) = installed.ask(&function, "/v1/authz/check", check_body(&secret)).await;
        assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{fault:?}: {body}");
    }
    // The key is disabled, and the context is another's.
    let client = Client::new(&installed.config);
    client.disable_key().key_id(&installed.key).send().await.expect("an answer");
    let function = installed.function("here");
    let (status, body, _) = installed.ask(&function, "/v1/authz/check", check_body(&secret)).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_ready")), "a disabled key");
    client.enable_key().key_id(&installed.key).send().await.expect("an answer");
    let elsewhere = installed.function("elsewhere");
    let (status, body, _) = installed.ask(&elsewhere, "/v1/authz/check", check_body(&secret)).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_ready")), "another installation's context");
    let refused = Services::start(installed.table.clone(), installed.provider("elsewhere"), settings());
    let refused = refused.await.err();
    assert!(
        matches!(
            refused,
            Some(SettingsError::Assembly(AssemblyError::Pepper(
                PepperError::Foreign(_) | PepperError::Kms(_)
            )))
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_its_peppers_goes_on_without_kms() {
    let installed = Installed::new().await;
    let function = installed.function("here");
    let secret = installed.key_of(&function, "acme").await;
    let other = installed.function("here");
    assert!(other.started().await.is_ok());
    installed.faults.plan("", 0, Fault::Denied, usize::MAX);
    for slug in ["one", "two"] {
        let created = installed.key_of(&function, slug).await;
        let (status, body, _) = installed.ask(&function, "/v1/authz/check", check_body(&created)).await;
        assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{body}");
    }
    // Of a version that it has not seen it must ask KMS: no answer without it, and never an "allowed".
    installed
        .table
        .rotate_pepper(&operator(), &KmsKeyProvider::new(&installed.config, &installed.key, "here"))
        .await
        .unwrap();
    installed.faults.clear();
    let late = installed.function("here");
    let new = installed.key_of(&late, "three").await;
    installed.faults.plan("Decrypt", 0, Fault::Denied, usize::MAX);
    let (status, body, retry) = installed.ask(&other, "/v1/authz/check", check_body(&new)).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{body}");
    let (status, body, _) = installed.ask(&other, "/v1/authz/check", check_body(&secret)).await;
    assert_eq!((status, &body["allowed"]), (200, &json!(true)), "what it can verify, it does: {body}");
    // A minute after the rotation it makes no key with the version before.
    installed.shift.store(PROPAGATION_TIME.num_seconds(), Ordering::SeqCst);
    let path = "/api-auth/apps/acme/keys";
    let (status, body, retry) = installed.ask(&other, path, json!({"name": "Late"})).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{body}");
    let (status, body, _) = installed.ask(&other, "/v1/authz/check", check_body(&secret)).await;
    assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{body}");
    installed.faults.clear();
    let (status, body, _) = installed.ask(&other, "/v1/authz/check", check_body(&new)).await;
    assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_decrypts_each_live_version_once_and_a_verification_none() {
    let installed = Installed::new().await;
    let provider = KmsKeyProvider::new(&installed.config, &installed.key, "here");
    for _ in 0..2 {
        installed.table.rotate_pepper(&operator(), &provider).await.unwrap();
    }
    installed.faults.take_operations();
    let function = installed.function("here");
    function.started().await.map_err(|error| error.to_string()).unwrap();
    assert_eq!(installed.faults.take_operations(), ["Decrypt"; 3]);
    let secret = installed.key_of(&function, "acme").await;
    for _ in 0..20 {
        let (status, body, _) = installed.ask(&function, "/v1/authz/check", check_body(&secret)).await;
        assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{body}");
    }
    assert!(installed.faults.take_operations().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_is_built_on_kms() {
    let installed = Installed::new().await;
    let secret = installed.key_of(&installed.function("here"), "acme").await;
    let builder = |table: &str, installation: &str| {
        let builder = Verifier::builder(&installed.config).installation(installation).table(table);
        builder.kms_key(&installed.key).build()
    };
    let verifier = builder(&installed.name, "here").await.unwrap();
    let target = Target::parse("GET", "/v1/users").unwrap();
    let check = Check {
        presented: &secret,
        accepted: &Accepted::ANY,
        target: &target,
        required_permissions: &[],
        client_ip: "127.0.0.1".parse().ok(),
        user_agent: None,
        request_id: None,
    };
    assert!(verifier.check(&check, None).await.unwrap().allowed());
    verifier.close().await;
    assert!(matches!(builder(&installed.name, "elsewhere").await, Err(BuildError::Peppers(..))));
    let empty = format!("{}-empty", installed.name);
    create_table(&installed.config, &empty).await;
    assert!(matches!(builder(&empty, "here").await, Err(BuildError::Empty(_))));
    assert!(matches!(builder("none", "here").await, Err(BuildError::Table(..))));
}
