//! Items and the ways they are written and read, shared by the modules of the item types.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::{Deadline, Error, Table};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// How often a transaction that lost to another, or a batch that was not completed, is tried again.
pub(crate) const ATTEMPTS: u32 = 12;

/// The primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl Key {
    pub(crate) fn new(pk: String, sk: impl Into<String>) -> Self {
        Self { pk, sk: sk.into() }
    }

    pub(crate) fn attributes(&self) -> Item {
        HashMap::from([
            ("pk".to_owned(), AttributeValue::S(self.pk.clone())),
            ("sk".to_owned(), AttributeValue::S(self.sk.clone())),
        ])
    }
}

/// An item that says only that there is something with its sort key.
pub(crate) fn entry(key: &Key) -> Item {
    key.attributes()
}

pub(crate) fn purged_at(mut item: Item, at: DateTime<Utc>) -> Item {
    item.insert("purge_at".to_owned(), number(at.timestamp()));
    item
}

pub(crate) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn string(value: impl ToString) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

/// An instant as the bodies of items hold it.
pub(crate) fn instant(at: DateTime<Utc>) -> Result<AttributeValue, Error> {
    Ok(serde_dynamo::to_attribute_value(at)?)
}

/// A condition and an update in DynamoDB's expression language, with their values.
#[derive(Default)]
pub(crate) struct Expression {
    pub(crate) condition: Option<String>,
    sets: Vec<String>,
    removes: Vec<String>,
    adds: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    pub(crate) fn condition(text: &str) -> Self {
        Self { condition: Some(text.to_owned()), ..Self::default() }
    }

    /// The row has not changed since it was read at this revision.
    pub(crate) fn unchanged(revision: u64) -> Self {
        Self::condition("revision = :read").value(":read", number(revision))
    }

    /// An attribute is set.
    pub(crate) fn set(mut self, attribute: &str, value: AttributeValue) -> Self {
        self.sets.push(format!("#{attribute} = :{attribute}"));
        self.name(attribute).value(&format!(":{attribute}"), value)
    }

    /// An attribute is set, unless it is there.
    pub(crate) fn set_once(mut self, attribute: &str, value: AttributeValue) -> Self {
        self.sets.push(format!("#{attribute} = if_not_exists(#{attribute}, :{attribute})"));
        self.name(attribute).value(&format!(":{attribute}"), value)
    }

    /// An attribute is removed.
    pub(crate) fn remove(mut self, attribute: &str) -> Self {
        self.removes.push(format!("#{attribute}"));
        self.name(attribute)
    }

    /// A number is added to an attribute, which is 0 where it is absent.
    pub(crate) fn add(mut self, attribute: &str, by: impl ToString) -> Self {
        self.adds.push(format!("#{attribute} :{attribute}"));
        self.name(attribute).value(&format!(":{attribute}"), number(by))
    }

    /// A name for an attribute, `#` and its own: many are reserved words.
    pub(crate) fn name(mut self, attribute: &str) -> Self {
        self.names.insert(format!("#{attribute}"), attribute.to_owned());
        self
    }

