//! Rows that are copied by an attacker who can write the table and knows credentials of their own.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use keyward_cli::dev::TABLE;
use keyward_core::token::ApiKeyToken;
use keyward_tests::{Keyward, text};
use secrecy::ExposeSecret;
use serde_json::json;

type Row = HashMap<String, AttributeValue>;

async fn row(client: &Client, pk: &str, sk: &str) -> Row {
    let get = client.get_item().table_name(TABLE).consistent_read(true);
    let get = get.key("pk", AttributeValue::S(pk.into())).key("sk", AttributeValue::S(sk.into()));
    get.send().await.unwrap().item.unwrap()
}

async fn put(client: &Client, row: Row) {
    client.put_item().table_name(TABLE).set_item(Some(row)).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_copied_onto_another_id_never_verifies() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let client = Client::new(keyward.sdk_config());
    // The attacker's own key, whose secret they know, and somebody else's.
    let own = text(&backend.create_key("acme", json!({})).await["secret"]);
    let other = text(&backend.create_key("acme", json!({})).await["secret"]);
    let [own, other] = [&own, &other].map(|secret| ApiKeyToken::parse(secret).unwrap());
    let pk = |token: &ApiKeyToken| format!("KEY#{}", token.id.base62());
    let (own_row, other_row) = (row(&client, &pk(&own), "KEY").await, row(&client, &pk(&other), "KEY").await);
    // Somebody else's id with the secret that the attacker knows.
    let presented = ApiKeyToken { secret: own.secret, prefix: other.prefix.clone(), ..other };
    let presented = presented.reveal().expose_secret().to_owned();
    keyward.check(&presented).await.is_error(401, "invalid_api_key");

    let name = |name: &str| name.to_owned();
    for attributes in [
        vec!["tag"],
        vec!["tag", "pepper"],
        vec!["tag", "pepper", "id"],
        vec!["tag", "pepper", "key_suffix", "revision", "created_at"],
    ] {
        let mut forged = other_row.clone();
        forged.extend(attributes.iter().map(|attribute| (name(attribute), own_row[*attribute].clone())));
        put(&client, forged).await;
        let response = keyward.check(&presented).await;
        assert_ne!(response.body["allowed"], true, "{attributes:?}: {}", response.body);
        assert_ne!(response.status, 200, "{attributes:?}");
    }
    // The whole row under the other id.
    let mut forged = own_row.clone();
    forged.insert(name("pk"), AttributeValue::S(pk(&other)));
    put(&client, forged).await;
    assert_ne!(keyward.check(&presented).await.status, 200);
    // A tag from a row of another kind: of a session, of a ticket, of the root key.
    let scan =
        client.scan().table_name(TABLE).filter_expression("attribute_exists(tag)").send().await.unwrap();
    let others = scan.items().iter().filter(|row| !row["pk"].as_s().unwrap().starts_with("KEY#"));
    for kind in others {
        let mut forged = other_row.clone();
        forged.insert(name("tag"), kind["tag"].clone());
        put(&client, forged).await;
        keyward.check(&presented).await.is_error(401, "invalid_api_key");
    }
    // A row that says it lies beneath another version.
    let mut forged = other_row.clone();
    forged.insert(name("tag"), own_row["tag"].clone());
    forged.insert(name("peppers_beneath"), AttributeValue::L(vec![AttributeValue::N("1".into())]));
    put(&client, forged).await;
    keyward.check(&presented).await.is_error(401, "invalid_api_key");
    put(&client, other_row).await;
    let whole = other.reveal();
    assert_eq!(keyward.check(whole.expose_secret()).await.ok()["allowed"], true, "the row as it was");
}
