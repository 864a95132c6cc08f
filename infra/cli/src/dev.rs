//! `keyward dev`: a whole installation in one process.
//!
//! All functions' routes on one port, over an embedded DynamoDB whose table is created from `template.yaml`, with a
//! key file instead of KMS. No completed request is lost: a clean stop finishes running requests and writes the audit
//! events that are still queued.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use chrono::TimeDelta;
use keyward_core::app::{AppSettings, NewApp};
use keyward_core::audit::Origin;
use keyward_core::deployment::Mode;
use keyward_core::id::DeploymentId;
use keyward_core::root_key::Scope;
use keyward_core::session::Capability;
use keyward_core::text::{KeyPrefix, Name, Slug};
use keyward_core::token::{RootKey, Token};
use keyward_core::web_origin::{InvalidPublicUrl, PublicUrl};
use keyward_core::{Clock, Entropy};
use keyward_http::application;
use keyward_pepper::{LocalKeyProvider, PepperError};
use keyward_runtime::{Services, Settings, TrustedProxies, VerifyAuth, publishable_key};
use keyward_store::{
    Error, NewTicket, OperatorAccess, Store, Table, dynamodb_client, system_clock, system_entropy,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use crate::dev_error::DevError;
use crate::embedded::{EmbeddedDynamoDb, REGION};
use crate::files::DataDir;
pub use crate::files::DevJson;
use crate::routes;
use crate::server;
use crate::set_up::{self, SetUpError};
use crate::template::table_shape;

/// The table's name in local runs.
pub const TABLE: &str = "keyward";
/// Where data is kept unless another folder is named.
pub const DEFAULT_DATA_DIR: &str = ".keyward";
const DEMO_APP: &str = "demo";
/// The time that running requests have to finish when the process is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port to listen on; 0 picks a free one.
    pub port: u16,
    /// Where `dev.json` and kept data go.
    pub data_dir: Option<PathBuf>,
    /// Keep the data in memory only.
    pub ephemeral: bool,
}

/// Where an installation is kept.
struct Storage {
    config: SdkConfig,
    dynamodb: Option<EmbeddedDynamoDb>,
    folder: Option<DataDir>,
    ephemeral: bool,
}

/// A DynamoDB that holds an installation: the table, a pepper, a deployment, a root key and a demo app.
#[derive(Debug)]
pub struct Installation {
    config: SdkConfig,
    /// The embedded one, if that holds it.
    dynamodb: Option<EmbeddedDynamoDb>,
    table: Table,
    provider: Arc<LocalKeyProvider>,
    deployment: DeploymentId,
    root_key: SecretString,
    folder: Option<DataDir>,
    ephemeral: bool,
}

impl Installation {
    /// Opens the installation that the options name, or creates it. `port` is the embedded DynamoDB's own.
    ///
    /// # Errors
    /// [`DevError`].
    pub async fn open(options: &Options, port: u16) -> Result<Self, DevError> {
        let kept = (!options.ephemeral).then(|| Path::new(DEFAULT_DATA_DIR));
        let folder = options.data_dir.as_deref().or(kept).map(DataDir::open).transpose()?;
        if options.ephemeral
            && let Some(folder) = folder.as_ref().filter(|folder| folder.database().exists())
        {
            return Err(DevError::HoldsData(folder.path().to_owned()));
        }
        let file = folder.as_ref().filter(|_| !options.ephemeral).map(DataDir::database);
        let access_key = match folder.as_ref().filter(|_| !options.ephemeral) {
            Some(folder) => {
                folder.make_database()?;
                access_key(folder)?
            }
            None => new_access_key()?,
        };
        let damaged = |detail| DevError::Damaged(file.clone().unwrap_or_default(), detail);
        let database = EmbeddedDynamoDb::open(file.as_deref()).map_err(damaged)?;
        let dynamodb = EmbeddedDynamoDb::serve(database, port, access_key).await;
        let dynamodb = dynamodb.map_err(|error| DevError::Port(port, error))?;
        let config = dynamodb.sdk_config().await;
        let storage = Storage { config, dynamodb: Some(dynamodb), folder, ephemeral: options.ephemeral };
        Self::set_up(storage, system_clock(), system_entropy()).await
    }

    /// Creates an installation in the DynamoDB that this configuration reaches, with a key that is kept nowhere: for tests
    /// on an emulator.
    ///
    /// # Errors
    /// [`DevError`].
    pub async fn create_in(config: SdkConfig, clock: Clock, entropy: Entropy) -> Result<Self, DevError> {
        let storage = Storage { config, dynamodb: None, folder: None, ephemeral: true };
        Self::set_up(storage, clock, entropy).await
    }

