//! The time limit of a request that needs several calls of the store.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, Timeout, timeout_at};

use crate::{Error, Store};

/// The time that DynamoDB is given where its client does not say.
const DEFAULT: Duration = Duration::from_secs(2);

/// The instant by which a request has all that it needs of the store, or fails.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Store {
    /// A deadline for all that a request needs: as long from now as the client gives one call with all its attempts.
    pub fn deadline(&self) -> Deadline {
        let timeouts = self.table.client().config().timeout_config();
        let one_call = timeouts.and_then(|timeouts| timeouts.operation_timeout());
        Deadline(Instant::now() + one_call.unwrap_or(DEFAULT))
    }
}

impl Deadline {
    /// An earlier one, which leaves a quarter of the time that there is now for what comes after.
    #[must_use]
    pub fn with_reserve(self) -> Self {
        let now = Instant::now();
        Self(now + self.0.saturating_duration_since(now) * 3 / 4)
    }

    /// The result of a call, or an error when it is too late.
    ///
    /// # Errors
    /// Those of the call, and [`Error::Unavailable`] when it is too late.
    pub async fn of<T>(self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let in_time = timeout_at(self.0, call).await;
        in_time.unwrap_or_else(|_| Err(Error::unavailable("the store took too long")))
    }

    /// The result of a call, or an error when it is too late.
    pub(crate) fn limit<F: Future>(self, call: F) -> Timeout<F> {
        timeout_at(self.0, call)
    }
}
