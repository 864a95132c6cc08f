//! How credentials are stored: as HMACs under a pepper, never as themselves.
//!
//! `tag = HMAC-SHA-256(pepper, domain ‖ 0 ‖ deployment ‖ id ‖ secret)` (RFC 2104, FIPS 198-1). The deployment and
//! the id are 8 bytes each, most significant first, and the secret its 43 digits, so no two inputs share an
//! encoding. A tag is bound to its row: copied onto another row it verifies nothing.
//!
//! After a leak of a pepper a row is re-peppered without its secret: the tag becomes
//! `HMAC-SHA-256(new pepper, "keyward/tag/1" ‖ 0 ‖ old tag)`. It then needs both peppers, so the leaked one alone cannot test
//! a guess; when its credential is next presented it is made again from the secret, under the new pepper alone.

use std::collections::BTreeMap;
use std::fmt;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::Domain;
use crate::id::DeploymentId;
use crate::token::{ApiKeyToken, Kind, Secret, Token};
use crate::verified::MatchedSecret;

/// The label of a tag over another tag. It is in stored tags: it must never change.
const TAG_LABEL: &[u8] = b"keyward/tag/1";

/// Which pepper: 1 for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PepperVersion(pub u32);

impl fmt::Display for PepperVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored tag and the versions of the peppers it was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct Tag {
    /// The pepper of the HMAC.
    pub version: PepperVersion,
    /// The peppers of the tags beneath it, the innermost first; empty for the tag of a secret.
    pub layers: Vec<PepperVersion>,
    /// The 32 bytes of the HMAC.
    pub bytes: Vec<u8>,
}

impl Tag {
    /// All versions that it takes to compare it, the innermost first.
    pub fn versions(&self) -> impl Iterator<Item = PepperVersion> {
        self.layers.iter().copied().chain([self.version])
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.versions()).finish()
    }
}

/// A row names a pepper that this process does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pepper version {0} is not loaded")]
pub struct UnknownPepper(pub PepperVersion);

/// The peppers of a process, ready for use. The plain bytes are not kept, and `Debug` shows versions only.
pub struct Keyring {
    current: PepperVersion,
    keys: BTreeMap<PepperVersion, hmac::Key>,
    compared: Arc<AtomicU64>,
}

impl Keyring {
    /// A ring of these peppers of 32 bytes, of which `current` makes new tags. `None` without that one.
    pub fn new<'a>(
        current: PepperVersion,
        peppers: impl IntoIterator<Item = (PepperVersion, &'a [u8; 32])>,
    ) -> Option<Self> {
        let empty = Self { current, keys: BTreeMap::new(), compared: Arc::default() };
        empty.rotated(current, &[], peppers)
    }

    /// The ring that comes after this one: with these peppers beside those of `kept` that this one holds, and of all of
    /// them `current` makes new tags. `None` without that one.
    pub fn rotated<'a>(
        &self,
        current: PepperVersion,
        kept: &[PepperVersion],
        added: impl IntoIterator<Item = (PepperVersion, &'a [u8; 32])>,
    ) -> Option<Self> {
        let kept = kept.iter().filter_map(|version| Some((*version, self.keys.get(version)?.clone())));
        let added =
            added.into_iter().map(|(version, pepper)| (version, hmac::Key::new(hmac::HMAC_SHA256, pepper)));
        let keys: BTreeMap<_, _> = kept.chain(added).collect();
        keys.contains_key(&current).then(|| Self { current, keys, compared: self.compared.clone() })
    }

    /// Whether it holds this pepper.
    pub fn holds(&self, version: PepperVersion) -> bool {
        self.keys.contains_key(&version)
    }

    /// Whether a tag is one that this ring would make of a secret, as far as its peppers go.
    pub fn is_current(&self, tag: &Tag) -> bool {
        tag.version == self.current && tag.layers.is_empty()
    }

    /// The pepper that makes new tags.
    pub fn current(&self) -> PepperVersion {
        self.current
    }

    /// The tag to store for an API key.
    ///
    /// # Errors
    /// Never in practice: the current version is always held.
    pub fn tag_api_key(&self, deployment: DeploymentId, token: &ApiKeyToken) -> Result<Tag, UnknownPepper> {
        self.tag(Domain::ApiKey, deployment, token.id.get(), &token.secret)
    }

    /// The tag to store for a root key, a ticket or a session.
    ///
    /// # Errors
    /// Never in practice: the current version is always held.
    pub fn tag_token<K: Kind>(
        &self,
        deployment: DeploymentId,
        token: &Token<K>,
    ) -> Result<Tag, UnknownPepper> {
        self.tag(K::DOMAIN, deployment, token.id.into(), &token.secret)
    }