    pub(crate) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// The update, unless it changes nothing.
    pub(crate) fn update(&self) -> Option<String> {
        let clauses = [("SET", &self.sets), ("REMOVE", &self.removes), ("ADD", &self.adds)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<String> =
            clauses.map(|(clause, parts)| format!("{clause} {}", parts.join(", "))).collect();
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    pub(crate) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    pub(crate) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

impl Table {
    /// A token by which DynamoDB recognises a transaction that is sent again.
    pub(crate) fn request_token(&self) -> Result<String, Error> {
        Ok(format!("{:032x}", u128::from_be_bytes(self.entropy().bytes()?)))
    }

    /// Waits before the next attempt: full jitter below 10 ms, doubled each time, at most 320 ms.
    pub(crate) async fn pause(&self, attempt: u32) -> Result<(), Error> {
        let max_delay = 10_u64 << attempt.min(5);
        let draw = u64::from_be_bytes(self.entropy().bytes()?);
        tokio::time::sleep(Duration::from_millis(draw % max_delay)).await;
        Ok(())
    }

    /// Reads one item, strongly consistent.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        let response = self
            .client()
            .get_item()
            .table_name(self.name())
            .set_key(Some(key.attributes()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| Error::from(error).about(key))?;
        Ok(response.item)
    }

    /// Reads what is left to read of a batch, strongly consistent, in one request and more for what is left out of its
    /// answer. What was read before it fails is in the batch.
    async fn read(&self, batch: &mut Batch) -> Result<(), Error> {
        for attempt in 0..ATTEMPTS {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(batch.unread.iter().map(Key::attributes).collect()))
                .consistent_read(true)
                .build()?;
            let response = self
                .client()
                .batch_get_item()
                .request_items(self.name(), wanted)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| batch.unread.iter().take(1).fold(Error::from(error), Error::about))?;
            batch.items.extend(response.responses.unwrap_or_default().into_values().flatten());
            let unprocessed = response.unprocessed_keys.unwrap_or_default().into_values();
            batch.unread = unprocessed.flat_map(|table| table.keys).filter_map(|key| key_of(&key)).collect();
            if batch.unread.is_empty() {
                return Ok(());
            }
            self.pause(attempt).await?;
        }
        Err(Error::unavailable("a batch of reads was not completed"))
    }

    /// Reads any number of different items, four batches at a time; what is missing is left out.
    pub(crate) async fn get_all(&self, keys: &[Key]) -> Result<HashMap<Key, Item>, Error> {
        let batches: Vec<Vec<Item>> = stream::iter(batches(keys))
            .map(|mut batch| async move { self.read(&mut batch).await.map(|()| batch.items) })
            .buffered(4)
            .try_collect()
            .await?;
        Ok(by_key(batches.into_iter().flatten()).collect())
    }

    /// As [`Self::get_all`], as far as it gets until the deadline. A key may be there several times: it is read once.
    pub(crate) async fn read_until(&self, deadline: Deadline, keys: Vec<Key>) -> Reads {
        let mut reads = Reads::default();
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys {
            let uses = reads.uses.entry(key.clone()).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                wanted.push(key);
            }
        }
        let read = async |mut batch: Batch| {
            let outcome = deadline.of(self.read(&mut batch)).await;
            (batch, outcome)
        };
        let mut batches = stream::iter(batches(&wanted)).map(read).buffer_unordered(4);
        while let Some((batch, outcome)) = batches.next().await {
            reads.known += batch.wanted - batch.unread.len();
            reads.found.extend(by_key(batch.items));
            if let Err(error) = outcome {
                reads.failed.extend(batch.unread.into_iter().map(|key| (key, error.clone())));
            }
        }
        reads
    }

    /// As [`Self::get_all`], in the order of `keys`.
    pub(crate) async fn get_many(&self, keys: &[Key]) -> Result<Vec<Item>, Error> {
        let mut found = self.get_all(keys).await?;
        Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
    }

