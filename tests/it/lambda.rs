//! Functions as processes in Lambda's execution environment: what they write after a response, whatever happens then.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use keyward_cli::dev::{Dev, Options, TABLE};
use keyward_tests::lambda::{Environment, Kind};
use keyward_tests::{Backend, Gate, check_body, text};
use serde_json::{Value, json};
use tempfile::TempDir;

const AUTHORIZER: &str = env!("CARGO_BIN_EXE_authorizer-function");
const VERIFY: &str = env!("CARGO_BIN_EXE_verify-function");
const TICKET_EXCHANGE: &str = env!("CARGO_BIN_EXE_ticket-exchange-function");

/// A local run, and the environment of functions that reach its table through a gate.
struct Table {
    dev: Dev,
    backend: Backend,
    gate: Gate,
    variables: Vec<(String, String)>,
    /// A key of the app `acme`.
    secret: String,
    _folder: TempDir,
}

impl Table {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { port: 0, data_dir: Some(folder.path().to_owned()), ephemeral: false };
        let dev = Dev::start(&options).await.unwrap();
        let described = dev.dev_json();
        let backend = Backend::new(&described.url, &described.root_key, reqwest::Client::new());
        backend.create_app("acme").await;
        let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
        let gate = Gate::before(dev.installation().store_url()).await;
        let env = std::fs::read_to_string(folder.path().join("functions.env")).unwrap();
        let own = env.lines().map(|line| line.split_once('=').unwrap());
        let own = own.filter(|(name, _)| *name != "AWS_ENDPOINT_URL_DYNAMODB");
        let set = [("AWS_ENDPOINT_URL_DYNAMODB", gate.url.as_str()), ("KEYWARD_APPS", "ANY")];
        let variables = own.chain(set).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { dev, backend, gate, variables, secret, _folder: folder }
    }

    async fn authorizer(&self, kind: Kind) -> Environment {
        Environment::start(AUTHORIZER, &self.variables, kind).await
    }

    /// An event for the authorizer about a request to this path.
    fn event(&self, path: &str) -> Value {
        let mut event: Value = serde_json::from_str(include_str!("events/http-api-2.0.json")).unwrap();
        event["headers"]["x-api-key"] = self.secret.as_str().into();
        for name in ["rawPath", "routeArn"] {
            event[name] = text(&event[name]).replace("/v1/users", path).into();
        }
        event["requestContext"]["http"]["path"] = event["rawPath"].clone();
        event
    }

    /// The number of events of checks in the table, by path.
    async fn logged(&self) -> HashMap<String, usize> {
        let scan = Client::new(self.dev.installation().sdk_config())
            .scan()
            .table_name(TABLE)
            .consistent_read(true)
            .filter_expression("#action = :verification")
            .expression_attribute_names("#action", "action")
            .expression_attribute_values(":verification", AttributeValue::S("verification".into()));
        let mut logged = HashMap::new();
        for event in scan.send().await.unwrap().items.unwrap() {
            *logged.entry(event["path"].as_s().unwrap().clone()).or_default() += 1;
        }
        logged
    }
}

