//! An attacker with a copy of the table and all log lines of the main job cannot confirm a credential that they guessed
//! or know: no hash, and no HMAC with anything in that copy, matches a stored value.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use keyward_core::hashing::PepperVersion;
use keyward_core::id::DeploymentId;
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_pepper::{KeyProvider, LocalKeyProvider};
use keyward_store::{OperatorAccess, Table, system_clock, system_entropy};
use ring::{digest, hmac};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::process::Dev;

const HASHES: [&digest::Algorithm; 4] =
    [&digest::SHA256, &digest::SHA384, &digest::SHA512, &digest::SHA512_256];
const HMACS: [hmac::Algorithm; 3] = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];

/// Every value in an item, in the bytes that it stands for.
fn values(value: &AttributeValue, all: &mut BTreeSet<Vec<u8>>) {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => words(text, all),
        AttributeValue::B(bytes) => {
            all.insert(bytes.as_ref().to_vec());
        }
        AttributeValue::L(list) => list.iter().for_each(|value| values(value, all)),
        AttributeValue::M(map) => map.values().for_each(|value| values(value, all)),
        _ => {}
    }
}

/// The text, its words, and what they are in hexadecimal and base 64.
fn words(text: &str, all: &mut BTreeSet<Vec<u8>>) {
    all.insert(text.as_bytes().to_vec());
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/_-".contains(c)) {
        all.insert(word.as_bytes().to_vec());
        if let Ok(number) = word.parse::<i64>() {
            all.insert(number.to_be_bytes().to_vec());
        }
        if word.len() >= 32 {
            let hex = (0..word.len() - word.len() % 2).step_by(2);
            let hex = hex.map(|at| u8::from_str_radix(&word[at..at + 2], 16)).collect::<Result<Vec<_>, _>>();
            all.extend(hex);
            all.extend(BASE64_STANDARD_NO_PAD.decode(word));
            all.extend(BASE64_URL_SAFE_NO_PAD.decode(word));
        }
    }
}

/// The texts of a credential that may have been hashed: the whole, its parts, and the message of docs/security.md.
fn messages(text: &str, deployment: DeploymentId, id: i64, label: &str) -> Vec<Vec<u8>> {
    let end = text.len() - 6;
    let secret = &text[end - 43..end];
    let tagged =
        [label.as_bytes(), &[0], &deployment.get().to_be_bytes(), &id.to_be_bytes(), secret.as_bytes()];
    let parts = [text, &text[..end], secret, &text[end - 54..end], &text[end - 54..]];
    parts.iter().map(|part| part.as_bytes().to_vec()).chain([tagged.concat()]).collect()
}

/// Whether a hash of one of the messages, or an HMAC of it with one of the keys, is a known value.
fn is_tested(known: &BTreeSet<Vec<u8>>, keys: &BTreeSet<Vec<u8>>, messages: &[Vec<u8>]) -> bool {
    let is_known = |digest: &[u8]| known.contains(digest);
    messages.iter().any(|message| {
        HASHES.iter().any(|algorithm| {
            let once = digest::digest(algorithm, message);
            is_known(once.as_ref()) || is_known(digest::digest(algorithm, once.as_ref()).as_ref())
        }) || keys.iter().any(|key| {
            let concatenated = [[key.as_slice(), message].concat(), [message, key.as_slice()].concat()];
            HMACS.iter().any(|algorithm| {
                is_known(hmac::sign(&hmac::Key::new(*algorithm, key), message).as_ref())
                    || is_known(hmac::sign(&hmac::Key::new(*algorithm, message), key).as_ref())
            }) || concatenated.iter().any(|salted| is_known(digest::digest(&digest::SHA256, salted).as_ref()))
        })
    })
}

#[tokio::test]
async fn a_copy_of_the_table_and_of_the_log_tests_no_guess() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "debug");
    let http = reqwest::Client::new();
    let app = json!({"app_slug": "acme", "name": "Acme", "key_prefix": "acme"});
    dev.backend("POST", "/api-auth/apps", Some(app)).await;
    let created = dev.backend("POST", "/api-auth/apps/acme/keys", Some(json!({"name": "CI"}))).await;
    let key = created["secret"].as_str().unwrap().to_owned();
    let ask = json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "acme"});
    dev.backend("POST", "/session/tickets", Some(ask)).await;
    assert_eq!(dev.check(&http, &key).await.unwrap(), 200);
    dev.backend("GET", "/api-auth/apps/acme/audit/logs", None).await;

    let (env, client) = dev.dynamodb().await;
    let scan = client.scan().table_name(&env["KEYWARD_TABLE"]).send().await.unwrap();
    assert!(scan.last_evaluated_key.is_none());
    let mut known = BTreeSet::new();
    for item in scan.items() {
        item.values().for_each(|value| values(value, &mut known));
    }
    assert!(known.len() > 50);
    let log = dev.log();
    assert!(log.contains("/v1/authz/check"), "the log is in it");
    words(&log, &mut known);

    let deployment: DeploymentId = dev.json.deployment_id.parse().unwrap();
    let id = ApiKeyToken::parse(&key).unwrap().id.get();
    let root_id = Token::<RootKey>::parse(&dev.json.root_key).unwrap().id.get();
    let of_key = messages(&key, deployment, id, "keyward/api-key/1");
    let of_root_key = messages(&dev.json.root_key, deployment, root_id, "keyward/root-key/1");
    assert!(!is_tested(&known, &known, &of_key), "an API key can be tested");
    assert!(!is_tested(&known, &known, &of_root_key), "a root key can be tested");

    // The same attack finds both, once it has the pepper: which takes the key file.
    let table = Table::new(client, &env["KEYWARD_TABLE"], system_clock(), system_entropy());
    let peppers = table.peppers(&OperatorAccess::assume()).await.unwrap();
    let record = peppers.first().unwrap();
    assert_eq!(record.version, PepperVersion(1));
    let provider =
        LocalKeyProvider::open(&dev.dir.join("pepper.key"), &env["KEYWARD_INSTALLATION"], system_entropy())
            .unwrap();
    let pepper = provider.unwrap(&record.wrapped().unwrap()).await.unwrap();
    let pepper = pepper.expose_secret().to_vec();
    let leaked = BTreeSet::from([pepper.clone()]);
    assert!(is_tested(&known, &leaked, &of_key) && is_tested(&known, &leaked, &of_root_key));
    assert!(!known.contains(&pepper), "the pepper is in the table or in the log");
    dev.stop("TERM");
}
