//! Rate limits against a log of what was let through, with clocks that tests move: never more than a rule allows in any
//! window, and never a refusal that the guarantee rules out; also while the rules themselves change, processes end and what
//! has expired is purged.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use keyward_cli::dev::TABLE;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{Admission, Limit, Mode, Rule, Rules, Unit, Window};
use keyward_core::target::Target;
use keyward_core::{Clock, VerifiedKey};
use keyward_store::{Error, Store, dynamodb_client, system_entropy};
use keyward_tests::{Keyward, verified};
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

/// A request that was admitted: when, in milliseconds of true time, and for whom.
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
    let kind = prop::sample::select(vec!["sliding", "sliding", "fixed"]);
    (window, kind, 1_i32..7, mode, endpoints).prop_map(|((unit, duration), window, max, mode, endpoints)| {
        json!({
            "unit": unit, "duration": duration, "window": window, "max_requests": max, "mode": mode,
            "endpoints": endpoints,
        })
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
    /// The number of milliseconds by which the second one's clock is ahead.
    ahead_ms: Arc<AtomicI64>,
    keyward: Keyward,
}

impl Processes {
    async fn start() -> Self {
        let keyward = Keyward::start().await;
        let (now_ms, ahead_ms) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let no_lead = Arc::new(AtomicI64::new(0));
        let stores =
            [process(&keyward, &now_ms, &no_lead).await, process(&keyward, &now_ms, &ahead_ms).await];
        Self { stores, now_ms, ahead_ms, keyward }
    }

    /// The decision of a process on a request for the first target.
    async fn admit(&self, process: usize, key: &VerifiedKey, rules: &Rules) -> Result<Admission, Error> {
        let store = &self.stores[process];
        store.admit(key, None, rules, &rules.applicable(&target(0)), store.deadline()).await
    }
}

/// A scheme of this rule.
fn of_one(rule: Value) -> Rules {
    Rules::try_from(vec![serde_json::from_value::<Rule>(rule).unwrap()]).unwrap()
}

/// A key that no request has come with yet.
fn new_key(now: i64) -> VerifiedKey {
    let app = AppNumber::mint(u64::from_be_bytes(system_entropy().bytes().unwrap()));
    verified(app, KeyId::mint(at(now), u32::from_be_bytes(system_entropy().bytes().unwrap())))
}

async fn process(keyward: &Keyward, now_ms: &Arc<AtomicI64>, ahead_ms: &Arc<AtomicI64>) -> Store {
    let (now_ms, ahead_ms) = (now_ms.clone(), ahead_ms.clone());
    let clock = Clock::new(move || at(now_ms.load(Ordering::SeqCst) + ahead_ms.load(Ordering::SeqCst)));
    keyward.process(clock, dynamodb_client(keyward.sdk_config())).await.store
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

/// The number of admitted requests that count with this one, after `from` and up to `to`, both of true time.
fn count(
    log: &[Admitted],
    rules: &Rules,
    limit: &Limit,
    requester: (usize, usize),
    from: i64,
    to: i64,
) -> i64 {
    let counted = log.iter().filter(|admitted| {
        (from < admitted.at && admitted.at <= to)
            && together(limit, requester, (admitted.key, admitted.address))
            && rules.applicable(&target(admitted.target)).iter().any(|one| one.id() == limit.id())
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
        // The clock that is ahead may have opened the next one.
        Window::Fixed { ms } => {
            let before = |at: i64| at - at.rem_euclid(ms) - 1;
            (before(now + skew), before(now) - skew)
        }
        window @ (Window::CalendarDay | Window::CalendarMonth) => {
            let before = window.start(window.number(at(now))).timestamp_millis() - 1;
            (before, before)
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
    let app = AppNumber::mint(u64::from_be_bytes(system_entropy().bytes().unwrap()));
    let keys =
        [1, 2].map(|n| KeyId::mint(at(start), u32::from_be_bytes(system_entropy().bytes().unwrap()) ^ n));
    let keys = keys.map(|id| verified(app, id));
    let mut log: Vec<Admitted> = vec![];
    let mut now = start;
    for step in steps {
        now += step.after_ms;
        processes.now_ms.store(now, Ordering::SeqCst);
        let client_ip = ADDRESSES[step.address].parse().ok();
        let requester = (step.key, step.address);
        let applicable = rules.applicable(&target(step.target));
        let store = &processes.stores[step.process];
        let key = &keys[step.key];
        let admission = store.admit(key, client_ip, &rules, &applicable, store.deadline()).await.unwrap();
        let Admission { limits, blocked } = admission;
        prop_assert_eq!(limits.len(), applicable.len());
        if let Some(blocked) = &blocked {
            let limit = applicable[blocked.index];
            prop_assert_eq!(&blocked.rule, &limit.name());
            let (_, may_be_from) = bounds(limit, now, skew);
            let counted = count(&log, &rules, limit, requester, may_be_from, now);
            prop_assert!(
                counted >= limit.max(),
                "refused at {now} by {} although only {counted} were let through",
                blocked.rule
            );
            prop_assert_eq!(limits[blocked.index].remaining, 0);
            let is_earlier_blocking = limits[..blocked.index].iter().any(|status| status.remaining == 0);
            prop_assert!(!is_earlier_blocking || skew > 0, "the first that blocks is named");
            continue;
        }
        log.push(Admitted { at: now, key: step.key, address: step.address, target: step.target });
        for (limit, status) in applicable.iter().zip(&limits) {
            let (surely_from, may_be_from) = bounds(limit, now, skew);
            let surely = count(&log, &rules, limit, requester, surely_from, now);
            prop_assert!(
                surely <= limit.max(),
                "{surely} let through in {:?} before {now} by {}",
                limit.window(),
                limit.name()
            );
            let may_be = count(&log, &rules, limit, requester, may_be_from, now);
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

/// A midnight of the future, in Unix milliseconds.
fn midnight_to_come() -> i64 {
    let now = Utc::now().timestamp_millis();
    now - now.rem_euclid(86_400_000) + 2 * 86_400_000
}

fn check_bounds(cases: u32, skews: impl Strategy<Value = i64>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let processes = runtime.block_on(Processes::start());
    // Shortly before a midnight of the future: a DynamoDB may purge what expired in the past.
    let start = midnight_to_come() - 30_000;
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
    check_bounds(40, Just(0));
}

#[test]
fn clocks_up_to_a_second_apart_move_the_bounds_by_no_more_than_that() {
    check_bounds(24, 1_i64..=1_000);
}

/// An event in the life of a counter: an app whose two keys have schemes of their own, with one rule in common.
#[derive(Debug, Clone)]
enum Event {
    /// A request of one of the keys to a process, so many milliseconds later.
    Request { after_ms: i64, key: usize, process: usize },
    /// A scheme's rule gets another limit, and its endpoints another spelling.
    Change { key: usize, max: i32, spelling: usize },
    /// A process ends, and one that knows nothing takes its place.
    Restart { process: usize },
    /// DynamoDB purges what has expired.
    Purge,
}

/// The same endpoints.
const SPELLINGS: [&[&str]; 3] = [&["/a", "POST /b/*"], &["post  b//*", "/A/"], &["/%61", "/a", "POST /b/*"]];

/// Windows, and limits of which the greater need several counters: above 9 in 20 ms and 49 in 100 ms.
fn changing_rule() -> impl Strategy<Value = (Value, Vec<i32>, i64)> {
    let short = ("millisecond", 20, vec![2, 5, 9, 10, 14, 19, 25, 300], 4_i64);
    let longer = ("millisecond", 100, vec![3, 12, 49, 50, 70], 6);
    let day = 86_400_000;
    prop_oneof![
        4 => Just(short),
        2 => Just(longer),
        1 => Just(("calendar_month", 1, vec![2, 5, 9], 3 * day)),
        1 => Just(("day", 30, vec![2, 5, 9], 3 * day)),
    ]
    .prop_flat_map(|(unit, duration, limits, longest_ms)| {
        let kind = prop::sample::select(vec!["sliding", "fixed"]);
        let mode = prop::sample::select(vec!["per_app", "per_app", "per_key"]);
        (kind, mode).prop_map(move |(window, mode)| {
            let rule = json!({
                "unit": unit, "duration": duration, "max_requests": 1, "window": window, "mode": mode,
            });
            (rule, limits.clone(), longest_ms)
        })
    })
}

fn event(limits: Vec<i32>, longest_ms: i64) -> impl Strategy<Value = Event> {
    let after_ms = prop_oneof![5 => Just(0_i64), 3 => 0..=longest_ms];
    prop_oneof![
        20 => (after_ms, 0_usize..2, 0_usize..2)
            .prop_map(|(after_ms, key, process)| Event::Request { after_ms, key, process }),
        3 => (0_usize..2, prop::sample::select(limits), 0..SPELLINGS.len())
            .prop_map(|(key, max, spelling)| Event::Change { key, max, spelling }),
        1 => (0_usize..2).prop_map(|process| Event::Restart { process }),
        1 => Just(Event::Purge),
    ]
}

/// Deletes the counters that DynamoDB may purge, as late as it may.
async fn purge(keyward: &Keyward, now: i64) {
    let client = Client::new(keyward.sdk_config());
    let scan = client
        .scan()
        .table_name(TABLE)
        .filter_expression("begins_with(pk, :limit) AND purge_at < :now")
        .expression_attribute_values(":limit", AttributeValue::S("LIMIT#".into()))
        .expression_attribute_values(":now", AttributeValue::N((now / 1_000).to_string()));
    for item in scan.send().await.unwrap().items() {
        let delete = client.delete_item().table_name(TABLE);
        delete.key("pk", item["pk"].clone()).key("sk", item["sk"].clone()).send().await.unwrap();
    }
}

async fn live(
    processes: &mut Processes,
    rule: &Value,
    first: [i32; 2],
    events: &[Event],
) -> Result<(), TestCaseError> {
    let day = midnight_to_come();
    let app = AppNumber::mint(u64::from_be_bytes(system_entropy().bytes().unwrap()));
    let keys =
        [1, 2].map(|n| KeyId::mint(at(day), u32::from_be_bytes(system_entropy().bytes().unwrap()) ^ n));
    let keys = keys.map(|id| verified(app, id));
    let scheme = |key: usize, max: i32, spelling: usize| {
        let mut rule = rule.clone();
        rule["max_requests"] = max.into();
        rule["endpoints"] = json!(SPELLINGS[spelling]);
        // Beside it, each has a rule of its own whose counts are soon forgotten, in the same item.
        let own = json!({"unit": "second", "duration": key + 1, "max_requests": 400, "mode": rule["mode"]});
        let rules: Vec<Rule> = serde_json::from_value(json!([rule, own])).unwrap();
        Rules::try_from(rules).unwrap()
    };
    let mut schemes = [scheme(0, first[0], 0), scheme(1, first[1], 1)];
    let mut log: Vec<Admitted> = vec![];
    let mut now = day;
    for event in events {
        match *event {
            Event::Change { key, max, spelling } => schemes[key] = scheme(key, max, spelling),
            Event::Purge => purge(&processes.keyward, now).await,
            Event::Restart { process: place } => {
                processes.stores[place] =
                    process(&processes.keyward, &processes.now_ms, &Arc::default()).await;
            }
            Event::Request { after_ms, key, process } => {
                now += after_ms;
                processes.now_ms.store(now, Ordering::SeqCst);
                let rules = &schemes[key];
                let applicable = rules.applicable(&target(0));
                let limit = applicable[0];
                let store = &processes.stores[process];
                let of_key = &keys[key];
                let admission =
                    store.admit(of_key, None, rules, &applicable, store.deadline()).await.unwrap();
                let (surely_from, may_be_from) = bounds(limit, now, 0);
                let counted = |log: &[Admitted], from: i64| count(log, rules, limit, (key, 0), from, now);
                if admission.blocked.is_some() {
                    let before = counted(&log, may_be_from);
                    prop_assert!(before >= limit.max(), "refused after {before} by {}", limit.name());
                    continue;
                }
                log.push(Admitted { at: now, key, address: 0, target: 0 });
                let with_it = counted(&log, surely_from);
                prop_assert!(with_it <= limit.max(), "{with_it} let through by {}", limit.name());
            }
        }
    }
    Ok(())
}

#[test]
fn counts_go_on_over_changes_of_limits_and_schemes_purges_and_restarts() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let processes = RefCell::new(runtime.block_on(Processes::start()));
    let case = changing_rule().prop_flat_map(|(rule, limits, longest_ms)| {
        let first = prop::sample::select(limits.clone());
        let events = prop::collection::vec(event(limits, longest_ms), 30..120);
        (Just(rule), [first.clone(), first], events)
    });
    let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&case, |(rule, first, events)| {
            runtime.block_on(live(&mut processes.borrow_mut(), &rule, first, &events))
        })
        .unwrap();
}

/// Processes that know different limits of the same rule, as while a change of it spreads: each lays the counts out for its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_count_is_lost_while_processes_lay_them_out_for_different_limits() {
    const MAX_LIMIT: usize = 300;
    let processes = Processes::start().await;
    let now = midnight_to_come();
    processes.now_ms.store(now, Ordering::SeqCst);
    let schemes = [9, 49, 70, 120, MAX_LIMIT].map(|max| {
        let rule = json!({"unit": "millisecond", "duration": 100, "max_requests": max, "window": "fixed"});
        of_one(rule)
    });
    let shards: Vec<i64> = schemes.iter().map(|rules| rules.limits()[0].shards()).collect();
    assert_eq!(shards, [1, 1, 2, 3, 7]);
    for _ in 0..2 {
        let requester = new_key(now);
        let admit = async |process: usize, rules: &Rules| processes.admit(process, &requester, rules).await;
        let (admitted, undecided) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let callers = (0..8).map(async |caller: usize| {
            for sent in 0..60 {
                match admit(caller % 2, &schemes[(caller + sent / 4) % schemes.len()]).await {
                    Ok(admission) => {
                        admitted.fetch_add(usize::from(admission.blocked.is_none()), Ordering::SeqCst)
                    }
                    // It may have been counted.
                    Err(error) => {
                        assert!(error.is_unavailable(), "{error}");
                        undecided.fetch_add(1, Ordering::SeqCst)
                    }
                };
            }
        });
        join_all(callers).await;
        for _ in 0..2 * MAX_LIMIT {
            match admit(0, &schemes[4]).await {
                Ok(admission) if admission.blocked.is_some() => break,
                Ok(_) => admitted.fetch_add(1, Ordering::SeqCst),
                Err(_) => undecided.fetch_add(1, Ordering::SeqCst),
            };
        }
        let (admitted, undecided) = (admitted.into_inner(), undecided.into_inner());
        assert!(admitted <= MAX_LIMIT, "{admitted} let through");
        assert!(admitted + undecided >= MAX_LIMIT, "{admitted} let through, {undecided} undecided");
        assert!(undecided < 240, "most were decided on: {undecided}");
    }
}

/// The same at the beginning of a window, when shards are opened one by one.
#[tokio::test(flavor = "multi_thread")]
async fn no_count_is_lost_while_first_requests_open_shards_and_others_need_none() {
    const MIN_LIMIT: usize = 9;
    let processes = Processes::start().await;
    let now = midnight_to_come();
    processes.now_ms.store(now, Ordering::SeqCst);
    let [in_one_item, in_shards] = [MIN_LIMIT, MIN_LIMIT + 1].map(|max| {
        let rule = json!({"unit": "millisecond", "duration": 20, "max_requests": max, "window": "fixed"});
        of_one(rule)
    });
    assert_eq!([&in_one_item, &in_shards].map(|rules| rules.limits()[0].shards()), [1, 2]);
    for _ in 0..30 {
        let requester = new_key(now);
        let admit = async |process: usize, rules: &Rules| {
            let admission = processes.admit(process, &requester, rules).await;
            admission.map(|admission| admission.blocked.is_none())
        };
        let first = [&in_shards, &in_one_item, &in_shards, &in_one_item, &in_shards];
        let mut responses =
            join_all(first.iter().enumerate().map(|(caller, rules)| admit(caller % 2, rules))).await;
        while !matches!(responses.last(), Some(Ok(false))) && responses.len() < 3 * MIN_LIMIT {
            responses.push(admit(0, &in_one_item).await);
        }
        let admitted = responses.iter().filter(|one| matches!(one, Ok(true))).count();
        // Those that met too many others may have been counted.
        let undecided = responses.iter().filter(|one| one.is_err()).count();
        assert!(admitted <= MIN_LIMIT && MIN_LIMIT <= admitted + undecided, "{responses:?}");
        assert!(undecided < MIN_LIMIT, "{responses:?}");
    }
}

/// The share of the requests that go through of a client that sends `max` a second at even intervals.
async fn let_through_of_a_paced_client(processes: &Processes, kind: &str, max: i64) -> f64 {
    const SENT: i64 = 100;
    let rule = json!({"unit": "second", "duration": 1, "max_requests": max, "window": kind});
    let rules = of_one(rule);
    let start = midnight_to_come() + 137;
    let requester = new_key(start);
    let mut through = 0;
    for sent in 0..SENT {
        processes.now_ms.store(start + sent * 1_000 / max, Ordering::SeqCst);
        let admission = processes.admit(0, &requester, &rules).await.unwrap();
        through += i64::from(admission.blocked.is_none());
    }
    through as f64 / SENT as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_paces_itself_at_the_limit_passes_a_fixed_window() {
    let processes = Processes::start().await;
    for max in [1, 10] {
        let fixed = let_through_of_a_paced_client(&processes, "fixed", max).await;
        assert!(fixed >= 0.95, "{fixed} of those at {max} a second");
    }
    // As the guide says of sliding windows.
    let sliding = let_through_of_a_paced_client(&processes, "sliding", 1).await;
    assert!((0.48..=0.52).contains(&sliding), "{sliding} of those at one a second");
    let sliding = let_through_of_a_paced_client(&processes, "sliding", 10).await;
    assert!((0.88..=0.94).contains(&sliding), "{sliding} of those at ten a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn around_the_edge_of_a_fixed_window_twice_the_limit_passes_and_never_more_in_a_window() {
    let processes = Processes::start().await;
    let rule = json!({"unit": "minute", "duration": 1, "max_requests": 5, "window": "fixed"});
    let rules = of_one(rule);
    let edge = midnight_to_come();
    let requester = new_key(edge);
    for (ms, allowed) in
        [(edge - 60_000, 5), (edge - 1, 0), (edge, 5), (edge + 59_999, 0), (edge + 60_000, 5)]
    {
        processes.now_ms.store(ms, Ordering::SeqCst);
        let mut through = 0;
        for _ in 0..8 {
            let admission = processes.admit(0, &requester, &rules).await.unwrap();
            through += i64::from(admission.blocked.is_none());
            if let Some(blocked) = admission.blocked {
                let left = (60_000 - ms.rem_euclid(60_000) + 999) / 1_000;
                assert_eq!(i64::from(blocked.retry_after), left, "until the window ends");
            }
        }
        assert_eq!(through, allowed, "at {}", ms - edge);
    }
}
