//! Counters of rate limits: `LIMIT#KEY#<id>` or `LIMIT#APP#<app>`, with `#<address>` for rules that count by address, and
//! `LIMIT#<shard>.<shards>#…` where one item is not enough, / `COUNTS`; purged a day after they say nothing any more.
//!
//! A request is counted in each [window](keyward_core::rate_limit::Window) that it falls into by one conditional update,
//! of which DynamoDB makes sure that it happens whole or not at all and after all earlier ones: the condition is that
//! none of the windows that end now is full. Rules of one mode are counted in one item, so one write unit; with rules of
//! other modes, all their items are written in one transaction. A refused request changes nothing. See ADR 0011.

mod counter;

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use chrono::{DateTime, Utc};
use keyward_core::ClientAddress;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{Admission, Blocked, Limit, Rules, Standing, Status, seconds_until};

pub(crate) use self::counter::CounterState;
use self::counter::{Counter, Names, counters, standing, state_of};
use crate::item::{ATTEMPTS, Item, Key, pause, request_token};
use crate::{Error, Store, random};

/// What is no longer needed of a counter is removed when it comes to so many bytes.
const MOST_STALE: usize = 400;

/// Whose request is to be admitted.
#[derive(Debug, Clone, Copy)]
pub struct Requester {
    /// The app of the key.
    pub app: AppNumber,
    /// The key.
    pub key: KeyId,
    /// The client's address. Those that are not known count as one.
    pub client_ip: Option<ClientAddress>,
}

/// What came of an attempt to count a request.
enum Counted {
    /// It was counted; the new state of a single counter is in the answer.
    Yes(Option<Item>),
    /// It was not: what these counters said.
    No(Vec<(usize, Item)>),
    /// It was not, as others were writing the same items.
    Collided,
}

impl Store {
    /// Counts a request in the rules that hold for it, if each has room for it; else in none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also if the counters were too busy: then it may have been counted, in all rules or in
    /// none.
    pub async fn admit(
        &self,
        requester: &Requester,
        rules: &Rules,
        holding: &[&Limit],
    ) -> Result<Admission, Error> {
        if holding.is_empty() {
            return Ok(Admission::default());
        }
        let counters = counters(requester, rules, holding, u32::from_be_bytes(random()?));
        let mut now = self.clock().now();
        let mut collisions = 0;
        let shards: i64 = counters.iter().map(|counter| counter.shards).sum();
        for _ in 0..shards.saturating_add(i64::from(ATTEMPTS)) {
            now = now.max(self.clock().now());
            let mut places = Vec::with_capacity(counters.len());
            for counter in &counters {
                match self.free_shard(counter, now) {
                    Some(shard) => places.push((counter, shard)),
                    None => break,
                }
            }
            if places.len() < counters.len() {
                match self.refused(&counters, holding, now).await? {
                    Some(refused) => return Ok(refused),
                    // What is known has changed meanwhile.
                    None => continue,
                }
            }
            match self.count(&places, now).await? {
                Counted::Yes(new) => return self.admitted(&places, holding, new, now).await,
                Counted::No(found) => {
                    for (place, item) in found {
                        let Some((counter, shard)) = places.get(place) else { continue };
                        let state = state_of(&item);
                        // Another process, whose clock is ahead, may have opened a later sub-window.
                        let latest =
                            counter.holding.iter().filter_map(|(_, limit)| state.get(limit.id())?.latest);
                        now = latest.fold(now, DateTime::max);
                        self.full_counters.put(counter.key(*shard), Arc::new(state));
                    }
                }
                Counted::Collided => {
                    pause(collisions).await?;
                    collisions += 1;
                }
            }
        }
        Err(Error::Unavailable("a rate limit's counters were too busy".into()))
    }

    /// A shard of this counter that is not known to be full.
    fn free_shard(&self, counter: &Counter<'_>, now: DateTime<Utc>) -> Option<i64> {
        (0..counter.shards).map(|step| (counter.first + step) % counter.shards).find(|shard| {
            let known = self.full_counters.get(&counter.key(*shard));
            known.is_none_or(|state| counter.full(&state, *shard, now).is_none())
        })
    }

