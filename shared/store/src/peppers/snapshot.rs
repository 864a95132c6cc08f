//! The peppers as a process holds them.
//!
//! They are read and unwrapped when it starts. After that it reads the table's versions again when it is about to make a
//! tag and has not read them for [`PROPAGATION_TIME`], when it recognised a credential and has not for half of that (off the
//! response path), and at once when a row names a version that it does not hold. Only a version that it has not seen is
//! unwrapped, so a process continues without its key provider for as long as there is none.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::hashing::{Keyring, PepperVersion, Tag};
use keyward_pepper::{KeyProvider, PepperError, unlock};
use tokio::sync::Mutex;

use crate::{Error, Table};

/// By when every process makes its tags with a version, from its activation on.
pub const PROPAGATION_TIME: TimeDelta = TimeDelta::seconds(60);
/// When a process in use reads the versions again, unasked.
const REFRESH_INTERVAL: TimeDelta = TimeDelta::seconds(30);

/// Why a table cannot be used with its peppers.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The peppers cannot be had.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Pepper(error) => error.into(),
            OpenError::Store(error) => error,
        }
    }
}

/// The peppers of an installation, unwrapped. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Peppers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Table,
    provider: Arc<dyn KeyProvider>,
    snapshot: RwLock<Snapshot>,
    /// Held by whoever reads: the others wait and use what was read.
    reading: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Snapshot {
    ring: Arc<Keyring>,
    /// When the versions in it were asked for.
    read_at: DateTime<Utc>,
}

impl Peppers {
    pub(crate) async fn load(table: Table, provider: Arc<dyn KeyProvider>) -> Result<Self, OpenError> {
        let snapshot = Snapshot::read(&table, &*provider, None).await?;
        Ok(Self(Arc::new(Inner {
            table,
            provider,
            snapshot: RwLock::new(snapshot),
            reading: Mutex::default(),
        })))
    }

    /// The ring as it is, to compare with.
    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.snapshot().ring
    }

    /// Whether it is time to read the versions again, though nothing depends on it.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_within(&self.snapshot(), REFRESH_INTERVAL)
    }

    /// The ring to make tags with: read within [`PROPAGATION_TIME`].
    pub(crate) async fn current(&self) -> Result<Arc<Keyring>, Error> {
        self.read_unless(|snapshot| self.is_within(snapshot, PROPAGATION_TIME)).await
    }

    /// The ring as the table has it now.
    pub(crate) async fn newest(&self) -> Result<Arc<Keyring>, Error> {
        self.read_unless(|_| false).await
    }

    /// Reads the versions again, if they are due.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        self.read_unless(|snapshot| self.is_within(snapshot, REFRESH_INTERVAL)).await.map(|_| ())
    }

    /// The ring to compare these tags with: read again if it lacks a version of one. It still does if there is no such
    /// version any more.
    ///
    /// # Errors
    /// The versions cannot be read or one of them cannot be unwrapped.
    pub(crate) async fn of<'t>(
        &self,
        tags: impl IntoIterator<Item = &'t Tag>,
    ) -> Result<Arc<Keyring>, Error> {
        let versions: Vec<PepperVersion> = tags.into_iter().flat_map(Tag::versions).collect();
        self.read_unless(|snapshot| versions.iter().all(|version| snapshot.ring.holds(*version))).await
    }

    fn snapshot(&self) -> Snapshot {
        self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_within(&self, snapshot: &Snapshot, age: TimeDelta) -> bool {
        let now = self.0.table.clock().now();
        // A clock that was set back tells no age.
        (snapshot.read_at..snapshot.read_at + age).contains(&now)
    }

    async fn read_unless(&self, enough: impl Fn(&Snapshot) -> bool) -> Result<Arc<Keyring>, Error> {
        let snapshot = self.snapshot();
        if enough(&snapshot) {
            return Ok(snapshot.ring);
        }
        let _reading = self.0.reading.lock().await;
        let snapshot = self.snapshot();
        if enough(&snapshot) {
            return Ok(snapshot.ring);
        }
        let read = Snapshot::read(&self.0.table, &*self.0.provider, Some(&snapshot.ring)).await?;
        let ring = read.ring.clone();
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(ring)
    }
}

impl Snapshot {
    async fn read(
        table: &Table,
        provider: &dyn KeyProvider,
        snapshot: Option<&Keyring>,
    ) -> Result<Self, OpenError> {
        let read_at = table.clock().now();
        let ring = unlock(provider, &table.wrapped_peppers().await?, snapshot).await?;
        Ok(Self { ring: Arc::new(ring), read_at })
    }
}
