//! A counter's items, and the update that counts a request in one.
//!
//! | attribute | |
//! |---|---|
//! | `<rule>` | when the sub-window of the rule's latest request began, in Unix milliseconds; or, where the rule's counts are in shards, 10¹⁵ and the limit that those are laid out for |
//! | `<rule><window>` | how many requests this window has let through |
//! | `r` | which request was counted last: an attempt whose response was lost is not counted twice |
//! | `m`, `o` | in a shard: the limit that it is laid out for, and until when, in Unix seconds |
//! | `s` | in an item with rules whose counts are in shards: which change of that was the last |
//!
//! `<rule>` is [`Limit::id`], `<window>` the window's number in base 62.

use std::collections::HashMap;
use std::net::IpAddr;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::rate_limit::{Counts, Limit, MAX_WINDOW, Mode, RuleState, Rules};
use keyward_core::{ClientAddress, base62};

use super::Requester;
use crate::item::{Item, Key, number};

/// The time for which a shard takes requests before it has to be laid out again, which keeps the item that says so alive.
pub(super) const SHARD_LIFE: TimeDelta = TimeDelta::days(1);
/// For how long an item is kept after its last change: the same for all, so that no change shortens the life of another's
/// counts. A shard's counts matter for the longest window after its life has ended; a day more is for clocks apart.
const ITEM_TTL: TimeDelta = TimeDelta::days(MAX_WINDOW.num_days() + SHARD_LIFE.num_days() + 1);
/// The maximum number of operators and functions in an expression of DynamoDB ("Constraints in Amazon DynamoDB"). AWS does not say what
/// counts for one: here each `=`, and each item of a clause besides.
const MAX_OPERATORS: usize = 300;
/// The offset of the limit that a rule's shards are laid out for, where they are named: later than any instant.
const IN_SHARDS: i64 = 1_000_000_000_000_000;
const ID_LENGTH: usize = 3;

/// An item's counts, by rule.
#[derive(Debug, Default)]
pub(crate) struct CounterState {
    /// By [`Limit::id`].
    counts: HashMap<String, Counts>,
    /// Of rules whose counts are in shards, the limit that those are laid out for.
    in_shards: HashMap<String, i64>,
    /// Of a shard, the limit that it is laid out for, and until when in Unix seconds.
    laid_out: Option<(i64, i64)>,
}

/// The rules that are counted in the same item; or a rule that is counted in shards, with no other.
pub(super) struct Counter<'l> {
    /// The requester whose requests it counts.
    owner: String,
    pub(super) shards: i64,
    /// Those that hold for the request, each with its place among all that do.
    pub(super) applicable: Vec<(usize, &'l Limit)>,
    /// All of the scheme.
    all: Vec<&'l Limit>,
    /// The shard that is tried first.
    pub(super) first: i64,
}

