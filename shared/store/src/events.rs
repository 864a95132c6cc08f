//! Audit events: `AUDIT#<app>#<yyyymm>#<shard>` / `<event id>`, purged when the app's settings say.
//!
//! Verifications are spread over four shards (`V0` to `V3`), since an app is read, and so verified, at most 3,000 times a second
//! and a partition takes 1,000 writes a second. Lifecycle events, which are few, lie in a partition of their own
//! (`L`), so figures about requests do not read them. What concerns no app that exists lies under
//! `AUDIT#DEPLOYMENT#<id>#<yyyymm>#L`, with a copy of what was done with the deployment's apps and their keys.
//!
//! Reading goes from the newest month backwards and, within a month, merges the shards. An event that cannot be read is left out.

use std::collections::VecDeque;

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};
use futures::future::try_join_all;
use keyward_core::InvalidField;
use keyward_core::audit::{Action, Event, EventId, Outcome};
use keyward_core::audit_settings::MAX_RETENTION_DAYS;
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::root_key::Scope;
use keyward_core::session::Capability;
use keyward_core::verified::Verification;

use crate::item::{Item, Key};
use crate::record::{self, readable};
use crate::{AppAccess, Error, OperatorAccess, RootAccess, Store, Table};

const SHARDS: u32 = 4;
/// The shard of lifecycle events.
const LIFECYCLE: &str = "L";
/// The maximum number of events that one page of the log scans: a rare filter ends the page early, with a cursor.
const MAX_SCANNED: usize = 5_000;
/// The maximum number of events that an analysis counts; it rejects a range with more.
pub const MAX_ANALYZED: usize = 20_000;

/// Which events of an app a page of its log is to hold.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Not before this.
    pub start: DateTime<Utc>,
    /// Not after this.
    pub end: DateTime<Utc>,
    /// Only before this event.
    pub before: Option<EventId>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only those of this key.
    pub key_id: Option<KeyId>,
    /// Which kinds.
    pub kinds: EventKinds,
    /// The number to skip at the beginning.
    pub offset: usize,
    /// The maximum number.
    pub limit: usize,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKinds {
    /// All of an app's.
    All,
    /// Requests that came with a key.
    Requests,
    /// Changes.
    Changes,
    /// Changes of keys.
    ChangesOfKeys,
}

impl EventKinds {
    fn include(self, event: &Event) -> bool {
        let is_request = event.action == Action::Verification;
        match self {
            Self::All => true,
            Self::Requests => is_request,
            Self::Changes => !is_request,
            Self::ChangesOfKeys => !is_request && event.key_id.is_some(),
        }
    }

    /// The shards of a month that hold them.
    fn shards(self) -> Vec<String> {
        let requests = (0..SHARDS).map(verifications);
        match self {
            Self::All => requests.chain([LIFECYCLE.to_owned()]).collect(),
            Self::Requests => requests.collect(),
            Self::Changes | Self::ChangesOfKeys => vec![LIFECYCLE.to_owned()],
        }
    }
}

impl EventFilter {
    /// Whether it is about events of this outcome and this key.
    pub fn matches(&self, event: &Event) -> bool {
        self.outcome.is_none_or(|outcome| event.outcome == outcome)
            && self.key_id.is_none_or(|key| event.key_id == Some(key))
            && self.kinds.include(event)
    }
}

/// A page of the log, newest first.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// The event from which the next page goes on: the last of the page, or a later one that was looked at for it;
    /// `None` if there was none.
    pub last: Option<EventId>,
    /// Whether there may be more.
    pub has_more: bool,
}

/// The name of a shard of verifications: a writer of those alone needs no other access than to these.
fn verifications(shard: u32) -> String {
    format!("V{shard}")
}

fn partition(owner: &str, month: &str, shard: &str) -> String {
    format!("AUDIT#{owner}#{month}#{shard}")
}

fn month_of(at: DateTime<Utc>) -> String {
    at.format("%Y%m").to_string()
}

/// The item of an event: in the log of its app or, if it concerns none, in that of its deployment.
pub(crate) fn event_item(event: &Event) -> Result<Item, Error> {
    let shard = match event.action {
        Action::Verification => verifications(event.id.spread() % SHARDS),
        _ => LIFECYCLE.to_owned(),
    };
    let owner = event.app.map_or_else(|| owner_of_deployment(event.deployment_id), AppNumber::base62);
    item_in(&owner, &shard, event)
}

/// The item of an event of an app that is in the log of its deployment too, from which nothing is deleted with an app.
pub(crate) fn event_item_of_deployment(event: &Event) -> Result<Option<Item>, Error> {
    if event.app.is_none() || !event.action.concerns_deployment() {
        return Ok(None);
    }
    item_in(&owner_of_deployment(event.deployment_id), LIFECYCLE, event).map(Some)
}

