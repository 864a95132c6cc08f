//! The tests' common parts: an installation for each test, the people who use one, and what they do with it.

mod access;
mod api;
mod backend;
mod browser;
mod calls;
pub mod coexistence;
mod faults;
mod gate;
pub mod lambda;
mod metrics;
pub mod process;
mod provider;
pub mod saas;
pub mod scenario;
mod soak;

use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_audit::Recorder;
use keyward_cli::dev::{DevJson, Installation, Options, TABLE};
use keyward_cli::{FUNCTIONS, table_shape};
use keyward_core::app::AppSettings;
use keyward_core::deployment::Mode;
use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::root_key::Scope;
use keyward_core::text::{KeyPrefix, Name, Slug};
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_core::{ApiKey, App, Clock, VerifiedKey};
use keyward_http::application;
use keyward_pepper::LocalKeyProvider;
use keyward_runtime::{Services, Settings, TrustedProxies, VerifyAuth};
use keyward_store::{OperatorAccess, Table, dynamodb_client, system_clock, system_entropy};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::net::TcpListener;

pub use access::{Access, GRANTS, Grant};
pub use api::{Credential, Operation, operations};
pub use backend::{Backend, text};
pub use browser::Browser;
pub use calls::{Call, Calls};
pub use faults::{Fault, Faults};
pub use gate::Gate;
pub use metrics::Metrics;
pub use provider::conforms;
pub use soak::Soak;

/// An installation, served on a port of its own until the test ends.
pub struct Keyward {
    pub url: String,
    /// The operator's.
    pub services: Services,
    /// The authorizer's.
    pub authorizer: Services,
    /// The calls of DynamoDB.
    pub calls: Calls,
    config: SdkConfig,
    provider: Arc<LocalKeyProvider>,
    pub described: DevJson,
    pub http: reqwest::Client,
    shift_ms: Arc<AtomicI64>,
    frozen: Arc<AtomicBool>,
    recorders: Vec<Recorder>,
}

