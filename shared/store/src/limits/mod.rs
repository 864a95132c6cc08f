//! Counters of rate limits: `LIMIT#KEY#<id>` or `LIMIT#APP#<app>`, with `#<address>` for rules that count by address, and
//! `LIMIT#<rule>.<shard>#…` for a rule for which one item is not enough, / `COUNTS`; purged 35 days after the last change,
//! when nothing in them can matter any more.
//!
//! A request is counted in each [window](keyward_core::rate_limit::Window) that it falls into by one conditional update,
//! of which DynamoDB makes sure that it happens whole or not at all and after all earlier ones: the condition is that
//! none of the windows that end now is full. Rules of one mode are counted in one item, so one write unit; with rules of
//! other modes, all their items are written in one transaction. A denied request changes nothing. See ADR 0011.

mod counter;
mod layout;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
    ThrottlingReason, TransactWriteItem, Update,
};
use chrono::{DateTime, Utc};
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{Admission, Blocked, Limit, RuleState, Rules, Status, seconds_until};
use keyward_core::{ClientAddress, VerifiedKey};

pub(crate) use self::counter::CounterState;
use self::counter::{Counter, Names, counters};
use self::layout::LayoutOutcome;
use crate::change::RETRYABLE;
use crate::item::{ATTEMPTS, Item, Key};
use crate::recent::Recent;
use crate::{Deadline, Error, Store};

/// The size in bytes at which a counter is freed of the counts that it no longer needs.
const MAX_STALE_BYTES: usize = 400;
/// The number of cached items. The state of 20 rules takes about 10 KB.
const CACHE_SIZE: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();

/// The counts of items that were full.
pub(crate) type FullCounters = Recent<Key, Arc<CounterState>>;

pub(crate) fn full_counters() -> FullCounters {
    Recent::of(CACHE_SIZE)
}

/// The counters of a request.
#[derive(Debug, Clone, Copy)]
struct Requester {
    app: AppNumber,
    key: KeyId,
    /// Clients that are not known count as one.
    client_ip: Option<ClientAddress>,
}

/// The outcome of an attempt to count a request.
enum CountOutcome {
    /// It was counted; the new state of a single counter is in the response.
    Yes(Option<Item>),
    /// It was not: what these counters said.
    No(Vec<(usize, Item)>),
    /// It was not, as others were writing the same items.
    Collided,
}

/// The known items of a counter, by shard.
type Known = Vec<Option<Arc<CounterState>>>;

impl Store {
    /// Counts a request of a key in the rules that hold for it, if each has room for it; else in none.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Busy`] if too many others were writing the same counters. In both cases it may have
    /// been counted, in all rules or in none.
    pub async fn admit(
        &self,
        verified: &VerifiedKey,
        client_ip: Option<ClientAddress>,
        rules: &Rules,
        applicable: &[&Limit],
        deadline: Deadline,
    ) -> Result<Admission, Error> {
        if applicable.is_empty() {
            return Ok(Admission::default());
        }
        let requester = Requester { app: verified.app().number, key: verified.key().id, client_ip };
        let counters = counters(&requester, rules, applicable, u32::from_be_bytes(self.entropy().bytes()?));
        let collisions = AtomicU32::new(0);
        let admitted = deadline.limit(Box::pin(self.admit_in(&counters, applicable, &collisions))).await;
        admitted.unwrap_or_else(|_| {
            let is_busy = collisions.load(Ordering::Relaxed) > 0;
            Err(if is_busy { Error::Busy } else { Error::unavailable("the counters took too long") })
        })
    }

