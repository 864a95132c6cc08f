//! Peppers: making, wrapping and unwrapping them. Nothing else knows KMS.
//!
//! A pepper is 32 random bytes that a [`KeyProvider`] wraps; the table holds only the wrapped form, by version. A
//! process unwraps what it needs once, when it starts, and never asks its provider again: when the provider fails,
//! the start fails, and there is no way to go on without a pepper.

mod kms;
mod local;

use std::future::Future;

use chrono::{DateTime, Utc};
use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::pepper::WrappedPepper;
use zeroize::Zeroizing;

pub use kms::{KeyFault, KmsKeyProvider};
pub use local::LocalKeyProvider;

/// A pepper in the open, erased when it is dropped.
pub type PlainPepper = Zeroizing<[u8; 32]>;

/// Why a pepper could not be made or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The key file cannot be used; the text says why and what to do.
    #[error("{0}")]
    KeyFile(String),
    /// KMS did not do what was asked of it.
    #[error("KMS failed: {0}")]
    Kms(String),
    /// The wrapped bytes were not made by this key, for this installation and this version.
    #[error("pepper version {} was not wrapped by this key", .0.0)]
    Foreign(PepperVersion),
    /// There is no pepper to load.
    #[error("the table holds no pepper")]
    Missing,
}

/// Where the key that wraps peppers lives.
pub trait KeyProvider: Sync {
    /// Makes a pepper and wraps it, bound to this version.
    ///
    /// # Errors
    /// [`PepperError`].
    fn generate(
        &self,
        version: PepperVersion,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<WrappedPepper, PepperError>> + Send;

    /// Unwraps a pepper that this provider wrapped.
    ///
    /// # Errors
    /// [`PepperError::Foreign`] for another's, for another version's and for changed bytes.
    fn unwrap(&self, pepper: &WrappedPepper)
    -> impl Future<Output = Result<PlainPepper, PepperError>> + Send;
}

/// Unwraps these peppers into a keyring: one call of the provider each.
///
/// # Errors
/// [`PepperError`]; none of them is left out silently.
pub async fn unlock<P: KeyProvider>(provider: &P, peppers: &[WrappedPepper]) -> Result<Keyring, PepperError> {
    let mut plain = Vec::with_capacity(peppers.len());
    for pepper in peppers {
        plain.push((pepper.version, provider.unwrap(pepper).await?));
    }
    Keyring::new(plain.iter().map(|(version, pepper)| (*version, &**pepper))).ok_or(PepperError::Missing)
}
