//! Other users of the machine, and pages in its browsers, can do nothing with a local run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use crate::process::Dev;

async fn response(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    assert!(
        response.headers().keys().all(|name| !name.as_str().starts_with("access-control-")),
        "{response:?}"
    );
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn the_embedded_dynamodb_answers_no_page_and_nobody_without_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "info");
    let (env, _) = dev.dynamodb().await;
    let http = Client::new();
    let signed_by = |key: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={key}/20261125/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"
        )
    };
    let scan = |authorization: Option<String>| {
        let request = http
            .post(&env["AWS_ENDPOINT_URL_DYNAMODB"])
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", "DynamoDB_20120810.Scan")
            .body(json!({"TableName": "keyward"}).to_string());
        match authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    };
    let own = || Some(signed_by(&env["AWS_ACCESS_KEY_ID"]));
    let (status, items) = response(scan(own())).await;
    assert!(status == 200 && items.contains("\"Items\""), "{status} {items}");
    for refused in [
        scan(own()).header("origin", "https://evil.example"),
        scan(own()).header("origin", "null"),
        scan(own()).header("sec-fetch-site", "same-origin"),
        scan(own()).header("host", "evil.example"),
        scan(own()).header("host", "evil.example:8000").header("origin", "http://evil.example:8000"),
        scan(None),
        scan(Some(signed_by("keyward"))),
        scan(Some(signed_by(""))),
        http.get(&env["AWS_ENDPOINT_URL_DYNAMODB"]).header("origin", "https://evil.example"),
        http.request(Method::OPTIONS, &env["AWS_ENDPOINT_URL_DYNAMODB"])
            .header("origin", "https://evil.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-amz-target,authorization"),
    ] {
        let (status, body) = response(refused).await;
        assert!((400..500).contains(&status) && !body.contains("\"Items\""), "{status} {body}");
    }
    // Functions that run in the environment of the last run go on.
    dev.stop("TERM");
    let again = Dev::start(folder.path(), "info");
    assert_eq!(again.dynamodb().await.0["AWS_ACCESS_KEY_ID"], env["AWS_ACCESS_KEY_ID"]);
    again.stop("TERM");
}

#[tokio::test]
async fn the_local_server_is_not_reached_under_a_foreign_name() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), "info");
    let http = Client::new();
    for path in ["/health", "/api-auth/apps", "/vanity/api-auth", "/nowhere"] {
        let url = format!("{}{path}", dev.json.url);
        let ask = |host: &str| http.get(&url).header("host", host).bearer_auth(&dev.json.root_key);
        let (status, body) = response(ask("evil.example")).await;
        assert!(status == 421 && body.contains("\"host_not_allowed\""), "{status} {body}");
        assert_ne!(ask("localhost:8787").send().await.unwrap().status(), 421);
    }
    dev.stop("TERM");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_the_owner_can_read_the_files_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let ours = || {
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| !path.ends_with("stdout") && !path.ends_with("stderr")).collect::<Vec<_>>()
    };
    let dev = Dev::start(&dir, "info");
    for file in ours() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert!(ours().len() >= 7, "{:?}", ours());
    dev.stop("TERM");

    // As an earlier release left it.
    for file in ours() {
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let dev = Dev::start(&dir, "info");
    assert_eq!(mode(&dir), 0o700);
    for file in ours() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    dev.stop("TERM");
}