    async fn count(&self, places: &[(&Counter<'_>, i64)], now: DateTime<Utc>) -> Result<Counted, Error> {
        match places {
            [(counter, shard)] => self.count_in_one(counter, *shard, now).await,
            _ => self.count_in_all(places, now).await,
        }
    }

    async fn count_in_one(
        &self,
        counter: &Counter<'_>,
        shard: i64,
        now: DateTime<Utc>,
    ) -> Result<Counted, Error> {
        let nonce = AttributeValue::B(Blob::new(random::<8>()?));
        let counted = counter.counted(shard, now, &nonce);
        let sent = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .set_key(Some(counter.key(shard).attributes()))
            .set_update_expression(counted.update)
            .set_condition_expression(counted.condition)
            .set_expression_attribute_names(Some(counted.names))
            .set_expression_attribute_values(Some(counted.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let error = match sent {
            Ok(answer) => {
                let item = answer.attributes.unwrap_or_default();
                self.tidy(counter, shard, &item, now).await;
                return Ok(Counted::Yes(Some(item)));
            }
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                let item = refused.item.clone().unwrap_or_default();
                let by_an_earlier_attempt = item.get("r") == Some(&nonce);
                Ok(if by_an_earlier_attempt {
                    Counted::Yes(Some(item))
                } else {
                    Counted::No(vec![(0, item)])
                })
            }
            Some(service) if service.code() == Some("TransactionConflictException") => Ok(Counted::Collided),
            _ => Err(error.into()),
        }
    }

    async fn count_in_all(
        &self,
        places: &[(&Counter<'_>, i64)],
        now: DateTime<Utc>,
    ) -> Result<Counted, Error> {
        let nonce = AttributeValue::B(Blob::new(random::<8>()?));
        let mut writes = Vec::with_capacity(places.len());
        for (counter, shard) in places {
            let counted = counter.counted(*shard, now, &nonce);
            let update = Update::builder()
                .table_name(self.table.name())
                .set_key(Some(counter.key(*shard).attributes()))
                .set_update_expression(counted.update)
                .set_condition_expression(counted.condition)
                .set_expression_attribute_names(Some(counted.names))
                .set_expression_attribute_values(Some(counted.values))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .build()?;
            writes.push(TransactWriteItem::builder().update(update).build());
        }
        let sent = self
            .table
            .client()
            .transact_write_items()
            .client_request_token(request_token()?)
            .set_transact_items(Some(writes))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Counted::Yes(None)),
            Err(error) => cancelled(error),
        }
    }

    async fn admitted(
        &self,
        places: &[(&Counter<'_>, i64)],
        holding: &[&Limit],
        new: Option<Item>,
        now: DateTime<Utc>,
    ) -> Result<Admission, Error> {
        let states = match (new, places) {
            (Some(item), [_]) => vec![state_of(&item)],
            // A transaction does not say what it has written.
            _ => {
                let keys: Vec<Key> = places.iter().map(|(counter, shard)| counter.key(*shard)).collect();
                let mut found = self.table.get_all(&keys).await?;
                keys.iter().map(|key| state_of(&found.remove(key).unwrap_or_default())).collect()
            }
        };
        let mut standings = HashMap::new();
        for ((counter, shard), state) in places.iter().zip(&states) {
            for (place, limit) in &counter.holding {
                let standing = standing(state, limit, *shard, now);
                let remaining = standing.remaining.saturating_mul(counter.shards).min(limit.max());
                standings.insert(*place, Standing { remaining, ..standing });
            }
        }
        Ok(Admission { limits: statuses(holding, &standings, now), blocked: None })
    }

    /// How the rules stand where some counter has no shard with room: from what is known, and, of counters of which nothing
    /// is, from what they say now. `None` if all have room after all.
    async fn refused(
        &self,
        counters: &[Counter<'_>],
        holding: &[&Limit],
        now: DateTime<Utc>,
    ) -> Result<Option<Admission>, Error> {
        let keys = || counters.iter().flat_map(|counter| (0..counter.shards).map(|shard| counter.key(shard)));
        let unknown: Vec<Key> = keys().filter(|key| self.full_counters.get(key).is_none()).collect();
        if !unknown.is_empty() {
            let mut found = self.table.get_all(&unknown).await?;
            for key in unknown {
                let state = state_of(&found.remove(&key).unwrap_or_default());
                self.full_counters.put(key, Arc::new(state));
            }
        }
        let mut standings: HashMap<usize, Standing> = HashMap::new();
        let mut blocked: Option<(usize, DateTime<Utc>)> = None;
        for counter in counters {
            let mut opens: Option<(usize, DateTime<Utc>)> = None;
            let mut free = false;
            for shard in 0..counter.shards {
                let state = self.full_counters.get(&counter.key(shard)).unwrap_or_default();
                for (place, limit) in &counter.holding {
                    let one = standing(&state, limit, shard, now);
                    let all = standings.entry(*place).or_insert(Standing { remaining: 0, ..one });
                    all.remaining += one.remaining;
                    all.more_at = all.more_at.min(one.more_at);
                }
                match counter.full(&state, shard, now) {
                    Some(full) if opens.is_none_or(|(_, at)| full.1 < at) => opens = Some(full),
                    Some(_) => {}
                    None => free = true,
                }
            }
            if let Some(full) = opens.filter(|_| !free) {
                blocked = blocked.filter(|(place, _)| *place < full.0).or(Some(full));
            }
        }
        let limits = statuses(holding, &standings, now);
        let blocked = blocked.and_then(|(place, until)| {
            let rule = holding.get(place)?.name();
            Some(Blocked { rule, place, retry_after: seconds_until(until, now) })
        });
        Ok(blocked.map(|blocked| Admission { limits, blocked: Some(blocked) }))
    }

    /// Removes what a counter does not need any more, once there is much of it: the windows from before a pause, which a
    /// later request does not know of, and rules that are gone. If it fails, a later request does it.
    async fn tidy(&self, counter: &Counter<'_>, shard: i64, item: &Item, now: DateTime<Utc>) {
        let stale = counter.stale(item, now);
        if stale.iter().map(|name| name.len() + 4).sum::<usize>() < MOST_STALE {
            return;
        }
        let mut names = Names::default();
        let removed: Vec<String> = stale.into_iter().map(|name| names.alias(name)).collect();
        let sent = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .set_key(Some(counter.key(shard).attributes()))
            .update_expression(format!("REMOVE {}", removed.join(",")))
            .set_expression_attribute_names(Some(names.into_map()))
            .send()
            .await;
        drop(sent);
    }
}

fn cancelled<R: std::fmt::Debug>(error: SdkError<TransactWriteItemsError, R>) -> Result<Counted, Error> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
    else {
        return match error.code() {
            Some("TransactionInProgressException") => Ok(Counted::Collided),
            _ => Err(error.into()),
        };
    };
    let reasons = cancelled.cancellation_reasons();
    let refused: Vec<(usize, Item)> = reasons
        .iter()
        .enumerate()
        .filter(|(_, reason)| reason.code() == Some("ConditionalCheckFailed"))
        .map(|(place, reason)| (place, reason.item.clone().unwrap_or_default()))
        .collect();
    if !refused.is_empty() {
        Ok(Counted::No(refused))
    } else if reasons.iter().any(|reason| reason.code() == Some("TransactionConflict")) {
        Ok(Counted::Collided)
    } else {
        Err(Error::Unavailable(DisplayErrorContext(&error).to_string()))
    }
}

fn statuses(holding: &[&Limit], standings: &HashMap<usize, Standing>, now: DateTime<Utc>) -> Vec<Status> {
    let status = |(place, limit): (usize, &&Limit)| {
        let standing = standings.get(&place)?;
        Some(Status {
            rule: limit.name(),
            remaining: standing.remaining,
            limit: limit.max(),
            window_ms: limit.window().ms(),
            more_in: seconds_until(standing.more_at, now),
        })
    };
    holding.iter().enumerate().filter_map(status).collect()
}