/// The rules that hold, by the counters in which they are counted.
pub(super) fn counters<'l>(
    requester: &Requester,
    rules: &'l Rules,
    applicable: &[&'l Limit],
    random: u32,
) -> Vec<Counter<'l>> {
    let mut counters: Vec<Counter<'l>> = Vec::new();
    for (index, limit) in applicable.iter().copied().enumerate() {
        let (owner, shards) = (requester.owner(limit.mode()), limit.shards());
        let same = |counter: &&mut Counter<'l>| shards == 1 && counter.shards == 1 && counter.owner == owner;
        if let Some(counter) = counters.iter_mut().find(same) {
            counter.applicable.push((index, limit));
            continue;
        }
        let with_it = |one: &&Limit| one.mode() == limit.mode() && one.shards() == 1;
        counters.push(Counter {
            all: if shards == 1 { rules.limits().iter().filter(with_it).collect() } else { vec![limit] },
            owner,
            shards,
            applicable: vec![(index, limit)],
            first: i64::from(random) % shards,
        });
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

/// The network that counts as one address: an IPv4 address or, as a subscriber holds at least that, the first 64 bits of an IPv6 one.
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

/// The condition that a request may be counted and the update that does so, with names and values as short as they can be.
pub(super) struct CountExpression {
    pub(super) condition: String,
    pub(super) update: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl<'l> Counter<'l> {
    /// The item that has the counts of rules which are not in shards, and says of the others that they are.
    pub(super) fn item_key(&self) -> Key {
        Key::new(format!("LIMIT#{}", self.owner), "COUNTS")
    }

    /// The item of a shard of this rule.
    pub(super) fn shard_key(&self, limit: &Limit, shard: i64) -> Key {
        Key::new(format!("LIMIT#{}.{shard}#{}", limit.id(), self.owner), "COUNTS")
    }

    /// The item in which requests are counted that have drawn this shard.
    pub(super) fn key(&self, shard: i64) -> Key {
        match self.applicable.first() {
            Some((_, limit)) if self.shards > 1 => self.shard_key(limit, shard),
            _ => self.item_key(),
        }
    }

    /// The counts in an item of this counter, of the scheme's rules alone.
    pub(super) fn state(&self, item: &Item) -> CounterState {
        let mut state = CounterState { laid_out: laid_out(item), ..CounterState::default() };
        for limit in &self.all {
            match in_shards(item, limit) {
                Some(max) => {
                    state.in_shards.insert(limit.id().to_owned(), max);
                }
                None => {
                    state.counts.insert(limit.id().to_owned(), counts(item, limit));
                }
            }
        }
        state
    }

    /// The rules that hold whose counts are not where this counter counts them at `now`.
    pub(super) fn misplaced(&self, state: &CounterState, now: DateTime<Utc>) -> Vec<&'l Limit> {
        let applicable = self.applicable.iter().map(|(_, limit)| *limit);
        let is_misplaced = |limit: &&Limit| match self.shards {
            1 => state.in_shards.contains_key(limit.id()),
            _ => state.laid_out.is_none_or(|(max, until)| max != limit.max() || until <= now.timestamp()),
        };
        applicable.filter(is_misplaced).collect()
    }

    /// When the latest request was counted by a rule that holds.
    pub(super) fn latest(&self, state: &CounterState) -> Option<DateTime<Utc>> {
        self.applicable.iter().filter_map(|(_, limit)| state.counts.get(limit.id())?.latest).max()
    }

    /// The first rule that has no room in this shard, and when all have again.
    pub(super) fn full(
        &self,
        state: &CounterState,
        shard: i64,
        now: DateTime<Utc>,
    ) -> Option<(usize, DateTime<Utc>)> {
        let mut full = self
            .applicable
            .iter()
            .map(|(index, limit)| (*index, state.rule_state(limit, shard, now)))
            .filter(|(_, rule_state)| rule_state.remaining == 0);
        full.next().map(|(index, rule_state)| (index, rule_state.resets_at))
    }

    /// The condition that there is room, and the update that counts.
    pub(super) fn counted(&self, shard: i64, now: DateTime<Utc>, nonce: &AttributeValue) -> CountExpression {
        let mut names = Names::default();
        let mut values = HashMap::from([
            (":i".to_owned(), number(1)),
            (":r".to_owned(), nonce.clone()),
            (":purge".to_owned(), purge_at(now)),
        ]);
        let mut conditions = vec!["NOT r=:r".to_owned()];
        let mut sets = vec!["r=:r".to_owned(), "purge_at=:purge".to_owned()];
        let (mut adds, mut removes) = (Vec::new(), Vec::new());
        if self.shards > 1
            && let Some((_, limit)) = self.applicable.first()
        {
            conditions.push("m=:m AND o>:o".to_owned());
            values.insert(":m".to_owned(), number(limit.max()));
            values.insert(":o".to_owned(), number(now.timestamp()));
        }
        for (index, (_, limit)) in self.applicable.iter().enumerate() {
            let (window, id) = (limit.window(), limit.id());
            let current = window.number(now);
            let (latest, at, max) = (names.alias(id.to_owned()), format!(":a{index}"), format!(":m{index}"));
            values.insert(at.clone(), number(window.start(current).timestamp_millis()));
            values.insert(max.clone(), number(limit.share(shard)));
            conditions.push(format!("NOT {latest}>{at}"));
            sets.push(format!("{latest}={at}"));
            for number in current..=current + window.further() {
                let count = names.alias(attribute(id, number));
                if number == current {
                    conditions.push(format!("NOT {count}>={max}"));
                }
                adds.push(format!("{count} :i"));
            }
            removes.extend((current - 1 - window.further()..current).map(|number| attribute(id, number)));
        }
        // What is left out is for `Store::remove_stale`.
        removes.truncate(MAX_OPERATORS.saturating_sub(2 * sets.len() + adds.len()));
        let removes: Vec<String> = removes.into_iter().map(|attribute| names.alias(attribute)).collect();
        let mut update = format!("SET {} ADD {}", sets.join(","), adds.join(","));
        if !removes.is_empty() {
            update += &format!(" REMOVE {}", removes.join(","));
        }
        CountExpression { condition: conditions.join(" AND "), update, names: names.into_map(), values }
    }

    /// The attributes that no later request will look at.
    pub(super) fn stale(&self, item: &Item, now: DateTime<Utc>) -> Vec<String> {
        let latest = |id: &str| item.get(id).and_then(instant);
        let is_stale = |name: &&String| {
            let Some((id, window)) = name.split_at_checked(ID_LENGTH) else { return false };
            match self.all.iter().find(|limit| limit.id() == id) {
                Some(limit) => {
                    let current = latest(id).map(|latest| limit.window().number(latest));
                    window_number(window).zip(current).is_some_and(|(number, current)| number < current)
                }
                None => latest(id).is_some_and(|latest| latest + MAX_WINDOW < now),
            }
        };
        item.keys().filter(is_stale).take(MAX_OPERATORS).cloned().collect()
    }
}

impl CounterState {
    /// The state of a rule in this shard.
    pub(super) fn rule_state(&self, limit: &Limit, shard: i64, now: DateTime<Utc>) -> RuleState {
        let of = |counts: &Counts| counts.rule_state(limit.window(), limit.share(shard), now);
        self.counts.get(limit.id()).map_or_else(|| of(&Counts::default()), of)
    }

    /// The same, with these counts of a rule.
    pub(super) fn with(mut self, limit: &Limit, counts: Counts) -> Self {
        self.in_shards.remove(limit.id());
        self.counts.insert(limit.id().to_owned(), counts);
        self
    }
}

/// Short names for attributes, since an expression may have 4 KB.
#[derive(Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    pub(super) fn alias(&mut self, attribute: String) -> String {
        let next = self.0.len();
        self.0.entry(attribute).or_insert_with(|| format!("#{next}")).clone()
    }

    pub(super) fn into_map(self) -> HashMap<String, String> {
        self.0.into_iter().map(|(attribute, alias)| (alias, attribute)).collect()
    }
}

