//! Deployments: `DEPLOYMENT#<id>#SETTINGS` / `DEPLOYMENT`, and which one was the first: `INSTALLATION` / `INSTALLATION`. Made by
//! the installation's operator, not through the API. A process reads one again when what it knows of it is a minute old: so
//! long a change of its allowed origins takes.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use keyward_core::Deployment;
use keyward_core::audit::Action;
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::id::DeploymentId;
use keyward_core::root_key::Scope;
use keyward_core::text::Name;
use keyward_core::token::{RootKey, Token};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::change::{Change, id_taken};
use crate::item::Key;
use crate::record::{self, FirstDeployment};
use crate::{Conflict, Error, OperatorAccess, PROPAGATION_TIME, PublicAccess, SessionAccess, Store, Table};

fn key(id: DeploymentId) -> Key {
    Key::new(format!("DEPLOYMENT#{id}#SETTINGS"), "DEPLOYMENT")
}

fn first_key() -> Key {
    Key::new("INSTALLATION".to_owned(), "INSTALLATION")
}

impl Store {
    /// Creates the first deployment of a table, which requests without a credential concern, and its first root key, with
    /// all scopes. `None` if there is one already, whatever its name and mode, and nothing was changed.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_first_deployment(
        &self,
        operator: &OperatorAccess,
        name: Name,
        mode: Mode,
        root_key: Name,
    ) -> Result<Option<(Deployment, Token<RootKey>)>, Error> {
        let deployment = self.new_deployment(name, mode, vec![])?;
        let first = FirstDeployment { deployment_id: deployment.id };
        let exists = Error::Conflict(Conflict::Initialised);
        let (change, token) = self.new_root_key(operator, deployment.id, root_key, &Scope::ALL).await?;
        let created = change
            .create(record::item(&first_key(), &first)?, exists)?
            .create(record::item(&key(deployment.id), &deployment)?, id_taken())?
            .commit()
            .await;
        match created {
            Ok(()) => Ok(Some((deployment, token))),
            Err(Error::Conflict(_)) if self.table.public_access().await?.is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a further deployment.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_deployment(
        &self,
        operator: &OperatorAccess,
        name: Name,
        mode: Mode,
        allowed_origins: Vec<String>,
    ) -> Result<Deployment, Error> {
        let deployment = self.new_deployment(name, mode, allowed_origins)?;
        let event = operator.event(self, deployment.id, Action::DeploymentCreated)?;
        let created = record::item(&key(deployment.id), &deployment)?;
        Change::new(self, &event)?.create(created, id_taken())?.commit().await?;
        Ok(deployment)
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
            id: DeploymentId::mint(now, u32::from_be_bytes(self.entropy().bytes()?)),
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
    /// Access for the caller without a credential; `None` while there is no deployment.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn public_access(&self) -> Result<Option<PublicAccess>, Error> {
        let first = self.get(&first_key()).await?.map(record::entity).transpose()?;
        Ok(first.map(|FirstDeployment { deployment_id }| PublicAccess { deployment_id }))
    }

    pub(crate) async fn has_deployment(&self, id: DeploymentId) -> Result<bool, Error> {
        Ok(self.get(&key(id)).await?.is_some())
    }

    /// A deployment that something in the table names.
    pub(crate) async fn deployment(&self, id: DeploymentId) -> Result<Deployment, Error> {
        let found = self.get(&key(id)).await?;
        let found = found.ok_or_else(|| Error::internal(format!("there is no deployment {id}")))?;
        Ok(record::entity(found)?)
    }
}

impl Store {
    /// The first deployment, as it was at most [`PROPAGATION_TIME`] ago.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn first_deployment(&self, access: &PublicAccess) -> Result<Arc<Deployment>, Error> {
        self.recent_deployment(access.deployment_id).await
    }

    /// The deployment of a session, as it was at most [`PROPAGATION_TIME`] ago.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn session_deployment(&self, access: &SessionAccess) -> Result<Arc<Deployment>, Error> {
        self.recent_deployment(access.session.deployment_id).await
    }

    pub(crate) async fn recent_deployment(&self, id: DeploymentId) -> Result<Arc<Deployment>, Error> {
        let now = self.clock().now();
        // A clock that was set back tells no age.
        let is_recent = |read: &ReadDeployment| (read.at..read.at + PROPAGATION_TIME).contains(&now);
        if let Some(read) = self.deployments.get(&id).filter(is_recent) {
            return Ok(read.deployment);
        }
        let deployment = Arc::new(self.table.deployment(id).await?);
        self.deployments.put(id, ReadDeployment { at: now, deployment: deployment.clone() });
        Ok(deployment)
    }
}

/// A deployment as it was read.
#[derive(Debug, Clone)]
pub(crate) struct ReadDeployment {
    at: DateTime<Utc>,
    deployment: Arc<Deployment>,
}

fn public_key() -> Result<PublicKey, Error> {
    let failed = |_| Error::internal("could not make an ES256 key");
    #[expect(
        clippy::disallowed_methods,
        reason = "ring makes keys from its own source alone, and this one is forgotten"
    )]
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .map_err(|error| Error::internal(error.to_string()))?;
    // An uncompressed point (SEC 1, 2.3.3): 4, then x and y of 32 bytes each.
    match pair.public_key().as_ref().split_first_chunk() {
        Some(([4], point)) if point.len() == 64 => {
            let (x, y) = point.split_at(32);
            Ok(PublicKey { x: BASE64_URL_SAFE_NO_PAD.encode(x), y: BASE64_URL_SAFE_NO_PAD.encode(y) })
        }
        _ => Err(Error::internal("an ES256 key is not an uncompressed point")),
    }
}
