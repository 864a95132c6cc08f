//! Every call of the store takes the caller's access, and only the command creates that of the operator.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use regex::Regex;
use reqwest::Method;

use crate::documentation::sources;
use keyward_tests::process::workspace;
use keyward_tests::{ApiResponse, Keyward};

/// The types that authorize a call: an access value, a credential, or the result of one that matched.
const CALLERS: [&str; 10] = [
    "OperatorAccess",
    "PublicAccess",
    "RootAccess",
    "SessionAccess",
    "AppAccess",
    "Token<",
    "ApiKeyToken",
    "Candidate",
    "VerifiedKey",
    "AuthenticatedTicket",
];
/// The types that are made only from a verified key.
const FROM_A_VERIFIED_KEY: [&str; 2] = ["KeyToCheck", "Verification"];
/// The calls without a caller: waiting for background work, and looking up the first deployment.
const WITHOUT_CALLER: [&str; 2] = ["settled", "public_access"];

#[test]
fn every_call_of_the_store_takes_the_caller() {
    let code = sources(&workspace().join("shared/store/src"));
    let call = Regex::new(r"(?s)\n    pub async fn (\w+)(?:<[^>]*>)?\(\s*(&self.*?)\)(?: -> | \{)").unwrap();
    let calls: Vec<(String, String)> =
        call.captures_iter(&code).map(|call| (call[1].to_owned(), call[2].to_owned())).collect();
    assert!(calls.len() > 40, "{}", calls.len());
    for (name, parameters) in calls {
        let asks = CALLERS.iter().chain(&FROM_A_VERIFIED_KEY).any(|who| parameters.contains(who));
        assert!(asks != WITHOUT_CALLER.contains(&name.as_str()), "{name}({parameters})");
    }
}

#[test]
fn only_the_command_creates_the_access_of_the_operator() {
    let created = |folder: &str| sources(&workspace().join(folder)).contains("OperatorAccess::");
    assert!(created("infra/cli/src"));
    assert!(!created("functions"));
    for library in ["audit", "core", "http", "pepper", "store", "verifier"] {
        assert!(!created(&format!("shared/{library}/src")), "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_allowed_origins_holds_within_a_minute() {
    let keyward = Keyward::start().await;
    let origins = |list: &[&str]| {
        let list = list.iter().map(|origin| AttributeValue::S((*origin).to_owned()));
        AttributeValue::L(list.collect())
    };
    let may_read = async |path: &str| {
        let request = keyward.http.request(Method::GET, format!("{}{path}", keyward.url));
        let response = request.header("origin", "https://app.example.com").send().await.unwrap();
        response.headers().contains_key("access-control-allow-origin")
    };
    // A route of each API, each of a function of its own.
    let paths = ["/deployment", "/api-auth/session", "/api-auth/keys", "/health", "/api-auth/apps"];
    keyward.set_deployment("mode", AttributeValue::S("production".into())).await;
    keyward.set_deployment("allowed_origins", origins(&["https://app.example.com"])).await;
    for path in paths {
        assert!(may_read(path).await, "{path}");
    }
    let framed = async || {
        let page = keyward.http.get(format!("{}/vanity/api-auth", keyward.url)).send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        policy.contains("https://app.example.com")
    };
    assert!(framed().await);
    keyward.set_deployment("allowed_origins", origins(&[])).await;
    keyward.pass(TimeDelta::seconds(60));
    for path in paths {
        assert!(!may_read(path).await, "{path}");
    }
    assert!(!framed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read_allow_nothing() {
    let keyward = Keyward::start().await;
    keyward.set_deployment("schema", AttributeValue::N("2".into())).await;
    let request =
        keyward.http.get(format!("{}/health", keyward.url)).header("origin", "https://app.example.com");
    let response = request.send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    for path in ["/deployment", "/.well-known/jwks.json", "/vanity/api-auth"] {
        let response = keyward.http.get(format!("{}{path}", keyward.url)).send().await.unwrap();
        let response = ApiResponse::of(response).await;
        assert_eq!((response.status, &response.body["code"]), (500, &"internal_error".into()), "{path}");
    }
}
