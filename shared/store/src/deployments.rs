//! Deployments: `DEPLOYMENT#<id>` / `DEPLOYMENT`, and which one was the first: `INSTALLATION` / `INSTALLATION`. Made by
//! the installation's operator, not through the API.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keyward_core::Deployment;
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::id::DeploymentId;
use keyward_core::text::Name;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use crate::item::{Commit, Key, Transaction, body, item};
use crate::{Error, Store, random};

fn key(id: DeploymentId) -> Key {
    Key::new(format!("DEPLOYMENT#{id}"), "DEPLOYMENT")
}

fn first_key() -> Key {
    Key::new("INSTALLATION".to_owned(), "INSTALLATION")
}

#[derive(Serialize, Deserialize)]
struct FirstBody {
    deployment_id: DeploymentId,
}

impl Store {
    /// Makes a deployment. The first of a table is the one that requests without a credential concern.
    ///
    /// Its ES256 key is real, and only its public half is kept: nothing is signed with it, so no token that claims
    /// to be signed by this deployment can ever verify.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_deployment(
        &self,
        name: Name,
        mode: Mode,
        allowed_origins: Vec<String>,
    ) -> Result<Deployment, Error> {
        let now = self.clock().now();
        let deployment = Deployment {
            id: DeploymentId::mint(now, u32::from_be_bytes(random()?)),
            name,
            mode,
            allowed_origins,
            public_key: public_key()?,
            created_at: now,
            updated_at: now,
        };
        let commit = Transaction::new(&self.table)
            .create(item(&key(deployment.id), "deployment", &deployment)?)?
            .commit()
            .await?;
        if let Commit::Refused(_) = commit {
            return Err(Error::Conflict("the new id was taken; try again".into()));
        }
        let first = FirstBody { deployment_id: deployment.id };
        // Refused for any but the first, which is what is wanted.
        Transaction::new(&self.table).create(item(&first_key(), "installation", &first)?)?.commit().await?;
        Ok(deployment)
    }

    /// The deployment that was made first, if any was.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn first_deployment(&self) -> Result<Option<Deployment>, Error> {
        let Some(item) = self.table.get(&first_key()).await? else {
            return Ok(None);
        };
        self.deployment(body::<FirstBody>(item)?.deployment_id).await
    }

    /// The deployment with this id.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, Error> {
        self.table.get(&key(id)).await?.map(body).transpose()
    }
}

fn public_key() -> Result<PublicKey, Error> {
    let failed = |_| Error::Internal("could not make an ES256 key".into());
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .map_err(|error| Error::Internal(error.to_string()))?;
    // An uncompressed point (SEC 1, 2.3.3): 4, then x and y of 32 bytes each.
    match pair.public_key().as_ref().split_first_chunk() {
        Some(([4], point)) if point.len() == 64 => {
            let (x, y) = point.split_at(32);
            Ok(PublicKey { x: BASE64_URL_SAFE_NO_PAD.encode(x), y: BASE64_URL_SAFE_NO_PAD.encode(y) })
        }
        _ => Err(Error::Internal("an ES256 key is not an uncompressed point".into())),
    }
}
