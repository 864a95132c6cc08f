//! Rows move to the current version of the pepper when their credential is next used, after the response.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use keyward_core::hashing::{Keyring, Tag, UnknownPepper};
use keyward_core::metric::Metric;
use tokio_util::task::TaskTracker;

use crate::item::{Expression, Key};
use crate::record::{set_tag, tag_value};
use crate::{Error, Store, Table};

/// The number of rows that move at the same time. Any further row moves when it is next used.
const CONCURRENCY: usize = 64;

/// The background work of a store. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    tasks: TaskTracker,
    moving: Arc<Mutex<HashSet<Key>>>,
}

impl Default for Background {
    fn default() -> Self {
        let tasks = TaskTracker::new();
        // It can be waited for at any time; tasks are taken all the same.
        tasks.close();
        Self { tasks, moving: Arc::default() }
    }
}

impl Store {
    /// After a credential was recognised by this tag: if that is not what the current pepper makes of the secret, `tagged`
    /// does so, and the row gets the new tag. Whoever waits for [`Self::settled`] waits for it.
    pub(crate) fn retag_later(
        &self,
        row: Key,
        was: Tag,
        tagged: impl FnOnce(&Keyring) -> Result<Tag, UnknownPepper> + Send + 'static,
    ) {
        let (due, stale) = (self.peppers.is_due(), !self.peppers.ring().is_current(&was));
        if !due && !stale {
            return;
        }
        let store = self.clone();
        if !stale {
            self.background.tasks.spawn(async move {
                if let Err(error) = store.peppers.refresh().await {
                    let metric = error.metric().map(Metric::name);
                    tracing::error!(metric, %error, "the versions of the pepper were not read");
                }
            });
            return;
        }
        {
            let mut moving = self.background.moving.lock().unwrap_or_else(PoisonError::into_inner);
            if moving.len() == CONCURRENCY || !moving.insert(row.clone()) {
                return;
            }
        }
        self.background.tasks.spawn(async move {
            if let Err(error) = store.move_row(&row, &was, tagged).await {
                tracing::warn!(%error, "a row was not moved to the current pepper");
            }
            store.background.moving.lock().unwrap_or_else(PoisonError::into_inner).remove(&row);
        });
    }

    async fn move_row(
        &self,
        row: &Key,
        was: &Tag,
        tagged: impl FnOnce(&Keyring) -> Result<Tag, UnknownPepper>,
    ) -> Result<(), Error> {
        let ring = self.peppers.current().await?;
        if !ring.is_current(was) {
            self.table.replace_tag(row, was, &tagged(&ring)?).await?;
        }
        Ok(())
    }

    /// Returns when all background work is done.
    pub async fn settled(&self) {
        self.background.tasks.wait().await;
    }
}

impl Table {
    /// Gives a row another tag, unless its tag is not this one any more. Says whether it did.
    pub(crate) async fn replace_tag(&self, row: &Key, was: &Tag, now: &Tag) -> Result<bool, Error> {
        let moved = Expression::condition("#tag = :was").value(":was", tag_value(was));
        self.update(row, set_tag(moved, now)).await
    }
}
