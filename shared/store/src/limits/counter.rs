//! What a counter's item holds, and the update that counts a request in it.
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

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::rate_limit::{Counts, Limit, Mode, Rules, Standing};
use keyward_core::{ClientAddress, base62};

use super::Requester;
use crate::item::{Expression, Item, Key, number};

/// How long counts outlast the longest window.
const PURGE_MARGIN: TimeDelta = TimeDelta::days(1);
/// Longer than any window: the counts of a rule that is gone say nothing after this.
const LONGEST_WINDOW: TimeDelta = TimeDelta::days(32);
const ID_LENGTH: usize = 3;

/// The counts of a counter's rules, by [`Limit::id`].
pub(crate) type CounterState = HashMap<String, Counts>;

/// The rules that are counted in the same item.
pub(super) struct Counter<'l> {
    /// Whose requests it counts: the partition without the shard.
    owner: String,
    pub(super) shards: i64,
    /// Those that hold for the request, each with its place among all that do.
    pub(super) holding: Vec<(usize, &'l Limit)>,
    /// All of the scheme.
    all: Vec<&'l Limit>,
    /// The shard that is tried first.
    pub(super) first: i64,
}

/// The rules that hold, by the counters in which they are counted.
pub(super) fn counters<'l>(
    requester: &Requester,
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

impl Requester {
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
fn address(client_ip: Option<ClientAddress>) -> String {
    match client_ip.map(ClientAddress::ip) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        None => "unknown".to_owned(),
    }
}

impl Counter<'_> {
    pub(super) fn key(&self, shard: i64) -> Key {
        let partition = match self.shards {
            1 => format!("LIMIT#{}", self.owner),
            shards => format!("LIMIT#{shard}.{shards}#{}", self.owner),
        };
        Key::new(partition, "COUNTS")
    }

    /// The first rule that has no room in this shard, and when all have again.
    pub(super) fn full(
        &self,
        state: &CounterState,
        shard: i64,
        now: DateTime<Utc>,
    ) -> Option<(usize, DateTime<Utc>)> {
        let mut full = self
            .holding
            .iter()
            .map(|(place, limit)| (*place, standing(state, limit, shard, now)))
            .filter(|(_, standing)| standing.remaining == 0);
        full.next().map(|(place, standing)| (place, standing.more_at))
    }

    /// The condition that there is room, and the update that counts.
    pub(super) fn counted(&self, shard: i64, now: DateTime<Utc>, nonce: &AttributeValue) -> Expression {
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
            names: names.into_map(),
            values,
        }
    }

    fn purge_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let ends = self.all.iter().map(|limit| limit.window().end(limit.window().number(now)));
        ends.max().unwrap_or(now) + PURGE_MARGIN
    }

    /// The attributes that no later request will look at.
    pub(super) fn stale(&self, item: &Item, now: DateTime<Utc>) -> Vec<String> {
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
pub(super) struct Names(HashMap<String, String>);

impl Names {
    pub(super) fn alias(&mut self, attribute: String) -> String {
        let alias = format!("#{}", self.0.len());
        self.0.insert(alias.clone(), attribute);
        alias
    }

    pub(super) fn into_map(self) -> HashMap<String, String> {
        self.0
    }
}

fn attribute(id: &str, window: i64) -> String {
    let number = base62::encode(u64::try_from(window).unwrap_or(0), 8);
    format!("{id}{}", number.trim_start_matches('0'))
}

fn instant(value: &AttributeValue) -> Option<DateTime<Utc>> {
    value.as_n().ok()?.parse().ok().and_then(DateTime::from_timestamp_millis)
}

pub(super) fn state_of(item: &Item) -> CounterState {
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

pub(super) fn standing(state: &CounterState, limit: &Limit, shard: i64, now: DateTime<Utc>) -> Standing {
    let of = |counts: &Counts| counts.standing(limit.window(), limit.share(shard), now);
    state.get(limit.id()).map_or_else(|| of(&Counts::default()), of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_with_its_64() {
        let of = |text: &str| address(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(address(None), "unknown");
    }
}
