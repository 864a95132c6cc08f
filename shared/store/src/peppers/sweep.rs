//! Going through the whole table, which only its operator does: to count the rows that need a version of the pepper, and
//! to re-pepper them. Four segments at a time, no faster than it is told.
//!
//! How far a re-peppering got is kept under `REPEPPER` / `REPEPPER`, page by page, so that one that was stopped continues
//! from there.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use keyward_core::hashing::{Keyring, Tag};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Counts, settled_at};
use crate::item::{ATTEMPTS, Item, Key, key_of};
use crate::record::{self, RepepperJob, Segment, tag_of, tag_value};
use crate::{Error, OperatorAccess, Store, Table};

/// The number of parts of the table that are read at the same time.
const SEGMENTS: i32 = 4;
/// The number of items that are read in one request.
const PAGE_SIZE: i32 = 500;
/// The number of rows of a page that are written at the same time.
const WRITE_CONCURRENCY: usize = 8;

/// How to go through the table.
pub struct Sweep<'a> {
    /// The capacity units that reads and writes may use per second, together.
    pub units_per_second: NonZeroU32,
    /// The callback that is called after each page.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// The progress of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The number of items that were scanned in this pass.
    Items(u64),
    /// Every process must have the current version before the last pass begins, which is then.
    Waiting(DateTime<Utc>),
}

/// The result of a re-peppering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeppered {
    /// Rows that were given another tag.
    pub rows: u64,
    /// Tickets and sessions that were ended.
    pub ended: u64,
}

fn job_key() -> Key {
    Key::new("REPEPPER".to_owned(), "REPEPPER")
}

/// Spends capacity no faster than agreed.
struct Pace {
    units_per_second: f64,
    free_at: Mutex<Instant>,
}

impl Pace {
    fn new(sweep: &Sweep<'_>) -> Self {
        Self { units_per_second: sweep.units_per_second.get().into(), free_at: Mutex::new(Instant::now()) }
    }

