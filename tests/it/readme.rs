//! The Rust of the README, as it stands there.

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use keyward_runtime::Services;
use keyward_verifier::{ApiKeyLayer, Verifier};
use tower::ServiceExt;
use wacht::api::api_keys::CreateApiKeyRequest;
use wacht::{WachtClient, WachtConfig};

use keyward_tests::Keyward;

async fn list_users() -> &'static str {
    "Ada, Grace"
}

async fn sample(root_key: &str, url: &str, verifier: Verifier) -> Result<(String, Router), Box<dyn Error>> {
    // Your backend makes a key.
    let mut config = WachtConfig::new(root_key, url);
    config.base_url = url.to_owned();
    let wacht = WachtClient::new(config)?;
    let permissions = Some(vec!["users:read".to_owned()]);
    let key = CreateApiKeyRequest { name: "CI".to_owned(), permissions, expires_at: None, metadata: None };
    let made = wacht.api_keys().create_api_key("acme", key).send().await?;
    println!("{}", made.secret);

    // Your API lets requests through that have the key of such an app, with the permission.
    let keys = ApiKeyLayer::app(verifier, "acme")?.require("users:read")?;
    let api = Router::new().route("/v1/users", get(list_users).route_layer(keys));
    Ok((made.secret, api))
}

#[tokio::test(flavor = "multi_thread")]
async fn its_rust_does_what_it_says() {
    let readme = include_str!("../../README.md");
    let block = readme.split_once("\n```rust\n").unwrap().1.split_once("```\n").unwrap().0;
    let unindented = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(unindented(include_str!("readme.rs")).contains(&unindented(block)), "{block}");

    let keyward = Keyward::start().await;
    keyward.backend().create_app("acme").await;
    let Services { store, recorder, public, .. } = keyward.authorizer.clone();
    let verifier = Verifier::new(store, recorder, public.deployment_id());
    let (secret, api) = sample(&keyward.described.root_key, &keyward.url, verifier).await.unwrap();
    let status = async |authorization: &str| {
        let request = Request::get("/v1/users").header("authorization", authorization);
        api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    assert_eq!(status(&format!("Bearer {secret}")).await, 200);
    assert_eq!(status("").await, 401);
}
