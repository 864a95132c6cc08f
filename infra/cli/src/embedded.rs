//! DynamoDB in this process: an emulator on SQLite behind its HTTP interface, so that the AWS SDK speaks to it as it
//! speaks to AWS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use dynoxide::Database;
use keyward_http::sdk_config;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The access key that the emulator is spoken to with. It checks no secret.
pub const ACCESS_KEY: &str = "keyward";
/// The region that the emulator is spoken to as.
pub const REGION: &str = "us-east-1";

/// A running emulator. Dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct EmbeddedDynamoDb {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
    sweep: JoinHandle<()>,
}

impl EmbeddedDynamoDb {
    /// Opens the database in this file, made if it is not there, or one in memory.
    ///
    /// # Errors
    /// The file cannot be opened, or is damaged: the text says which.
    pub fn open(file: Option<&Path>) -> Result<Database, String> {
        let database = match file {
            Some(file) => Database::new(&file.to_string_lossy()),
            None => Database::memory(),
        };
        let database = database.map_err(|error| error.to_string())?;
        // Reads the catalogue, which opening alone does not.
        database.database_info().map_err(|error| error.to_string())?;
        Ok(database)
    }

    /// Serves the database on this port of the loopback address; 0 picks a free one.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn serve(database: Database, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // Dropping the sender is no reason to stop.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let sweep = tokio::spawn(sweep(database.clone()));
        let task = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, stopped));
        Ok(Self { address, stop, task, sweep })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The configuration with which the AWS SDK reaches it.
    pub async fn sdk_config(&self) -> SdkConfig {
        sdk_config_at(&self.url()).await
    }

    /// Finishes the requests that it is answering and closes the database.
    pub async fn stop(self) {
        self.sweep.abort();
        let _aborted = self.sweep.await;
        // Either fails only if the server has stopped already.
        let _stopped = self.stop.send(());
        let _ended = self.task.await;
    }
}

/// The configuration with which the AWS SDK reaches an emulator at this URL.
pub(crate) async fn sdk_config_at(url: &str) -> SdkConfig {
    sdk_config()
        .endpoint_url(url)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "embedded"))
        .load()
        .await
}

/// Deletes what its TTL says, once a minute, as DynamoDB does sooner or later.
async fn sweep(database: Database) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        minutes.tick().await;
        if let Err(error) = database.sweep_ttl() {
            tracing::warn!(%error, "items past their TTL were not deleted");
        }
    }
}
