//! Peppers as they are stored: wrapped by a key provider.

use chrono::{DateTime, Utc};

use crate::hashing::PepperVersion;

/// A pepper that only its key provider can unwrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedPepper {
    /// Which one.
    pub version: PepperVersion,
    /// Which provider wrapped it, such as `local` or `aws-kms`.
    pub provider: String,
    /// The wrapped bytes, as the provider gave them.
    pub wrapped: Vec<u8>,
}

/// A version of the pepper and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PepperRecord {
    /// Which one.
    pub version: PepperVersion,
    /// Which provider wrapped it.
    pub provider: String,
    /// The wrapped bytes, until it is retired.
    pub wrapped: Option<Vec<u8>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it began to make new tags.
    pub activated_at: Option<DateTime<Utc>>,
    /// When its wrapped bytes were erased.
    pub retired_at: Option<DateTime<Utc>>,
    /// The rows that needed it when they were last counted.
    pub counted: Option<RowCount>,
}

/// The rows that need a version of the pepper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCount {
    /// When they were counted.
    pub at: DateTime<Utc>,
    /// Those whose tag was made with it.
    pub rows: u64,
    /// Those whose tag it made is under the tag of a later version.
    pub layered: u64,
}

impl PepperRecord {
    /// A new pepper, which makes no tags yet.
    pub fn new(wrapped: WrappedPepper, created_at: DateTime<Utc>) -> Self {
        Self {
            version: wrapped.version,
            provider: wrapped.provider,
            wrapped: Some(wrapped.wrapped),
            created_at,
            activated_at: None,
            retired_at: None,
            counted: None,
        }
    }

    /// The wrapped pepper, which its provider unwraps; none of a retired one.
    pub fn wrapped(&self) -> Option<WrappedPepper> {
        Some(WrappedPepper {
            version: self.version,
            provider: self.provider.clone(),
            wrapped: self.wrapped.clone()?,
        })
    }

    /// Whether it may make new tags.
    pub fn is_active(&self) -> bool {
        self.activated_at.is_some() && self.wrapped.is_some()
    }
}

/// The version that makes new tags: the highest active one.
pub fn current(peppers: &[PepperRecord]) -> Option<PepperVersion> {
    peppers.iter().filter(|pepper| pepper.is_active()).map(|pepper| pepper.version).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_that_is_active_makes_tags_and_a_retired_one_is_not_unwrapped() {
        let pepper = |version| {
            let wrapped =
                WrappedPepper { version: PepperVersion(version), provider: "local".into(), wrapped: vec![7] };
            assert_eq!(
                PepperRecord::new(wrapped.clone(), DateTime::UNIX_EPOCH).wrapped(),
                Some(wrapped.clone())
            );
            PepperRecord::new(wrapped, DateTime::UNIX_EPOCH)
        };
        let active = |version| PepperRecord { activated_at: Some(DateTime::UNIX_EPOCH), ..pepper(version) };
        let retired = PepperRecord { wrapped: None, ..active(4) };
        assert_eq!(retired.wrapped(), None);
        assert_eq!(current(&[pepper(5), retired, active(2), active(3), active(1)]), Some(PepperVersion(3)));
        assert_eq!(current(&[pepper(1)]), None);
    }
}
