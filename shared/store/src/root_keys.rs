//! Root keys: `ROOTKEY#<id>` / `ROOTKEY`, with a tag. One strongly consistent read authenticates a backend.

use chrono::{DateTime, Utc};
use keyward_core::audit::Origin;
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::text::Name;
use keyward_core::token::{RootKey, Secret, Token};
use serde::{Deserialize, Serialize};

use crate::item::{Commit, Item, Key, Transaction, body, item, tag_of, with_tag};
use crate::{Error, RootAccess, Scope, Store, random};

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    id: RootKeyId,
    deployment_id: DeploymentId,
    name: Name,
    scopes: Vec<Scope>,
    created_at: DateTime<Utc>,
}

pub(crate) fn key(id: RootKeyId) -> Key {
    Key::new(format!("ROOTKEY#{}", id.base62()), "ROOTKEY")
}

impl Store {
    /// Makes a root key. Called by the installation's operator, not through the API.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn create_root_key(
        &self,
        deployment_id: DeploymentId,
        name: Name,
        scopes: &[Scope],
    ) -> Result<Token<RootKey>, Error> {
        let now = self.clock().now();
        let id = RootKeyId::mint(now, u32::from_be_bytes(random()?));
        let token = Token::new(id, Secret::from_random(&random()?));
        let body = Body { id, deployment_id, name, scopes: scopes.to_vec(), created_at: now };
        let tag = self.keyring.tag_token(deployment_id, &token)?;
        let commit = Transaction::new(&self.table)
            .create(with_tag(item(&key(id), "root_key", &body)?, &tag))?
            .commit()
            .await?;
        match commit {
            Commit::Done => Ok(token),
            Commit::Refused(_) => Err(Error::Conflict("the new id was taken; try again".into())),
        }
    }

    /// Recognises a root key.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown one and a wrong secret alike, at the same cost.
    pub async fn authenticate_root_key(
        &self,
        token: &Token<RootKey>,
        origin: Origin,
    ) -> Result<RootAccess, Error> {
        let item = self.table.get(&key(token.id)).await?;
        self.root_access(item, token, origin)
    }

    /// The access that a root key's item gives to whoever presents this token.
    pub(crate) fn root_access(
        &self,
        item: Option<Item>,
        token: &Token<RootKey>,
        origin: Origin,
    ) -> Result<RootAccess, Error> {
        let Some(item) = item else {
            self.keyring.matches_nothing(&token.secret);
            return Err(Error::Unauthenticated);
        };
        let tag = tag_of(&item)?;
        let row: Body = body(item)?;
        if !self.keyring.matches_token(row.deployment_id, token, &tag)? {
            return Err(Error::Unauthenticated);
        }
        Ok(RootAccess { deployment_id: row.deployment_id, id: row.id, scopes: row.scopes, origin })
    }
}
