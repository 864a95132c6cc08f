//! Rate limits against a log of what was let through, with clocks that tests move: never more than a rule allows in any
//! window, and never a refusal that the guarantee rules out.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use keyward_core::Clock;
use keyward_core::decision::Target;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{Admission, Limit, Mode, Rule, Rules, Unit, Window};
use keyward_store::{Requester, Store, dynamodb_client, random};
use keyward_tests::Keyward;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// A request: so many milliseconds after the one before, by one of two keys, from one of two addresses, for one of the
/// targets, decided on by one of two processes.
#[derive(Debug, Clone)]
struct Step {
    after_ms: i64,
    key: usize,
    address: usize,
    target: usize,
    process: usize,
}

const TARGETS: [(&str, &str); 3] = [("GET", "/a"), ("POST", "/a"), ("GET", "/b")];
const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// What was let through: when, in milliseconds of true time, and whose it was.
struct Admitted {
    at: i64,
    key: usize,
    address: usize,
    target: usize,
}

fn rule() -> impl Strategy<Value = Value> {
    let window = prop_oneof![
        (1_i32..30).prop_map(|tens| ("millisecond", tens * 10)),
        (1_i32..400).prop_map(|ms| ("millisecond", ms)),
        (1_i32..4).prop_map(|n| ("second", n)),
        Just(("minute", 1)),
        Just(("calendar_day", 1)),
    ];
    let mode = prop::sample::select(vec!["per_key", "per_app", "per_key_and_ip", "per_app_and_ip"]);
    let endpoints =
        prop::sample::select(vec![json!(null), json!(["*"]), json!(["/A/"]), json!(["POST *", "/b"])]);
    (window, 1_i32..7, mode, endpoints).prop_map(|((unit, duration), max, mode, endpoints)| {
        json!({"unit": unit, "duration": duration, "max_requests": max, "mode": mode, "endpoints": endpoints})
    })
}

fn step() -> impl Strategy<Value = Step> {
    let after_ms = prop_oneof![4 => 0_i64..15, 3 => 0_i64..400, 2 => 0_i64..4_000, 1 => 0_i64..70_000];
    (after_ms, 0_usize..2, 0_usize..2, 0..TARGETS.len(), 0_usize..2).prop_map(
        |(after_ms, key, address, target, process)| Step { after_ms, key, address, target, process },
    )
}

/// Two processes over one table, whose clocks a test moves.
struct Processes {
    stores: [Store; 2],
    now_ms: Arc<AtomicI64>,
    /// How far the second one's clock is ahead.
    ahead_ms: Arc<AtomicI64>,
    /// Keeps the table.
    _keyward: Keyward,
}

