//! Lists of an app's keys.

use keyward_core::ApiKey;
use keyward_core::id::KeyId;
use keyward_core::rate_limit::Rules;
use keyward_core::session::Capability;

use super::{key, list};
use crate::item::Key;
use crate::record::readable;
use crate::{AppAccess, Error, Store};

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

impl Store {
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
        let slugs = keys.iter().filter_map(|key| key.rate_limit_scheme(&access.app));
        let rules = self.rules(access.app.deployment_id, slugs).await?;
        let with_rules = |key: ApiKey| {
            let rules = key.rate_limit_scheme(&access.app).and_then(|slug| rules.get(slug)).cloned();
            (key, rules)
        };
        let wanted = |key: &ApiKey| status != KeyStatus::Expired || key.is_expired(now);
        Ok(KeyPage { keys: keys.into_iter().filter(wanted).map(with_rules).collect(), next })
    }
}
