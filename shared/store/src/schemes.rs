//! Rate-limit schemes: `DEPLOYMENT#<id>#SCHEMES` / `<slug>`, with counts of the apps and the keys that use each. The keys that
//! have one for their own are listed through `DEPLOYMENT#<id>#SCHEMES#<slug>` / `<key id>`, until they are revoked.

use std::collections::{HashMap, HashSet};

use keyward_core::audit::{Action, Event};
use keyward_core::id::{DeploymentId, KeyId, SchemeId};
use keyward_core::rate_limit::{NewScheme, Rules, Scheme, SchemeChanges};
use keyward_core::root_key::Scope;
use keyward_core::text::Slug;
use keyward_core::{ApiKey, App};

use crate::change::Change;
use crate::item::{Expression, Item, Key, number};
use crate::record::{self, readable};
use crate::scheme_uses::{key, partition, user_key, users};
use crate::{Conflict, Error, Resource, RootAccess, Store, apps, keys};

/// From how many keys a scheme is taken in one transaction.
const RELEASE_BATCH: usize = 25;

const UNKNOWN: Error = Error::NotFound(Resource::RateLimitScheme);

impl Store {
    /// Creates a scheme.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the slug is taken.
    pub async fn create_scheme(&self, access: &RootAccess, new: NewScheme) -> Result<Scheme, Error> {
        access.require(Scope::Manage)?;
        let now = self.clock().now();
        let id = SchemeId::mint(now, u32::from_be_bytes(self.entropy().bytes()?));
        let scheme = Scheme::create(new, id, access.deployment_id, now)?;
        let key = key(access.deployment_id, &scheme.slug);
        let mut item = record::item(&key, &scheme)?;
        item.extend(["apps", "api_keys"].map(|count| (count.to_owned(), number(0))));
        let exists = Error::Conflict(Conflict::Exists(Resource::RateLimitScheme, scheme.slug.to_string()));
        let event = scheme_event(access.event(self, Action::SchemeCreated)?, &scheme.slug);
        Change::new(self, &event)?.create(item, exists)?.commit().await?;
        Ok(scheme)
    }