    /// Compares, in constant time, the secret of a token with the tag of the row that it names.
    ///
    /// # Errors
    /// The row names a pepper that is not held.
    pub fn verify<'t>(
        &self,
        deployment: DeploymentId,
        token: &'t ApiKeyToken,
        tag: &Tag,
    ) -> Result<Option<MatchedSecret<'t>>, UnknownPepper> {
        let matches = self.matches(Domain::ApiKey, deployment, token.id.get(), &token.secret, tag)?;
        Ok(matches.then_some(MatchedSecret { token, deployment }))
    }

    /// Whether the row of this credential was made for this secret, compared in constant time.
    ///
    /// # Errors
    /// The row names a pepper that is not held.
    pub fn matches_token<K: Kind>(
        &self,
        deployment: DeploymentId,
        token: &Token<K>,
        tag: &Tag,
    ) -> Result<bool, UnknownPepper> {
        self.matches(K::DOMAIN, deployment, token.id.into(), &token.secret, tag)
    }

    /// Does the work of [`Keyring::verify`] for a row that does not exist, so that an unknown id costs
    /// what a wrong secret costs. Always false.
    pub fn verify_missing(&self, secret: &Secret) -> bool {
        let tag = Tag { version: self.current, layers: vec![], bytes: vec![0; 32] };
        let nobody = DeploymentId::mint(chrono::DateTime::UNIX_EPOCH, 0);
        self.matches(Domain::ApiKey, nobody, 0, secret, &tag).is_ok_and(|_| false)
    }

    /// The number of HMACs computed to compare credentials, in which an unknown id and a wrong secret must not differ.
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// A tag over this one, under the current pepper: no secret is needed. What is under that pepper stays as it is.
    ///
    /// # Errors
    /// Never in practice: the current version is always held.
    pub fn retag(&self, tag: &Tag) -> Result<Tag, UnknownPepper> {
        if tag.version == self.current {
            return Ok(tag.clone());
        }
        let signed = hmac::sign(self.key(self.current)?, &layered_input(&tag.bytes));
        let layers = tag.versions().collect();
        Ok(Tag { version: self.current, layers, bytes: signed.as_ref().to_vec() })
    }

    fn tag(
        &self,
        domain: Domain,
        deployment: DeploymentId,
        id: i64,
        secret: &Secret,
    ) -> Result<Tag, UnknownPepper> {
        let signed = hmac::sign(self.key(self.current)?, &message(domain, deployment, id, secret));
        Ok(Tag { version: self.current, layers: vec![], bytes: signed.as_ref().to_vec() })
    }

    /// Computes one HMAC for each pepper of the ring, however many of them the tag takes: how long it took tells nothing.
    fn matches(
        &self,
        domain: Domain,
        deployment: DeploymentId,
        id: i64,
        secret: &Secret,
        tag: &Tag,
    ) -> Result<bool, UnknownPepper> {
        let mut message = message(domain, deployment, id, secret);
        let compare_with = self.key(tag.version)?;
        for version in &tag.layers {
            message = layered_input(hmac::sign(self.key(*version)?, &message).as_ref());
        }
        let matches = hmac::verify(compare_with, &message, &tag.bytes).is_ok();
        let computed = 1 + tag.layers.len();
        let left = self.keys.len().saturating_sub(computed);
        for _ in 0..left {
            hint::black_box(hmac::sign(compare_with, &message));
        }
        self.compared.fetch_add((computed + left) as u64, Ordering::Relaxed);
        Ok(matches)
    }

    fn key(&self, version: PepperVersion) -> Result<&hmac::Key, UnknownPepper> {
        self.keys.get(&version).ok_or(UnknownPepper(version))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

/// The input of a tag that goes over this one.
fn layered_input(tag: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([TAG_LABEL, &[0], tag].concat())
}

fn message(domain: Domain, deployment: DeploymentId, id: i64, secret: &Secret) -> Zeroizing<Vec<u8>> {
    let secret = secret.expose().as_bytes();
    let mut message = Zeroizing::new(Vec::with_capacity(domain.label().len() + 17 + secret.len()));
    message.extend_from_slice(domain.label());
    message.push(0);
    message.extend_from_slice(&deployment.get().to_be_bytes());
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(secret);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AppNumber, KeyId, RootKeyId, TicketId};
    use crate::text::KeyPrefix;
    use crate::token::{RootKey, Ticket};

    /// Pepper n is 32 bytes n.
    fn ring(current: u8, versions: impl IntoIterator<Item = u8>) -> Keyring {
        let peppers: Vec<_> = versions.into_iter().map(|n| (PepperVersion(n.into()), [n; 32])).collect();
        let peppers = peppers.iter().map(|(version, pepper)| (*version, pepper));
        Keyring::new(PepperVersion(current.into()), peppers).unwrap()
    }

    fn keyring() -> Keyring {
        ring(2, [1, 2])
    }

    fn deployment(number: i64) -> DeploymentId {
        DeploymentId::new(number).unwrap()
    }

    fn token(id: i64) -> ApiKeyToken {
        ApiKeyToken {
            prefix: KeyPrefix::parse("key_prefix", "sk").unwrap(),
            app: AppNumber::mint(0),
            id: KeyId::new(id).unwrap(),
            secret: Secret::from_random(&[5; 32]),
        }
    }

    #[test]
    fn a_tag_is_bound_to_its_row() {
        let ring = keyring();
        let here = token(2);
        let tag = ring.tag_api_key(deployment(1), &here).unwrap();
        let matches = |d, id: i64| ring.verify(deployment(d), &token(id), &tag).unwrap().is_some();
        assert!(matches(1, 2));
        assert!(!matches(1, 3), "another key");
        assert!(!matches(2, 2), "another deployment");
        let root = Token::<RootKey>::new(RootKeyId::new(2).unwrap(), token(2).secret);
        assert!(!ring.matches_token(deployment(1), &root, &tag).unwrap(), "another kind");
    }

    #[test]
    fn an_older_pepper_still_verifies_and_an_unknown_one_is_an_error() {
        let old = ring(1, [1]);
        let ticket = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[5; 32]));
        let tag = old.tag_token(deployment(1), &ticket).unwrap();
        assert!(keyring().matches_token(deployment(1), &ticket, &tag).unwrap());
        let newer = keyring().tag_token(deployment(1), &ticket).unwrap();
        assert_eq!(old.matches_token(deployment(1), &ticket, &newer), Err(UnknownPepper(PepperVersion(2))));
    }

    #[test]
    fn a_tag_over_a_tag_takes_both_peppers_and_the_secret() {
        let token = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[5; 32]));
        let other = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[6; 32]));
        let first = ring(1, [1]).tag_token(deployment(1), &token).unwrap();
        let second = ring(2, [1, 2]).retag(&first).unwrap();
        let third = ring(3, [1, 2, 3]).retag(&second).unwrap();
        assert_eq!(third.versions().map(|version| version.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(ring(3, [1, 2, 3]).retag(&third).unwrap(), third);
        let all = ring(3, [1, 2, 3]);
        for tag in [&first, &second, &third] {
            assert!(all.matches_token(deployment(1), &token, tag).unwrap(), "{tag:?}");
            assert!(!all.matches_token(deployment(1), &other, tag).unwrap(), "{tag:?}");
            assert!(!all.matches_token(deployment(2), &token, tag).unwrap(), "{tag:?}");
            assert!(!all.is_current(tag), "{tag:?}");
        }
        assert!(all.is_current(&all.tag_token(deployment(1), &token).unwrap()));
        assert_eq!(
            ring(3, [2, 3]).matches_token(deployment(1), &token, &third),
            Err(UnknownPepper(PepperVersion(1)))
        );
        let relabelled = Tag { layers: vec![], ..second.clone() };
        assert!(!all.matches_token(deployment(1), &token, &relabelled).unwrap());
    }

    #[test]
    fn a_comparison_costs_an_hmac_for_each_pepper() {
        let token = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[5; 32]));
        let first = ring(1, [1]).tag_token(deployment(1), &token).unwrap();
        let three = ring(3, [1, 2, 3]);
        for tag in [three.retag(&first).unwrap(), three.tag_token(deployment(1), &token).unwrap(), first] {
            let before = three.compared();
            three.matches_token(deployment(1), &token, &tag).unwrap();
            assert_eq!(three.compared() - before, 3, "{tag:?}");
        }
        let before = three.compared();
        three.verify_missing(&token.secret);
        assert_eq!(three.compared() - before, 3);
    }

    #[test]
    fn a_ring_turns() {
        let token = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[5; 32]));
        let [one, two] = [PepperVersion(1), PepperVersion(2)];
        let first = ring(1, [1]);
        let tag = first.tag_token(deployment(1), &token).unwrap();
        let both = first.rotated(two, &[one], [(two, &[2; 32])]).unwrap();
        assert!(both.matches_token(deployment(1), &token, &tag).unwrap());
        assert_eq!(both.tag_token(deployment(1), &token).unwrap().version, two);
        let second = both.rotated(two, &[two], []).unwrap();
        assert!(!second.holds(one) && second.holds(two));
        assert!(second.rotated(one, &[one, two], []).is_none(), "the current one is missing");
    }
}
