//! DynamoDB in this process: an emulator on SQLite behind its HTTP interface, so that the AWS SDK uses it as it uses
//! AWS.
//!
//! It serves clients that have its random access key, which no other user of this machine and no page has. It checks no
//! signature, and serves no browser.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use dynoxide::{Database, DynoxideError};
use keyward_runtime::sdk_config;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::server;

/// The region that the emulator is spoken to as.
pub const REGION: &str = "us-east-1";
/// The longest body that DynamoDB takes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A running emulator. Dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct EmbeddedDynamoDb {
    address: SocketAddr,
    access_key: SecretString,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
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
        // What the library calls the end of a bulk load is SQLite's `synchronous = NORMAL`: with its write-ahead log no commit
        // waits for the disk, and only a crash of the whole machine takes the last ones back (SQLite, "PRAGMA synchronous").
        database.disable_bulk_loading().map_err(|error| error.to_string())?;
        // Reads the catalogue, which opening alone does not.
        database.database_info().map_err(|error| error.to_string())?;
        Ok(database)
    }

    /// Serves the database on this port of the loopback address, to who has this access key; 0 picks a free one.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn serve(database: Database, port: u16, access_key: SecretString) -> std::io::Result<Self> {
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
        let api = Api { database, access_key: access_key.clone() };
        let routes = Router::new()
            .route("/", post(respond))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::new(api));
        let task = tokio::spawn(server::serve(listener, routes, stopped));
        Ok(Self { address, access_key, stop, task, sweep })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The access key that requests to it are signed with.
    pub fn access_key(&self) -> &SecretString {
        &self.access_key
    }

    /// The configuration with which the AWS SDK reaches it.
    pub async fn sdk_config(&self) -> SdkConfig {
        sdk_config_at(&self.url(), self.access_key.expose_secret()).await
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
pub(crate) async fn sdk_config_at(url: &str, access_key: &str) -> SdkConfig {
    sdk_config()
        .endpoint_url(url)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(access_key, access_key, None, None, "embedded"))
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

/// DynamoDB's low-level API (Amazon DynamoDB Developer Guide, "DynamoDB low-level API").
struct Api {
    database: Database,
    access_key: SecretString,
}

async fn respond(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let (status, body) = if server::is_from_browser(&headers) || !api.admits(&headers) {
        let message = "The security token included in the request is invalid.";
        (400, json_error("com.amazon.coral.service#UnrecognizedClientException", message))
    } else {
        api.call(&headers, &body).unwrap_or_else(|error| (error.status_code(), error.to_json()))
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body).into_response()
}

fn json_error(kind: &str, message: &str) -> String {
    serde_json::json!({"__type": kind, "message": message}).to_string()
}

impl Api {
    /// Whether the request is signed with the access key (Signature Version 4, "Authorization header").
    fn admits(&self, headers: &HeaderMap) -> bool {
        let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credential = signed.and_then(|signed| signed.strip_prefix("AWS4-HMAC-SHA256 Credential="));
        let access_key = credential.and_then(|credential| credential.split('/').next());
        access_key.is_some_and(|access_key| access_key == self.access_key.expose_secret())
    }

    /// Calls the operation that `X-Amz-Target` names, of those that tables and items take.
    fn call(&self, headers: &HeaderMap, body: &[u8]) -> Result<(u16, String), DynoxideError> {
        let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let operation =
            target.and_then(|target| target.strip_prefix("DynamoDB_20120810.")).unwrap_or_default();
        macro_rules! one_of {
            ($($name:literal => $method:ident,)+) => {
                match operation {
                    $($name => call(body, |request| self.database.$method(request)),)+
                    _ => {
                        let message = format!("Unknown operation {operation:?}");
                        let kind = "com.amazon.coral.service#UnknownOperationException";
                        return Ok((400, json_error(kind, &message)));
                    }
                }
            };
        }
        let response = one_of! {
            "BatchGetItem" => batch_get_item,
            "BatchWriteItem" => batch_write_item,
            "CreateTable" => create_table,
            "DeleteItem" => delete_item,
            "DeleteTable" => delete_table,
            "DescribeTable" => describe_table,
            "DescribeTimeToLive" => describe_time_to_live,
            "GetItem" => get_item,
            "ListTables" => list_tables,
            "PutItem" => put_item,
            "Query" => query,
            "Scan" => scan,
            "TransactGetItems" => transact_get_items,
            "TransactWriteItems" => transact_write_items,
            "UpdateItem" => update_item,
            "UpdateTable" => update_table,
            "UpdateTimeToLive" => update_time_to_live,
        };
        response.map(|response| (200, response))
    }
}

fn call<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_slice(body);
    let request = request.map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    serde_json::to_string(&operation(request)?)
        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