impl Processes {
    async fn start() -> Self {
        let keyward = Keyward::start().await;
        let (now_ms, ahead_ms) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let clock = |ahead: bool| {
            let (now_ms, ahead_ms) = (now_ms.clone(), ahead_ms.clone());
            Clock::new(move || {
                let ahead = if ahead { ahead_ms.load(Ordering::SeqCst) } else { 0 };
                at(now_ms.load(Ordering::SeqCst) + ahead)
            })
        };
        let client = || dynamodb_client(keyward.sdk_config());
        let stores = [
            keyward.process(clock(false), client()).await.store,
            keyward.process(clock(true), client()).await.store,
        ];
        Self { stores, now_ms, ahead_ms, _keyward: keyward }
    }
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// Whether a rule counts these two requests together.
fn together(limit: &Limit, one: (usize, usize), other: (usize, usize)) -> bool {
    match limit.mode() {
        Mode::PerApp => true,
        Mode::PerKey => one.0 == other.0,
        Mode::PerAppAndIp => one.1 == other.1,
        Mode::PerKeyAndIp => one == other,
    }
}

fn target(index: usize) -> Target {
    let (method, path) = TARGETS[index];
    Target::parse(method, path).unwrap()
}

/// How many requests a rule had let through that count with this one, after `from` and up to `to`, both of true time.
fn count(log: &[Admitted], rules: &Rules, limit: &Limit, whose: (usize, usize), from: i64, to: i64) -> i64 {
    let counted = log.iter().filter(|admitted| {
        (from < admitted.at && admitted.at <= to)
            && together(limit, whose, (admitted.key, admitted.address))
            && rules.holding(&target(admitted.target)).iter().any(|one| one.id() == limit.id())
    });
    counted.count().try_into().unwrap()
}

/// From when on requests of `now` count that are surely within the window, and from when on those that may be: in true
/// time, with clocks that are up to `skew` apart.
fn bounds(limit: &Limit, now: i64, skew: i64) -> (i64, i64) {
    match limit.window() {
        Window::Sliding { ms } => {
            let sub_window = (ms + 9) / 10;
            let before = if ms % 10 == 0 { sub_window } else { 2 * sub_window };
            (now - ms + skew, now - ms - before - skew)
        }
        Window::CalendarDay | Window::CalendarMonth => {
            let midnight = now - now.rem_euclid(86_400_000) - 1;
            (midnight, midnight)
        }
    }
}

async fn run(
    processes: &Processes,
    rules: &[Value],
    steps: &[Step],
    start: i64,
    skew: i64,
) -> Result<(), TestCaseError> {
    let mut rules: Vec<Rule> = serde_json::from_value(json!(rules)).unwrap();
    // When a calendar day begins is for each clock to say.
    rules.retain(|rule| skew == 0 || rule.unit != Unit::CalendarDay);
    // None, and two that count the same, are refused when a scheme is written.
    let Ok(rules) = Rules::try_from(rules) else { return Ok(()) };
    processes.ahead_ms.store(skew, Ordering::SeqCst);
    let app = AppNumber::mint(u64::from_be_bytes(random().unwrap()));
    let keys = [1, 2].map(|n| KeyId::mint(at(start), u32::from_be_bytes(random().unwrap()) ^ n));
    let mut log: Vec<Admitted> = vec![];
    let mut now = start;
    for step in steps {
        now += step.after_ms;
        processes.now_ms.store(now, Ordering::SeqCst);
        let requester =
            Requester { app, key: keys[step.key], client_ip: ADDRESSES[step.address].parse().ok() };
        let whose = (step.key, step.address);
        let holding = rules.holding(&target(step.target));
        let admission = processes.stores[step.process].admit(&requester, &rules, &holding).await.unwrap();
        let Admission { limits, blocked } = admission;
        prop_assert_eq!(limits.len(), holding.len());
        if let Some(blocked) = &blocked {
            let limit = holding[blocked.place];
            prop_assert_eq!(&blocked.rule, &limit.name());
            let (_, may_be_from) = bounds(limit, now, skew);
            let counted = count(&log, &rules, limit, whose, may_be_from, now);
            prop_assert!(
                counted >= limit.max(),
                "refused at {now} by {} although only {counted} were let through",
                blocked.rule
            );
            prop_assert_eq!(limits[blocked.place].remaining, 0);
            let is_earlier_blocking = limits[..blocked.place].iter().any(|status| status.remaining == 0);
            prop_assert!(!is_earlier_blocking || skew > 0, "the first that blocks is named");
            continue;
        }
        log.push(Admitted { at: now, key: step.key, address: step.address, target: step.target });
        for (limit, status) in holding.iter().zip(&limits) {
            let (surely_from, may_be_from) = bounds(limit, now, skew);
            let surely = count(&log, &rules, limit, whose, surely_from, now);
            prop_assert!(
                surely <= limit.max(),
                "{surely} let through in {:?} before {now} by {}",
                limit.window(),
                limit.name()
            );
            let may_be = count(&log, &rules, limit, whose, may_be_from, now);
            let left = status.remaining;
            // Of several shards only the one that counted the request is known.
            prop_assert!(
                limit.shards() > 1 || (limit.max() - may_be <= left && left <= limit.max() - surely),
                "{left} left of {}, of which {surely} to {may_be} are used",
                limit.name()
            );
        }
    }
    Ok(())
}

fn hold(cases: u32, skews: impl Strategy<Value = i64>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let processes = runtime.block_on(Processes::start());
    // Shortly before a midnight of the future: a DynamoDB may purge what expired in the past.
    let now = Utc::now().timestamp_millis();
    let start = now - now.rem_euclid(86_400_000) + 2 * 86_400_000 - 30_000;
    let case =
        (prop::collection::vec(rule(), 1..5), prop::collection::vec(step(), 10..50), 0_i64..60_000, skews);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&case, |(rules, steps, offset, skew)| {
            runtime.block_on(run(&processes, &rules, &steps, start + offset, skew))
        })
        .unwrap();
}

#[test]
fn no_window_lets_through_more_and_nobody_is_refused_who_had_room() {
    hold(40, Just(0));
}

#[test]
fn clocks_up_to_a_second_apart_move_the_bounds_by_no_more_than_that() {
    hold(24, 1_i64..=1_000);
}
