//! Deployments: `DEPLOYMENT#<id>#SETTINGS` / `DEPLOYMENT`, and which one was the first: `INSTALLATION` / `INSTALLATION`. Made by
//! the installation's operator, not through the API.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keyward_core::Deployment;
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::id::DeploymentId;
use keyward_core::text::Name;
use keyward_core::token::{RootKey, Token};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::item::{Commit, Key, Transaction};
use crate::record::{self, FirstDeployment};
use crate::{Error, Scope, Store, Table, random};

fn key(id: DeploymentId) -> Key {
    Key::new(format!("DEPLOYMENT#{id}#SETTINGS"), "DEPLOYMENT")
}

fn first_key() -> Key {
    Key::new("INSTALLATION".to_owned(), "INSTALLATION")
}

impl Store {
    /// Makes the first deployment of a table, which requests without a credential concern, and its first root key, with
    /// all scopes. `None` if there is one already, whatever its name and mode, and nothing was changed.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_first_deployment(
        &self,
        name: Name,
        mode: Mode,
        root_key: Name,
    ) -> Result<Option<(Deployment, Token<RootKey>)>, Error> {
        let deployment = self.new_deployment(name, mode, vec![])?;
        let first = FirstDeployment { deployment_id: deployment.id };
        let transaction = Transaction::new(&self.table)
            .create(record::item(&first_key(), &first)?)?
            .create(record::item(&key(deployment.id), &deployment)?)?;
        let (transaction, token) =
            self.add_root_key(transaction, deployment.id, root_key, &Scope::ALL).await?;
        match transaction.commit().await? {
            Commit::Done => Ok(Some((deployment, token))),
            Commit::Refused(places) if places.contains(&0) => Ok(None),
            Commit::Refused(_) => Err(id_taken()),
        }
    }

    /// Makes a further deployment.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_deployment(
        &self,
        name: Name,
        mode: Mode,
        allowed_origins: Vec<String>,
    ) -> Result<Deployment, Error> {
        let deployment = self.new_deployment(name, mode, allowed_origins)?;
        let made = record::item(&key(deployment.id), &deployment)?;
        match Transaction::new(&self.table).create(made)?.commit().await? {
            Commit::Done => Ok(deployment),
            Commit::Refused(_) => Err(id_taken()),
        }
    }

    /// A deployment with an ES256 key of which only the public half is kept: nothing is signed with it, so no token that
    /// claims to be signed by this deployment can ever verify.
    fn new_deployment(
        &self,
        name: Name,
        mode: Mode,
        allowed_origins: Vec<String>,
    ) -> Result<Deployment, Error> {
        let now = self.clock().now();
        Ok(Deployment {
            id: DeploymentId::mint(now, u32::from_be_bytes(random()?)),
            name,
            mode,
            allowed_origins,
            public_key: public_key()?,
            created_at: now,
            updated_at: now,
        })
    }
}

impl Table {
    /// The deployment that was made first, if any was.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn first_deployment(&self) -> Result<Option<Deployment>, Error> {
        match self.first_deployment_id().await? {
            Some(id) => self.deployment(id).await,
            None => Ok(None),
        }
    }

    /// The id of the deployment that was made first, if any was.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn first_deployment_id(&self) -> Result<Option<DeploymentId>, Error> {
        let first = self.get(&first_key()).await?.map(record::entity).transpose()?;
        Ok(first.map(|FirstDeployment { deployment_id }| deployment_id))
    }

    /// The deployment with this id.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, Error> {
        Ok(self.get(&key(id)).await?.map(record::entity).transpose()?)
    }
}

fn id_taken() -> Error {
    Error::Conflict("the new id was taken; try again".into())
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
