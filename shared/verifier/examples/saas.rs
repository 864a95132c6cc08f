//! The API of a SaaS that checks its customers' keys in its own process.
//!
//! | variable | |
//! |---|---|
//! | `KEYWARD_INSTALLATION` | the stack's name |
//! | `KEYWARD_TABLE` | its output `TableName` |
//! | `KEYWARD_KMS_KEY_ID` | its output `KeyArn`, or |
//! | `KEYWARD_KEY_FILE` | the key file of a local run |
//! | `KEYWARD_APP` | the slug of the app whose keys open this API |
//! | `PORT` | where to listen on the loopback address (default: any free port) |
//! | `STORE_TIMEOUT` | how many seconds the table is given for a check (default: as Keyward has it) |
//!
//! and those of the AWS SDK. `cargo run` writes all but the app and the port to `.keyward/functions.env` for a local run.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use keyward_verifier::{ApiKeyLayer, Decision, InvalidField, Verifier};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("saas: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let verifier = Verifier::builder(&sdk_config().await?)
        .installation(variable("KEYWARD_INSTALLATION")?)
        .table(variable("KEYWARD_TABLE")?);
    let verifier = match variable("KEYWARD_KMS_KEY_ID") {
        Ok(key) => verifier.kms_key(key),
        Err(_) => verifier.key_file(variable("KEYWARD_KEY_FILE")?),
    };
    let verifier = verifier.build().await?;

    let port = env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);
    let service =
        routes(&verifier, &variable("KEYWARD_APP")?)?.into_make_service_with_connect_info::<SocketAddr>();
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        })
        .await?;
    verifier.close().await;
    Ok(())
}

fn routes(verifier: &Verifier, app: &str) -> Result<Router, InvalidField> {
    let keys = ApiKeyLayer::app(verifier.clone(), app)?;
    let list = get(list_users).route_layer(keys.clone().require("users:read")?);
    let create = post(create_user).route_layer(keys.require("users:write")?);
    Ok(Router::new().route("/v1/users", list.merge(create)))
}

async fn list_users(Extension(decision): Extension<Arc<Decision>>) -> Json<Value> {
    let key = &decision.key;
    Json(json!({
        "users": [{"name": "Ada"}, {"name": "Grace"}],
        "asked_by": {"key_id": key.id, "key_name": key.name, "user_id": key.owner.owner_user_id},
    }))
}

async fn create_user(Extension(decision): Extension<Arc<Decision>>, Json(user): Json<Value>) -> Json<Value> {
    Json(json!({"user": user, "created_by": {"key_id": decision.key.id, "key_name": decision.key.name}}))
}

async fn sdk_config() -> Result<SdkConfig, Error> {
    // Where aws-config has its default features, it has this client too.
    let http = aws_smithy_http_client::Builder::new();
    let http = http.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    let Ok(seconds) = env::var("STORE_TIMEOUT") else { return Ok(config.load().await) };
    let patience = Duration::from_secs(seconds.parse()?);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(patience).operation_timeout(patience);
    Ok(config.timeout_config(timeouts.build()).load().await)
}

fn variable(name: &str) -> Result<String, Error> {
    env::var(name).map_err(|_| format!("the environment variable {name} is not set").into())
}
