//! Where the counts of a rule are: in the item of its mode, or in shards of which each has a share of the limit.
//!
//! Shares come to the limit only as long as all processes divide the same limit, so a shard says which one it is laid out
//! for, and a request is counted in it on the condition that this is its own. Where it is another, as the limit was raised or
//! lowered, or where the counts are not in shards and have to be, or the other way round, they are laid out again by one
//! transaction that carries them over: the new shards get equal parts of what all items have counted.
//!
//! The rule's item names the limit in the place of the latest request, and so is full for those who count in it. It is part
//! of each such transaction, with `s`, so that of two that meet only one happens.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use chrono::{DateTime, Utc};
use keyward_core::rate_limit::{Counts, Limit, MAX_SHARDS};

use super::counter::{
    Counter, Names, SHARD_LIFE, attribute, counts, in_shards, in_shards_value, laid_out, purge_at, windows,
};
use super::{CountOutcome, cancelled};
use crate::item::{Item, Key, number};
use crate::{Error, Store};

/// The outcome of laying out the counts of a rule.
pub(super) enum LayoutOutcome {
    /// The request can be counted.
    Yes,
    /// They stay where they are, since they leave no room for a request.
    Full(Counts),
    /// It was not done, as others were writing the same items.
    Collided,
}

/// The counts in a rule's items.
struct StoredCounts {
    item: Item,
    shards: Vec<Item>,
    /// The limit that the shards are laid out for, if the counts are there.
    laid_out_for: Option<i64>,
    /// All that was counted.
    counts: Counts,
}

/// A change of an item, on the condition that some of its attributes are as they were found.
#[derive(Default)]
struct Change {
    conditions: Vec<String>,
    sets: Vec<String>,
    removes: Vec<String>,
    names: Names,
    values: HashMap<String, AttributeValue>,
}

impl Store {
    /// Lays the counts of this rule out so that a request can be counted in `shard`.
    pub(super) async fn lay_out(
        &self,
        counter: &Counter<'_>,
        limit: &Limit,
        shard: i64,
        now: DateTime<Utc>,
    ) -> Result<LayoutOutcome, Error> {
        let item_key = counter.item_key();
        let shard_keys: Vec<Key> = (0..MAX_SHARDS).map(|shard| counter.shard_key(limit, shard)).collect();
        let mut keys = shard_keys.clone();
        keys.push(item_key.clone());
        let mut found = self.table.get_all(&keys).await?;
        let item = found.remove(&item_key).unwrap_or_default();
        let shards = shard_keys.iter().map(|key| found.remove(key).unwrap_or_default()).collect();
        let found = StoredCounts::new(limit, item, shards);
        let wanted = (limit.shards() > 1).then(|| limit.max());
        let nonce = AttributeValue::B(Blob::new(self.entropy().bytes::<8>()?));
        let changes = match wanted {
            Some(max) if found.laid_out_for == wanted => {
                found.with_shard_open(max, shard, limit, now, &nonce)
            }
            None if found.laid_out_for.is_none() => return Ok(LayoutOutcome::Yes),
            None if found.counts.rule_state(limit.window(), limit.max(), now).remaining == 0 => {
                return Ok(LayoutOutcome::Full(found.counts));
            }
            _ => found.redistribute(wanted, shard, limit, now, &nonce),
        };
        let mut writes = Vec::with_capacity(changes.len());
        for (index, change) in changes {
            let key = index.and_then(|shard| shard_keys.get(shard)).unwrap_or(&item_key);
            writes.push(change.of(self.table.name(), key)?);
        }
        let sent = self
            .table
            .client()
            .transact_write_items()
            .client_request_token(self.table.request_token()?)
            .set_transact_items(Some(writes))
            .send()
            .await;
        let counted = sent.map_or_else(cancelled, |_| Ok(CountOutcome::Yes(None)))?;
        Ok(if matches!(counted, CountOutcome::Yes(_)) { LayoutOutcome::Yes } else { LayoutOutcome::Collided })
    }
}

impl StoredCounts {
    fn new(limit: &Limit, item: Item, shards: Vec<Item>) -> Self {
        let laid_out_for = in_shards(&item, limit);
        let mut all = if laid_out_for.is_none() { counts(&item, limit) } else { Counts::default() };
        for shard in shards.iter().filter(|shard| laid_out(shard).is_some()) {
            all.merge(&counts(shard, limit));
        }
        Self { item, shards, laid_out_for, counts: all }
    }

    /// The changes that let this shard take requests of the limit that shards are laid out for, each with the place of the
    /// shard, or none for the rule's item.
    fn with_shard_open(
        &self,
        max: i64,
        shard: i64,
        limit: &Limit,
        now: DateTime<Utc>,
        nonce: &AttributeValue,
    ) -> Vec<(Option<usize>, Change)> {
        let mut item = Change::default();
        item.expect(&self.item, "s").expect(&self.item, limit.id());
        item.set("s", nonce.clone()).set("purge_at", purge_at(now));
        let mut changes = vec![(None, item)];
        for (index, found) in self.numbered().filter(|(index, _)| usize::try_from(shard) == Ok(*index)) {
            let mut change = Change::default();
            change.expect(found, "r").open(max, now, nonce);
            changes.push((Some(index), change));
        }
        changes
    }