pub(super) fn attribute(id: &str, window: i64) -> String {
    let number = base62::encode(u64::try_from(window).unwrap_or(0), 8);
    format!("{id}{}", number.trim_start_matches('0'))
}

fn window_number(text: &str) -> Option<i64> {
    if text.is_empty() { None } else { i64::try_from(base62::decode(text)?).ok() }
}

fn integer(value: &AttributeValue) -> Option<i64> {
    value.as_n().ok()?.parse().ok()
}

fn instant(value: &AttributeValue) -> Option<DateTime<Utc>> {
    integer(value).and_then(DateTime::from_timestamp_millis)
}

/// When an item that is changed now is purged.
pub(super) fn purge_at(now: DateTime<Utc>) -> AttributeValue {
    number((now + ITEM_TTL).timestamp())
}

/// The limit that the shards of this rule are laid out for, if its counts are in shards.
pub(super) fn in_shards(item: &Item, limit: &Limit) -> Option<i64> {
    item.get(limit.id()).and_then(integer)?.checked_sub(IN_SHARDS).filter(|max| *max > 0)
}

/// The mark that a rule's counts are in shards that are laid out for this limit.
pub(super) fn in_shards_value(max: i64) -> AttributeValue {
    number(IN_SHARDS.saturating_add(max))
}

/// The limit that a shard is laid out for, and until when in Unix seconds.
pub(super) fn laid_out(item: &Item) -> Option<(i64, i64)> {
    item.get("m").and_then(integer).zip(item.get("o").and_then(integer))
}

/// The counts of this rule in an item.
pub(super) fn counts(item: &Item, limit: &Limit) -> Counts {
    let by_window = item.iter().filter_map(|(name, value)| {
        let window = name.strip_prefix(limit.id()).and_then(window_number)?;
        Some((window, integer(value)?))
    });
    Counts { by_window: by_window.collect(), latest: item.get(limit.id()).and_then(instant) }
}

/// The attributes in which an item has the counts of this rule.
pub(super) fn windows<'i>(item: &'i Item, limit: &Limit) -> impl Iterator<Item = &'i String> {
    let id = limit.id().to_owned();
    item.keys().filter(move |name| name.strip_prefix(&id).and_then(window_number).is_some())
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
