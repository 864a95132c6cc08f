//! The windows in which requests are counted.
//!
//! A fixed window begins at a multiple of its length since the Unix epoch, a calendar window at midnight UTC; a request falls
//! into one. For sliding windows, time is cut into sub-windows of a tenth of the rule's window. A request falls into
//! the window that ends with its own sub-window, and into those that end with each of the next ten: it is counted in all
//! of them, so that one number says how many requests a window has let through. A window so covers its stated length and
//! at most one sub-window before it; if ten does not divide the length in milliseconds, less than two.

use std::fmt;

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};

use super::{Unit, WindowKind};

const DAY_MS: i64 = 86_400_000;

/// The time for which counts can matter: no request is in a window for longer. The last sub-window of a sliding month ends after 33
/// days.
pub const MAX_WINDOW: TimeDelta = TimeDelta::days(33);

/// The window of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A number of milliseconds that end with any instant.
    Sliding {
        /// The length in milliseconds.
        ms: i64,
    },
    /// A number of milliseconds that begin at a multiple of it since the Unix epoch.
    Fixed {
        /// The length in milliseconds.
        ms: i64,
    },
    /// A UTC day.
    CalendarDay,
    /// A UTC month.
    CalendarMonth,
}

impl Window {
    /// The window of `duration` of these units. Calendar units have one kind only.
    pub fn new(kind: WindowKind, unit: Unit, duration: i32) -> Self {
        let ms = match unit {
            Unit::Millisecond => 1,
            Unit::Second => 1_000,
            Unit::Minute => 60_000,
            Unit::Hour => 3_600_000,
            Unit::Day => DAY_MS,
            Unit::Month => 30 * DAY_MS,
            Unit::CalendarDay => return Self::CalendarDay,
            Unit::CalendarMonth => return Self::CalendarMonth,
        };
        let ms = ms * i64::from(duration);
        match kind {
            WindowKind::Sliding => Self::Sliding { ms },
            WindowKind::Fixed => Self::Fixed { ms },
        }
    }

    /// Its nominal length in milliseconds: a calendar month is taken for 30 days.
    pub fn ms(self) -> i64 {
        match self {
            Self::Sliding { ms } | Self::Fixed { ms } => ms,
            Self::CalendarDay => DAY_MS,
            Self::CalendarMonth => 30 * DAY_MS,
        }
    }

    fn sub_window_ms(ms: i64) -> i64 {
        (ms + 9) / 10
    }

    /// The number of the sub-window that this instant is in; that of the window which ends with it.
    pub fn number(self, at: DateTime<Utc>) -> i64 {
        let at_ms = at.timestamp_millis();
        match self {
            Self::Sliding { ms } => at_ms.div_euclid(Self::sub_window_ms(ms)),
            Self::Fixed { ms } => at_ms.div_euclid(ms),
            Self::CalendarDay => at_ms.div_euclid(DAY_MS),
            Self::CalendarMonth => i64::from(at.year()) * 12 + i64::from(at.month0()),
        }
    }

    /// The number of windows that a request falls into, besides the one that ends with its own sub-window.
    pub fn further(self) -> i64 {
        match self {
            Self::Sliding { ms } => {
                let sub_window = Self::sub_window_ms(ms);
                (ms - 1 + sub_window - 1) / sub_window
            }
            Self::Fixed { .. } | Self::CalendarDay | Self::CalendarMonth => 0,
        }
    }

    /// When the sub-window of this number begins.
    pub fn start(self, number: i64) -> DateTime<Utc> {
        let from_ms = |ms| DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC);
        match self {
            Self::Sliding { ms } => from_ms(number.saturating_mul(Self::sub_window_ms(ms))),
            Self::Fixed { ms } => from_ms(number.saturating_mul(ms)),
            Self::CalendarDay => from_ms(number.saturating_mul(DAY_MS)),
            Self::CalendarMonth => {
                let months = u32::try_from(number).ok().map(Months::new);
                let year_0 = NaiveDate::from_ymd_opt(0, 1, 1).and_then(|date| date.and_hms_opt(0, 0, 0));
                let start = year_0.zip(months).and_then(|(date, months)| date.checked_add_months(months));
                start.map_or(DateTime::<Utc>::MAX_UTC, |date| date.and_utc())
            }
        }
    }

    /// When a request of this sub-window has left the last window that it falls into.
    pub fn end(self, number: i64) -> DateTime<Utc> {
        self.start(number.saturating_add(self.further()).saturating_add(1))
    }
}

/// The window as part of what counts are stored under: see [`super::Limit::id`]. It must not change.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding { ms } => write!(f, "sliding {ms}"),
            Self::Fixed { ms } => write!(f, "fixed {ms}"),
            Self::CalendarDay => f.write_str("calendar_day"),
            Self::CalendarMonth => f.write_str("calendar_month"),
        }
    }
}

