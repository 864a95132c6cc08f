//! The life of a key: it is made, given other secrets, used and revoked.

use keyward_core::audit::{Action, Event};
use keyward_core::id::KeyId;
use keyward_core::key::{KeyChangeError, NewKey};
use keyward_core::rate_limit::Rules;
use keyward_core::session::Capability;
use keyward_core::text::Reason;
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_core::verified::Verification;
use keyward_core::{ApiKey, App};

use super::{changed_meanwhile, key, list_key, unknown};
use crate::change::Change;
use crate::item::{Expression, Item, entry, instant};
use crate::record::{self, set_tag, with_tag};
use crate::scheme_uses::{User, count_use, user_key};
use crate::{AppAccess, Error, Resource, Store, apps};

/// How often a revocation that lost to another change of the key is decided anew.
const REVOKE_ATTEMPTS: u32 = 5;

impl Store {
    /// Makes a key, which the rules in the answer limit. The token is the only thing that ever holds its secret.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`] for a past expiry, permissions beyond the app's, a scheme that does not
    /// exist, or texts that are too long together; [`Error::Conflict`] if the app was changed at the same time.
    pub async fn create_key(
        &self,
        access: &AppAccess,
        new: NewKey,
    ) -> Result<(ApiKey, Option<Rules>, ApiKeyToken), Error> {
        access.require(Capability::KeysCreate)?;
        let (app, now) = (&access.app, self.clock().now());
        let token = ApiKeyToken {
            prefix: app.settings.key_prefix.clone(),
            app: app.number,
            id: KeyId::mint(now, u32::from_be_bytes(self.entropy().bytes()?)),
            secret: Secret::from_random(&self.entropy().bytes()?),
        };
        let created = ApiKey::create(new, app, &token, now)?;
        let rules = self.rules_of_key(app, &created).await?;
        let tag = self.peppers.current().await?.tag_api_key(app.deployment_id, &token)?;
        let mut change = Change::new(self, &key_event(access.event(self, Action::KeyCreated)?, &created))?
            .create(with_tag(record::item(&key(created.id), &created)?, &tag), changed_meanwhile())?
            .put(entry(&list_key(&created)))?
            .require(&apps::key(app.number), Expression::unchanged(app.revision), changed_meanwhile())?;
        if let Some(scheme) = &created.rate_limit_scheme_slug {
            change = count_use(change, app.deployment_id, scheme, User::Key, 1)?.put(entry(&user_key(
                app.deployment_id,
                scheme,
                created.id,
            )))?;
        }
        change.commit().await?;
        Ok((created, rules, token))
    }

    /// Gives a key a new secret; the rules in the answer limit it. The old one is refused from the next verification on.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown or revoked key; [`Error::Conflict`] if it was changed at the same time, in
    /// which case the secret of that change is the live one.
    pub async fn rotate_key(
        &self,
        access: &AppAccess,
        id: KeyId,
    ) -> Result<(ApiKey, Option<Rules>, ApiKeyToken), Error> {
        access.require(Capability::KeysRotate)?;
        let (before, stored) = self.stored_key(access, id).await?;
        let token = ApiKeyToken {
            prefix: before.key_prefix.clone(),
            app: before.app,
            id,
            secret: Secret::from_random(&self.entropy().bytes()?),
        };
        let after = before.rotate(&token, self.clock().now()).map_err(|refused| match refused {
            KeyChangeError::Revoked => Error::NotFound(Resource::ActiveApiKey),
        })?;
        let rules = self.rules_of_key(&access.app, &before).await?;
        let tag = self.peppers.current().await?.tag_api_key(after.deployment_id, &token)?;
        let update = record::update(&stored, &after, Expression::unchanged(before.revision))?;
        let event = key_event(access.event(self, Action::KeyRotated)?, &after);
        Change::new(self, &Event { changes: record::changes(&before, &after), ..event })?
            .update(&key(id), set_tag(update, &tag), changed_meanwhile())?
            .commit()
            .await?;
        Ok((after, rules, token))
    }

    /// Revokes a key, for good. `Ok(None)` says that it was revoked already, and nothing was changed.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown key; [`Error::Conflict`] if it kept being changed at the same time.
    pub async fn revoke_key(
        &self,
        access: &AppAccess,
        id: KeyId,
        reason: Option<Reason>,
    ) -> Result<Option<ApiKey>, Error> {
        access.require(Capability::KeysRevoke)?;
        for _ in 0..REVOKE_ATTEMPTS {
            let (before, stored) = self.stored_key(access, id).await?;
            let after = match before.revoke(reason.clone(), self.clock().now()) {
                Ok(revoked) => revoked,
                Err(KeyChangeError::Revoked) => return Ok(None),
            };
            let update = record::update(&stored, &after, Expression::unchanged(before.revision))?;
            let event = key_event(access.event(self, Action::KeyRevoked)?, &after);
            let changes = record::changes(&before, &after);
            let mut change = Change::new(self, &Event { reason: reason.clone(), changes, ..event })?
                .update(&key(id), update, changed_meanwhile())?
                .delete(&list_key(&before))?
                .put(entry(&list_key(&after)))?;
            if let Some(scheme) = &before.rate_limit_scheme_slug {
                let listed = user_key(before.deployment_id, scheme, id);
                change = count_use(change, before.deployment_id, scheme, User::Key, -1)?.delete(&listed)?;
            }
            match change.commit().await {
                Ok(()) => return Ok(Some(after)),
                Err(Error::Conflict(_) | Error::Invalid(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(changed_meanwhile())
    }

    /// Notes that the key of a verification was used then, unless a later use is noted.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn record_use(&self, verification: &Verification) -> Result<(), Error> {
        let event = verification.event();
        let Some(id) = event.key_id else { return Ok(()) };
        let used = Expression::condition(
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at < :last_used_at)",
        );
        let used = used.set("last_used_at", instant(event.id.timestamp())?);
        self.table.update(&key(id), used).await.map(drop)
    }

    async fn rules_of_key(&self, app: &App, key: &ApiKey) -> Result<Option<Rules>, Error> {
        let Some(slug) = key.rate_limit_scheme(app) else { return Ok(None) };
        Ok(self.rules(app.deployment_id, [slug]).await?.remove(slug))
    }

    /// A key of the app, and its item.
    async fn stored_key(&self, access: &AppAccess, id: KeyId) -> Result<(ApiKey, Item), Error> {
        let stored = self.table.get(&key(id)).await?.ok_or_else(unknown)?;
        let key: ApiKey = record::entity(stored.clone())?;
        let is_of_app = key.app == access.app.number && key.deployment_id == access.app.deployment_id;
        if is_of_app { Ok((key, stored)) } else { Err(unknown()) }
    }
}

fn key_event(event: Event, key: &ApiKey) -> Event {
    Event { key_id: Some(key.id), key_name: Some(key.name.clone()), ..event }
}
