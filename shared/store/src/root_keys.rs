//! Root keys: `ROOTKEY#<id>` / `ROOTKEY`, with a tag, listed through `DEPLOYMENT#<id>#ROOTKEYS` / `<id>`. One strongly
//! consistent read authenticates a backend. They are made and revoked by the installation's operator, not through the
//! API; one that is revoked is gone, but for its events.

use keyward_core::audit::{Action, Origin};
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::root_key::{RootKey, Scope};
use keyward_core::text::Name;
use keyward_core::token::{self, Secret, Token};

use crate::change::{Change, id_taken};
use crate::item::{Expression, Item, Key, entry};
use crate::record::{self, readable, tag_of, with_tag};
use crate::{Error, OperatorAccess, Resource, RootAccess, Store};

pub(crate) fn key(id: RootKeyId) -> Key {
    Key::new(format!("ROOTKEY#{}", id.base62()), "ROOTKEY")
}

fn list(deployment: DeploymentId) -> String {
    format!("DEPLOYMENT#{deployment}#ROOTKEYS")
}

fn list_key(deployment: DeploymentId, id: RootKeyId) -> Key {
    Key::new(list(deployment), id.base62())
}

impl Store {
    /// Creates a root key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such deployment.
    pub async fn create_root_key(
        &self,
        operator: &OperatorAccess,
        deployment_id: DeploymentId,
        name: Name,
        scopes: &[Scope],
    ) -> Result<Token<token::RootKey>, Error> {
        if !self.table.has_deployment(deployment_id).await? {
            return Err(Error::NotFound(Resource::Deployment));
        }
        let (change, token) = self.new_root_key(operator, deployment_id, name, scopes).await?;
        change.commit().await?;
        Ok(token)
    }

    /// The change that makes a root key, and its token.
    pub(crate) async fn new_root_key(
        &self,
        operator: &OperatorAccess,
        deployment_id: DeploymentId,
        name: Name,
        scopes: &[Scope],
    ) -> Result<(Change<'_>, Token<token::RootKey>), Error> {
        let now = self.clock().now();
        let id = RootKeyId::mint(now, u32::from_be_bytes(self.entropy().bytes()?));
        let token = Token::new(id, Secret::from_random(&self.entropy().bytes()?));
        let created = RootKey { id, deployment_id, name, scopes: scopes.to_vec(), created_at: now };
        let tag = self.peppers.current().await?.tag_token(deployment_id, &token)?;
        let mut event = operator.event(self, deployment_id, Action::RootKeyCreated)?;
        event.root_key_id = Some(id);
        event.key_name = Some(created.name.clone());
        let change = Change::new(self, &event)?
            .create(with_tag(record::item(&key(id), &created)?, &tag), id_taken())?
            .put(entry(&list_key(deployment_id, id)))?;
        Ok((change, token))
    }

    /// The root keys of a deployment, newest first.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn root_keys(
        &self,
        _operator: &OperatorAccess,
        deployment_id: DeploymentId,
    ) -> Result<Vec<RootKey>, Error> {
        let entries = self.table.entries(&list(deployment_id), None, None).await?;
        let ids = entries.iter().filter_map(|sk| RootKeyId::from_base62(sk).ok());
        let keys: Vec<Key> = ids.map(key).collect();
        Ok(readable(self.table.get_many(&keys).await?).collect())
    }

    /// Revokes a root key, for good: it is refused from the next request on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the deployment has no such root key.
    pub async fn revoke_root_key(
        &self,
        operator: &OperatorAccess,
        deployment_id: DeploymentId,
        id: RootKeyId,
    ) -> Result<(), Error> {
        const UNKNOWN: Error = Error::NotFound(Resource::RootKey);
        let found: Option<RootKey> = self.table.get(&key(id)).await?.map(record::entity).transpose()?;
        let found = found.filter(|found| found.deployment_id == deployment_id).ok_or(UNKNOWN)?;
        let mut event = operator.event(self, deployment_id, Action::RootKeyRevoked)?;
        event.root_key_id = Some(id);
        event.key_name = Some(found.name);
        Change::new(self, &event)?
            .delete_if(&key(id), Expression::condition("attribute_exists(pk)"), UNKNOWN)?
            .delete(&list_key(deployment_id, id))?
            .commit()
            .await
    }

    /// Recognises a root key.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown one and a wrong secret alike, at the same cost.
    pub async fn authenticate_root_key(
        &self,
        token: Token<token::RootKey>,
        origin: Origin,
    ) -> Result<RootAccess, Error> {
        let item = self.table.get(&key(token.id)).await?;
        self.root_access(item, token, origin).await
    }

    /// The access that a root key's item gives to whoever presents this token. The item moves to the current pepper, after
    /// the response.
    pub(crate) async fn root_access(
        &self,
        item: Option<Item>,
        token: Token<token::RootKey>,
        origin: Origin,
    ) -> Result<RootAccess, Error> {
        let Some(item) = item else {
            self.peppers.ring().verify_missing(&token.secret);
            return Err(Error::Unauthenticated);
        };
        let tag = tag_of(&item)?;
        let row: RootKey = record::entity(item)?;
        if !self.peppers.of([&tag]).await?.matches_token(row.deployment_id, &token, &tag)?
            || row.id != token.id
        {
            return Err(Error::Unauthenticated);
        }
        let deployment = row.deployment_id;
        self.retag_later(key(token.id), tag, move |ring| ring.tag_token(deployment, &token));
        let RootKey { deployment_id, id, name, scopes, .. } = row;
        Ok(RootAccess { deployment_id, id, name, scopes, origin })
    }
}
