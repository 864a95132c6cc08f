//! Counters of rate limits: `LIMIT#KEY#<id>` or `LIMIT#APP#<app>`, with `#<address>` for rules that count by address, and
//! `LIMIT#<shard>.<shards>#…` where one item is not enough, / `COUNTS`; purged a day after they say nothing any more.
//!
//! A request is counted in each [window](keyward_core::rate_limit::Window) that it falls into by one conditional update,
//! of which DynamoDB makes sure that it happens whole or not at all and after all earlier ones: the condition is that
//! none of the windows that end now is full. Rules of one mode are counted in one item, so one write unit; with rules of
//! other modes, all their items are written in one transaction. A refused request changes nothing. See ADR 0011.
//!
//! | attribute | |
//! |---|---|
//! | `<rule>` | when the sub-window of the rule's latest request began, in Unix milliseconds |
//! | `<rule><window>` | how many requests this window has let through |
//! | `r` | which request was counted last: an attempt whose answer was lost is not counted twice |
//!
//! `<rule>` is [`Limit::id`], `<window>` the window's number in base 62.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::base62;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{
    Admission, Blocked, Counts, Limit, Mode, Rules, Standing, Status, seconds_until,
};

use crate::item::{ATTEMPTS, Expression, Item, Key, number, pause, request_token};
use crate::{Error, Store, random};

/// What is not longer needed of a counter is removed when it comes to so many bytes.
const MOST_STALE: usize = 400;
/// How long counts outlast the longest window.
const PURGE_MARGIN: TimeDelta = TimeDelta::days(1);
/// Longer than any window: the counts of a rule that is gone say nothing after this.
const LONGEST_WINDOW: TimeDelta = TimeDelta::days(32);
const ID_LENGTH: usize = 3;

/// Whose request is to be admitted.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// The app of the key.
    pub app: AppNumber,
    /// The key.
    pub key: KeyId,
    /// The client's address. What is none counts as one address.
    pub client_ip: &'a str,
}

/// The counts of a counter's rules, by [`Limit::id`].
pub(crate) type CounterState = HashMap<String, Counts>;

/// The rules that are counted in the same item.
struct Counter<'l> {
    /// Whose requests it counts: the partition without the shard.
    owner: String,
    shards: i64,
    /// Those that hold for the request, each with its place among all that do.
    holding: Vec<(usize, &'l Limit)>,
    /// All of the scheme.
    all: Vec<&'l Limit>,
    /// The shard that is tried first.
    first: i64,
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
        requester: &Requester<'_>,
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
            .update_expression(format!("REMOVE {}", removed.join(", ")))
            .set_expression_attribute_names(Some(names.0))
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

/// The rules that hold, by the counters in which they are counted.
fn counters<'l>(
    requester: &Requester<'_>,
    rules: &'l Rules,
    holding: &[&'l Limit],
    random: u32,
) -> Vec<Counter<'l>> {
    let mut counters: Vec<Counter<'l>> = Vec::new();
    for (place, limit) in holding.iter().enumerate() {
        let (owner, shards) = (requester.owner(limit.mode()), limit.shards());
        let same = |counter: &&mut Counter<'l>| counter.owner == owner && counter.shards == shards;
        match counters.iter_mut().find(same) {
            Some(counter) => counter.holding.push((place, limit)),
            None => counters.push(Counter {
                all: rules
                    .limits()
                    .iter()
                    .filter(|one| one.mode() == limit.mode() && one.shards() == shards)
                    .collect(),
                owner,
                shards,
                holding: vec![(place, limit)],
                first: i64::from(random) % shards,
            }),
        }
    }
    counters
}

impl Requester<'_> {
    fn owner(&self, mode: Mode) -> String {
        let (app, key) = (self.app.base62(), self.key.base62());
        match mode {
            Mode::PerKey => format!("KEY#{key}"),
            Mode::PerApp => format!("APP#{app}"),
            Mode::PerKeyAndIp => format!("KEY#{key}#{}", address(self.client_ip)),
            Mode::PerAppAndIp => format!("APP#{app}#{}", address(self.client_ip)),
        }
    }
}

/// What counts as one address: an IPv4 address or, as a subscriber holds at least that, the first 64 bits of an IPv6 one.
fn address(client_ip: &str) -> String {
    match client_ip.trim().parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Err(_) => "unknown".to_owned(),
    }
}

