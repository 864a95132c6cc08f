//! Calls of DynamoDB, checked against the limits of its expressions, which other engines do not enforce: "Constraints in
//! Amazon DynamoDB", expression parameters, in the developer guide.

use chrono::Utc;
use keyward_core::id::{AppNumber, KeyId};
use keyward_core::rate_limit::{Rule, Rules};
use keyward_core::target::Target;
use keyward_store::system_entropy;
use keyward_tests::{Call, Keyward, verified};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use regex::Regex;
use serde_json::{Value, json};

const MAX_EXPRESSION: usize = 4 * 1024;
const MAX_OPERATORS: usize = 300;
const MAX_VARIABLE: usize = 255;
const MAX_BYTES_OF_VARIABLES: usize = 2 * 1024 * 1024;

/// The operators and functions of an expression, of which AWS gives no list: comparisons, assignments, sums, connectives and
/// functions; and, to be on the safe side, each item of a clause for one.
fn operators(expression: &str) -> usize {
    let counted = Regex::new(
        r"<>|<=|>=|=|<|>|\+|-|,|\bAND\b|\bOR\b|\bNOT\b|\bIN\b|\bBETWEEN\b|\w+\s?\(|\b(SET|ADD|REMOVE|DELETE)\b",
    );
    counted.unwrap().find_iter(expression).count()
}

/// The writes of a call: itself, or those of a transaction.
fn writes(call: &Call) -> Vec<&Value> {
    match call.operation.as_str() {
        "UpdateItem" => vec![&call.sent],
        "TransactWriteItems" => {
            let writes = call.sent["TransactItems"].as_array().unwrap();
            writes.iter().flat_map(|write| write.as_object().unwrap().values()).collect()
        }
        _ => vec![],
    }
}

fn is_within_limits(write: &Value) {
    for kind in ["UpdateExpression", "ConditionExpression"] {
        let text = write[kind].as_str().unwrap_or_default();
        assert!(text.len() <= MAX_EXPRESSION, "{kind} of {} bytes: {text}", text.len());
        let operators = operators(text);
        assert!(operators <= MAX_OPERATORS, "{kind} with {operators} operators: {text}");
    }
    let mut bytes = 0;
    for kind in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
        for (name, value) in write[kind].as_object().into_iter().flatten() {
            assert!(name.len() <= MAX_VARIABLE, "{name}");
            bytes += name.len() + value.to_string().len();
        }
    }
    assert!(bytes <= MAX_BYTES_OF_VARIABLES, "{bytes} bytes of variables");
}

#[test]
fn operators_are_counted_as_the_guide_counts_them_or_more() {
    assert!(operators("SET a = :val1 + :val2 + :val3") >= 2, "the guide's own example");
    assert_eq!(operators("SET r=:r,#0=:a0 ADD #1 :i,#2 :i REMOVE #3,#4"), 8);
    assert_eq!(operators("NOT r=:r AND attribute_not_exists(#0) AND NOT #1>=:m"), 7);
}

/// Legal schemes, most of them with as many rules as there may be.
fn scheme() -> impl Strategy<Value = Value> {
    let window = prop_oneof![
        8 => (1_i32..60_000).prop_map(|n| ("millisecond", n)),
        2 => (1_i32..1_440).prop_map(|n| ("minute", n)),
        1 => Just(("calendar_month", 1)),
    ];
    let kind = prop_oneof![9 => Just("sliding"), 1 => Just("fixed")];
    let mode = prop_oneof![8 => Just("per_key"), 1 => Just("per_app"), 1 => Just("per_app_and_ip")];
    let max = prop_oneof![6 => Just(1_i32), 2 => 1..=i32::MAX, 1 => Just(i32::MAX)];
    let rule = (window, kind, mode, max).prop_map(|((unit, duration), window, mode, max)| {
        json!({"unit": unit, "duration": duration, "window": window, "mode": mode, "max_requests": max})
    });
    prop_oneof![4 => Just(20_usize), 1 => 1_usize..20]
        .prop_flat_map(move |rules| prop::collection::vec(rule.clone(), rules))
        .prop_map(Value::from)
}

/// Counts requests by these rules, some time apart, and checks what is sent for it.
async fn is_counted_within_limits(keyward: &Keyward, scheme: &Value) -> usize {
    let rules: Vec<Rule> = serde_json::from_value(scheme.clone()).unwrap();
    // No scheme has two rules that count the same.
    let Ok(rules) = Rules::try_from(rules) else { return 0 };
    let store = &keyward.services.store;
    let app = AppNumber::mint(u64::from_be_bytes(system_entropy().bytes().unwrap()));
    let key = KeyId::mint(Utc::now(), u32::from_be_bytes(system_entropy().bytes().unwrap()));
    let (key, client_ip) = (verified(app, key), "192.0.2.1".parse().ok());
    let applicable = rules.applicable(&Target::parse("GET", "/a").unwrap());
    keyward.calls.take();
    for _ in 0..3 {
        store.admit(&key, client_ip, &rules, &applicable, store.deadline()).await.unwrap();
        keyward.pass(chrono::TimeDelta::minutes(70));
    }
    let calls = keyward.calls.take();
    let writes: Vec<&Value> = calls.iter().flat_map(writes).collect();
    writes.iter().for_each(|write| is_within_limits(write));
    writes.len()
}

#[test]
fn every_legal_scheme_stays_within_the_limits_of_an_expression() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let keyward = runtime.block_on(Keyward::start());
    // The largest there is: twenty sliding windows of eleven numbers each, in one update.
    let rule = |n: i32| json!({"unit": "millisecond", "duration": 59_990 - 10 * n, "max_requests": 1});
    let largest: Vec<Value> = (0..20).map(rule).collect();
    assert!(runtime.block_on(is_counted_within_limits(&keyward, &json!(largest))) >= 3);
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&scheme(), |scheme| {
            runtime.block_on(is_counted_within_limits(&keyward, &scheme));
            Ok(())
        })
        .unwrap();
}
