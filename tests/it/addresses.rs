//! Where a request comes from: what is taken for the client's address, by which limits count and which the log keeps.

use keyward_runtime::{Settings, TrustedProxies};
use keyward_tests::{ApiResponse, Keyward, check_body, text};
use reqwest::Method;
use serde_json::{Value, json};

/// A key of an app whose addresses may make 100 requests a day each.
async fn limited_by_address(keyward: &Keyward) -> String {
    let backend = keyward.backend();
    let rules =
        json!([{"unit": "calendar_day", "duration": 1, "max_requests": 100, "mode": "per_key_and_ip"}]);
    let scheme = json!({"slug": "by-address", "name": "By address", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": "acme", "name": "Acme", "rate_limit_scheme_slug": "by-address"});
    backend.post("/api-auth/apps", app).await.ok();
    text(&backend.create_key("acme", json!({})).await["secret"])
}

fn from(secret: &str, client_ip: &str) -> Value {
    let mut body = check_body(secret);
    body["client_ip"] = client_ip.into();
    body
}

async fn logged_address(keyward: &Keyward) -> Value {
    keyward.settle().await;
    let log = keyward.backend().get("/api-auth/apps/acme/audit/logs?limit=1").await.ok();
    log["data"][0]["client_ip"].clone()
}

/// Checks a request with these headers.
async fn check_with_headers(keyward: &Keyward, secret: &str, headers: &[(&str, &str)]) -> Value {
    let mut request = keyward.backend().request(Method::POST, "/v1/authz/check").json(&check_body(secret));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ApiResponse::of(request.send().await.unwrap()).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_however_it_is_written() {
    let keyward = Keyward::start().await;
    let secret = limited_by_address(&keyward).await;
    let remaining = async |client_ip: &str| {
        keyward.check_with(from(&secret, client_ip)).await.ok()["rate_limits"][0]["remaining"].clone()
    };
    for (place, spelled) in
        ["203.0.113.7", "203.0.113.7:1111", " ::ffff:203.0.113.7 ", "[::ffff:203.0.113.7]:80"]
            .iter()
            .enumerate()
    {
        assert_eq!(remaining(spelled).await, 99 - place, "{spelled}");
        assert_eq!(logged_address(&keyward).await, "203.0.113.7", "{spelled}");
    }
    for (place, spelled) in
        ["fe80::1", "fe80::1%eth0", "[fe80::1]:443", "[fe80::1%25eth0]:443"].iter().enumerate()
    {
        assert_eq!(remaining(spelled).await, 99 - place, "{spelled}");
    }
    assert_eq!(remaining("203.0.113.8:1111").await, 99, "another address");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_address_is_rejected_in_a_check_and_alone_in_a_batch() {
    let keyward = Keyward::start().await;
    let secret = limited_by_address(&keyward).await;
    let wrong = [
        "",
        "unknown",
        "203.0.113.7, 198.51.100.1",
        "203.0.113.07",
        "0xcb007107",
        "3405803783",
        "[::1",
        "::1%",
    ];
    for client_ip in wrong {
        let refused = keyward.check_with(from(&secret, client_ip)).await;
        let message = refused.is_error(400, "invalid_field").body["message"].clone();
        assert_eq!(
            message, "client_ip must be an IP address, such as 203.0.113.7 or 2001:db8::1",
            "{client_ip}"
        );
        assert_eq!(refused.body["allowed"], false);
    }
    let checks = [from(&secret, "203.0.113.7"), from(&secret, "here"), from(&secret, "203.0.113.7")];
    let response = keyward.backend().post("/v1/authz/check/batch", json!({"checks": checks})).await.ok();
    let statuses: Vec<&Value> =
        response["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [200, 400, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_holds_no_address_leaves_the_peer() {
    let keyward = Keyward::start().await;
    let secret = limited_by_address(&keyward).await;
    for (sent, client) in [
        ("203.0.113.7:1111", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("203.0.113.7, 198.51.100.1", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        check_with_headers(&keyward, &secret, &[("x-original-client-ip", sent)]).await;
        assert_eq!(logged_address(&keyward).await, client, "{sent}");
    }
    check_with_headers(&keyward, &secret, &[("x-forwarded-for", "203.0.113.7")]).await;
    assert_eq!(logged_address(&keyward).await, "127.0.0.1", "nobody is trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_trusted_proxies_every_function_knows_the_client() {
    let trusting = |settings: &mut Settings| {
        settings.trusted_proxies = "127.0.0.0/8, 192.0.2.0/24".parse::<TrustedProxies>().unwrap();
    };
    let keyward = Keyward::start_set(trusting).await;
    let secret = limited_by_address(&keyward).await;
    let forwarded = ("x-forwarded-for", "198.51.100.66, 203.0.113.9:1111, 192.0.2.1");
    check_with_headers(&keyward, &secret, &[forwarded]).await;
    assert_eq!(logged_address(&keyward).await, "203.0.113.9", "verify");

    let backend = keyward.backend();
    let request = backend.request(Method::PATCH, "/api-auth/apps/acme").json(&json!({"name": "Renamed"}));
    ApiResponse::of(request.header(forwarded.0, forwarded.1).send().await.unwrap()).await.ok();
    assert_eq!(logged_address(&keyward).await, "203.0.113.9", "key-lifecycle");

    let path = format!("/session/ticket/exchange?ticket={}", backend.ticket("acme").await);
    let request = backend.request(Method::GET, &path).header(forwarded.0, forwarded.1);
    ApiResponse::of(request.send().await.unwrap()).await.ok();
    assert_eq!(logged_address(&keyward).await, "203.0.113.9", "ticket-exchange");

    check_with_headers(&keyward, &secret, &[("x-forwarded-for", "203.0.113.9, unknown, 192.0.2.1")]).await;
    assert_eq!(logged_address(&keyward).await, "192.0.2.1", "whoever told what is no address");
}
