//! `keyward pepper`: the operator's commands for the versions of the pepper, of a deployed stack or of a local run.

use std::io::{self, IsTerminal};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::{self, PepperRecord};
use keyward_pepper::{KeyProvider, PepperError};
use keyward_store::{Conflict, Error, OpenError, OperatorAccess, Progress, Repeppered, Store, Sweep, Table};

use crate::local_run::{LocalRun, LocalRunError};
use crate::set_up::{self, SetUpError};
use crate::stack::{Stack, StackError};

/// The interval of progress reports where there is no terminal.
const PRINT_INTERVAL: Duration = Duration::from_secs(30);

/// Why a command about peppers failed: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PeppersError {
    /// The stack cannot be used.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// There is no local run to use.
    #[error(transparent)]
    Run(#[from] LocalRunError),
    /// There is no pepper yet.
    #[error("there is no pepper yet: create the first with 'keyward pepper init'")]
    None,
    /// The key provider did not do what was asked of it.
    #[error("the pepper cannot be created or unwrapped: {0}")]
    Provider(PepperError),
    /// The table could not be used. What was done stays done.
    #[error("the table cannot be used: {0}; run the command again to continue")]
    Table(Error),
    /// It must not be done.
    #[error("{}", refusal(.0))]
    Refused(Error),
}

/// Why it must not be done, and what to do first.
fn refusal(error: &Error) -> String {
    match error {
        Error::Conflict(conflict @ Conflict::PepperActive(_)) => {
            format!("{conflict}: rotate the pepper first")
        }
        Error::Conflict(conflict @ Conflict::PepperRecent { settled, .. }) => {
            format!("{conflict}: try again after {}", settled.format("%H:%M:%S UTC"))
        }
        error => error.to_string(),
    }
}

impl From<Error> for PeppersError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::KeyUnavailable(_) | Error::Internal(_) => Self::Table(error),
            refusal => Self::Refused(refusal),
        }
    }
}

impl From<PepperError> for PeppersError {
    fn from(error: PepperError) -> Self {
        match error {
            PepperError::Missing => Self::None,
            error => Self::Provider(error),
        }
    }
}

impl From<OpenError> for PeppersError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Pepper(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

/// The peppers of an installation: its table, and what wraps them.
#[derive(Debug)]
pub struct Peppers {
    operator: OperatorAccess,
    table: Table,
    provider: Arc<dyn KeyProvider>,
}

impl Peppers {
    /// Those of a deployed stack.
    pub fn of_stack(stack: &Stack) -> Self {
        Self { operator: OperatorAccess::assume(), table: stack.table(), provider: stack.key_provider() }
    }

    /// Those of a local run.
    ///
    /// # Errors
    /// Its key file cannot be used.
    pub fn of_run(run: LocalRun) -> Result<Self, PeppersError> {
        let provider = Arc::new(run.key_provider()?);
        Ok(Self { operator: OperatorAccess::assume(), table: run.table, provider })
    }

    /// Creates the first version, unless there is an active one. Returns the version that it created.
    ///
    /// # Errors
    /// [`PeppersError`].
    pub async fn init(&self) -> Result<Option<PepperVersion>, PeppersError> {
        let created = set_up::first_pepper(&self.operator, &self.table, &*self.provider).await;
        created.map_err(|error| match error {
            SetUpError::Pepper(error) => error.into(),
            SetUpError::Store(error) => error.into(),
            SetUpError::Name(error) => Error::from(error).into(),
        })
    }

    /// All versions, highest first, with the rows that were counted last.
    ///
    /// # Errors
    /// [`PeppersError`].
    pub async fn last(&self) -> Result<Vec<PepperRecord>, PeppersError> {
        Ok(self.table.peppers(&self.operator).await?)
    }

    /// All versions, highest first, with their rows, which this counts.
    ///
    /// # Errors
    /// [`PeppersError`].
    pub async fn count(&self, units_per_second: NonZeroU32) -> Result<Vec<PepperRecord>, PeppersError> {
        let report = ProgressReport::new(&self.operator, &self.table).await?;
        let sweep = Sweep { units_per_second, progress: &|progress| report.show(progress) };
        Ok(self.table.count_pepper_rows(&self.operator, &sweep).await?)
    }

    /// Creates another version, which makes all tags from now on. Rows move to it when they are next used.
    ///
    /// # Errors
    /// [`PeppersError`].
    pub async fn rotate(&self) -> Result<PepperVersion, PeppersError> {
        if pepper::current(&self.table.peppers(&self.operator).await?).is_none() {
            return Err(PeppersError::None);
        }
        Ok(self.table.rotate_pepper(&self.operator, &*self.provider).await?)
    }

    /// Puts every row under the current version, without its secret, and ends tickets and sessions of earlier ones.
    ///
    /// # Errors
    /// [`PeppersError`]. What was done stays done, and another call continues.
    pub async fn repepper(&self, units_per_second: NonZeroU32) -> Result<Repeppered, PeppersError> {
        let report = ProgressReport::new(&self.operator, &self.table).await?;
        let sweep = Sweep { units_per_second, progress: &|progress| report.show(progress) };
        let store = Store::open(self.table.clone(), self.provider.clone()).await?;
        Ok(store.repepper(&self.operator, &sweep).await?)
    }

    /// Erases a version that no row needs.
    ///
    /// # Errors
    /// [`PeppersError`].
    pub async fn retire(
        &self,
        version: PepperVersion,
        units_per_second: NonZeroU32,
    ) -> Result<(), PeppersError> {
        let report = ProgressReport::new(&self.operator, &self.table).await?;
        let sweep = Sweep { units_per_second, progress: &|progress| report.show(progress) };
        Ok(self.table.retire_pepper(&self.operator, version, &sweep).await?)
    }
}

/// Reports the progress of a sweep: a bar on a terminal, otherwise a line now and then.
struct ProgressReport {
    bar: Option<ProgressBar>,
    about: u64,
    last: Mutex<Instant>,
}

impl ProgressReport {
    async fn new(operator: &OperatorAccess, table: &Table) -> Result<Self, Error> {
        let about = table.approximate_items(operator).await?;
        let bar = io::stderr().is_terminal().then(|| bar(about));
        Ok(Self { bar, about, last: Mutex::new(Instant::now()) })
    }

    fn show(&self, progress: Progress) {
        let line = match progress {
            Progress::Items(items) => format!("{items} of about {} items", self.about.max(items)),
            Progress::Waiting(until) => {
                format!(
                    "waiting until {} for every process to use the current version",
                    until.format("%H:%M:%S UTC")
                )
            }
        };
        match (&self.bar, progress) {
            (Some(bar), Progress::Items(items)) => {
                bar.set_length(self.about.max(items));
                bar.set_position(items);
            }
            (Some(bar), Progress::Waiting(_)) => bar.println(line),
            (None, Progress::Waiting(_)) => eprintln!("{line}"),
            (None, Progress::Items(_)) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= PRINT_INTERVAL {
                    *last = Instant::now();
                    eprintln!("{line}");
                }
            }
        }
    }
}

impl Drop for ProgressReport {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(about: u64) -> ProgressBar {
    let bar = ProgressBar::new(about);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of about {len} items, {eta} left") {
        bar.set_style(style);
    }
    bar
}