    /// The changes that lay all counts out for this limit, or in the rule's item if there is none.
    fn redistribute(
        &self,
        wanted: Option<i64>,
        shard: i64,
        limit: &Limit,
        now: DateTime<Utc>,
        nonce: &AttributeValue,
    ) -> Vec<(Option<usize>, Change)> {
        let window = limit.window();
        let current = window.number(self.counts.instant(now));
        let latest = number(window.start(current).timestamp_millis());
        let alive: Vec<(i64, i64)> = self
            .counts
            .by_window
            .iter()
            .map(|(n, count)| (*n, *count))
            .filter(|(n, _)| *n >= current)
            .collect();

        let mut item = Change::default();
        item.expect(&self.item, "s").expect(&self.item, limit.id());
        if let Some(latest) = counts(&self.item, limit).latest.filter(|_| self.laid_out_for.is_none()) {
            // Each request since would have changed this or the latest one.
            item.expect(&self.item, &attribute(limit.id(), window.number(latest)));
        }
        item.set("s", nonce.clone()).set("purge_at", purge_at(now));
        item.set(limit.id(), wanted.map_or_else(|| latest.clone(), in_shards_value));
        let kept = if wanted.is_none() { alive.as_slice() } else { &[] };
        item.replace(&self.item, limit, kept.iter().copied());
        let mut changes = vec![(None, item)];

        let (shards, one) = (limit.shards(), usize::try_from(shard).unwrap_or_default());
        for (index, found) in self.numbered() {
            let number = i64::try_from(index).unwrap_or(MAX_SHARDS);
            let opens = wanted.filter(|_| number < shards && (index == one || !alive.is_empty()));
            if opens.is_none() && laid_out(found).is_none() {
                continue;
            }
            let mut change = Change::default();
            change.expect(found, "r");
            match opens {
                Some(max) => {
                    let part = |count: i64| count / shards + i64::from(number < count % shards);
                    change.open(max, now, nonce).set(limit.id(), latest.clone());
                    change.replace(found, limit, alive.iter().map(|(n, count)| (*n, part(*count))));
                }
                None => {
                    change.set("r", nonce.clone()).remove("m").remove("o").remove(limit.id());
                    change.replace(found, limit, []);
                }
            }
            changes.push((Some(index), change));
        }
        changes
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Item)> {
        self.shards.iter().enumerate()
    }
}

impl Change {
    fn expect(&mut self, found: &Item, attribute: &str) -> &mut Self {
        let name = self.names.alias(attribute.to_owned());
        let condition = match found.get(attribute) {
            Some(value) => format!("{name}={}", self.value(value.clone())),
            None => format!("attribute_not_exists({name})"),
        };
        self.conditions.push(condition);
        self
    }

    fn set(&mut self, attribute: &str, value: AttributeValue) -> &mut Self {
        let (name, value) = (self.names.alias(attribute.to_owned()), self.value(value));
        self.sets.push(format!("{name}={value}"));
        self
    }

    fn remove(&mut self, attribute: &str) -> &mut Self {
        let name = self.names.alias(attribute.to_owned());
        self.removes.push(name);
        self
    }

    /// Lets a shard take requests.
    fn open(&mut self, max: i64, now: DateTime<Utc>, nonce: &AttributeValue) -> &mut Self {
        let until = number((now + SHARD_LIFE).timestamp());
        self.set("r", nonce.clone()).set("m", number(max)).set("o", until).set("purge_at", purge_at(now))
    }

    /// Puts these counts in the place of those that were found.
    fn replace(
        &mut self,
        found: &Item,
        limit: &Limit,
        by: impl IntoIterator<Item = (i64, i64)>,
    ) -> &mut Self {
        let by: HashMap<String, i64> =
            by.into_iter().map(|(window, count)| (attribute(limit.id(), window), count)).collect();
        for gone in windows(found, limit).filter(|name| !by.contains_key(*name)) {
            self.remove(gone);
        }
        for (name, count) in by {
            self.set(&name, number(count));
        }
        self
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let name = format!(":{}", self.values.len());
        self.values.insert(name.clone(), value);
        name
    }

    fn of(self, table: &str, key: &Key) -> Result<TransactWriteItem, Error> {
        let mut update = format!("SET {}", self.sets.join(","));
        if !self.removes.is_empty() {
            update += &format!(" REMOVE {}", self.removes.join(","));
        }
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key.attributes()))
            .update_expression(update)
            .condition_expression(self.conditions.join(" AND "))
            .set_expression_attribute_names(Some(self.names.into_map()))
            .set_expression_attribute_values(Some(self.values))
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}