fn owner_of_deployment(id: DeploymentId) -> String {
    format!("DEPLOYMENT#{id}")
}

fn item_in(owner: &str, shard: &str, event: &Event) -> Result<Item, Error> {
    let key = Key::new(partition(owner, &month_of(event.id.timestamp()), shard), event.id.to_string());
    record::item(&key, event)
}

impl Table {
    /// Writes the event of a verification that a log kept, in the form of [`Store::verification_json`]. Whether it was
    /// written: not if it is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else; the store fails.
    pub async fn restore_event(&self, _operator: &OperatorAccess, json: &str) -> Result<bool, Error> {
        let invalid = |problem| Error::from(InvalidField::new("event", problem));
        let event =
            record::event_of_json(json).ok_or_else(|| invalid("is none that this release can read"))?;
        if event.action != Action::Verification || event.app.is_none() {
            return Err(invalid("must be that of a check"));
        }
        self.put_new(event_item(&event)?).await
    }
}

impl Store {
    /// The attributes of the event of a verification as JSON: what a log keeps of one that was not written.
    pub fn verification_json(verification: &Verification) -> String {
        record::event_json(verification.event())
    }

    /// Writes the event of a verification, if the log is to have it. It replaces none: the same event again changes nothing.
    ///
    /// # Errors
    /// It was not written.
    pub async fn write_verification(&self, verification: &Verification) -> Result<(), Error> {
        if !verification.is_logged() {
            return Ok(());
        }
        // Nobody else makes an event of this id: one that is there was written by an earlier attempt.
        self.table.put_new(event_item(verification.event())?).await.map(drop)
    }

    /// A page of an app's log.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`; [`Error::Invalid`] for an offset beyond what a page looks at.
    pub async fn events(&self, access: &AppAccess, filter: &EventFilter) -> Result<EventPage, Error> {
        access.require(Capability::AuditRead)?;
        self.events_of(&access.app.number.base62(), access.app.created_at, filter).await
    }

    /// A page of what was done in a deployment: with its apps and their keys, its schemes and its root keys.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a root key without the scope `audit`.
    pub async fn deployment_events(
        &self,
        access: &RootAccess,
        filter: &EventFilter,
    ) -> Result<EventPage, Error> {
        access.require(Scope::Audit)?;
        let earliest = self.clock().now() - TimeDelta::days(MAX_RETENTION_DAYS);
        self.events_of(&owner_of_deployment(access.deployment_id), earliest, filter).await
    }

    async fn events_of(
        &self,
        owner: &str,
        earliest: DateTime<Utc>,
        filter: &EventFilter,
    ) -> Result<EventPage, Error> {
        let mut page = EventPage { events: Vec::new(), last: None, has_more: false };
        let mut to_skip = filter.offset;
        let mut looked_at = 0;
        let end = filter.before.map_or(filter.end, |before| filter.end.min(before.timestamp()));
        for month in months(filter.start.max(earliest), end) {
            let mut merge = self.merge(owner, &month, filter);
            while let Some(event) = merge.next().await? {
                if looked_at == MAX_SCANNED {
                    if to_skip > 0 {
                        let problem = "reaches too far back; page by cursor instead";
                        return Err(InvalidField::new("offset", problem).into());
                    }
                    page.has_more = true;
                    return Ok(page);
                }
                looked_at += 1;
                let wanted = filter.matches(&event);
                let full = page.events.len() == filter.limit;
                if wanted && full {
                    page.has_more = true;
                    return Ok(page);
                }
                if !full {
                    page.last = Some(event.id);
                }
                if wanted && to_skip > 0 {
                    to_skip -= 1;
                } else if wanted {
                    page.events.push(event);
                }
            }
        }
        Ok(page)
    }