    async fn set_up(storage: Storage, clock: Clock, entropy: Entropy) -> Result<Self, DevError> {
        let Storage { config, dynamodb, folder, ephemeral } = storage;
        let kept = folder.as_ref().filter(|_| !ephemeral);
        let table = Table::new(dynamodb_client(&config), TABLE, clock, entropy.clone());
        let shape = table_shape().map_err(|error| DevError::Start(format!("template.yaml: {error}")))?;
        let operator = OperatorAccess::assume();
        table.create(&operator, &shape).await.map_err(|error| match kept {
            Some(folder) => DevError::Damaged(folder.database(), error.to_string()),
            None => error.into(),
        })?;
        let key_file = kept.map(DataDir::key_file);
        let provider = Arc::new(key_provider(&operator, &table, key_file.as_deref(), entropy).await?);
        let failed = |error: SetUpError| match (error, &key_file) {
            (SetUpError::Pepper(error), Some(key_file)) => DevError::KeyFile(key_file.clone(), error),
            (error, _) => DevError::Start(error.to_string()),
        };
        set_up::first_pepper(&operator, &table, &*provider).await.map_err(failed)?;
        let store =
            Store::open(table.clone(), provider.clone()).await.map_err(|error| failed(error.into()))?;
        let name = Name::parse("name", "Local")?;
        let (deployment, root_key) =
            match set_up::first_deployment(&operator, &store, name, Mode::Staging).await? {
                (deployment, Some(token)) => (deployment.id, token.reveal()),
                (deployment, None) => {
                    let last = folder.as_ref().and_then(DataDir::read_dev_json);
                    (deployment.id, root_key(&operator, &store, deployment.id, last).await?)
                }
            };
        Ok(Self { config, dynamodb, table, provider, deployment, root_key, folder, ephemeral })
    }

    /// Where its DynamoDB is reached.
    pub fn store_url(&self) -> &str {
        self.config.endpoint_url().unwrap_or_default()
    }

    /// The configuration with which the AWS SDK reaches its DynamoDB.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// The key provider that wraps its peppers.
    pub fn provider(&self) -> Arc<LocalKeyProvider> {
        self.provider.clone()
    }

    /// The services of an installation that is reached at this URL.
    ///
    /// # Errors
    /// [`DevError::Start`].
    pub async fn services(&self, public_url: PublicUrl) -> Result<Services, DevError> {
        let settings = Settings {
            public_url,
            verify_auth: VerifyAuth::Open,
            allowed_origins: vec![],
            trusted_proxies: TrustedProxies::default(),
        };
        Ok(Services::start(self.table.clone(), self.provider.clone(), settings).await?)
    }

