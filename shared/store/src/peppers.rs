//! Peppers: `PEPPERS` / `<version>`, wrapped. Read once when a process starts.

use keyward_core::pepper::WrappedPepper;

use crate::item::{Commit, Key, Transaction, body, item};
use crate::{Error, Table};

const PARTITION: &str = "PEPPERS";

impl Table {
    /// All peppers, highest version first.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn peppers(&self) -> Result<Vec<WrappedPepper>, Error> {
        let mut peppers = Vec::new();
        let mut below = None;
        loop {
            let page = self.page(PARTITION, None, below.as_deref(), None).await?;
            for item in page.items {
                peppers.push(body(item)?);
            }
            match page.next {
                Some(next) => below = Some(next),
                None => return Ok(peppers),
            }
        }
    }

    /// Adds a pepper whose version must be new. False if another process added it first.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn add_pepper(&self, pepper: &WrappedPepper) -> Result<bool, Error> {
        let key = Key::new(PARTITION.to_owned(), format!("{:010}", pepper.version.0));
        let commit = Transaction::new(self).create(item(&key, "pepper", pepper)?)?.commit().await?;
        Ok(commit == Commit::Done)
    }
}