    /// The event of an app with this id, if there is one.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`.
    pub async fn logged_event(&self, access: &AppAccess, id: EventId) -> Result<Option<Event>, Error> {
        access.require(Capability::AuditRead)?;
        let owner = access.app.number.base62();
        let (month, from) = (month_of(id.timestamp()), id.to_string());
        for shard in [verifications(id.spread() % SHARDS), LIFECYCLE.to_owned()] {
            let partition = partition(&owner, &month, &shard);
            let page = self.table.page(&partition, Some(&from), Some(&format!("{from}~")), None).await?;
            if let Some(event) = readable(page.items).next() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Hands every verification of an app between `start` and `end`, both included, to `take`, in no order.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`; [`Error::Invalid`] if there are more than [`MAX_ANALYZED`], so
    /// that figures are right or not given.
    pub async fn verifications(
        &self,
        access: &AppAccess,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        take: impl FnMut(Event),
    ) -> Result<(), Error> {
        if self.some_verifications(access, start, end, take).await? {
            return Ok(());
        }
        let problem = format!("is too early: the range holds more than {MAX_ANALYZED} requests");
        Err(InvalidField::new("start_date", problem).into())
    }

    /// As [`Self::verifications`], but of more than [`MAX_ANALYZED`] only as many. Whether these are all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`.
    pub async fn some_verifications(
        &self,
        access: &AppAccess,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        mut take: impl FnMut(Event),
    ) -> Result<bool, Error> {
        access.require(Capability::AuditRead)?;
        let (from, to) = (EventId::first_at(start).to_string(), after(end));
        let mut seen = 0;
        for month in months(start.max(access.app.created_at), end) {
            for shard in 0..SHARDS {
                let partition = partition(&access.app.number.base62(), &month, &verifications(shard));
                let mut below = Some(to.clone());
                while let Some(before) = below {
                    let page = self.table.page(&partition, Some(&from), Some(&before), None).await?;
                    // Those that cannot be read count too: what a request may read is bounded.
                    let room = MAX_ANALYZED - seen;
                    let is_whole = page.items.len() <= room;
                    seen += page.items.len().min(room);
                    readable(page.items.into_iter().take(room)).for_each(&mut take);
                    if !is_whole {
                        return Ok(false);
                    }
                    below = page.next;
                }
            }
        }
        Ok(true)
    }

    fn merge(&self, owner: &str, month: &str, filter: &EventFilter) -> Merge<'_> {
        let before =
            filter.before.map_or_else(|| after(filter.end), |id| id.to_string().min(after(filter.end)));
        Merge {
            table: &self.table,
            from: EventId::first_at(filter.start).to_string(),
            // Each shard holds about a fifth of a page; a filter makes longer reads worth while.
            chunk: if filter.outcome.is_none() && filter.key_id.is_none() {
                (filter.limit.saturating_add(filter.offset) / 4).clamp(8, 250)
            } else {
                250
            },
            shards: (filter.kinds.shards().into_iter())
                .map(|shard| Shard {
                    partition: partition(owner, month, &shard),
                    below: Some(before.clone()),
                    read: VecDeque::new(),
                })
                .collect(),
        }
    }
}

/// A text above every event id of `end` or earlier and below every later one.
fn after(end: DateTime<Utc>) -> String {
    format!("{}~", EventId::last_at(end))
}

/// The months from that of `end` back to that of `start`.
fn months(start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<String> {
    let first_of = |at: DateTime<Utc>| NaiveDate::from_ymd_opt(at.year(), at.month(), 1);
    let (Some(first), Some(mut month)) = (first_of(start), first_of(end)) else {
        return vec![];
    };
    let mut months = vec![];
    while month >= first {
        months.push(month.format("%Y%m").to_string());
        match month.checked_sub_months(Months::new(1)) {
            Some(earlier) => month = earlier,
            None => break,
        }
    }
    months
}

struct Shard {
    partition: String,
    /// Where the next read begins; `None` when there is nothing left to read.
    below: Option<String>,
    read: VecDeque<Event>,
}

impl Shard {
    async fn fill(&mut self, table: &Table, from: &str, chunk: usize) -> Result<(), Error> {
        while let (true, Some(below)) = (self.read.is_empty(), &self.below) {
            let page = table.page(&self.partition, Some(from), Some(below), Some(chunk)).await?;
            self.below = page.next;
            self.read.extend(readable::<Event>(page.items));
        }
        Ok(())
    }
}

/// The events of one month, newest first, from all its shards.
struct Merge<'s> {
    table: &'s Table,
    from: String,
    chunk: usize,
    shards: Vec<Shard>,
}

impl Merge<'_> {
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        let (table, from, chunk) = (self.table, self.from.as_str(), self.chunk);
        try_join_all(self.shards.iter_mut().map(|shard| shard.fill(table, from, chunk))).await?;
        let newest = self.shards.iter_mut().max_by_key(|shard| shard.read.front().map(|event| event.id));
        Ok(newest.and_then(|shard| shard.read.pop_front()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn months_go_back_across_the_year() {
        assert_eq!(
            months(at("2025-11-30T23:59:59Z"), at("2026-01-01T00:00:00Z")),
            ["202601", "202512", "202511"]
        );
        assert_eq!(months(at("2026-01-31T10:00:00Z"), at("2026-01-31T10:00:00Z")), ["202601"]);
        assert!(months(at("2026-02-01T00:00:00Z"), at("2026-01-01T00:00:00Z")).is_empty());
    }

    #[test]
    fn the_upper_bound_includes_the_whole_millisecond() {
        let end = at("2026-01-01T00:00:00Z");
        assert!(EventId::last_at(end).to_string() < after(end));
        assert!(after(end) < EventId::first_at(end + TimeDelta::milliseconds(1)).to_string());
    }
}