/// A status and a JSON body.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    pub status: u16,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl ApiResponse {
    pub async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("a body");
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {status} {text}")),
        };
        Self { status, body, headers }
    }

    /// The body, of a response that must be a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Requires an error of this status and code, in the form that all errors have.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert!(self.body["message"].as_str().is_some_and(|m| !m.is_empty()), "{}", self.body);
        assert_eq!(self.body["errors"][0]["message"], self.body["message"], "{}", self.body);
        self
    }

    /// The body of an error but for what no two requests or installations have: the request's id, and the installation's
    /// URL before the page about the error.
    #[track_caller]
    pub fn without_id(&self) -> Value {
        let mut body = self.body.clone();
        let id = body.as_object_mut().and_then(|members| members.remove("request_id"));
        assert!(id.is_some_and(|id| id.is_string()), "{}", self.body);
        let page = text(&body["doc_url"]);
        body["doc_url"] = page.split_at(page.find("/errors/").expect("a page about errors")).1.into();
        body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Keyward {
    pub async fn start() -> Self {
        Self::start_with(VerifyAuth::Open).await
    }

    pub async fn start_with(verify_auth: VerifyAuth) -> Self {
        Self::start_set(|settings| settings.verify_auth = verify_auth).await
    }

    /// Starts an installation with settings that `set` has changed.
    pub async fn start_set(set: impl FnOnce(&mut Settings)) -> Self {
        let installation = installation().await;
        let (config, provider) = (installation.sdk_config().clone(), installation.provider());
        let describe =
            async |services: &Services| installation.describe(services).await.expect("a description");
        Self::start_over(config, provider, describe, set).await
    }

    /// Starts what serves the installation in this DynamoDB.
    pub async fn start_over(
        config: SdkConfig,
        provider: Arc<LocalKeyProvider>,
        describe: impl AsyncFnOnce(&Services) -> DevJson,
        set: impl FnOnce(&mut Settings),
    ) -> Self {
        let shift_ms = Arc::new(AtomicI64::new(0));
        let frozen = Arc::new(AtomicBool::new(false));
        let (shift, standing) = (shift_ms.clone(), frozen.clone());
        let clock = Clock::new(move || {
            let origin = if standing.load(Ordering::SeqCst) { DateTime::UNIX_EPOCH } else { Utc::now() };
            origin + TimeDelta::milliseconds(shift.load(Ordering::SeqCst))
        });
        let calls = Calls::default();
        let plain = dynamodb_client(&patient(&config));
        let start = async |calls: Calls, settings: Settings| {
            let config = plain.config().to_builder().interceptor(calls).build();
            let client = aws_sdk_dynamodb::Client::from_conf(config);
            let table = Table::new(client, TABLE, clock.clone(), system_entropy());
            Services::start(table, provider.clone(), settings).await.expect("services")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut settings = Settings {
            public_url: url.parse().expect("a URL"),
            verify_auth: VerifyAuth::Open,
            allowed_origins: vec![],
            trusted_proxies: TrustedProxies::default(),
        };
        set(&mut settings);
        let services = start(calls.clone(), settings.clone()).await;
        let mut routes = Router::new();
        let mut recorders = vec![];
        // Each function has its own, as on Lambda: what it sends is known to be from it.
        for function in FUNCTIONS {
            let services = start(calls.of(function.name), settings.clone()).await;
            recorders.push(services.recorder.clone());
            routes = routes.merge((function.routes)(&services).with_state(services));
        }
        let authorizer = start(calls.of("authorizer"), settings).await;
        recorders.push(authorizer.recorder.clone());
        let application = application(routes, services.clone());
        let service = application.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async { axum::serve(listener, service).await });
        let described = describe(&services).await;
        let http = reqwest::Client::new();
        Self {
            url,
            services,
            calls,
            config,
            provider,
            described,
            http,
            shift_ms,
            frozen,
            recorders,
            authorizer,
        }
    }

    /// Sets an attribute of the first deployment, as a command of the operator's may.
    pub async fn set_deployment(&self, attribute: &str, value: AttributeValue) {
        let id = self.deployment();
        let update = aws_sdk_dynamodb::Client::new(&self.config)
            .update_item()
            .table_name(TABLE)
            .key("pk", AttributeValue::S(format!("DEPLOYMENT#{id}#SETTINGS")))
            .key("sk", AttributeValue::S("DEPLOYMENT".to_owned()))
            .update_expression("SET #attribute = :value")
            .expression_attribute_names("#attribute", attribute)
            .expression_attribute_values(":value", value);
        update.send().await.expect("an update");
    }

    /// Moves the installation's clock on.
    pub fn pass(&self, time: TimeDelta) {
        self.shift_ms.fetch_add(time.num_milliseconds(), Ordering::SeqCst);
    }

    /// Stops the installation's clock at this instant: from now on only [`Self::pass`] moves it.
    pub fn freeze(&self, at: DateTime<Utc>) {
        self.shift_ms.store(at.timestamp_millis(), Ordering::SeqCst);
        self.frozen.store(true, Ordering::SeqCst);
    }

    /// A backend with the root key of the first deployment.
    pub fn backend(&self) -> Backend {
        Backend::new(&self.url, &self.described.root_key, self.http.clone())
    }

    /// A second deployment and a backend of its own.
    pub async fn other_deployment(&self, mode: Mode, origins: &[&str]) -> (DeploymentId, Backend) {
        let name = Name::parse("name", "Other").expect("a name");
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let deployment = self
            .services
            .store
            .create_deployment(&operator(), name, mode, origins)
            .await
            .expect("a deployment");
        (deployment.id, self.backend_with(deployment.id, &Scope::ALL).await)
    }

    /// A backend with a root key of these scopes.
    pub async fn backend_with(&self, deployment: DeploymentId, scopes: &[Scope]) -> Backend {
        let name = Name::parse("name", "Test").expect("a name");
        let created = self.services.store.create_root_key(&operator(), deployment, name, scopes).await;
        Backend::new(&self.url, created.expect("a root key").reveal().expose_secret(), self.http.clone())
    }

    pub fn deployment(&self) -> DeploymentId {
        self.services.public.deployment_id()
    }

    /// Checks a request to `GET /v1/users` with this key.
    pub async fn check(&self, key: &str) -> ApiResponse {
        self.check_with(check_body(key)).await
    }

    /// Sends this to the check, without a root key.
    pub async fn check_with(&self, body: Value) -> ApiResponse {
        self.backend().check_with(body).await
    }

    /// The configuration with which the AWS SDK reaches its DynamoDB.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// The provider that wraps its peppers.
    pub fn provider(&self) -> Arc<LocalKeyProvider> {
        self.provider.clone()
    }

    /// The services of another process of the same installation, with a clock and a DynamoDB client of its own.
    pub async fn process(&self, clock: Clock, client: aws_sdk_dynamodb::Client) -> Services {
        let settings = Settings::clone(&self.services.settings);
        let table = Table::new(client, TABLE, clock, system_entropy());
        Services::start(table, self.provider(), settings).await.expect("services")
    }

    /// Waits until what was decided is in the log.
    pub async fn settle(&self) {
        for recorder in &self.recorders {
            recorder.flush(FLUSH_TIME).await;
        }
    }
}

/// An installation on an embedded DynamoDB or, if `AWS_ENDPOINT_URL_DYNAMODB` names an emulator, there, in an account of its own.
pub async fn installation() -> Installation {
    let created = match env::var("AWS_ENDPOINT_URL_DYNAMODB") {
        Err(_) => {
            let options = Options { port: 0, data_dir: None, ephemeral: true };
            Installation::open(&options, 0).await
        }
        Ok(url) => {
            assert!(
                url.starts_with("http://127.0.0.1:") || url.starts_with("http://localhost:"),
                "an emulator: {url}"
            );
            // Emulators take a name of this form for the account's id.
            let number = u64::from_be_bytes(system_entropy().bytes().expect("randomness"));
            let account = format!("{:012}", number % 1_000_000_000_000);
            let credentials = Credentials::new(account, "test", None, None, "emulator");
            let config = keyward_runtime::sdk_config()
                .endpoint_url(url)
                .region(Region::from_static("us-east-1"))
                .credentials_provider(credentials);
            Installation::create_in(patient(&config.load().await), system_clock(), system_entropy()).await
        }
    };
    created.expect("an installation")
}

/// This configuration, with which a call is given up after half a minute: a machine that is busy with other tests, or an
/// engine that takes long over a table, is no store that fails.
fn patient(config: &SdkConfig) -> SdkConfig {
    let patience = Duration::from_secs(30);
    let timeouts = TimeoutConfig::builder().operation_timeout(patience).operation_attempt_timeout(patience);
    config.to_builder().timeout_config(timeouts.build()).build()
}

/// The operator's access, which only the command has.
pub fn operator() -> OperatorAccess {
    OperatorAccess::assume()
}

/// A key with this number whose secret was presented, of an app with that one. Neither is in any table.
pub fn verified(app: AppNumber, id: KeyId) -> VerifiedKey {
    let (deployment, pepper) = (DeploymentId::new(1).expect("an id"), PepperVersion(1));
    let prefix = KeyPrefix::parse("key_prefix", "sk").expect("a prefix");
    let token = ApiKeyToken { prefix: prefix.clone(), app, id, secret: Secret::from_random(&[1; 32]) };
    let (slug, name) =
        (Slug::parse("slug", "acme").expect("a slug"), Name::parse("name", "Acme").expect("a name"));
    let now = DateTime::UNIX_EPOCH;
    let of_app = App {
        number: app,
        deployment_id: deployment,
        app_slug: slug.clone(),
        user_id: None,
        settings: AppSettings::new(name.clone(), prefix.clone()),
        created_at: now,
        updated_at: now,
        deleted_at: None,
        revision: 1,
    };
    let key = ApiKey {
        id,
        deployment_id: deployment,
        app,
        app_slug: slug,
        name,
        key_prefix: prefix,
        key_suffix: token.suffix(),
        permissions: vec![],
        org_role_permissions: vec![],
        workspace_role_permissions: vec![],
        rate_limit_scheme_slug: None,
        metadata: Metadata::default(),
        owner: Owner::default(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_reason: None,
        created_at: now,
        updated_at: now,
        revision: 1,
    };
    let ring = Keyring::new(pepper, [(pepper, &[1; 32])]).expect("a pepper");
    let tag = ring.tag_api_key(deployment, &token).expect("a tag");
    let matched = ring.verify(deployment, &token, &tag).expect("a pepper").expect("the same secret");
    matched.of(key, of_app).expect("a key of that app")
}

/// Creates a table of this name.
pub async fn create_table(config: &SdkConfig, name: &str) {
    let table = Table::new(dynamodb_client(&patient(config)), name, Clock::new(Utc::now), system_entropy());
    let shape = table_shape().expect("the shape of the table");
    table.create(&operator(), &shape).await.expect("a table");
}

/// Whether the engine counts units as DynamoDB and the embedded one do: twice for the writes of a transaction, and also for
/// reads of items that do not exist. DynamoDB Local, which LocalStack runs, does neither.
pub fn counts_as_dynamodb() -> bool {
    env::var_os("AWS_ENDPOINT_URL_DYNAMODB").is_none()
}

/// The time within which a test's store has what was recorded.
pub const FLUSH_TIME: Duration = Duration::from_secs(30);

/// The longest line that a function logs for a check, in bytes.
pub const REQUEST_LOG_BYTES: usize = 400;

pub fn check_body(key: &str) -> Value {
    serde_json::json!({
        "principal": {"type": "api_key", "value": key},
        "resource": "/v1/users",
        "method": "GET",
    })
}