impl Counter<'_> {
    fn key(&self, shard: i64) -> Key {
        let partition = match self.shards {
            1 => format!("LIMIT#{}", self.owner),
            shards => format!("LIMIT#{shard}.{shards}#{}", self.owner),
        };
        Key::new(partition, "COUNTS")
    }

    /// The first rule that has no room in this shard, and when all have again.
    fn full(&self, state: &CounterState, shard: i64, now: DateTime<Utc>) -> Option<(usize, DateTime<Utc>)> {
        let mut full = self
            .holding
            .iter()
            .map(|(place, limit)| (*place, standing(state, limit, shard, now)))
            .filter(|(_, standing)| standing.remaining == 0);
        full.next().map(|(place, standing)| (place, standing.more_at))
    }

    /// The condition that there is room, and the update that counts.
    fn counted(&self, shard: i64, now: DateTime<Utc>, nonce: &AttributeValue) -> Expression {
        let mut names = Names::default();
        let mut values = HashMap::from([
            (":i".to_owned(), number(1)),
            (":r".to_owned(), nonce.clone()),
            (":purge".to_owned(), number(self.purge_at(now).timestamp())),
        ]);
        let mut conditions = vec!["NOT r = :r".to_owned()];
        let mut sets = vec!["r = :r".to_owned(), "purge_at = :purge".to_owned()];
        let (mut adds, mut removes) = (Vec::new(), Vec::new());
        for (index, (_, limit)) in self.holding.iter().enumerate() {
            let (window, id) = (limit.window(), limit.id());
            let current = window.number(now);
            let (latest, at, max) = (names.alias(id.to_owned()), format!(":a{index}"), format!(":m{index}"));
            values.insert(at.clone(), number(window.start(current).timestamp_millis()));
            values.insert(max.clone(), number(limit.share(shard)));
            conditions.push(format!("NOT {latest} > {at}"));
            sets.push(format!("{latest} = {at}"));
            for number in current..=current + window.further() {
                let count = names.alias(attribute(id, number));
                if number == current {
                    conditions.push(format!("NOT {count} >= {max}"));
                }
                adds.push(format!("{count} :i"));
            }
            for number in current - 1 - window.further()..current {
                removes.push(names.alias(attribute(id, number)));
            }
        }
        Expression {
            condition: Some(conditions.join(" AND ")),
            update: Some(format!(
                "SET {} ADD {} REMOVE {}",
                sets.join(","),
                adds.join(","),
                removes.join(",")
            )),
            names: names.0,
            values,
        }
    }

    fn purge_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let ends = self.all.iter().map(|limit| limit.window().end(limit.window().number(now)));
        ends.max().unwrap_or(now) + PURGE_MARGIN
    }

    /// The attributes that no later request will look at.
    fn stale(&self, item: &Item, now: DateTime<Utc>) -> Vec<String> {
        let latest = |id: &str| item.get(id).and_then(instant);
        let is_stale = |name: &&String| {
            let Some((id, window)) = name.split_at_checked(ID_LENGTH) else { return false };
            match self.all.iter().find(|limit| limit.id() == id) {
                Some(limit) => {
                    let (window_of, latest) = (limit.window(), latest(id));
                    let number = base62::decode(window).and_then(|number| i64::try_from(number).ok());
                    let current = latest.map(|latest| window_of.number(latest));
                    !window.is_empty()
                        && number.zip(current).is_some_and(|(number, current)| number < current)
                }
                None => latest(id).is_some_and(|latest| latest + LONGEST_WINDOW < now),
            }
        };
        item.keys().filter(is_stale).cloned().collect()
    }
}

/// Short names for attributes, since an expression may have 4 KB.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn alias(&mut self, attribute: String) -> String {
        let alias = format!("#{}", self.0.len());
        self.0.insert(alias.clone(), attribute);
        alias
    }
}

fn attribute(id: &str, window: i64) -> String {
    let number = base62::encode(u64::try_from(window).unwrap_or(0), 8);
    format!("{id}{}", number.trim_start_matches('0'))
}

fn instant(value: &AttributeValue) -> Option<DateTime<Utc>> {
    value.as_n().ok()?.parse().ok().and_then(DateTime::from_timestamp_millis)
}

fn state_of(item: &Item) -> CounterState {
    let mut state = CounterState::new();
    for (name, value) in item {
        let (Some((id, window)), Ok(text)) = (name.split_at_checked(ID_LENGTH), value.as_n()) else {
            continue;
        };
        let counts = state.entry(id.to_owned()).or_default();
        if window.is_empty() {
            counts.latest = instant(value);
        } else if let Some((number, count)) = base62::decode(window).zip(text.parse().ok())
            && let Ok(number) = i64::try_from(number)
        {
            counts.by_window.insert(number, count);
        }
    }
    state
}

fn standing(state: &CounterState, limit: &Limit, shard: i64, now: DateTime<Utc>) -> Standing {
    let of = |counts: &Counts| counts.standing(limit.window(), limit.share(shard), now);
    state.get(limit.id()).map_or_else(|| of(&Counts::default()), of)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_with_its_64() {
        assert_eq!(address("192.0.2.7"), "192.0.2.7");
        assert_eq!(address(" ::ffff:192.0.2.7 "), "192.0.2.7");
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::"));
        assert_ne!(address("2001:db8:1:2::"), address("2001:db8:1:3::"));
        assert_eq!(address(""), address("not an address"));
    }
}
