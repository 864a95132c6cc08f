//! The state of a rule, computed from its counts.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::window::Window;

/// The number of requests that each window of a counter has admitted, as far as it is known.
///
/// Counts only grow: a window that is known to be full stays full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// When the sub-window of the latest request began. Time does not go back behind it, whatever a clock says.
    pub latest: Option<DateTime<Utc>>,
    /// The count of each window, by its number.
    pub by_window: HashMap<i64, i64>,
}

/// The state of a rule as a request finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleState {
    /// The number of further requests that it admits; none if it is 0.
    pub remaining: i64,
    /// When there will be more.
    pub resets_at: DateTime<Utc>,
}

impl Counts {
    /// The instant that a request of `now` counts for.
    pub fn instant(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.latest.map_or(now, |latest| latest.max(now))
    }

    /// Adds the counts of another part of the same rule's requests.
    pub fn merge(&mut self, other: &Self) {
        self.latest = self.latest.max(other.latest);
        for (number, count) in &other.by_window {
            *self.by_window.entry(*number).or_default() += count;
        }
    }

    /// The state at `now` of a rule that admits `max` requests in this window.
    pub fn rule_state(&self, window: Window, max: i64, now: DateTime<Utc>) -> RuleState {
        let current = window.number(self.instant(now));
        let count = |number: i64| self.by_window.get(&number).copied().unwrap_or(0);
        let last = current + window.further();
        let below = if count(current) >= max { max } else { count(current) };
        let more = (current..=last).find(|number| count(*number) < below).unwrap_or(last + 1);
        RuleState { remaining: (max - count(current)).max(0), resets_at: window.start(more) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{Unit, WindowKind};

    const WINDOW: Window = Window::Sliding { ms: 1_000 };

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    /// As the store counts it.
    fn count(counts: &mut Counts, ms: i64) {
        let number = WINDOW.number(at(ms));
        for window in number..=number + WINDOW.further() {
            *counts.by_window.entry(window).or_default() += 1;
        }
        counts.latest = Some(WINDOW.start(number));
    }

    #[test]
    fn a_full_window_says_when_it_has_room() {
        let mut counts = Counts::default();
        assert_eq!(
            counts.rule_state(WINDOW, 2, at(10_050)),
            RuleState { remaining: 2, resets_at: at(11_100) },
            "nothing leaves, but what comes now would"
        );
        count(&mut counts, 10_050);
        count(&mut counts, 10_450);
        assert_eq!(
            counts.rule_state(WINDOW, 2, at(10_950)),
            RuleState { remaining: 0, resets_at: at(11_100) },
            "the first leaves the window, and at most a sub-window later the counts"
        );
        assert_eq!(counts.rule_state(WINDOW, 2, at(11_099)).remaining, 0);
        assert_eq!(counts.rule_state(WINDOW, 2, at(11_100)).remaining, 1);
        assert_eq!(counts.rule_state(WINDOW, 2, at(11_500)).remaining, 2);
        assert_eq!(
            counts.rule_state(WINDOW, 1, at(10_950)).resets_at,
            at(11_500),
            "a lower limit holds at once"
        );
        assert_eq!(counts.rule_state(WINDOW, 5, at(10_950)).remaining, 3);
    }

    #[test]
    fn a_clock_behind_counts_for_the_latest_instant() {
        let mut counts = Counts::default();
        count(&mut counts, 10_500);
        assert_eq!(counts.instant(at(9_900)), at(10_500));
        assert_eq!(counts.rule_state(WINDOW, 1, at(9_400)).remaining, 0);
        assert_eq!(counts.instant(at(10_700)), at(10_700));
    }

    #[test]
    fn parts_come_to_the_whole() {
        let (mut all, mut one, mut other) = (Counts::default(), Counts::default(), Counts::default());
        for (ms, part) in [(10_050, true), (10_450, false), (10_460, true), (11_000, false)] {
            count(&mut all, ms);
            count(if part { &mut one } else { &mut other }, ms);
        }
        one.merge(&other);
        assert_eq!(one, all);
        one.merge(&Counts::default());
        assert_eq!(one, all);
    }

    #[test]
    fn a_calendar_day_is_full_until_midnight() {
        let (window, noon) = (Window::new(WindowKind::Sliding, Unit::CalendarDay, 1), at(86_400_000 / 2));
        let counts = Counts { latest: None, by_window: HashMap::from([(0, 3)]) };
        assert_eq!(counts.rule_state(window, 3, noon), RuleState { remaining: 0, resets_at: at(86_400_000) });
        assert_eq!(counts.rule_state(window, 3, at(86_400_000)).remaining, 3);
    }
}