    async fn admit_in(
        &self,
        counters: &[Counter<'_>],
        applicable: &[&Limit],
        collisions: &AtomicU32,
    ) -> Result<Admission, Error> {
        let mut now = self.clock().now();
        // Each shard may have to be laid out, and may then be found full.
        let shards: i64 = counters.iter().map(|counter| counter.shards).sum();
        for _ in 0..2 * shards + i64::from(ATTEMPTS) {
            now = now.max(self.clock().now());
            let known: Vec<Known> = counters.iter().map(|counter| self.known(counter, now)).collect();
            let drawn = counters.iter().zip(&known);
            let places: Vec<(&Counter<'_>, i64)> = drawn
                .filter_map(|(counter, known)| Some((counter, free_shard(counter, known, now)?)))
                .collect();
            if places.len() < counters.len() {
                return self.refused(counters, known, applicable, now).await;
            }
            let collided = match self.count(&places, now).await? {
                CountOutcome::Yes(new) => return self.admitted(&places, applicable, new, now).await,
                CountOutcome::Collided => true,
                CountOutcome::No(found) => {
                    let said = found.into_iter().filter_map(|(index, item)| {
                        let (counter, shard) = places.get(index)?;
                        Some((*counter, *shard, counter.state(&item)))
                    });
                    let (counted, misplaced): (Vec<_>, Vec<_>) =
                        said.partition(|(counter, _, state)| counter.misplaced(state, now).is_empty());
                    let mut collided = false;
                    if counted.is_empty() {
                        for (counter, shard, state) in misplaced {
                            collided |= !self.relocate(counter, shard, state, now).await?;
                        }
                    }
                    for (counter, shard, state) in counted {
                        // Another process, whose clock is ahead, may have opened a later sub-window.
                        now = counter.latest(&state).map_or(now, |latest| latest.max(now));
                        self.full_counters.put(counter.key(shard), Arc::new(state));
                        if counter.shards > 1 {
                            self.read(counter).await?;
                        }
                    }
                    collided
                }
            };
            if collided {
                let before = collisions.fetch_add(1, Ordering::Relaxed);
                if before >= ATTEMPTS {
                    break;
                }
                self.table.pause(before).await?;
            }
        }
        Err(Error::Busy)
    }

    /// The known items of this counter, as far as requests are counted there.
    fn known(&self, counter: &Counter<'_>, now: DateTime<Utc>) -> Known {
        let of = |shard| {
            let state = self.full_counters.get(&counter.key(shard))?;
            counter.misplaced(&state, now).is_empty().then_some(state)
        };
        (0..counter.shards).map(of).collect()
    }

    /// Lays out the rules whose counts are not where this counter counts them, as its item says; not if others were writing
    /// the same items.
    async fn relocate(
        &self,
        counter: &Counter<'_>,
        shard: i64,
        mut state: CounterState,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        for limit in counter.misplaced(&state, now) {
            match self.lay_out(counter, limit, shard, now).await? {
                LayoutOutcome::Yes => {}
                LayoutOutcome::Collided => return Ok(false),
                LayoutOutcome::Full(counts) => {
                    state = state.with(limit, counts);
                    if counter.misplaced(&state, now).is_empty() {
                        self.full_counters.put(counter.key(shard), Arc::new(state));
                        return Ok(true);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads all shards of a counter.
    async fn read(&self, counter: &Counter<'_>) -> Result<(), Error> {
        let keys: Vec<Key> = (0..counter.shards).map(|shard| counter.key(shard)).collect();
        for (key, item) in self.table.get_all(&keys).await? {
            self.full_counters.put(key, Arc::new(counter.state(&item)));
        }
        Ok(())
    }

    async fn count(&self, places: &[(&Counter<'_>, i64)], now: DateTime<Utc>) -> Result<CountOutcome, Error> {
        match places {
            [(counter, shard)] => self.count_in_one(counter, *shard, now).await,
            _ => self.count_in_several(places, now).await,
        }
    }

    async fn count_in_one(
        &self,
        counter: &Counter<'_>,
        shard: i64,
        now: DateTime<Utc>,
    ) -> Result<CountOutcome, Error> {
        let nonce = AttributeValue::B(Blob::new(self.entropy().bytes::<8>()?));
        let counted = counter.counted(shard, now, &nonce);
        let sent = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .set_key(Some(counter.key(shard).attributes()))
            .update_expression(counted.update)
            .condition_expression(counted.condition)
            .set_expression_attribute_names(Some(counted.names))
            .set_expression_attribute_values(Some(counted.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let error = match sent {
            Ok(response) => {
                let item = response.attributes.unwrap_or_default();
                self.remove_stale(counter, shard, &item, now).await;
                return Ok(CountOutcome::Yes(Some(item)));
            }
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                let item = refused.item.clone().unwrap_or_default();
                let by_an_earlier_attempt = item.get("r") == Some(&nonce);
                Ok(if by_an_earlier_attempt {
                    CountOutcome::Yes(Some(item))
                } else {
                    CountOutcome::No(vec![(0, item)])
                })
            }
            Some(service) if service.code() == Some("TransactionConflictException") => {
                Ok(CountOutcome::Collided)
            }
            Some(UpdateItemError::ProvisionedThroughputExceededException(throttled))
                if is_by_key(throttled.throttling_reasons()) =>
            {
                Err(Error::Busy)
            }
            Some(UpdateItemError::ThrottlingException(throttled))
                if is_by_key(throttled.throttling_reasons()) =>
            {
                Err(Error::Busy)
            }
            _ => Err(error.into()),
        }
    }

    async fn count_in_several(
        &self,
        places: &[(&Counter<'_>, i64)],
        now: DateTime<Utc>,
    ) -> Result<CountOutcome, Error> {
        let nonce = AttributeValue::B(Blob::new(self.entropy().bytes::<8>()?));
        let mut writes = Vec::with_capacity(places.len());
        for (counter, shard) in places {
            let counted = counter.counted(*shard, now, &nonce);
            let update = Update::builder()
                .table_name(self.table.name())
                .set_key(Some(counter.key(*shard).attributes()))
                .update_expression(counted.update)
                .condition_expression(counted.condition)
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
            .client_request_token(self.table.request_token()?)
            .set_transact_items(Some(writes))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(CountOutcome::Yes(None)),
            Err(error) => cancelled(error),
        }
    }

    async fn admitted(
        &self,
        places: &[(&Counter<'_>, i64)],
        applicable: &[&Limit],
        new: Option<Item>,
        now: DateTime<Utc>,
    ) -> Result<Admission, Error> {
        let states = match (new, places) {
            (Some(item), [(counter, _)]) => vec![counter.state(&item)],
            // A transaction does not say what it has written.
            _ => {
                let keys: Vec<Key> = places.iter().map(|(counter, shard)| counter.key(*shard)).collect();
                let mut found = self.table.get_all(&keys).await?;
                let item = |key| found.remove(key).unwrap_or_default();
                let items: Vec<Item> = keys.iter().map(item).collect();
                places.iter().zip(&items).map(|((counter, _), item)| counter.state(item)).collect()
            }
        };
        let mut rule_states = HashMap::new();
        for ((counter, shard), state) in places.iter().zip(&states) {
            for (index, limit) in &counter.applicable {
                let rule_state = state.rule_state(limit, *shard, now);
                let remaining = rule_state.remaining.saturating_mul(counter.shards).min(limit.max());
                rule_states.insert(*index, RuleState { remaining, ..rule_state });
            }
        }
        Ok(Admission { limits: statuses(applicable, &rule_states, now), blocked: None })
    }

    /// The state of the rules where some counter has no shard with room. Of a counter of which nothing is known, one item is
    /// read.
    async fn refused(
        &self,
        counters: &[Counter<'_>],
        mut known: Vec<Known>,
        applicable: &[&Limit],
        now: DateTime<Utc>,
    ) -> Result<Admission, Error> {
        let is_unknown = |known: &Known| known.iter().all(Option::is_none);
        let unknown = counters.iter().zip(&known).filter(|(_, known)| is_unknown(known));
        let keys: Vec<Key> = unknown.map(|(counter, _)| counter.key(counter.first)).collect();
        if !keys.is_empty() {
            let mut found = self.table.get_all(&keys).await?;
            for (counter, known) in counters.iter().zip(&mut known) {
                let state = found.remove(&counter.key(counter.first)).map(|item| counter.state(&item));
                let index = usize::try_from(counter.first).unwrap_or_default();
                if let (Some(state), Some(known)) = (state, known.get_mut(index)) {
                    let state = Arc::new(state);
                    self.full_counters.put(counter.key(counter.first), state.clone());
                    *known = Some(state);
                }
            }
        }
        let mut rule_states: HashMap<usize, RuleState> = HashMap::new();
        let mut blocked: Option<(usize, DateTime<Utc>)> = None;
        for (counter, known) in counters.iter().zip(&known) {
            for (index, limit) in &counter.applicable {
                rule_states.insert(*index, rule_state(limit, known, now));
            }
            if free_shard(counter, known, now).is_some() {
                continue;
            }
            let full =
                (0..).zip(known).filter_map(|(shard, state)| counter.full(state.as_ref()?, shard, now));
            let opens = full.min_by_key(|(_, at)| *at);
            blocked = blocked.into_iter().chain(opens).min_by_key(|(index, _)| *index);
        }
        let limits = statuses(applicable, &rule_states, now);
        let blocked = blocked.and_then(|(index, until)| {
            let rule = applicable.get(index)?.name();
            Some(Blocked { rule, index, retry_after: seconds_until(until, now) })
        });
        match blocked {
            Some(blocked) => Ok(Admission { limits, blocked: Some(blocked) }),
            None => Err(Error::internal("no rule refuses a request that was not counted")),
        }
    }

    /// Removes what a counter does not need any more, once there is much of it: the windows from before a pause, which a
    /// later request does not know of, and rules that are gone. If it fails, or others were counted meanwhile, a later request
    /// does it.
    async fn remove_stale(&self, counter: &Counter<'_>, shard: i64, item: &Item, now: DateTime<Utc>) {
        let stale = counter.stale(item, now);
        if stale.iter().map(|name| name.len() + 4).sum::<usize>() < MAX_STALE_BYTES {
            return;
        }
        let Some(nonce) = item.get("r").cloned() else { return };
        let mut names = Names::default();
        let removed: Vec<String> = stale.into_iter().map(|name| names.alias(name)).collect();
        let sent = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .set_key(Some(counter.key(shard).attributes()))
            .update_expression(format!("REMOVE {}", removed.join(",")))
            .condition_expression("r=:r")
            .set_expression_attribute_names(Some(names.into_map()))
            .expression_attribute_values(":r", nonce)
            .send()
            .await;
        drop(sent);
    }
}

/// Whether DynamoDB throttles since one item is asked for too much, and not the table.
fn is_by_key(reasons: &[ThrottlingReason]) -> bool {
    let mut reasons = reasons.iter().filter_map(ThrottlingReason::reason);
    reasons.any(|reason| reason.ends_with("KeyRangeThroughputExceeded"))
}

/// A shard of this counter that is not known to be full.
fn free_shard(counter: &Counter<'_>, known: &Known, now: DateTime<Utc>) -> Option<i64> {
    (0..counter.shards).map(|step| (counter.first + step) % counter.shards).find(|shard| {
        let known = usize::try_from(*shard).ok().and_then(|index| known.get(index)?.as_ref());
        known.is_none_or(|state| counter.full(state, *shard, now).is_none())
    })
}

/// The state of a rule by what is known of its shards: those of which nothing is known are taken for like the others.
fn rule_state(limit: &Limit, known: &Known, now: DateTime<Utc>) -> RuleState {
    let of_shard = |(shard, state): (i64, &Option<Arc<CounterState>>)| {
        state.as_ref().map(|state| state.rule_state(limit, shard, now))
    };
    let rule_states: Vec<RuleState> = (0..).zip(known).filter_map(of_shard).collect();
    let Some(resets_at) = rule_states.iter().map(|rule_state| rule_state.resets_at).min() else {
        return CounterState::default().rule_state(limit, 0, now);
    };
    let remaining: i64 = rule_states.iter().map(|rule_state| rule_state.remaining).sum();
    let (all, some) = (known.len(), rule_states.len());
    let all_to_some = i64::try_from(all).unwrap_or(1) / i64::try_from(some).unwrap_or(1).max(1);
    RuleState { remaining: remaining.saturating_mul(all_to_some).min(limit.max()), resets_at }
}

fn cancelled<R: std::fmt::Debug>(error: SdkError<TransactWriteItemsError, R>) -> Result<CountOutcome, Error> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
    else {
        return match error.code() {
            Some("TransactionInProgressException") => Ok(CountOutcome::Collided),
            _ => Err(error.into()),
        };
    };
    let reasons = cancelled.cancellation_reasons();
    let refused: Vec<(usize, Item)> = reasons
        .iter()
        .enumerate()
        .filter(|(_, reason)| reason.code() == Some("ConditionalCheckFailed"))
        .map(|(index, reason)| (index, reason.item.clone().unwrap_or_default()))
        .collect();
    if !refused.is_empty() {
        Ok(CountOutcome::No(refused))
    } else if reasons.iter().any(|reason| reason.code().is_some_and(|code| RETRYABLE.contains(&code))) {
        Ok(CountOutcome::Collided)
    } else {
        Err(Error::unavailable(DisplayErrorContext(&error).to_string()))
    }
}

fn statuses(
    applicable: &[&Limit],
    rule_states: &HashMap<usize, RuleState>,
    now: DateTime<Utc>,
) -> Vec<Status> {
    let status = |(index, limit): (usize, &&Limit)| {
        let rule_state = rule_states.get(&index)?;
        Some(Status {
            rule: limit.name(),
            remaining: rule_state.remaining,
            limit: limit.max(),
            window_ms: limit.window().ms(),
            resets_in: seconds_until(rule_state.resets_at, now),
        })
    };
    applicable.iter().enumerate().filter_map(status).collect()
}
