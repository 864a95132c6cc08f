//! The KMS key provider against a KMS API, reached through the SDK's own variables (`AWS_ENDPOINT_URL_KMS`,
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`): an emulator's, in `.ci/run`.

use aws_sdk_kms::Client;
use chrono::Utc;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::WrappedPepper;
use keyward_pepper::{KeyProvider, KmsKeyProvider, PepperError, unlock};

#[tokio::test]
async fn what_kms_wraps_it_unwraps() {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_KMS");
    assert!(endpoint.is_ok(), "AWS_ENDPOINT_URL_KMS must name a KMS API to test against");
    let config = keyward_http::sdk_config().load().await;
    let client = Client::new(&config);
    let created = client.create_key().send().await.expect("a key");
    let key_id = created.key_metadata.expect("metadata").key_id;
    let provider = KmsKeyProvider::new(&config, &key_id, "here");

    let one = provider.generate(PepperVersion(1), Utc::now()).await.expect("a pepper");
    let two = provider.generate(PepperVersion(2), Utc::now()).await.expect("a pepper");
    let plain = provider.unwrap(&one).await.expect("the pepper");
    assert_eq!(provider.unwrap(&one).await.expect("the pepper"), plain);
    assert_ne!(provider.unwrap(&two).await.expect("the pepper"), plain);
    assert!(!one.wrapped.windows(32).any(|window| window == plain.as_slice()));
    unlock(&provider, &[one.clone(), two]).await.expect("a keyring");

    // Bound to its installation and its version by the encryption context.
    let elsewhere = KmsKeyProvider::new(&config, &key_id, "elsewhere");
    assert!(elsewhere.unwrap(&one).await.is_err());
    let moved = WrappedPepper { version: PepperVersion(2), ..one.clone() };
    assert!(provider.unwrap(&moved).await.is_err());
    let foreign = WrappedPepper { provider: "local".into(), ..one.clone() };
    assert!(matches!(provider.unwrap(&foreign).await, Err(PepperError::Foreign(PepperVersion(1)))));

    client.disable_key().key_id(&key_id).send().await.expect("an answer");
    assert!(matches!(provider.unwrap(&one).await, Err(PepperError::Kms(_))), "a disabled key");
    assert!(matches!(unlock(&provider, &[one]).await, Err(PepperError::Kms(_))), "and no keyring without it");
}
