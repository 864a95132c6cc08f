//! The reads of a check. First, in one batch: the key that a token names, its app, and the root key of whoever asks.
//! Nothing of the key is told before its secret was compared, and until then everything that is read and computed depends
//! on the id and the app's number in the token alone, not on what there is of them. The rules that limit a key come after
//! that, and only if they decide; they are in the first batch too where this process has recognised the same token, or
//! another one of the same app, before.

use std::fmt;
use std::hash::BuildHasher;

use keyward_core::audit::Origin;
use keyward_core::hashing::{Keyring, Tag};
use keyward_core::id::DeploymentId;
use keyward_core::rate_limit::{Rules, Scheme};
use keyward_core::root_key::Scope;
use keyward_core::text::Slug;
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_core::{ApiKey, App, VerifiedKey};

use super::key;
use crate::item::{Item, Key};
use crate::record::{self, tag_of};
use crate::{Deadline, Error, Store, apps, root_keys, scheme_uses};

/// How often a key is read again whose scheme is gone, before that is no change at the same time.
const MAX_READS: u32 = 4;

/// The rows of several tokens, and who asked for them.
#[derive(Debug)]
pub struct FoundKeys {
    /// The deployment of the root key of whoever asks.
    pub caller: Option<DeploymentId>,
    /// For each token, in their order.
    pub candidates: Vec<Candidate>,
}

/// The rows of a token whose secret was not compared yet. Nothing of them is told but by [`Store::verify`].
pub struct Candidate {
    token: ApiKeyToken,
    row: Result<Option<Row>, Error>,
    app: Result<Option<Item>, Error>,
    scheme: Option<(Key, Item)>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidate").field(&self.token).finish()
    }
}

/// The item of a key, and what it takes to compare a secret with it.
struct Row {
    item: Item,
    tag: Tag,
    deployment_id: DeploymentId,
}

impl Row {
    fn of(item: Item) -> Result<Self, Error> {
        let deployment_id = record::attribute(&item, "deployment_id")?;
        Ok(Self { tag: tag_of(&item)?, item, deployment_id })
    }
}

/// A verified key, with what was read beside it.
#[derive(Debug)]
pub struct KeyToCheck {
    verified: VerifiedKey,
    /// The item of its scheme, where that was read too and not yet looked into.
    scheme: Option<Item>,
}

impl KeyToCheck {
    /// The key and its app, as one check found them.
    pub fn verified(&self) -> &VerifiedKey {
        &self.verified
    }

    /// The same, taken out.
    pub fn into_verified(self) -> VerifiedKey {
        self.verified
    }

    fn scheme_key(&self) -> Option<Key> {
        scheme_key(self.verified.app(), self.verified.key())
    }
}

fn scheme_key(app: &App, key: &ApiKey) -> Option<Key> {
    key.rate_limit_scheme(app).map(|slug| scheme_uses::key(app.deployment_id, slug))
}

fn rules_in(scheme: Item) -> Result<Rules, Error> {
    Ok(record::entity::<Scheme>(scheme)?.rules)
}

impl Store {
    /// Reads what these tokens name, and the root key of whoever asks: each item once, a hundred in a request, a read unit
    /// for each.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a root key that is not valid, [`Error::Forbidden`] for one without the scope
    /// `verify`; the store fails for all of it. What could not be read for one token alone is told by [`Self::verify`].
    pub async fn find_keys(
        &self,
        deadline: Deadline,
        tokens: Vec<ApiKeyToken>,
        caller: Option<Token<RootKey>>,
    ) -> Result<FoundKeys, Error> {
        let tokens: Vec<(ApiKeyToken, Option<Key>)> = tokens
            .into_iter()
            .map(|token| {
                let scheme = self.known_scheme(&token);
                (token, scheme)
            })
            .collect();
        let places = tokens.iter().flat_map(|(token, scheme)| {
            [key(token.id), apps::key(token.app)].into_iter().chain(scheme.clone())
        });
        let places = caller.as_ref().map(|caller| root_keys::key(caller.id)).into_iter().chain(places);
        let mut reads = self.table.read_until(deadline, places.collect()).await.unless_all_failed()?;
        let caller = match caller {
            None => None,
            Some(caller) => {
                let item = reads.take(&root_keys::key(caller.id))?;
                let access = deadline.of(self.root_access(item, caller, Origin::default())).await?;
                access.require(Scope::Verify)?;
                Some(access.deployment_id)
            }
        };
        let candidates = tokens.into_iter().map(|(token, scheme)| Candidate {
            row: reads.take(&key(token.id)).and_then(|item| item.map(Row::of).transpose()),
            app: reads.take(&apps::key(token.app)),
            scheme: scheme.and_then(|scheme| {
                let item = reads.take(&scheme).ok()??;
                Some((scheme, item))
            }),
            token,
        });
        Ok(FoundKeys { caller, candidates: candidates.collect() })
    }

    /// Whether a secret can be compared with what was found at once, without reading a version of the pepper first.
    pub fn can_verify(&self, candidate: &Candidate) -> bool {
        let ring = self.peppers.ring();
        candidate.tag().is_none_or(|tag| tag.versions().all(|version| ring.holds(version)))
    }