    /// Creates the demo app unless there is one, and tells what a program needs to use the installation.
    ///
    /// # Errors
    /// [`DevError::Start`].
    pub async fn describe(&self, services: &Services) -> Result<DevJson, DevError> {
        let store = &services.store;
        let token = Token::<RootKey>::parse(self.root_key.expose_secret());
        let token = token.map_err(|error| DevError::Start(error.to_string()))?;
        let access = store.authenticate_root_key(token, Origin::new(None, "keyward dev", None)).await?;
        let slug = Slug::parse("app_slug", DEMO_APP)?;
        let settings =
            AppSettings::new(Name::parse("name", "Demo")?, KeyPrefix::parse("key_prefix", "demo")?);
        let demo = NewApp { app_slug: slug.clone(), user_id: None, settings };
        match store.create_app(&access, demo).await {
            Ok(_) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let ticket = NewTicket {
            app_slug: slug,
            actor: None,
            capabilities: Capability::ALL.to_vec(),
            lifetime: TimeDelta::hours(1),
        };
        let url = &services.settings.public_url;
        let page = format!("{url}/vanity/api-auth");
        let hosted_page_url = match store.issue_ticket(&access, ticket).await {
            Ok((_, token)) => format!("{page}?ticket={}", token.reveal().expose_secret()),
            // Somebody disabled or deleted the demo app.
            Err(Error::Forbidden(_) | Error::NotFound(_)) => page,
            Err(error) => return Err(error.into()),
        };
        Ok(DevJson {
            url: url.to_string(),
            root_key: self.root_key.expose_secret().to_owned(),
            publishable_key: publishable_key(url.as_str(), Mode::Staging),
            deployment_id: self.deployment.to_string(),
            app_slug: DEMO_APP.to_owned(),
            hosted_page_url,
        })
    }

    /// Writes `dev.json` into the data folder, if there is one.
    ///
    /// # Errors
    /// [`DevError::Folder`].
    pub fn announce(&self, dev: &DevJson) -> Result<(), DevError> {
        self.folder.as_ref().map_or(Ok(()), |folder| folder.write_dev_json(dev))
    }

    /// Writes `functions.env` into the data folder: the environment in which the Lambda functions use this
    /// installation. Returns where it is.
    ///
    /// # Errors
    /// There is no data folder, or it cannot be written.
    pub fn write_functions_env(&self, public_url: &str) -> Result<PathBuf, DevError> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.ephemeral) else {
            return Err(DevError::Start("the functions need the key file of a kept installation".into()));
        };
        let Some(dynamodb) = &self.dynamodb else {
            return Err(DevError::Start("the functions need the embedded DynamoDB".into()));
        };
        let access_key = dynamodb.access_key().expose_secret();
        let key_file =
            std::path::absolute(folder.key_file()).map_err(|error| DevError::Start(error.to_string()))?;
        let lines = [
            ("AWS_ENDPOINT_URL_DYNAMODB", self.store_url().to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            (ACCESS_KEY_ID, access_key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", access_key.to_owned()),
            ("KEYWARD_INSTALLATION", TABLE.to_owned()),
            ("KEYWARD_TABLE", TABLE.to_owned()),
            ("KEYWARD_KEY_FILE", key_file.display().to_string()),
            ("KEYWARD_PUBLIC_URL", public_url.to_owned()),
            ("KEYWARD_VERIFY_AUTH", "open".to_owned()),
            ("KEYWARD_APPS", "ANY".to_owned()),
        ];
        let text: String = lines.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        folder.write_private(&folder.functions_env(), text.as_bytes())?;
        Ok(folder.functions_env())
    }

    /// Closes the database. What is not to be kept is gone.
    pub async fn close(self) {
        if self.ephemeral
            && let Some(folder) = &self.folder
        {
            folder.remove_dev_json();
        }
        if let Some(dynamodb) = self.dynamodb {
            dynamodb.stop().await;
        }
    }
}

const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const ACCESS_KEY_PREFIX: &str = "keyward-";

/// The embedded DynamoDB's access key of the last run, so that functions which were started in its environment go on, or a
/// new one.
fn access_key(folder: &DataDir) -> Result<SecretString, DevError> {
    let last = folder.read_functions_env().and_then(|mut env| env.remove(ACCESS_KEY_ID));
    // Earlier releases had a key that everybody knows.
    last.filter(|key| key.starts_with(ACCESS_KEY_PREFIX)).map_or_else(new_access_key, |key| Ok(key.into()))
}

fn new_access_key() -> Result<SecretString, DevError> {
    let number = u128::from_be_bytes(system_entropy().bytes().map_err(Error::from)?);
    Ok(format!("{ACCESS_KEY_PREFIX}{number:032x}").into())
}

/// The key provider. A key file is made only for a table without peppers: a new key would open none of them.
async fn key_provider(
    operator: &OperatorAccess,
    table: &Table,
    key_file: Option<&Path>,
    entropy: Entropy,
) -> Result<LocalKeyProvider, DevError> {
    let failed = |error: PepperError| DevError::Start(error.to_string());
    let provider = match key_file {
        None => LocalKeyProvider::in_memory(TABLE, entropy),
        Some(key_file) if table.peppers(operator).await?.is_empty() => {
            LocalKeyProvider::open_or_create(key_file, TABLE, entropy)
        }
        Some(key_file) => LocalKeyProvider::open(key_file, TABLE, entropy),
    };
    provider.map_err(failed)
}

/// The root key of the last run, if it is still one of this installation's, or a new one.
async fn root_key(
    operator: &OperatorAccess,
    store: &Store,
    deployment: DeploymentId,
    last: Option<DevJson>,
) -> Result<SecretString, DevError> {
    if let Some(token) = last.and_then(|last| Token::<RootKey>::parse(&last.root_key).ok()) {
        let presented = token.reveal();
        match store.authenticate_root_key(token, Origin::default()).await {
            Ok(access) if access.deployment_id() == deployment => return Ok(presented),
            Ok(_) | Err(Error::Unauthenticated) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name = Name::parse("name", "Local root key")?;
    let created = store.create_root_key(operator, deployment, name, &Scope::ALL).await?;
    Ok(created.reveal())
}

/// A running installation.
#[derive(Debug)]
pub struct Dev {
    installation: Installation,
    services: Services,
    described: DevJson,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Dev {
    /// Starts an installation and returns when it accepts requests.
    ///
    /// # Errors
    /// [`DevError`].
    pub async fn start(options: &Options) -> Result<Self, DevError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await;
        let listener = listener.map_err(|error| DevError::Port(options.port, error))?;
        let address = listener.local_addr().map_err(|error| DevError::Port(options.port, error))?;
        let installation = Installation::open(options, 0).await?;
        let url = format!("http://{address}").parse();
        let url = url.map_err(|error: InvalidPublicUrl| DevError::Start(error.to_string()))?;
        let services = installation.services(url).await?;
        let application = application(routes(&services), services.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server::serve(listener, application, async {
            // Stopping by dropping the sender is stopping too.
            let _told = stopped.await;
        }));
        let described = installation.describe(&services).await?;
        if installation.folder.is_some() && !options.ephemeral {
            installation.write_functions_env(&described.url)?;
        }
        installation.announce(&described)?;
        Ok(Self { installation, services, described, stop, server })
    }

    /// The description that a program needs to use it.
    pub fn dev_json(&self) -> &DevJson {
        &self.described
    }

    /// The installation behind it.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The services behind its routes.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Finishes running requests, writes what is queued, and closes the database.
    pub async fn stop(self) {
        // Fails only if the server has ended already.
        let _told = self.stop.send(());
        if tokio::time::timeout(SHUTDOWN_GRACE, self.server).await.is_err() {
            tracing::warn!("requests were still running and were aborted");
        }
        self.services.recorder.close().await;
        drop(self.services);
        self.installation.close().await;
    }
}
