//! Peppers as they are stored: wrapped by a key provider.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::hashing::PepperVersion;

/// A pepper that only its key provider can unwrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedPepper {
    /// Which one.
    pub version: PepperVersion,
    /// Which provider wrapped it, such as `local` or `aws-kms`.
    pub provider: String,
    /// The wrapped bytes, as the provider gave them.
    #[serde(with = "serde_bytes")]
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