    async fn spend(&self, units: f64) {
        let until = {
            let mut free_at = self.free_at.lock().await;
            let time = Duration::try_from_secs_f64(units / self.units_per_second).unwrap_or_default();
            *free_at = Instant::now().max(*free_at) + time;
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

/// A page of a segment: the rows with a tag, how many items were looked at, and where to go on.
struct Page {
    rows: Vec<Item>,
    looked_at: u64,
    next: Segment,
}

impl Table {
    /// About how many items there are: DynamoDB counts them every few hours.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn approximate_items(&self, _operator: &OperatorAccess) -> Result<u64, Error> {
        let described = self.client().describe_table().table_name(self.name()).send().await?;
        let count = described.table.and_then(|table| table.item_count).unwrap_or_default();
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn scan(&self, segment: i32, from: &Segment, pace: &Pace) -> Result<Page, Error> {
        let start = match from {
            Segment::After { pk, sk } => Some(Key::new(pk.clone(), sk).attributes()),
            Segment::Start | Segment::Done => None,
        };
        let mut failed = Error::unavailable("the table was not read");
        for attempt in 0..ATTEMPTS {
            let response = self
                .client()
                .scan()
                .table_name(self.name())
                .segment(segment)
                .total_segments(SEGMENTS)
                .limit(PAGE_SIZE)
                .consistent_read(true)
                .filter_expression("attribute_exists(pepper)")
                .projection_expression("pk, sk, tag, pepper, peppers_beneath, purge_at")
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(start.clone())
                .send()
                .await;
            match response.map_err(Error::from) {
                Ok(response) => {
                    let used = response.consumed_capacity.as_ref().and_then(|used| used.capacity_units);
                    pace.spend(used.unwrap_or_default()).await;
                    let last = response.last_evaluated_key.as_ref().and_then(key_of);
                    return Ok(Page {
                        looked_at: u64::try_from(response.scanned_count).unwrap_or_default(),
                        rows: response.items.unwrap_or_default(),
                        next: last.map_or(Segment::Done, |Key { pk, sk }| Segment::After { pk, sk }),
                    });
                }
                Err(error @ Error::Unavailable(_)) => failed = error,
                Err(error) => return Err(error),
            }
            self.pause(attempt).await?;
        }
        Err(failed)
    }

    /// The number of rows that need each version. Rows that have expired and are not purged yet need none.
    pub(super) async fn count_rows(&self, sweep: &Sweep<'_>) -> Result<Counts, Error> {
        let (now, pace, looked_at) = (self.clock().now(), Pace::new(sweep), AtomicU64::new(0));
        let segments = (0..SEGMENTS).map(async |segment| {
            let (mut at, mut counts) = (Segment::Start, Counts::new());
            loop {
                let page = self.scan(segment, &at, &pace).await?;
                for row in page.rows.iter().filter(|row| !has_expired(row, now)) {
                    let tag = tag_of(row)?;
                    counts.entry(tag.version).or_insert_with(|| none(now)).rows += 1;
                    for version in tag.layers {
                        counts.entry(version).or_insert_with(|| none(now)).layered += 1;
                    }
                }
                let before = looked_at.fetch_add(page.looked_at, Ordering::Relaxed);
                (sweep.progress)(Progress::Items(before + page.looked_at));
                match page.next {
                    Segment::Done => return Ok::<_, Error>(counts),
                    next => at = next,
                }
            }
        });
        let mut all = Counts::new();
        for (version, count) in try_join_all(segments).await?.into_iter().flatten() {
            let sum = all.entry(version).or_insert_with(|| none(now));
            sum.rows += count.rows;
            sum.layered += count.layered;
        }
        Ok(all)
    }
}

fn none(at: DateTime<Utc>) -> keyward_core::pepper::RowCount {
    keyward_core::pepper::RowCount { at, rows: 0, layered: 0 }
}

fn has_expired(row: &Item, now: DateTime<Utc>) -> bool {
    let purge_at = row.get("purge_at").and_then(|at| at.as_n().ok()).and_then(|at| at.parse().ok());
    purge_at.is_some_and(|at: i64| at <= now.timestamp())
}

impl Store {
    /// The procedure after a leak of a pepper: puts every row that has a tag of an earlier version under the current one,
    /// without its secret, and ends the tickets and sessions of earlier versions. One that was stopped continues.
    ///
    /// It is not done before a whole pass found nothing left that began when no process made rows with an earlier version
    /// any more: a minute and a half after the current one was activated.
    ///
    /// # Errors
    /// As all calls of the store. What was done stays done.
    pub async fn repepper(&self, _operator: &OperatorAccess, sweep: &Sweep<'_>) -> Result<Repeppered, Error> {
        let ring = self.peppers.newest().await?;
        let peppers = self.table.wrapped_peppers().await?;
        if !peppers.iter().any(|pepper| pepper.version < ring.current() && pepper.wrapped.is_some()) {
            return Ok(Repeppered::default());
        }
        let settled = settled_at(&peppers);
        let settled = settled.ok_or_else(|| Error::internal("no version is active"))?;
        let kept = self.table.get(&job_key()).await?.map(record::entity::<RepepperJob>).transpose()?;
        let mut job = kept.filter(|job| job.version == ring.current()).unwrap_or_else(|| RepepperJob {
            version: ring.current(),
            pass_began_at: self.clock().now(),
            segments: vec![Segment::Start; SEGMENTS as usize],
            done: Repeppered::default(),
        });
        loop {
            self.pass(&ring, &mut job, sweep).await?;
            if job.pass_began_at >= settled {
                break;
            }
            let now = self.clock().now();
            if now < settled {
                (sweep.progress)(Progress::Waiting(settled));
                tokio::time::sleep((settled - now).to_std().unwrap_or_default()).await;
            }
            job.pass_began_at = self.clock().now().max(settled);
            job.segments = vec![Segment::Start; SEGMENTS as usize];
        }
        self.table.delete_job(&job_key()).await?;
        Ok(job.done)
    }

    /// Goes through what is left of a pass.
    async fn pass(&self, ring: &Keyring, job: &mut RepepperJob, sweep: &Sweep<'_>) -> Result<(), Error> {
        let (pace, looked_at) = (Pace::new(sweep), AtomicU64::new(0));
        let (segments, job) = (job.segments.clone(), Mutex::new(job));
        let passes = (0..SEGMENTS).zip(segments).map(async |(segment, mut at)| {
            while !matches!(at, Segment::Done) {
                let page = self.table.scan(segment, &at, &pace).await?;
                let changes = stream::iter(&page.rows).map(|row| self.retag_row(ring, row, &pace));
                let changes: Vec<Repeppered> =
                    changes.buffer_unordered(WRITE_CONCURRENCY).try_collect().await?;
                let mut job = job.lock().await;
                for change in changes {
                    job.done.rows += change.rows;
                    job.done.ended += change.ended;
                }
                at = page.next;
                if let Some(segment_state) = job.segments.get_mut(segment as usize) {
                    *segment_state = at.clone();
                }
                self.table.save_job(record::item(&job_key(), &**job)?).await?;
                let before = looked_at.fetch_add(page.looked_at, Ordering::Relaxed);
                (sweep.progress)(Progress::Items(before + page.looked_at));
            }
            Ok::<_, Error>(())
        });
        try_join_all(passes).await.map(|_| ())
    }

    /// Puts one row under the ring's current version, or ends it if it does not last.
    async fn retag_row(&self, ring: &Keyring, row: &Item, pace: &Pace) -> Result<Repeppered, Error> {
        let key = key_of(row).ok_or_else(|| Error::internal("a row has no key"))?;
        let tag = tag_of(row)?;
        if tag.version >= ring.current() {
            return Ok(Repeppered::default());
        }
        pace.spend(1.0).await;
        if key.pk.starts_with("TICKET#") || key.pk.starts_with("SESSION#") {
            return Ok(Repeppered { ended: self.table.end(&key, &tag).await?.into(), rows: 0 });
        }
        // One that was changed meanwhile was changed to the current version, or the next pass comes to it.
        let moved = self.table.replace_tag(&key, &tag, &ring.retag(&tag)?).await?;
        Ok(Repeppered { rows: moved.into(), ended: 0 })
    }
}

impl Table {
    /// Deletes a row unless its tag is not this one any more. Says whether it did.
    async fn end(&self, key: &Key, tag: &Tag) -> Result<bool, Error> {
        let sent = self
            .client()
            .delete_item()
            .table_name(self.name())
            .set_key(Some(key.attributes()))
            .condition_expression("tag = :was")
            .set_expression_attribute_values(Some(HashMap::from([(":was".to_owned(), tag_value(tag))])))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn save_job(&self, item: Item) -> Result<(), Error> {
        self.client().put_item().table_name(self.name()).set_item(Some(item)).send().await?;
        Ok(())
    }

    async fn delete_job(&self, key: &Key) -> Result<(), Error> {
        self.client().delete_item().table_name(self.name()).set_key(Some(key.attributes())).send().await?;
        Ok(())
    }
}
