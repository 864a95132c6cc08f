//! Peppers: creating, wrapping and unwrapping them. Nothing else uses KMS.
//!
//! A pepper is 32 random bytes that a [`KeyProvider`] wraps; the table holds only the wrapped form, by version. A
//! process unwraps each version once and never asks its provider again: when the provider fails, the start fails, and
//! nothing works without a pepper.

mod core_dumps;
mod kms;
mod local;
mod timeouts;

use std::fmt;

use futures::future::{BoxFuture, try_join_all};
use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::pepper::{self, PepperRecord, WrappedPepper};
use secrecy::{ExposeSecret, SecretBox};

pub use core_dumps::forbid_core_dumps;
pub use kms::{KeyFault, KmsKeyProvider};
pub use local::LocalKeyProvider;
pub use timeouts::with_timeouts;

/// A pepper in the open: it cannot be printed, and is erased when it is dropped.
pub type PlainPepper = SecretBox<[u8; 32]>;

/// These bytes, copied to where they are erased.
fn plain(bytes: &[u8; 32]) -> PlainPepper {
    SecretBox::init_with_mut(|pepper: &mut [u8; 32]| pepper.copy_from_slice(bytes))
}

/// Why a pepper could not be created or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The key file cannot be used; the text says why and what to do.
    #[error("{0}")]
    KeyFile(String),
    /// KMS did not do what was asked of it.
    #[error("KMS failed: {0}")]
    Kms(String),
    /// The wrapped bytes were not made by this key, for this installation and this version.
    #[error("pepper version {0} was not wrapped by this key")]
    Foreign(PepperVersion),
    /// There is no active pepper to load.
    #[error("the table holds no pepper")]
    Missing,
}

/// Where the key that wraps peppers lives.
pub trait KeyProvider: fmt::Debug + Send + Sync {
    /// Creates a pepper and wraps it, bound to this version.
    ///
    /// # Errors
    /// [`PepperError`].
    fn generate(&self, version: PepperVersion) -> BoxFuture<'_, Result<WrappedPepper, PepperError>>;

    /// Unwraps a pepper that this provider wrapped.
    ///
    /// # Errors
    /// [`PepperError::Foreign`] for another's, for another version's and for changed bytes.
    fn unwrap<'a>(&'a self, pepper: &'a WrappedPepper) -> BoxFuture<'a, Result<PlainPepper, PepperError>>;
}

/// The keyring of these peppers: at once one call of the provider for each that is not retired and that `held`, if given,
/// does not hold.
///
/// # Errors
/// [`PepperError`]; none of them is left out silently.
pub async fn unlock(
    provider: &dyn KeyProvider,
    peppers: &[PepperRecord],
    held: Option<&Keyring>,
) -> Result<Keyring, PepperError> {
    let current = pepper::current(peppers).ok_or(PepperError::Missing)?;
    let (kept, missing): (Vec<WrappedPepper>, Vec<WrappedPepper>) = peppers
        .iter()
        .filter_map(PepperRecord::wrapped)
        .partition(|pepper| held.is_some_and(|held| held.holds(pepper.version)));
    let unwrap = async |pepper: &WrappedPepper| Ok((pepper.version, provider.unwrap(pepper).await?));
    let plain: Vec<(PepperVersion, PlainPepper)> = try_join_all(missing.iter().map(unwrap)).await?;
    let plain = plain.iter().map(|(version, pepper)| (*version, pepper.expose_secret()));
    let kept: Vec<PepperVersion> = kept.iter().map(|pepper| pepper.version).collect();
    let ring = match held {
        Some(held) => held.rotated(current, &kept, plain),
        None => Keyring::new(current, plain),
    };
    ring.ok_or(PepperError::Missing)
}
