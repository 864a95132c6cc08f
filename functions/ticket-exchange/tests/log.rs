//! The function as a process in the Lambda runtime's own loop, and its log of the events that it receives.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const SECRET: &str = "0123456789abcdefghijABCDEFGHIJ0123456789xyz";

/// The Runtime API (AWS Lambda Developer Guide, "Using the Lambda runtime API"), which has one event.
struct Runtime {
    event: Value,
    events: Semaphore,
    responses: Semaphore,
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response {
    runtime.events.acquire().await.unwrap().forget();
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-deadline-ms", "32503680000000"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:x"),
    ];
    (headers, Json(runtime.event.clone())).into_response()
}

async fn respond(State(runtime): State<Arc<Runtime>>) -> StatusCode {
    runtime.responses.add_permits(1);
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn no_directive_of_the_environment_has_events_logged() {
    let event = json!({
        "version": "2.0",
        "routeKey": "GET /session/ticket/exchange",
        "rawPath": "/session/ticket/exchange",
        "rawQueryString": format!("ticket={SECRET}"),
        "queryStringParameters": {"ticket": SECRET},
        "cookies": [format!("__Host-session={SECRET}")],
        "headers": {"authorization": format!("Bearer {SECRET}")},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef123",
            "domainName": "abcdef123.execute-api.us-east-1.amazonaws.com",
            "http": {
                "method": "GET",
                "path": "/session/ticket/exchange",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.10",
                "userAgent": "example-agent/1.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": "$default",
            "timeEpoch": 1_583_348_638_390_u64,
        },
        "isBase64Encoded": false,
    });
    let runtime = Arc::new(Runtime { event, events: Semaphore::new(1), responses: Semaphore::new(0) });
    let routes = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
        .with_state(runtime.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, routes).await });

    let directives = "trace,lambda_runtime=trace,lambda_runtime::layers=trace,lambda_runtime::layers::api_response=trace,\
                      lambda_http=trace,hyper=trace,hyper_util=trace,aws_smithy_runtime=trace";
    let mut function = Command::new(env!("CARGO_BIN_EXE_ticket-exchange"))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "ticket-exchange")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("KEYWARD_LOG", directives)
        .env("RUST_LOG", "trace")
        .env("AWS_LAMBDA_LOG_LEVEL", "TRACE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has no table and cannot start, but answers.
    runtime.responses.acquire().await.unwrap().forget();
    function.kill().unwrap();
    let output = function.wait_with_output().unwrap();
    let log = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(log.contains("the function cannot start"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
    for level in ["\"TRACE\"", "\"DEBUG\""] {
        assert!(!log.contains(level), "{log}");
    }
}
