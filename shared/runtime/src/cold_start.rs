//! The cold start of a function.

use std::io;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use keyward_core::metric::Metric;
use keyward_pepper::forbid_core_dumps;
use tokio::sync::OnceCell;

use crate::SettingsError;
use crate::log::start_log;

/// The time that a request waits for a function that could not start at first.
const TIMEOUT: Duration = Duration::from_millis(1_800);

/// The state that a function needs before it can respond: made when it starts or, where that failed, as soon as it can be
/// at a later request.
pub struct ColdStart<T> {
    start: Start<T>,
    started: OnceCell<T>,
}

type Start<T> = Box<dyn Fn() -> BoxFuture<'static, Result<T, SettingsError>> + Send + Sync>;

/// The state could not be made, which is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The service cannot start right now; try again")]
pub struct NotReady;

impl<T> ColdStart<T> {
    /// A cold start that will call `start`, and has not yet.
    pub fn new<F: Future<Output = Result<T, SettingsError>> + Send + 'static>(
        start: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { start: Box::new(move || start().boxed()), started: OnceCell::new() }
    }

    /// Begins the process of a function, whatever kind of event it is for: no core dumps, a log, and a first attempt to make
    /// the state, so that the first event need not wait for it.
    ///
    /// # Errors
    /// Core dumps cannot be forbidden.
    pub async fn begin(&self) -> io::Result<()> {
        forbid_core_dumps()?;
        start_log();
        let _tried = self.started().await;
        Ok(())
    }

    /// The state, if it was made.
    pub fn state(&self) -> Option<&T> {
        self.started.get()
    }

    /// The state, made by this call if by none before.
    ///
    /// # Errors
    /// It could not be made.
    pub async fn started(&self) -> Result<&T, NotReady> {
        let started = self.started.get_or_try_init(&*self.start).await;
        started.map_err(|error| {
            tracing::error!(metric = error.metric().name(), %error, "the function cannot start");
            NotReady
        })
    }

    /// As [`Self::started`], for a request: in time to respond within two seconds.
    ///
    /// # Errors
    /// As [`Self::started`].
    pub async fn ready(&self) -> Result<&T, NotReady> {
        let started = tokio::time::timeout(TIMEOUT, self.started()).await;
        started.unwrap_or_else(|_| {
            let metric = Metric::InternalErrors.name();
            tracing::error!(metric, "the function cannot start in time");
            Err(NotReady)
        })
    }
}