fn once(paths: &[&str]) -> HashMap<String, usize> {
    paths.iter().map(|path| (format!("GET {path}"), 1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_leaves_before_its_event_is_written_and_the_freeze_waits_for_that() {
    let table = Table::start().await;
    for takes_extensions in [true, false] {
        let authorizer = table.authorizer(Kind { takes_extensions, ..Kind::default() }).await;
        for round in 0..3 {
            let path = format!("/{takes_extensions}/{round}");
            table.gate.close();
            let before = table.logged().await;
            assert_eq!(authorizer.invoke(table.event(&path)).await.unwrap()["isAuthorized"], true);
            assert!(!authorizer.is_frozen(), "before its event is written");
            assert_eq!(table.logged().await, before, "the event waits");
            table.gate.open();
            authorizer.frozen().await;
            assert_eq!(table.logged().await[&format!("GET {path}")], 1);
        }
        assert_eq!(authorizer.log().contains("no extension"), !takes_extensions);
    }
    table.dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_before_the_answer_is_written_when_the_caller_has_it() {
    let table = Table::start().await;
    let app = "/api-auth/apps/acme";
    table.backend.patch(app, json!({"audit_durability": "before_answer"})).await.ok();
    let authorizer = table.authorizer(Kind::default()).await;
    assert_eq!(authorizer.invoke(table.event("/a")).await.unwrap()["isAuthorized"], true);
    assert_eq!(table.logged().await, once(&["/a"]));
    authorizer.frozen().await;

    table.gate.close();
    let failed = authorizer.invoke(table.event("/b")).await.unwrap_err();
    assert!(text(&failed["errorMessage"]).contains("unavailable"), "{failed}");
    table.gate.open();
    authorizer.frozen().await;
    table.dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_within_an_invocation_is_in_the_log() {
    let table = Table::start().await;
    for takes_extensions in [true, false] {
        let kind = Kind { takes_extensions, timeout: Duration::from_secs(3), ..Kind::default() };
        let authorizer = table.authorizer(kind).await;
        table.gate.close();
        assert_eq!(authorizer.invoke(table.event("/lost")).await.unwrap()["isAuthorized"], true);
        authorizer.frozen().await;
        let log = authorizer.log();
        let line = log.lines().find(|line| line.contains("an audit event was not written")).expect(&log);
        let line: Value = serde_json::from_str(line).unwrap();
        let event: Value = serde_json::from_str(line["fields"]["event"].as_str().unwrap()).unwrap();
        assert_eq!(event["path"], "GET /lost");
        assert!(!log.contains(&table.secret));
        table.gate.open();
        assert_eq!(authorizer.invoke(table.event("/kept")).await.unwrap()["isAuthorized"], true);
        authorizer.frozen().await;
    }
    assert_eq!(table.logged().await["GET /kept"], 2, "the process goes on after that");
    table.dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_managed_instance_answers_while_events_wait_and_writes_them_before_it_ends() {
    let table = Table::start().await;
    let kind = Kind { concurrency: 8, ..Kind::default() };
    let mut authorizer = table.authorizer(kind).await;
    // The first minute's use of the key is noted by now.
    authorizer.invoke(table.event("/first")).await.unwrap();
    table.gate.has_seen(1).await;
    table.gate.close();
    let paths: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    for some in paths.chunks(8) {
        for response in join_all(some.iter().map(|path| authorizer.invoke(table.event(path)))).await {
            assert_eq!(response.unwrap()["isAuthorized"], true);
        }
    }
    assert!(table.logged().await.len() <= 1, "they wait");
    let open = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        table.gate.open();
    };
    let (status, ()) = tokio::join!(authorizer.shut_down(), open);
    assert!(status.success(), "{status}: {}", authorizer.log());
    let all: Vec<&str> = paths.iter().map(String::as_str).chain(["/first"]).collect();
    assert_eq!(table.logged().await, once(&all));
    table.dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_process_ends_when_it_is_told_to() {
    let table = Table::start().await;
    let mut verify = Environment::start(VERIFY, &table.variables, Kind::default()).await;
    let checked =
        verify.invoke(http_event("POST", "/v1/authz/check", &check_body(&table.secret))).await.unwrap();
    assert_eq!(checked["statusCode"], 200, "{checked}");
    verify.frozen().await;
    assert_eq!(table.logged().await, once(&["/v1/users"]));
    let status = verify.shut_down().await;
    assert!(status.success(), "{status}: {}", verify.log());
    table.dev.stop().await;
}

/// An event of an HTTP API.
fn http_event(method: &str, path: &str, body: &Value) -> Value {
    json!({
        "version": "2.0",
        "routeKey": format!("{method} {path}"),
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef123",
            "domainName": "abcdef123.execute-api.us-east-1.amazonaws.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.10",
                "userAgent": "example-agent/1.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": "$default",
            "timeEpoch": 1_583_348_638_390_u64,
        },
        "body": body.to_string(),
        "isBase64Encoded": false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_directive_of_the_environment_has_events_logged() {
    const SECRET: &str = "0123456789abcdefghijABCDEFGHIJ0123456789xyz";
    let mut event = http_event("GET", "/session/ticket/exchange", &Value::Null);
    event["rawQueryString"] = format!("ticket={SECRET}").into();
    event["queryStringParameters"] = json!({"ticket": SECRET});
    event["cookies"] = json!([format!("__Host-session={SECRET}")]);
    event["headers"]["authorization"] = format!("Bearer {SECRET}").into();
    let directives = "trace,lambda_runtime=trace,lambda_runtime::layers=trace,lambda_runtime::layers::api_response=trace,\
                      lambda_extension=trace,lambda_http=trace,hyper=trace,hyper_util=trace,aws_smithy_runtime=trace";
    let variables = [("KEYWARD_LOG", directives), ("RUST_LOG", "trace"), ("AWS_LAMBDA_LOG_LEVEL", "TRACE")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let function = Environment::start(TICKET_EXCHANGE, &variables, Kind::default()).await;
    // It has no table and cannot start, but answers.
    assert_eq!(function.invoke(event).await.unwrap()["statusCode"], 503);
    function.frozen().await;
    let log = function.log();
    assert!(log.contains("the function cannot start"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
    for level in ["\"TRACE\"", "\"DEBUG\""] {
        assert!(!log.contains(level), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorizer_with_wrong_settings_fails_and_stays() {
    let variables = [("KEYWARD_APPS".to_owned(), "Not a slug".to_owned())];
    let authorizer = Environment::start(AUTHORIZER, &variables, Kind::default()).await;
    for _ in 0..2 {
        let failed =
            authorizer.invoke(serde_json::from_str(include_str!("events/http-api-2.0.json")).unwrap()).await;
        assert!(
            text(&failed.unwrap_err()["errorMessage"]).contains("cannot start"),
            "API Gateway responds with 500"
        );
        authorizer.frozen().await;
    }
    assert!(authorizer.log().contains("KEYWARD_APPS"), "{}", authorizer.log());
    let event = json!({"type": "NOT_ONE"});
    assert!(authorizer.invoke(event).await.is_err(), "what is no event of API Gateway fails alone");
    authorizer.frozen().await;
}
