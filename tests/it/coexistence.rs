//! The rows that the previous release wrote, as `tests/releases` recorded them, with this release on the same table.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::ProvideCredentials;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyward_cli::dev::{DevJson, TABLE};
use keyward_core::hashing::Keyring;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::token::ApiKeyToken;
use keyward_pepper::{LocalKeyProvider, unlock};
use keyward_store::system_entropy;
use keyward_tests::coexistence::{self, Recording, Release, Renamed, Stage, Step, Write};
use keyward_tests::{Keyward, installation, operator};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::Value;

fn recording() -> Recording {
    serde_json::from_str(include_str!("../releases/recording.json")).unwrap()
}

/// The API of DynamoDB, spoken to with the bodies that were recorded.
struct DynamoDb {
    url: String,
    access_key: String,
    http: reqwest::Client,
}

impl DynamoDb {
    async fn of(config: &aws_config::SdkConfig) -> Self {
        let credentials = config.credentials_provider().unwrap().provide_credentials().await.unwrap();
        let access_key = credentials.access_key_id().to_owned();
        Self { url: config.endpoint_url().unwrap().to_owned(), access_key, http: reqwest::Client::new() }
    }

    async fn send(&self, operation: &str, sent: &Value) {
        let scope = format!("{}/20260101/us-east-1/dynamodb/aws4_request", self.access_key);
        let request = self
            .http
            .post(&self.url)
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header("content-type", "application/x-amz-json-1.0")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
            )
            .body(sent.to_string());
        let response = request.send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{operation} {sent}: {body}");
    }
}

/// An item without the time at which it is purged: that is long ago.
fn kept(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(attributes) = item.as_object_mut() {
        attributes.remove("purge_at");
    }
    item
}

/// The earlier release's part is sent to the table as it was recorded; this one does its own.
struct Replayed {
    keyward: Keyward,
    dynamodb: DynamoDb,
    peppers: Keyring,
    steps: std::vec::IntoIter<Step>,
    renamed: Renamed,
}

impl Replayed {
    /// A secret that the earlier release gave to a key that has another id now.
    fn rename_secret(&mut self, recorded: &str) {
        let token = ApiKeyToken::parse(recorded).unwrap();
        let now = |text: String| self.renamed.apply(&text.into()).as_str().unwrap().to_owned();
        let id = KeyId::from_base62(&now(token.id.base62())).unwrap();
        let app = AppNumber::from_base62(&now(token.app.base62())).unwrap();
        let now = ApiKeyToken { id, app, ..token }.reveal();
        self.renamed.note(&recorded.into(), &now.expose_secret().into());
    }

    /// Sends a write of a step that has this response.
    async fn write(&self, write: &Write, response: &Value) {
        let mut sent = self.renamed.apply(&write.sent);
        let puts = (0..10).map(|n| format!("/TransactItems/{n}/Put/Item"));
        for put in puts.chain(["/Item".to_owned()]) {
            if let Some(item) = sent.pointer_mut(&put) {
                *item = kept(item);
            }
        }
        // A tag is bound to the id of its key, which may be another one now.
        if let Some(tag) = sent.pointer_mut("/TransactItems/0/Update/ExpressionAttributeValues/:tag/B") {
            let token = ApiKeyToken::parse(response["secret"].as_str().unwrap()).unwrap();
            let tagged = self.peppers.tag_api_key(self.keyward.deployment(), &token).unwrap();
            *tag = BASE64_STANDARD.encode(tagged.bytes).into();
        }
        self.dynamodb.send(&write.operation, &sent).await;
    }
}

impl Stage for Replayed {
    async fn send(&mut self, release: Release, method: Method, path: &str, body: Value) -> (u16, Value) {
        let step = self.steps.next().expect("a recorded step");
        let recorded = (
            step.release,
            step.method,
            self.renamed.apply(&step.path.into()),
            self.renamed.apply(&step.body),
        );
        assert_eq!(
            recorded,
            (release, method.to_string(), path.into(), body.clone()),
            "the play is the recorded one"
        );
        self.keyward.freeze(step.at);
        match release {
            Release::Earlier => {
                if let Some(secret) = step.response["secret"].as_str() {
                    self.rename_secret(secret);
                }
                let response = self.renamed.apply(&step.response);
                for write in &step.writes {
                    self.write(write, &response).await;
                }
                (step.status, response)
            }
            Release::This => {
                let (status, response) = coexistence::send(&self.keyward.backend(), method, path, body).await;
                self.keyward.settle().await;
                assert_eq!(status, step.status, "{response}");
                self.renamed.note(&step.response, &response);
                (status, response)
            }
        }
    }
}

/// An installation with the rows and the key of the recorded one.
async fn replayed(recording: &Recording) -> Keyward {
    let config = installation().await.sdk_config().clone();
    let client = Client::new(&config);
    let own = client.scan().table_name(TABLE).consistent_read(true).send().await.unwrap();
    for item in own.items.unwrap_or_default() {
        let key: HashMap<String, AttributeValue> =
            ["pk", "sk"].map(|name| (name.to_owned(), item[name].clone())).into();
        client.delete_item().table_name(TABLE).set_key(Some(key)).send().await.unwrap();
    }
    let dynamodb = DynamoDb::of(&config).await;
    for item in &recording.items {
        dynamodb.send("PutItem", &serde_json::json!({"TableName": TABLE, "Item": kept(item)})).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pepper.key");
    let digits = |at: usize| u8::from_str_radix(&recording.key[at..at + 2], 16).unwrap();
    std::fs::write(&file, (0..recording.key.len()).step_by(2).map(digits).collect::<Vec<u8>>()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let provider = LocalKeyProvider::open(&file, TABLE, system_entropy()).unwrap();
    let root_key = recording.root_key.clone();
    let described = async |_: &_| DevJson {
        url: String::new(),
        root_key,
        publishable_key: String::new(),
        deployment_id: String::new(),
        app_slug: String::new(),
        hosted_page_url: String::new(),
    };
    Keyward::start_over(config, provider.into(), described, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_rollback_lose_and_widen_nothing_of_the_previous_release() {
    let recording = recording();
    let keyward = replayed(&recording).await;
    keyward.freeze(recording.at);
    let dynamodb = DynamoDb::of(keyward.sdk_config()).await;
    let peppers = keyward.services.store.table().peppers(&operator()).await.unwrap();
    let peppers = unlock(&*keyward.provider(), &peppers, None).await.unwrap();
    let steps = recording.steps.into_iter();
    let mut stage = Replayed { keyward, dynamodb, peppers, steps, renamed: Renamed::default() };
    coexistence::play(&mut stage).await;
    assert_eq!(stage.steps.len(), 0, "all of it was played");
}

#[test]
fn the_recording_is_of_the_release_that_is_named() {
    assert_eq!(recording().commit, include_str!("../releases/earlier").trim());
}
