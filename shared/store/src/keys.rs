//! API keys: `KEY#<id>` / `KEY`, with a tag, and listed through `APP#<number>#KEYS#ACTIVE|REVOKED` / `<id>`, an entry
//! in exactly one of the two.

use std::collections::HashSet;

use keyward_core::audit::{Action, Event};
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::instant::Instant;
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::permission::Permission;
use keyward_core::rate_limit::Rules;
use keyward_core::session::Capability;
use keyward_core::text::{Name, OwnerId, Reason, Slug};
use keyward_core::token::{ApiKeyToken, Secret};
use keyward_core::verified::Verification;
use keyward_core::{ApiKey, App, Bounds, InvalidField};

use crate::change::Change;
use crate::item::{CALLER_BYTES, Expression, Item, Key, check_size, entry, instant};
use crate::record::{self, readable, set_tag, with_tag};
use crate::schemes::{User, count_use, user_key};
use crate::{AppAccess, Error, Store, apps, random};

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// See [`ApiKey::name`].
    pub name: Name,
    /// See [`ApiKey::permissions`]; each within the app's.
    pub permissions: Vec<Permission>,
    /// See [`ApiKey::org_role_permissions`].
    pub org_role_permissions: Vec<Permission>,
    /// See [`ApiKey::workspace_role_permissions`].
    pub workspace_role_permissions: Vec<Permission>,
    /// See [`ApiKey::rate_limit_scheme_slug`].
    pub rate_limit_scheme_slug: Option<Slug>,
    /// See [`ApiKey::metadata`].
    pub metadata: Metadata,
    /// See [`ApiKey::expires_at`]; in the future.
    pub expires_at: Option<Instant>,
    /// See [`ApiKey::owner`]; what is not given is the app's.
    pub owner: Owner,
}

/// Which keys to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// Those not revoked, expired ones included.
    Active,
    /// Revoked ones.
    Revoked,
    /// Those not revoked that have expired.
    Expired,
    /// All.
    All,
}

/// A page of keys, newest first.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys, each with the rules that limit it.
    pub keys: Vec<(ApiKey, Option<Rules>)>,
    /// The id below which the next page begins, if there is one.
    pub next: Option<KeyId>,
}

/// How often a revocation that lost to another change of the key is decided anew.
const REVOCATIONS: u32 = 5;

/// Which scheme limits a key: its own, or else the app's.
pub(crate) fn scheme_of<'a>(app: &'a App, key: &'a ApiKey) -> Option<&'a Slug> {
    key.rate_limit_scheme_slug.as_ref().or(app.rate_limit_scheme_slug.as_ref())
}

pub(crate) fn key(id: KeyId) -> Key {
    Key::new(format!("KEY#{}", id.base62()), "KEY")
}

fn list(app: AppNumber, active: bool) -> String {
    let state = if active { "ACTIVE" } else { "REVOKED" };
    format!("APP#{}#KEYS#{state}", app.base62())
}

fn list_key(key: &ApiKey) -> Key {
    Key::new(list(key.app, key.is_active()), key.id.base62())
}

fn unknown() -> Error {
    Error::NotFound("API key not found")
}