    /// The schemes of the caller's deployment, the one that changed last first. One that cannot be read is left out.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn schemes(&self, access: &RootAccess) -> Result<Vec<Scheme>, Error> {
        access.require(Scope::Manage)?;
        let mut schemes = Vec::new();
        let mut below = None;
        loop {
            let partition = partition(access.deployment_id);
            let page = self.table.page(&partition, None, below.as_deref(), None).await?;
            schemes.extend(readable::<Scheme>(page.items));
            match page.next {
                Some(next) => below = Some(next),
                None => break,
            }
        }
        schemes.sort_by_key(|scheme| std::cmp::Reverse((scheme.updated_at, scheme.created_at, scheme.id)));
        Ok(schemes)
    }

    /// The scheme with this slug.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn scheme(&self, access: &RootAccess, slug: &Slug) -> Result<Scheme, Error> {
        access.require(Scope::Manage)?;
        self.stored_scheme(access, slug).await.map(|(scheme, _)| scheme)
    }

    async fn stored_scheme(&self, access: &RootAccess, slug: &Slug) -> Result<(Scheme, Item), Error> {
        let stored = self.table.get(&key(access.deployment_id, slug)).await?.ok_or(UNKNOWN)?;
        Ok((record::entity(stored.clone())?, stored))
    }

    /// The rules of these schemes of a deployment, by slug, to be shown; what does not exist or cannot be read is
    /// left out.
    pub(crate) async fn rules(
        &self,
        deployment: DeploymentId,
        slugs: impl IntoIterator<Item = &Slug>,
    ) -> Result<HashMap<Slug, Rules>, Error> {
        let mut keys: Vec<Key> = slugs.into_iter().map(|slug| key(deployment, slug)).collect();
        keys.sort_by(|a, b| a.sk.cmp(&b.sk));
        keys.dedup();
        let mut rules = HashMap::with_capacity(keys.len());
        let schemes = readable::<Scheme>(self.table.get_many(&keys).await?);
        rules.extend(schemes.map(|scheme| (scheme.slug, scheme.rules)));
        Ok(rules)
    }

    /// Changes a scheme. Keys that it limits are held to the new rules at once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if it was changed at the same time.
    pub async fn update_scheme(
        &self,
        access: &RootAccess,
        slug: &Slug,
        changes: SchemeChanges,
    ) -> Result<Scheme, Error> {
        access.require(Scope::Manage)?;
        let (before, stored) = self.stored_scheme(access, slug).await?;
        let after = before.change(changes, self.clock().now())?;
        let update = record::update(&stored, &after, Expression::unchanged(before.revision))?;
        let changed = Error::Conflict(Conflict::Changed(Resource::RateLimitScheme));
        let event = scheme_event(access.event(self, Action::SchemeUpdated)?, slug);
        let event = Event { changes: record::changes(&before, &after), ..event };
        Change::new(self, &event)?
            .update(&key(access.deployment_id, slug), update, changed)?
            .commit()
            .await?;
        Ok(after)
    }

    /// Deletes a scheme that nothing uses.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InUse`] while an app that is not deleted uses it, or a key that may work again.
    pub async fn delete_scheme(&self, access: &RootAccess, slug: &Slug) -> Result<(), Error> {
        let before = self.scheme(access, slug).await?;
        if before.apps == 0 && before.api_keys > 0 {
            self.release(access, slug).await?;
        }
        let unused =
            Expression::condition("apps = :none AND (attribute_not_exists(api_keys) OR api_keys = :none)")
                .value(":none", number(0));
        let in_use = Error::InUse(if before.apps == 0 { Resource::ApiKey } else { Resource::App });
        Change::new(self, &scheme_event(access.event(self, Action::SchemeDeleted)?, slug))?
            .delete_if(&key(access.deployment_id, slug), unused, in_use)?
            .commit()
            .await
    }

    /// Takes a scheme from the keys that have it for their own and can never work again, up to the first one that may.
    async fn release(&self, access: &RootAccess, slug: &Slug) -> Result<(), Error> {
        let deployment = access.deployment_id;
        let mut below: Option<String> = None;
        loop {
            let listed =
                self.table.entries(&users(deployment, slug), below.as_deref(), Some(RELEASE_BATCH)).await?;
            if listed.is_empty() {
                return Ok(());
            }
            let places = listed.iter().filter_map(|sk| KeyId::from_base62(sk).ok()).map(keys::key);
            let found: Vec<ApiKey> = self
                .table
                .get_many(&places.collect::<Vec<_>>())
                .await?
                .into_iter()
                .map(record::entity)
                .collect::<Result<_, _>>()?;
            let apps: HashSet<Key> = found.iter().map(|key| apps::key(key.app)).collect();
            let apps = self.table.get_many(&apps.into_iter().collect::<Vec<_>>()).await?;
            let apps: Vec<App> = apps.into_iter().map(record::entity).collect::<Result<_, _>>()?;
            let now = self.clock().now();
            let is_dead = |of: &ApiKey| {
                let app_is_there = apps.iter().any(|app| app.number == of.app && app.deleted_at.is_none());
                of.is_expired(now) || !app_is_there
            };
            if !found.iter().all(is_dead) {
                return Ok(());
            }
            let changed = || Error::Conflict(Conflict::Changed(Resource::ApiKey));
            let mut change =
                Change::new(self, &scheme_event(access.event(self, Action::SchemeReleased)?, slug))?;
            for of in &found {
                let released = Expression::unchanged(of.revision)
                    .set("revision", number(of.revision + 1))
                    .remove("rate_limit_scheme_slug");
                change = change
                    .update(&keys::key(of.id), released, changed())?
                    .delete(&user_key(deployment, slug, of.id))?;
            }
            let counted =
                Expression::condition("attribute_exists(pk)").add("api_keys", format!("-{}", found.len()));
            match change.update(&key(deployment, slug), counted, changed())?.commit().await {
                // One that was changed meanwhile still counts.
                Ok(()) | Err(Error::Conflict(_)) => below = listed.into_iter().next_back(),
                Err(error) => return Err(error),
            }
        }
    }
}

fn scheme_event(event: Event, slug: &Slug) -> Event {
    Event { scheme: Some(slug.clone()), ..event }
}
