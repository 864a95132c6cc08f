//! The versions of the pepper: `PEPPERS` / `<version>`, each wrapped until it is retired; how a process holds them, how
//! rows move to the current one, and how the rows that need a version are found.

mod retag;
mod snapshot;
mod sweep;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::{self, PepperRecord, RowCount};
use keyward_pepper::KeyProvider;

use crate::item::{ATTEMPTS, Expression, Key, instant};
use crate::record::{self, RowCountRecord};
use crate::{Conflict, Error, OperatorAccess, Resource, Table};

pub(crate) use retag::Background;
pub(crate) use snapshot::Peppers;
pub use snapshot::{OpenError, PROPAGATION_TIME};
pub use sweep::{Progress, Repeppered, Sweep};

const PARTITION: &str = "PEPPERS";

/// When no process makes tags with an earlier version any more, from the activation of one: each has read of it by
/// [`PROPAGATION_TIME`], and the longest request that had begun is over.
pub(crate) const SETTLE_TIME: TimeDelta = TimeDelta::seconds(90);

fn key(version: PepperVersion) -> Key {
    Key::new(PARTITION.to_owned(), format!("{:010}", version.0))
}

/// When rows can be made with the current version only.
fn settled_at(peppers: &[PepperRecord]) -> Option<DateTime<Utc>> {
    let current = pepper::current(peppers)?;
    let record = peppers.iter().find(|pepper| pepper.version == current)?;
    Some(record.activated_at? + SETTLE_TIME)
}

impl Table {
    /// All versions, highest first.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn peppers(&self, _operator: &OperatorAccess) -> Result<Vec<PepperRecord>, Error> {
        self.wrapped_peppers().await
    }

    pub(crate) async fn wrapped_peppers(&self) -> Result<Vec<PepperRecord>, Error> {
        let mut peppers = Vec::new();
        let mut below = None;
        loop {
            let page = self.page(PARTITION, None, below.as_deref(), None).await?;
            for item in page.items {
                peppers.push(record::entity(item)?);
            }
            match page.next {
                Some(next) => below = Some(next),
                None => return Ok(peppers),
            }
        }
    }

    /// Creates the next version of the pepper and, when its provider has unwrapped it again, activates it. One that an
    /// earlier call left without that is taken up instead.
    ///
    /// # Errors
    /// The table or the key provider fails: no version was activated.
    pub async fn rotate_pepper(
        &self,
        _operator: &OperatorAccess,
        provider: &dyn KeyProvider,
    ) -> Result<PepperVersion, OpenError> {
        for _ in 0..ATTEMPTS {
            let peppers = self.wrapped_peppers().await?;
            let last = peppers.first();
            let pending = last.filter(|last| last.activated_at.is_none()).and_then(PepperRecord::wrapped);
            let version = last.map_or(0, |last| last.version.0);
            let wrapped = match pending {
                Some(pending) => pending,
                None => {
                    let next = version.checked_add(1).map(PepperVersion);
                    let next = next.ok_or_else(|| Error::internal("no version is left"))?;
                    let wrapped = provider.generate(next).await?;
                    let pending = PepperRecord::new(wrapped.clone(), self.clock().now());
                    let item = record::item(&key(next), &pending)?;
                    if !self.put_new(item).await? {
                        // Somebody else made it: that one counts.
                        continue;
                    }
                    wrapped
                }
            };
            provider.unwrap(&wrapped).await?;
            let activate = Expression::condition("attribute_exists(pk)")
                .set_once("activated_at", instant(self.clock().now())?);
            self.update(&key(wrapped.version), activate).await?;
            return Ok(wrapped.version);
        }
        Err(Error::unavailable("another process rotated the pepper at the same time").into())
    }

    /// Counts the rows that need each version, and notes that. Versions that no row needs are counted as 0.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn count_pepper_rows(
        &self,
        _operator: &OperatorAccess,
        sweep: &Sweep<'_>,
    ) -> Result<Vec<PepperRecord>, Error> {
        let at = self.clock().now();
        let counts = self.count_rows(sweep).await?;
        let mut peppers = self.wrapped_peppers().await?;
        for pepper in &mut peppers {
            let none = RowCount { at, rows: 0, layered: 0 };
            let count = counts.get(&pepper.version).copied().unwrap_or(none);
            let note = Expression::condition("attribute_exists(pk)")
                .set("counted", serde_dynamo::to_attribute_value(RowCountRecord::from(count))?);
            self.update(&key(pepper.version), note).await?;
            pepper.counted = Some(count);
        }
        Ok(peppers)
    }

    /// Erases a version's wrapped pepper, for good.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such version or it is retired already; [`Error::Conflict`] if it is the current
    /// one, if that one was activated so lately that rows could still be made with this one, or while a row needs it.
    pub async fn retire_pepper(
        &self,
        operator: &OperatorAccess,
        version: PepperVersion,
        sweep: &Sweep<'_>,
    ) -> Result<(), Error> {
        const UNKNOWN: Error = Error::NotFound(Resource::PepperVersion);
        let peppers = self.wrapped_peppers().await?;
        let pepper = peppers.iter().find(|pepper| pepper.version == version);
        if pepper.is_none_or(|pepper| pepper.wrapped.is_none()) {
            return Err(UNKNOWN);
        }
        let current = pepper::current(&peppers).ok_or(UNKNOWN)?;
        if version >= current {
            return Err(Error::Conflict(Conflict::PepperActive(version)));
        }
        let now = self.clock().now();
        let early = settled_at(&peppers).filter(|settled| now < *settled);
        if let Some(settled) = early {
            return Err(Error::Conflict(Conflict::PepperRecent { version, current, settled }));
        }
        let counted = self.count_pepper_rows(operator, sweep).await?;
        let counted = counted.iter().find(|pepper| pepper.version == version);
        let count = counted.and_then(|pepper| pepper.counted).ok_or(UNKNOWN)?;
        if count.rows + count.layered > 0 {
            return Err(Error::Conflict(Conflict::PepperNeeded {
                version,
                rows: count.rows,
                layered: count.layered,
            }));
        }
        let erase = Expression::condition("attribute_exists(#wrapped)")
            .set("retired_at", instant(now)?)
            .remove("wrapped");
        if self.update(&key(version), erase).await? { Ok(()) } else { Err(UNKNOWN) }
    }
}

type Counts = BTreeMap<PepperVersion, RowCount>;