fn changed_meanwhile() -> Error {
    Error::Conflict("the API key or its app was changed at the same time; try again".into())
}

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
        let app = &access.app;
        let now = self.clock().now();
        let expires_at = new.expires_at.map(Instant::at);
        if expires_at.is_some_and(|at| at <= now) {
            return Err(InvalidField::new("expires_at", "must be in the future").into());
        }
        within(&new.permissions, &app.permissions)?;
        let token = ApiKeyToken {
            prefix: app.key_prefix.clone(),
            app: app.number,
            id: KeyId::mint(now, u32::from_be_bytes(random()?)),
            secret: Secret::from_random(&random()?),
        };
        let made = ApiKey {
            id: token.id,
            deployment_id: app.deployment_id,
            app: app.number,
            app_slug: app.app_slug.clone(),
            name: new.name,
            key_prefix: app.key_prefix.clone(),
            key_suffix: token.suffix(),
            permissions: new.permissions,
            org_role_permissions: new.org_role_permissions,
            workspace_role_permissions: new.workspace_role_permissions,
            rate_limit_scheme_slug: new.rate_limit_scheme_slug,
            metadata: new.metadata,
            owner: Owner {
                owner_user_id: new.owner.owner_user_id.or_else(|| app.user_id.clone()),
                organization_id: new.owner.organization_id.or_else(|| app.organization_id.clone()),
                workspace_id: new.owner.workspace_id.or_else(|| app.workspace_id.clone()),
                ..new.owner
            },
            expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_reason: None,
            created_at: now,
            updated_at: now,
            revision: 1,
        };
        size_checked(&made)?;
        let rules = self.rules_of_key(app, &made).await?;
        let tag = self.peppers.current().await?.tag_api_key(app.deployment_id, &token)?;
        let mut change = Change::new(self, &key_event(access.event(self, Action::KeyCreated)?, &made))?
            .create(with_tag(record::item(&key(made.id), &made)?, &tag), changed_meanwhile())?
            .put(entry(&list_key(&made)))?
            .require(&apps::key(app.number), Expression::unchanged(app.revision), changed_meanwhile())?;
        if let Some(scheme) = &made.rate_limit_scheme_slug {
            change = count_use(change, app.deployment_id, scheme, User::Key, 1)?.put(entry(&user_key(
                app.deployment_id,
                scheme,
                made.id,
            )))?;
        }
        change.commit().await?;
        Ok((made, rules, token))
    }

    /// The keys of an app, newest first: all, or a page of `limit` below the key `before`. One that cannot be read is left
    /// out.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn keys(
        &self,
        access: &AppAccess,
        status: KeyStatus,
        before: Option<KeyId>,
        limit: Option<usize>,
    ) -> Result<KeyPage, Error> {
        access.require(Capability::KeysRead)?;
        let before = before.map(KeyId::base62);
        // One more than asked for tells whether there is another page.
        let wanted = limit.map(|limit| limit.saturating_add(1));
        let mut entries = Vec::new();
        for active in [true, false] {
            let included = match status {
                KeyStatus::All => true,
                KeyStatus::Active | KeyStatus::Expired => active,
                KeyStatus::Revoked => !active,
            };
            if included {
                let partition = list(access.app.number, active);
                entries.extend(self.table.entries(&partition, before.as_deref(), wanted).await?);
            }
        }
        entries.sort_by(|a, b| b.cmp(a));
        // A key that is revoked between the two reads is in both lists.
        entries.dedup();
        let more = limit.is_some_and(|limit| entries.len() > limit);
        entries.truncate(limit.unwrap_or(usize::MAX));
        let next = entries.last().filter(|_| more);
        let next = next.and_then(|sk| KeyId::from_base62(sk).ok());
        let keys: Vec<Key> = entries.iter().filter_map(|sk| KeyId::from_base62(sk).ok()).map(key).collect();
        let now = self.clock().now();
        let keys: Vec<ApiKey> = readable(self.table.get_many(&keys).await?).collect();
        let slugs = keys.iter().filter_map(|key| scheme_of(&access.app, key));
        let rules = self.rules(access.app.deployment_id, slugs).await?;
        let with_rules = |key: ApiKey| {
            let rules = scheme_of(&access.app, &key).and_then(|slug| rules.get(slug)).cloned();
            (key, rules)
        };
        let wanted = |key: &ApiKey| status != KeyStatus::Expired || key.is_expired(now);
        Ok(KeyPage { keys: keys.into_iter().filter(wanted).map(with_rules).collect(), next })
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
        if !before.is_active() {
            return Err(Error::NotFound("API key not found or inactive"));
        }
        let rules = self.rules_of_key(&access.app, &before).await?;
        let token = ApiKeyToken {
            prefix: before.key_prefix.clone(),
            app: before.app,
            id,
            secret: Secret::from_random(&random()?),
        };
        let after = ApiKey {
            key_suffix: token.suffix(),
            updated_at: self.clock().now(),
            revision: before.revision + 1,
            ..before.clone()
        };
        let tag = self.peppers.current().await?.tag_api_key(after.deployment_id, &token)?;
        let update = record::update(&stored, &after, Expression::unchanged(before.revision))?;
        Change::new(self, &key_event(access.event(self, Action::KeyRotated)?, &after))?
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
        for _ in 0..REVOCATIONS {
            let (before, stored) = self.stored_key(access, id).await?;
            if !before.is_active() {
                return Ok(None);
            }
            let now = self.clock().now();
            let after = ApiKey {
                revoked_at: Some(now),
                revoked_reason: reason.clone(),
                updated_at: now,
                revision: before.revision + 1,
                ..before.clone()
            };
            let update = record::update(&stored, &after, Expression::unchanged(before.revision))?;
            let event = key_event(access.event(self, Action::KeyRevoked)?, &after);
            let mut change = Change::new(self, &Event { reason: reason.clone(), ..event })?
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
    pub async fn note_use(&self, verification: &Verification) -> Result<(), Error> {
        let event = verification.event();
        let Some(id) = event.key_id else { return Ok(()) };
        let used = Expression::condition(
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at < :last_used_at)",
        );
        let used = used.set("last_used_at", instant(event.id.timestamp())?);
        self.table.update(&key(id), used).await.map(drop)
    }

    async fn rules_of_key(&self, app: &App, key: &ApiKey) -> Result<Option<Rules>, Error> {
        let Some(slug) = scheme_of(app, key) else { return Ok(None) };
        Ok(self.rules(app.deployment_id, [slug]).await?.remove(slug))
    }

    pub(crate) async fn app_of_key(
        &self,
        deployment: DeploymentId,
        id: KeyId,
    ) -> Result<Option<AppNumber>, Error> {
        let found: Option<ApiKey> = self.table.get(&key(id)).await?.map(record::entity).transpose()?;
        Ok(found.filter(|key| key.deployment_id == deployment).map(|key| key.app))
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

fn size_checked(key: &ApiKey) -> Result<(), Error> {
    let owner = &key.owner;
    let owners = [
        &owner.owner_user_id,
        &owner.organization_id,
        &owner.workspace_id,
        &owner.organization_membership_id,
        &owner.workspace_membership_id,
    ];
    let metadata = key.metadata.to_string();
    let texts = [key.name.as_str(), key.app_slug.as_str(), key.key_prefix.as_str(), metadata.as_str()]
        .into_iter()
        .chain(key.granted().map(Permission::as_str))
        .chain(key.rate_limit_scheme_slug.as_ref().map(Slug::as_str))
        .chain(owners.into_iter().flatten().map(OwnerId::as_str));
    check_size("the key's name, permissions, metadata and owner ids", CALLER_BYTES, texts)
}

/// Refuses permissions beyond the app's.
fn within(permissions: &[Permission], bounds: &Bounds<Permission>) -> Result<(), Error> {
    let beyond: HashSet<&str> = permissions
        .iter()
        .map(Permission::as_str)
        .filter(|permission| !bounds.admit(|bound| bound.covers(permission)))
        .collect();
    match beyond.into_iter().min() {
        None => Ok(()),
        Some(permission) => {
            let problem = format!("must lie within the app's: '{permission}' does not");
            Err(InvalidField::new("permissions", problem).into())
        }
    }
}
