//! The authorizer of an HTTP API, payload format 2.0.

use keyward_tests::{Keyward, text};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2CustomAuthorizerV2Request;
use serde_json::{Value, json};

/// The event that API Gateway sends for a request with these headers, as its documentation shows it.
fn event(headers: Value) -> ApiGatewayV2CustomAuthorizerV2Request {
    let event = json!({
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": "arn:aws:execute-api:us-east-1:123456789012:abcdef123/$default/GET/v1/users",
        "identitySource": null,
        "routeKey": "GET /v1/users",
        "rawPath": "/v1/users",
        "rawQueryString": "page=2",
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef123",
            "domainName": "api.example.com",
            "domainPrefix": "api",
            "http": {
                "method": "GET", "path": "/v1/users", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "GET /v1/users",
            "stage": "$default",
            "time": "12/Nov/2026:19:03:58 +0000",
            "timeEpoch": 1_794_510_238_000_i64,
        },
    });
    serde_json::from_value(event).unwrap()
}

async fn decide(keyward: &Keyward, headers: Value) -> Value {
    let response = authorizer::authorize(&keyward.authorizer, event(headers)).await.unwrap();
    serde_json::to_value(response).unwrap()
}

/// A new key goes through, in either header. Returns its id and its secret.
pub async fn allows_a_key(keyward: &Keyward) -> (String, String) {
    let backend = keyward.backend();
    let app =
        json!({"app_slug": "guarded", "name": "Guarded", "key_prefix": "sk", "organization_id": "org_1"});
    backend.post("/api-auth/apps", app).await.ok();
    let key = backend.create_key("guarded", json!({"permissions": ["users:read", "users:write"]})).await;
    let (id, secret) = (text(&key["id"]), text(&key["secret"]));
    for headers in [json!({"authorization": format!("Bearer {secret}")}), json!({"x-api-key": secret})] {
        let response = decide(keyward, headers).await;
        assert_eq!(response["isAuthorized"], true, "{response}");
        let context = response["context"].as_object().unwrap();
        assert!(context.values().all(Value::is_string), "{response}");
        assert_eq!(context["key_id"], id);
        assert_eq!(context["app_slug"], "guarded");
        assert_eq!(context["organization_id"], "org_1");
        assert_eq!(context["permissions"], "users:read,users:write");
    }
    (id, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_with_a_key_and_shows_in_the_log() {
    let keyward = Keyward::start().await;
    allows_a_key(&keyward).await;
    let log = keyward.backend().get("/api-auth/apps/guarded/audit/logs?outcome=allowed").await.ok();
    let row = &log["data"][0];
    assert_eq!(row["action"], "verification", "written before the answer: {log}");
    assert_eq!(row["path"], "GET /v1/users");
    assert_eq!(row["client_ip"], "203.0.113.7");
    assert_eq!(row["user_agent"], "curl/8.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_goes_through() {
    let keyward = Keyward::start().await;
    let (id, secret) = allows_a_key(&keyward).await;
    let backend = keyward.backend();
    for (headers, code) in [
        (json!({}), "missing_api_key"),
        (json!({"authorization": format!("Basic {secret}")}), "missing_api_key"),
        (json!({"x-api-key": "garbage"}), "invalid_api_key"),
        (json!({"x-api-key": backend.root_key}), "invalid_api_key"),
        (json!({"x-api-key": format!("{secret}0")}), "invalid_api_key"),
    ] {
        let response = decide(&keyward, headers).await;
        assert_eq!(response, json!({"isAuthorized": false, "context": {"code": code}}));
    }
    keyward.calls.fail(true);
    let failed = authorizer::authorize(&keyward.authorizer, event(json!({"x-api-key": secret}))).await;
    assert!(failed.is_err(), "no decision without a store");
    keyward.calls.fail(false);
    backend.revoke("guarded", &id).await.ok();
    let response = decide(&keyward, json!({"x-api-key": secret})).await;
    assert_eq!(response, json!({"isAuthorized": false, "context": {"code": "key_revoked"}}));
}
