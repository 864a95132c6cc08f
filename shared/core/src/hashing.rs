//! How credentials are stored: as HMACs under a pepper, never as themselves.
//!
//! `tag = HMAC-SHA-256(pepper, domain ‖ 0 ‖ deployment ‖ id ‖ secret)` (RFC 2104, FIPS 198-1). The deployment and
//! the id are 8 bytes each, most significant first, and the secret its 43 digits, so no two inputs share an
//! encoding. A tag is bound to the row it lies in: copied onto another row it verifies nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, KeyId};
use crate::token::{ApiKeyToken, Kind, Secret, Token};

/// What a tag stands for, so that a tag of one kind of row is worthless in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// An API key.
    ApiKey,
    /// A root key.
    RootKey,
    /// A ticket.
    Ticket,
    /// A session.
    Session,
}

impl Domain {
    /// The label that is hashed. It is in every stored tag: it must never change.
    fn label(self) -> &'static [u8] {
        match self {
            Self::ApiKey => b"keyward/api-key/1",
            Self::RootKey => b"keyward/root-key/1",
            Self::Ticket => b"keyward/ticket/1",
            Self::Session => b"keyward/session/1",
        }
    }
}

/// Which pepper: 1 for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PepperVersion(pub u32);

/// A stored tag and the version of the pepper it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The pepper.
    pub version: PepperVersion,
    /// The 32 bytes of the HMAC.
    pub bytes: Vec<u8>,
}

/// A row names a pepper that this process does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pepper version {} is not loaded", .0.0)]
pub struct UnknownPepper(pub PepperVersion);

/// The peppers of a process, ready for use. The plain bytes are not kept, and `Debug` shows versions only.
pub struct Keyring {
    current: PepperVersion,
    keys: BTreeMap<PepperVersion, hmac::Key>,
    compared: AtomicU64,
}

impl Keyring {
    /// A ring of these peppers of 32 bytes; new tags are made with the highest version. `None` without any.
    pub fn new<'a>(peppers: impl IntoIterator<Item = (PepperVersion, &'a [u8; 32])>) -> Option<Self> {
        let keys: BTreeMap<_, _> = peppers
            .into_iter()
            .map(|(version, pepper)| (version, hmac::Key::new(hmac::HMAC_SHA256, pepper)))
            .collect();
        let (current, _) = keys.last_key_value()?;
        Some(Self { current: *current, keys, compared: AtomicU64::new(0) })
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

    /// Whether the row of this key was made for this secret, compared in constant time.
    ///
    /// # Errors
    /// The row names a pepper that is not held.
    pub fn matches_api_key(
        &self,
        deployment: DeploymentId,
        id: KeyId,
        secret: &Secret,
        tag: &Tag,
    ) -> Result<bool, UnknownPepper> {
        self.matches(Domain::ApiKey, deployment, id.get(), secret, tag)
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

    /// Does the work of [`Keyring::matches_api_key`] for a row that does not exist, so that an unknown id costs
    /// what a wrong secret costs. Always false.
    pub fn matches_nothing(&self, secret: &Secret) -> bool {
        let tag = Tag { version: self.current, bytes: vec![0; 32] };
        let nobody = DeploymentId::mint(chrono::DateTime::UNIX_EPOCH, 0);
        self.matches(Domain::ApiKey, nobody, 0, secret, &tag).is_ok_and(|_| false)
    }

    /// How many HMACs were computed to compare credentials: what an unknown id and a wrong secret must not differ in.
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    fn tag(
        &self,
        domain: Domain,
        deployment: DeploymentId,
        id: i64,
        secret: &Secret,
    ) -> Result<Tag, UnknownPepper> {
        let key = self.key(self.current)?;
        Ok(Tag {
            version: self.current,
            bytes: hmac::sign(key, &message(domain, deployment, id, secret)).as_ref().to_vec(),
        })
    }

    fn matches(
        &self,
        domain: Domain,
        deployment: DeploymentId,
        id: i64,
        secret: &Secret,
        tag: &Tag,
    ) -> Result<bool, UnknownPepper> {
        let key = self.key(tag.version)?;
        let message = message(domain, deployment, id, secret);
        self.compared.fetch_add(1, Ordering::Relaxed);
        Ok(hmac::verify(key, &message, &tag.bytes).is_ok())
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

fn message(
    domain: Domain,
    deployment: DeploymentId,
    id: i64,
    secret: &Secret,
) -> zeroize::Zeroizing<Vec<u8>> {
    let secret = secret.expose().as_bytes();
    let mut message = zeroize::Zeroizing::new(Vec::with_capacity(domain.label().len() + 17 + secret.len()));
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
    use crate::id::{AppNumber, RootKeyId, TicketId};
    use crate::text::KeyPrefix;
    use crate::token::{RootKey, Ticket};

    fn keyring() -> Keyring {
        Keyring::new([(PepperVersion(1), &[1; 32]), (PepperVersion(2), &[2; 32])]).unwrap()
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
    fn a_known_tag() {
        let tag = keyring().tag_api_key(deployment(1), &token(2)).unwrap();
        let hex: String = tag.bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(tag.version, PepperVersion(2));
        assert_eq!(hex, "a3fbf701fed3bf122d6e1ef3de7ff2de9d10e61ee6577319a4a61f2ca847c39d");
    }

    #[test]
    fn a_tag_is_bound_to_its_row() {
        let ring = keyring();
        let here = token(2);
        let tag = ring.tag_api_key(deployment(1), &here).unwrap();
        let matches = |d, id: i64| {
            ring.matches_api_key(deployment(d), KeyId::new(id).unwrap(), &here.secret, &tag).unwrap()
        };
        assert!(matches(1, 2));
        assert!(!matches(1, 3), "another key");
        assert!(!matches(2, 2), "another deployment");
        let root = Token::<RootKey>::new(RootKeyId::new(2).unwrap(), here.secret.clone());
        assert!(!ring.matches_token(deployment(1), &root, &tag).unwrap(), "another kind");
    }

    #[test]
    fn an_older_pepper_still_verifies_and_an_unknown_one_is_an_error() {
        let old = Keyring::new([(PepperVersion(1), &[1; 32])]).unwrap();
        let ticket = Token::<Ticket>::new(TicketId::new(7).unwrap(), Secret::from_random(&[5; 32]));
        let tag = old.tag_token(deployment(1), &ticket).unwrap();
        assert!(keyring().matches_token(deployment(1), &ticket, &tag).unwrap());
        let newer = keyring().tag_token(deployment(1), &ticket).unwrap();
        assert_eq!(old.matches_token(deployment(1), &ticket, &newer), Err(UnknownPepper(PepperVersion(2))));
    }
}