/// Whole seconds from `now` until `then`, rounded up, at least 1.
pub fn seconds_until(then: DateTime<Utc>, now: DateTime<Utc>) -> u32 {
    let ms = (then - now).max(TimeDelta::zero()).num_milliseconds();
    u32::try_from((ms + 999) / 1_000).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn calendar_windows_begin_at_midnight_utc() {
        let (day, month) = (Window::CalendarDay, Window::CalendarMonth);
        let (last, first) = (at("2026-12-31T23:59:59.999Z"), at("2027-01-01T00:00:00Z"));
        for window in [day, month] {
            assert_eq!(window.number(last) + 1, window.number(first));
            assert_eq!(window.end(window.number(last)), first);
            assert_eq!(window.start(window.number(first)), first);
        }
        assert_eq!(month.end(month.number(at("2028-02-10T00:00:00Z"))), at("2028-03-01T00:00:00Z"));
        assert_eq!(month.number(at("2026-01-01T00:00:00Z")) + 11, month.number(last));
        assert_eq!((day.ms(), month.ms()), (86_400_000, 2_592_000_000));
    }

    #[test]
    fn a_minute_is_counted_in_tenths() {
        let minute = Window::new(WindowKind::Sliding, Unit::Minute, 1);
        let number = minute.number(at("2026-01-01T00:00:07Z"));
        assert_eq!(minute.start(number), at("2026-01-01T00:00:06Z"));
        assert_eq!(minute.further(), 10);
        assert_eq!(minute.end(number), at("2026-01-01T00:01:12Z"));
        assert_eq!(Window::new(WindowKind::Sliding, Unit::Millisecond, 1).further(), 0);
    }

    #[test]
    fn a_fixed_window_begins_at_a_multiple_of_its_length_and_ends_with_it() {
        let of_seven = Window::new(WindowKind::Fixed, Unit::Second, 7);
        let number = of_seven.number(at("1970-01-01T00:00:20.999Z"));
        assert_eq!(number, 2);
        assert_eq!(of_seven.start(number), at("1970-01-01T00:00:14Z"));
        assert_eq!(of_seven.end(number), at("1970-01-01T00:00:21Z"));
        assert_eq!((of_seven.further(), of_seven.ms()), (0, 7_000));
        assert_eq!(of_seven.number(at("1969-12-31T23:59:59Z")), -1);
    }

    #[test]
    fn the_kind_of_a_calendar_window_makes_no_difference() {
        for (unit, window) in
            [(Unit::CalendarDay, Window::CalendarDay), (Unit::CalendarMonth, Window::CalendarMonth)]
        {
            for kind in [WindowKind::Sliding, WindowKind::Fixed] {
                assert_eq!(Window::new(kind, unit, 1), window);
            }
        }
    }

    #[test]
    fn no_window_is_longer_than_the_longest() {
        let now = at("2026-12-31T23:59:59.999Z");
        for (unit, longest) in [
            (Unit::Month, 1),
            (Unit::Day, 30),
            (Unit::Hour, 720),
            (Unit::Minute, 1_440),
            (Unit::CalendarMonth, 1),
        ] {
            for kind in [WindowKind::Sliding, WindowKind::Fixed] {
                let window = Window::new(kind, unit, longest);
                let number = window.number(now);
                assert!(window.end(number) - window.start(number) <= MAX_WINDOW, "{window}");
            }
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        let now = at("2026-01-01T00:00:00Z");
        for (ms, seconds) in [(-5, 1), (0, 1), (1, 1), (1_000, 1), (1_001, 2), (60_000, 60)] {
            assert_eq!(seconds_until(now + TimeDelta::milliseconds(ms), now), seconds, "{ms}");
        }
    }

    proptest! {
        /// The promise of this module about the length that a window covers.
        #[test]
        fn a_window_covers_its_length_and_at_most_a_sub_window_more(ms in 1_i64..100_000, at_ms in 0_i64..10_000_000_000_000) {
            let window = Window::Sliding { ms };
            let now = DateTime::from_timestamp_millis(at_ms).unwrap();
            let number = window.number(now);
            prop_assert!(window.start(number) <= now && now < window.start(number + 1));
            let first = window.start(number - window.further()).timestamp_millis();
            prop_assert!(first < at_ms - ms + 2, "from {first}");
            let sub_window = (ms + 9) / 10;
            let most = if ms % 10 == 0 { ms + sub_window } else { ms + 2 * sub_window - 1 };
            prop_assert!(window.start(number + 1).timestamp_millis() - first <= most);
            prop_assert!(window.further() <= 10);
        }
    }
}
