//! A symmetric AWS KMS key: for deployments. The pepper is a data key, bound to an encryption context.
//!
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyState};
use futures::future::{BoxFuture, FutureExt, ready};
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::WrappedPepper;
use zeroize::Zeroizing;

use crate::{KeyProvider, PepperError, PlainPepper, plain, with_timeouts};

const NAME: &str = "aws-kms";

/// Wraps peppers with a KMS key.
#[derive(Debug, Clone)]
pub struct KmsKeyProvider {
    client: Client,
    key_id: String,
    installation: String,
}

impl KmsKeyProvider {
    /// The key with this id, ARN or alias. `installation` is part of the encryption context. Its calls end as
    /// [`with_timeouts`] says.
    pub fn new(config: &SdkConfig, key_id: &str, installation: &str) -> Self {
        Self {
            client: Client::new(&with_timeouts(config)),
            key_id: key_id.to_owned(),
            installation: installation.to_owned(),
        }
    }

    fn context(&self, version: PepperVersion) -> HashMap<String, String> {
        HashMap::from([
            ("keyward:installation".to_owned(), self.installation.clone()),
            ("keyward:purpose".to_owned(), "pepper".to_owned()),
            ("keyward:version".to_owned(), version.0.to_string()),
        ])
    }
}

/// A way in which a KMS key cannot be used: a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// There is none of this id.
    #[error(
        "there is no KMS key {0}: its peppers are lost with it, so deploy a new installation and issue new keys"
    )]
    Missing(String),
    /// It will be deleted.
    #[error(
        "the KMS key {0} is scheduled for deletion, which ends all API keys: cancel it with 'aws kms cancel-key-deletion --key-id {0}', then 'aws kms enable-key --key-id {0}'"
    )]
    PendingDeletion(String),
    /// It is disabled, or in another state in which it decrypts nothing.
    #[error("the KMS key {0} is {1}: enable it with 'aws kms enable-key --key-id {0}'")]
    NotEnabled(String, KeyState),
    /// Its material stays the same forever.
    #[error(
        "the KMS key {0} is not rotated: enable rotation with 'aws kms enable-key-rotation --key-id {0}'"
    )]
    NotRotated(String),
}

impl KmsKeyProvider {
    /// In what ways the key is not as its installation needs it. For whoever operates it: no function calls this.
    ///
    /// # Errors
    /// The key cannot be described, for any reason but that there is none.
    pub async fn faults(&self) -> Result<Vec<KeyFault>, PepperError> {
        let key = || self.key_id.clone();
        let described = self.client.describe_key().key_id(&self.key_id).send().await;
        let described = match described {
            Err(error) if error.code() == Some("NotFoundException") => {
                return Ok(vec![KeyFault::Missing(key())]);
            }
            described => {
                described.map_err(|error| PepperError::Kms(DisplayErrorContext(error).to_string()))?
            }
        };
        match described.key_metadata.and_then(|metadata| metadata.key_state) {
            Some(KeyState::Enabled | KeyState::Updating) => {}
            Some(KeyState::PendingDeletion) => return Ok(vec![KeyFault::PendingDeletion(key())]),
            state => {
                let state = state.unwrap_or(KeyState::Unavailable);
                return Ok(vec![KeyFault::NotEnabled(key(), state)]);
            }
        }
        let rotation = self.client.get_key_rotation_status().key_id(&self.key_id).send().await;
        let rotation = rotation.map_err(|error| PepperError::Kms(DisplayErrorContext(error).to_string()))?;
        Ok(if rotation.key_rotation_enabled { vec![] } else { vec![KeyFault::NotRotated(key())] })
    }
}

impl KeyProvider for KmsKeyProvider {
    fn generate(&self, version: PepperVersion) -> BoxFuture<'_, Result<WrappedPepper, PepperError>> {
        let request = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(&self.key_id)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(self.context(version)));
        async move {
            let response = request.send().await;
            let response =
                response.map_err(|error| PepperError::Kms(DisplayErrorContext(error).to_string()))?;
            let wrapped = response.ciphertext_blob.map(Blob::into_inner);
            let wrapped = wrapped.ok_or_else(|| PepperError::Kms("the response holds no data key".into()))?;
            Ok(WrappedPepper { version, provider: NAME.to_owned(), wrapped })
        }
        .boxed()
    }

    fn unwrap<'a>(&'a self, pepper: &'a WrappedPepper) -> BoxFuture<'a, Result<PlainPepper, PepperError>> {
        let foreign = PepperError::Foreign(pepper.version);
        if pepper.provider != NAME {
            return ready(Err(foreign)).boxed();
        }
        let request = self
            .client
            .decrypt()
            .key_id(&self.key_id)
            .ciphertext_blob(Blob::new(pepper.wrapped.clone()))
            .set_encryption_context(Some(self.context(pepper.version)));
        async move {
            let opened = request.send().await.map_err(|error| match error.code() {
                Some("InvalidCiphertextException" | "IncorrectKeyException") => {
                    PepperError::Foreign(pepper.version)
                }
                _ => PepperError::Kms(DisplayErrorContext(error).to_string()),
            })?;
            let bytes = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
            <&[u8; 32]>::try_from(bytes.as_slice()).map(plain).map_err(|_| foreign)
        }
        .boxed()
    }
}
