//! The injected source of random bytes.

use std::fmt;
use std::sync::Arc;

/// A source of random bytes.
///
/// Every secret, id and nonce is drawn from one of these, so a test decides what they are.
#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) -> Result<(), NoEntropy> + Send + Sync;

/// The source has no random bytes to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes are available")]
pub struct NoEntropy;

impl Entropy {
    /// A source that has `fill` write each byte.
    pub fn new(fill: impl Fn(&mut [u8]) -> Result<(), NoEntropy> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// Writes random bytes over these.
    ///
    /// # Errors
    /// There are none to be had.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        (self.0)(bytes)
    }

    /// This number of random bytes.
    ///
    /// # Errors
    /// There are none to be had.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_from_the_source_or_not_at_all() {
        let constant_source = Entropy::new(|bytes| {
            bytes.fill(7);
            Ok(())
        });
        assert_eq!(constant_source.bytes(), Ok([7; 3]));
        assert_eq!(format!("{constant_source:?}"), "Entropy");
        assert_eq!(Entropy::new(|_| Err(NoEntropy)).bytes::<3>(), Err(NoEntropy));
    }
}