    /// For each of these, the key whose secret the token has. None if there is no such key, the secret is another one, or the
    /// key does not belong to the app that the token names or, if it is given, to the deployment `only`. Costs one HMAC for
    /// each pepper, also where nothing was found. The row of a key that is recognised moves to the current pepper, after the
    /// answer.
    ///
    /// # Errors
    /// Of each alone: its row cannot be read or not be compared with, or the secret is right and what was found cannot be
    /// read.
    pub async fn verify(
        &self,
        deadline: Deadline,
        candidates: Vec<Candidate>,
        only: Option<DeploymentId>,
    ) -> Vec<Result<Option<KeyToCheck>, Error>> {
        let tags = || candidates.iter().filter_map(Candidate::tag);
        let read = deadline.of(self.peppers.of(tags())).await;
        let ring = read.as_ref().map_or_else(|_| self.peppers.ring(), Clone::clone);
        let verified = candidates.into_iter().map(|candidate| {
            let unread = candidate.tag().filter(|tag| !tag.versions().all(|version| ring.holds(version)));
            match (&read, unread) {
                (Err(error), Some(_)) => Err(error.clone()),
                _ => self.verify_with(&ring, candidate, only),
            }
        });
        verified.collect()
    }

    fn verify_with(
        &self,
        ring: &Keyring,
        candidate: Candidate,
        only: Option<DeploymentId>,
    ) -> Result<Option<KeyToCheck>, Error> {
        let Candidate { token, row, app, scheme } = candidate;
        let Some(Row { item, tag, deployment_id }) = row? else {
            ring.verify_missing(&token.secret);
            return Ok(None);
        };
        let Some(matched) = ring.verify(deployment_id, &token, &tag)? else { return Ok(None) };
        let key: ApiKey = record::entity(item)?;
        let Some(app) = app? else { return Ok(None) };
        let verified = matched.of(key, record::entity(app)?);
        let Some(verified) = verified.filter(|_| only.is_none_or(|only| only == deployment_id)) else {
            return Ok(None);
        };
        self.remember_scheme(&token, verified.key(), verified.app());
        let place = scheme_key(verified.app(), verified.key());
        let scheme = scheme.filter(|(read, _)| Some(read) == place.as_ref()).map(|(_, item)| item);
        self.retag_later(super::key(token.id), tag, move |ring| ring.tag_api_key(deployment_id, &token));
        Ok(Some(KeyToCheck { verified, scheme }))
    }

    /// The rules that limit each of these keys; none where it has no scheme. What was not read with the keys is read
    /// together.
    ///
    /// # Errors
    /// Of each alone: there are no such rules, or they cannot be read.
    pub async fn rules_to_check(
        &self,
        deadline: Deadline,
        keys: &mut [&mut KeyToCheck],
    ) -> Vec<Result<Option<Rules>, Error>> {
        let unread = keys.iter().filter(|key| key.scheme.is_none()).filter_map(|key| key.scheme_key());
        let mut reads = self.table.read_until(deadline, unread.collect()).await;
        let mut rules = Vec::with_capacity(keys.len());
        for key in keys {
            let read = match (key.scheme_key(), key.scheme.take()) {
                (None, _) => Ok(None),
                (Some(_), Some(item)) => rules_in(item).map(Some),
                (Some(place), None) => match reads.take(&place) {
                    Ok(Some(item)) => rules_in(item).map(Some),
                    Ok(None) => deadline.of(self.rules_after_a_change(key)).await,
                    Err(error) => Err(error),
                },
            };
            rules.push(read);
        }
        rules
    }

    /// The rules of a key whose scheme is gone: in that of which the key or its app has told since, as only what is not used
    /// can be deleted.
    async fn rules_after_a_change(&self, found: &KeyToCheck) -> Result<Option<Rules>, Error> {
        let id = found.verified.key().id;
        let (of_key, of_app) = (key(id), apps::key(found.verified.app().number));
        for _ in 0..MAX_READS {
            let mut rows = self.table.get_all(&[of_key.clone(), of_app.clone()]).await?;
            let (Some(key), Some(app)) = (rows.remove(&of_key), rows.remove(&of_app)) else { break };
            let Some(place) = scheme_key(&record::entity(app)?, &record::entity(key)?) else {
                return Ok(None);
            };
            if let Some(scheme) = self.table.get_all(std::slice::from_ref(&place)).await?.remove(&place) {
                return rules_in(scheme).map(Some);
            }
        }
        Err(Error::internal(format!("the rate limit scheme of the key {id} does not exist")))
    }

    /// Where the rules of a token's key were found last.
    fn known_scheme(&self, token: &ApiKeyToken) -> Option<Key> {
        let of_key = self.schemes_of_keys.get(&self.fingerprint(token));
        of_key.or_else(|| self.schemes_of_apps.get(&token.app))
    }

    /// Notes where the rules of a key are, for the next check of it or of another key of its app.
    fn remember_scheme(&self, token: &ApiKeyToken, key: &ApiKey, app: &App) {
        let of = |slug: &Slug| scheme_uses::key(app.deployment_id, slug);
        match &key.rate_limit_scheme_slug {
            Some(slug) => self.schemes_of_keys.put(self.fingerprint(token), of(slug)),
            None => match &app.settings.rate_limit_scheme_slug {
                Some(slug) => self.schemes_of_apps.put(app.number, of(slug)),
                None => self.schemes_of_apps.forget(&app.number),
            },
        }
    }

    /// The hash that a token is remembered by: with another secret nothing is, so that what is read tells nothing of a key.
    fn fingerprint(&self, token: &ApiKeyToken) -> u64 {
        self.fingerprints.hash_one((token.app, token.id, &token.secret))
    }
}

impl Candidate {
    fn tag(&self) -> Option<&Tag> {
        self.row.as_ref().ok()?.as_ref().map(|row| &row.tag)
    }
}
