//! The table of docs/costs.md: derived from `docs/prices.toml` and from what is counted here.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::NaiveDate;
use keyward_core::metric::Metric;
use keyward_runtime::VerifyAuth;
use keyward_tests::{ApiResponse, Keyward, REQUEST_LOG_BYTES, check_body, text};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Price {
    price: f64,
    page: String,
    dated: String,
}

/// The size of an item as DynamoDB counts it, and at most a few bytes more.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
fn size(attributes: &Value) -> usize {
    let of_value = |value: &Value| match value.as_object().and_then(|kinds| kinds.iter().next()) {
        Some((kind, Value::String(text))) if kind == "N" => text.len() / 2 + 2,
        Some((kind, Value::String(text))) if kind == "S" => text.len(),
        Some((kind, Value::Object(_))) if kind == "M" => 3 + size(&value["M"]),
        Some((_, Value::Bool(_))) => 1,
        _ => panic!("not measured: {value}"),
    };
    let attributes = attributes.as_object().expect("attributes");
    attributes.iter().map(|(name, value)| name.len() + 1 + of_value(value)).sum()
}

/// The longest line that the API's log has for a check.
fn access_log_bytes(template: &Value) -> usize {
    let stage = template["Resources"]
        .as_object()
        .unwrap()
        .values()
        .find(|of| of["Type"] == "AWS::ApiGatewayV2::Stage");
    let format = stage.unwrap()["Properties"]["AccessLogSettings"]["Format"].as_str().unwrap();
    let line = [
        ("$context.requestId", "JKJaXmPLvHcESHA="),
        ("$context.identity.sourceIp", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"),
        ("$context.routeKey", "POST /v1/authz/check"),
        ("$context.status", "200"),
        ("$context.responseLatency", "1000"),
        ("$context.integration.status", "200"),
        ("$context.integrationErrorMessage", "-"),
        ("$context.authorizer.code", "-"),
    ];
    let line = line.iter().fold(format.to_owned(), |line, (name, value)| line.replace(name, value));
    assert!(!line.contains('$'), "{line}");
    line.len()
}

/// The bytes that DynamoDB adds to each item for its index.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
const INDEX_BYTES: usize = 100;
/// The requests that DynamoDB makes to KMS in a month for a connection on which the table is in use: at most one every five
/// minutes. <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html>
const KMS_REQUESTS: f64 = 12.0 * 730.0;
/// The cold starts in one hundred checks: one percent, as AWS says of most functions.
/// <https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/>
const STARTS: f64 = 0.01;
/// The part of the requests that is traced beyond the first in each second, unless a sampling rule says otherwise.
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html>
const TRACED: f64 = 0.05;

/// The longest response to a check without limits, as HTTP/1.1 sends it.
const RESPONSE_BYTES: usize = 1_000;

/// The length of a response as HTTP/1.1 sends it.
fn response_bytes(response: &ApiResponse) -> usize {
    let headers =
        response.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    "HTTP/1.1 200 OK\r\n\r\n".len() + headers.sum::<usize>() + response.body.to_string().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cost_table_is_derived() {
    let prices: BTreeMap<String, Price> = toml::from_str(include_str!("../../docs/prices.toml")).unwrap();
    assert!(prices.values().all(|of| of.page.starts_with("https://aws.amazon.com/")));
    assert!(prices.values().all(|of| of.dated == "undated" || NaiveDate::from_str(&of.dated).is_ok()));
    let price = |name: &str| prices[name].price;
    let template: Value = serde_saphyr::from_str(include_str!("../../template.yaml")).unwrap();
    let count = |kind: &str| {
        let resources = template["Resources"].as_object().unwrap();
        resources.values().filter(|of| of["Type"] == kind).count() as f64
    };

    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let key = backend.create_key("acme", json!({"permissions": ["users:read"]})).await;
    let body = json!({
        "client_ip": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "user_agent": "u".repeat(120), "resource": format!("/v1/{}", "r".repeat(60)),
        "required_permissions": ["users:read"],
    });
    let mut asked = check_body(&text(&key["secret"]));
    asked.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let check = async || {
        let response = backend.post("/v1/authz/check", asked.clone()).await;
        assert_eq!(response.clone().ok()["allowed"], true);
        response_bytes(&response)
    };
    // The first use of a key is noted, and then one a minute.
    check().await;
    keyward.settle().await;
    keyward.calls.take();
    keyward.calls.take_units();
    let completed = check().await;
    assert!(completed <= RESPONSE_BYTES, "{completed}");
    keyward.settle().await;
    let read: f64 = keyward.calls.take_units().iter().sum();
    let calls = keyward.calls.take();
    let [put] = calls.iter().filter(|call| call.operation != "BatchGetItem").collect::<Vec<_>>()[..] else {
        panic!("{calls:#?}");
    };
    let event_bytes = size(&put.sent["Item"]);
    let written = event_bytes.div_ceil(1024) as f64;
    let logged = (REQUEST_LOG_BYTES + access_log_bytes(&template)).next_multiple_of(100) as f64;

    let rules = json!([{"unit": "minute", "duration": 1, "max_requests": 100}]);
    let scheme = json!({"slug": "limits", "name": "Limits", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    backend.patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": "limits"})).await.ok();
    check().await;
    keyward.calls.take_units();
    check().await;
    let [limited_read, counted] = keyward.calls.take_units()[..] else { panic!("a read and a count") };

    let memory = template["Parameters"]["VerifyMemorySize"]["Default"].as_f64().unwrap();
    let gb_seconds = memory / 1024.0 * 0.010;
    let idle = [
        ("KMS key", count("AWS::KMS::Key"), price("kms_key")),
        (
            "CloudWatch alarms (an account's first 10 are free)",
            count("AWS::CloudWatch::Alarm"),
            price("cloudwatch_alarm"),
        ),
        (
            "CloudWatch dashboard (an account's first 3 are free)",
            count("AWS::CloudWatch::Dashboard"),
            price("cloudwatch_dashboard"),
        ),
    ];
    let mut rows: Vec<String> = idle
        .iter()
        .map(|(what, number, price)| format!("| {what} | {number} | ${price:.2} | ${:.2} |", number * price))
        .collect();
    let month: f64 = idle.iter().map(|(_, number, price)| number * price).sum();
    rows.push(format!("| **a month** | | | **${month:.2}** |"));
    let own = Metric::ALL.len() as f64 + count("AWS::Logs::MetricFilter");
    let of_table = count("AWS::Serverless::Function") * KMS_REQUESTS / 1e6;
    for (what, number, per, price) in [
        (
            "CloudWatch metrics of its own, while each counts something (an account's first 10 are free)",
            own,
            "",
            price("cloudwatch_metric"),
        ),
        (
            "million KMS requests for the table, if each function keeps a connection in use all month (an account's first 0.02 are free)",
            of_table,
            " a million",
            price("kms_requests"),
        ),
    ] {
        rows.push(format!("| {what} | {number} | ${price:.2}{per} | ${:.2} |", number * price));
    }
    let busy = [
        ("HTTP API requests", 1.0, "a million", price("http_api"), 1.0),
        ("Lambda requests", 1.0, "a million", price("lambda_requests"), 1.0),
        ("Lambda GB-seconds, if a check takes 10 ms", gb_seconds, "a million", price("lambda_duration"), 1.0),
        ("DynamoDB read units", read, "a million", price("dynamodb_reads"), 1.0),
        ("DynamoDB write units, for the audit event", written, "a million", price("dynamodb_writes"), 1.0),
        ("bytes of logs, at most", logged, "a GB", price("cloudwatch_logs"), 1e-3),
        (
            "bytes of answers to the internet, at most (an account's first 100 GB are free)",
            RESPONSE_BYTES as f64,
            "a GB",
            price("data_out"),
            1e-3,
        ),
        (
            "Lambda GB-seconds of starts, if one check in 100 waits for one of 200 ms",
            memory / 1024.0 * 0.2 * STARTS,
            "a million",
            price("lambda_duration"),
            1.0,
        ),
        ("KMS requests of those starts", STARTS, "a million", price("kms_requests"), 1.0),
    ];
    for (what, number, per, price, millions) in busy {
        rows.push(format!("| {what} | {number} | ${price} {per} | ${:.2} |", number * price * millions));
    }
    let total: f64 = busy.iter().map(|(_, number, _, price, millions)| number * price * millions).sum();
    rows.push(format!("| **a million checks** | | | **${total:.2}** |"));
    for (what, units, name) in [
        ("more for rate limits of each key: a read unit", limited_read - read, "dynamodb_reads"),
        ("and a write unit", counted, "dynamodb_writes"),
    ] {
        let price = price(name);
        rows.push(format!("| {what} | {units} | ${price} a million | ${:.2} |", units * price));
    }
    let traces = price("traces");
    rows.push(format!(
        "| more with `Tracing=Active`: a trace of one check in 20 | {TRACED} | ${traces} a million | ${:.2} |",
        TRACED * traces
    ));
    let kept = (event_bytes + INDEX_BYTES) as f64 / 1e3;
    let price = price("dynamodb_storage") + price("dynamodb_recovery");
    rows.push(format!(
        "| a million audit events, for each month that they are kept | {kept} GB | ${price:.2} a GB | ${:.2} |",
        kept * price
    ));
    let page = include_str!("../../docs/costs.md");
    for row in &rows {
        assert!(page.contains(row), "docs/costs.md lacks this:\n{}", rows.join("\n"));
    }
    let readme = include_str!("../../README.md");
    for told in [format!("${month:.2} a month"), format!("${total:.2} a million")] {
        assert!(readme.contains(&told), "the README lacks {told}");
    }
}
