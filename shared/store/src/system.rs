//! The clock and the random bytes of the operating system: the one place that reaches for either.

use chrono::Utc;
use keyward_core::{Clock, Entropy, NoEntropy};
use ring::rand::{SecureRandom, SystemRandom};

/// The system's clock.
#[expect(clippy::disallowed_methods, reason = "whoever else needs the time is handed a clock")]
pub fn system_clock() -> Clock {
    Clock::new(Utc::now)
}

/// The system's random bytes.
#[expect(clippy::disallowed_methods, reason = "whoever else needs random bytes is handed a source of them")]
pub fn system_entropy() -> Entropy {
    let system = SystemRandom::new();
    Entropy::new(move |bytes| system.fill(bytes).map_err(|_| NoEntropy))
}