    /// Updates one item. Whether it was: not if the condition did not hold.
    pub(crate) async fn update(&self, key: &Key, on: Expression) -> Result<bool, Error> {
        let sent = self
            .client()
            .update_item()
            .table_name(self.name())
            .set_key(Some(key.attributes()))
            .set_update_expression(on.update())
            .set_expression_attribute_names(on.names())
            .set_expression_attribute_values(on.values())
            .set_condition_expression(on.condition)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(Error::from(error).about(key)),
        }
    }

    /// Writes an item whose key must be free. Whether it was: an earlier attempt whose response was lost may have written it.
    pub(crate) async fn put_new(&self, item: Item) -> Result<bool, Error> {
        let key = key_of(&item);
        let sent = self
            .client()
            .put_item()
            .table_name(self.name())
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(key.iter().fold(Error::from(error), Error::about)),
        }
    }

    /// One page of a partition, newest (highest sort key) first, strictly below `before` and at or above `from`.
    pub(crate) async fn page(
        &self,
        pk: &str,
        from: Option<&str>,
        before: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Page, Error> {
        if from.zip(before).is_some_and(|(from, before)| from >= before) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        // DynamoDB takes one condition on the sort key, and BETWEEN includes both its ends: an item at the upper end
        // is dropped from the response.
        let mut query = self
            .client()
            .query()
            .table_name(self.name())
            .consistent_read(true)
            .scan_index_forward(false)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_limit(limit.and_then(|n| i32::try_from(n).ok()))
            .expression_attribute_values(":pk", string(pk));
        let condition = match (from, before) {
            (None, None) => "pk = :pk",
            (Some(_), None) => "pk = :pk AND sk >= :from",
            (None, Some(_)) => "pk = :pk AND sk < :before",
            (Some(_), Some(_)) => "pk = :pk AND sk BETWEEN :from AND :before",
        };
        query = query.key_condition_expression(condition);
        if let Some(from) = from {
            query = query.expression_attribute_values(":from", string(from));
        }
        if let Some(before) = before {
            query = query.expression_attribute_values(":before", string(before));
        }
        let partition = Key::new(pk.to_owned(), "");
        let response = query.send().await.map_err(|error| Error::from(error).about(&partition))?;
        let more = response.last_evaluated_key.is_some();
        let items = response
            .items
            .unwrap_or_default()
            .into_iter()
            .filter(|item| sk_of(item).as_deref() != before)
            .collect();
        let next = response.last_evaluated_key.as_ref().and_then(sk_of);
        Ok(Page { items, next: if more { next } else { None } })
    }

    /// The sort keys of a partition of entries, highest first, below `before`: all of them, or the first `limit`.
    pub(crate) async fn entries(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut below = before.map(str::to_owned);
        loop {
            let wanted = limit.map(|limit| limit.saturating_sub(found.len()));
            if wanted == Some(0) {
                return Ok(found);
            }
            let page = self.page(pk, None, below.as_deref(), wanted).await?;
            found.extend(page.items.iter().filter_map(sk_of));
            match page.next {
                Some(next) => below = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// Items to be read in one request, and those that were.
struct Batch {
    wanted: usize,
    unread: Vec<Key>,
    items: Vec<Item>,
}

fn batches(keys: &[Key]) -> Vec<Batch> {
    let batch = |keys: &[Key]| Batch { wanted: keys.len(), unread: keys.to_vec(), items: vec![] };
    keys.chunks(100).map(batch).collect()
}

fn by_key(items: impl IntoIterator<Item = Item>) -> impl Iterator<Item = (Key, Item)> {
    items.into_iter().filter_map(|item| Some((key_of(&item)?, item)))
}

/// The results of reading many items, each of which may have failed alone. Each is taken as often as it was asked for.
#[derive(Default)]
pub(crate) struct Reads {
    found: HashMap<Key, Item>,
    failed: HashMap<Key, Error>,
    /// How often each key is still to be taken.
    uses: HashMap<Key, usize>,
    /// Of how many keys it is known whether there is an item.
    known: usize,
}

impl Reads {
    /// This, but for reads of which none succeeded.
    ///
    /// # Errors
    /// Why that is so.
    pub(crate) fn unless_all_failed(self) -> Result<Self, Error> {
        match self.failed.values().next() {
            Some(error) if self.known == 0 => Err(error.clone()),
            _ => Ok(self),
        }
    }

    /// The item with this key, if there is one; a copy of it while it is still to be taken again.
    ///
    /// # Errors
    /// It could not be read.
    pub(crate) fn take(&mut self, key: &Key) -> Result<Option<Item>, Error> {
        if let Some(error) = self.failed.get(key) {
            return Err(error.clone());
        }
        match self.uses.get_mut(key) {
            Some(uses) if *uses > 1 => {
                *uses -= 1;
                Ok(self.found.get(key).cloned())
            }
            _ => Ok(self.found.remove(key)),
        }
    }
}

/// A page of a partition.
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    /// The sort key below which the next page begins, if there may be one.
    pub(crate) next: Option<String>,
}

pub(crate) fn sk_of(item: &Item) -> Option<String> {
    item.get("sk")?.as_s().ok().cloned()
}

pub(crate) fn key_of(item: &Item) -> Option<Key> {
    let pk = item.get("pk")?.as_s().ok()?.clone();
    Some(Key::new(pk, sk_of(item)?))
}
