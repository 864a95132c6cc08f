//! Values that callers choose come back unchanged, in a form that every client reads, or are rejected.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use keyward_cli::dev::TABLE;
use keyward_core::id::KeyId;
use keyward_core::root_key::Scope;
use keyward_core::text::Name;
use keyward_tests::{Backend, Keyward, Metrics, check_body, operator, text};
use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};

async fn acme(keyward: &Keyward) -> Backend {
    let backend = keyward.backend();
    backend.create_app("acme").await;
    backend
}

/// Overwrites an attribute of a row.
async fn overwrite(keyward: &Keyward, pk: &str, sk: &str, attribute: &str, value: AttributeValue) {
    let update = Client::new(keyward.sdk_config()).update_item().table_name(TABLE);
    let update = update.key("pk", AttributeValue::S(pk.into())).key("sk", AttributeValue::S(sk.into()));
    let update = update.update_expression("SET #a = :v").condition_expression("attribute_exists(pk)");
    update
        .expression_attribute_names("#a", attribute)
        .expression_attribute_values(":v", value)
        .send()
        .await
        .unwrap();
}

fn key_row(key: &Value) -> String {
    format!("KEY#{}", text(&key["id"]).parse::<KeyId>().unwrap().base62())
}

fn members(list: &Value, member: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| text(&item[member])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_clients_cannot_read_is_refused() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let mut browser = backend.browser("acme").await;
    for expiry in [
        "2027-06-01T23:59:60Z",
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "2027-06-01T00:00:00+24:00",
        "2027-06-01",
        "2027-06-01T00:00:00",
    ] {
        let refused =
            backend.post("/api-auth/apps/acme/keys", json!({"name": "k", "expires_at": expiry})).await;
        let refused = refused.is_error(422, "invalid_body");
        let message = text(&refused.body["message"]);
        assert!(message.contains("expires_at") && message.contains("2027-06-01T00:00:00Z"), "{message}");
        let refused = browser.post_form("/api-auth/keys", &[("name", "k"), ("expires_at", expiry)]).await;
        let message = text(&refused.is_error(400, "invalid_field").body["message"]);
        assert!(
            message.starts_with("expires_at must be RFC3339") && message.contains("2027-06-01T00:00:00Z"),
            "{message}"
        );
    }
    assert_eq!(backend.get("/api-auth/apps/acme/keys").await.ok()["keys"], json!([]));
    let last = json!({"name": "k", "expires_at": "9999-12-31T22:59:59.9999-01:00"});
    let created = backend.post("/api-auth/apps/acme/keys", last).await.ok();
    assert_eq!(created["expires_at"], "9999-12-31T23:59:59.999Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_an_instant_that_clients_cannot_read_is_listed_with_one_that_they_can() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    for (attribute, stored) in
        [("expires_at", "2027-06-01T23:59:60Z"), ("last_used_at", "+10000-01-01T00:00:00Z")]
    {
        let key = backend.create_key("acme", json!({})).await;
        overwrite(&keyward, &key_row(&key), "KEY", attribute, AttributeValue::S(stored.into())).await;
    }
    let mut browser = backend.browser("acme").await;
    let lists = [
        backend.get("/api-auth/apps/acme/keys").await.ok()["keys"].clone(),
        browser.get("/api-auth/keys").await.ok()["data"].clone(),
    ];
    let readable =
        Regex::new(r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?Z$")
            .unwrap();
    for list in lists {
        assert_eq!(list[0]["last_used_at"], "9999-12-31T23:59:59.999Z");
        assert_eq!(list[1]["expires_at"], "2027-06-02T00:00:00Z");
        for (key, member) in list
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|key| ["created_at", "updated_at", "expires_at", "last_used_at"].map(|m| (key, m)))
        {
            assert!(key[member].as_str().is_none_or(|at| readable.is_match(at)), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_missing_from_its_list_and_decides_nothing() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let broken = backend.create_app("broken").await;
    let [good, bad] =
        [backend.create_key("acme", json!({})).await, backend.create_key("acme", json!({})).await];
    for slug in ["good", "bad"] {
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": 9}]);
        backend
            .post("/api-auth/rate-limit-schemes", json!({"slug": slug, "name": slug, "rules": rules}))
            .await
            .ok();
    }
    let limited = backend.create_key("acme", json!({"rate_limit_scheme_slug": "bad"})).await;
    for _ in 0..2 {
        keyward.check(&text(&good["secret"])).await.ok();
    }
    keyward.settle().await;
    let root_keys = keyward.services.store.root_keys(&operator(), keyward.deployment()).await.unwrap();
    let name = Name::parse("name", "bad").unwrap();
    keyward
        .services
        .store
        .create_root_key(&operator(), keyward.deployment(), name, &Scope::ALL)
        .await
        .unwrap();

    let nonsense = || AttributeValue::S("nonsense".into());
    overwrite(&keyward, &key_row(&bad), "KEY", "created_at", nonsense()).await;
    let partition = format!("DEPLOYMENT#{}#SCHEMES", keyward.deployment());
    overwrite(&keyward, &partition, "bad", "rules", nonsense()).await;
    let client = Client::new(keyward.sdk_config());
    let rows = client.scan().table_name(TABLE).consistent_read(true).send().await.unwrap().items.unwrap();
    let of = |row: &std::collections::HashMap<String, AttributeValue>, name: &str| {
        row.get(name).and_then(|v| v.as_s().ok()).cloned().unwrap_or_default()
    };
    let verified = rows.iter().find(|row| of(row, "action") == "verification").unwrap();
    overwrite(&keyward, &of(verified, "pk"), &of(verified, "sk"), "outcome", nonsense()).await;
    let app = rows.iter().find(|row| of(row, "type") == "app" && of(row, "app_slug") == "broken").unwrap();
    overwrite(&keyward, &of(app, "pk"), "APP", "created_at", nonsense()).await;
    let root_key = rows.iter().find(|row| of(row, "sk") == "ROOTKEY" && of(row, "name") == "bad").unwrap();
    overwrite(&keyward, &of(root_key, "pk"), "ROOTKEY", "created_at", nonsense()).await;

    let keys = backend.get("/api-auth/apps/acme/keys").await.ok();
    let mut browser = backend.browser("acme").await;
    let expected = [text(&limited["id"]), text(&good["id"])];
    assert_eq!(members(&keys["keys"], "id"), expected);
    assert_eq!(members(&browser.get("/api-auth/keys").await.ok()["data"], "id"), expected);
    let apps = backend.get("/api-auth/apps").await.ok();
    assert_eq!(members(&apps["apps"], "app_slug"), ["acme", "demo"]);
    assert_eq!((&apps["total"], &apps["has_more"]), (&json!(3), &json!(false)), "{}", broken["app_slug"]);
    let schemes = backend.get("/api-auth/rate-limit-schemes").await.ok();
    assert_eq!(members(&schemes["schemes"], "slug"), ["good"]);
    let log = backend.get("/api-auth/apps/acme/audit/logs").await.ok();
    let actions = members(&log["data"], "action");
    assert_eq!(actions.iter().filter(|action| *action == "verification").count(), 1, "{actions:?}");
    let figures = backend.get("/api-auth/apps/acme/audit/analytics").await.ok();
    assert_eq!(figures["total_requests"], 1);
    let metrics = Metrics::watch();
    assert_eq!(
        keyward.services.store.root_keys(&operator(), keyward.deployment()).await.unwrap().len(),
        root_keys.len()
    );
    assert_eq!(metrics.take(), ["InternalErrors"], "an operator is told");
    drop(metrics);
    for key in [&bad, &limited] {
        assert_ne!(
            keyward.check(&text(&key["secret"])).await.status,
            200,
            "what cannot be read does not let through"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_a_whole_day_at_either_end_of_a_range() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let secret = text(&backend.create_key("acme", json!({})).await["secret"]);
    keyward.check(&secret).await.ok();
    keyward.settle().await;
    let created = backend.get("/api-auth/apps/acme/audit/logs?limit=1").await.ok();
    let at = text(&created["data"][0]["timestamp"]);
    let day = at.get(..10).unwrap();
    let of = |days: i64| (day.parse::<chrono::NaiveDate>().unwrap() + TimeDelta::days(days)).to_string();
    let (before, after) = (of(-1), of(1));
    for (start, end, expected) in [
        (day, day, 1),
        (&*before, day, 1),
        (day, &*after, 1),
        (&*before, &*before, 0),
        (&*at, &*at, 1),
        ("0001-01-01", day, 1),
        (day, "9999-12-31", 1),
    ] {
        let range = format!("start_date={start}&end_date={end}");
        let path = |name: &str| format!("/api-auth/apps/acme/audit/{name}?{range}");
        let log = backend.get(&format!("{}&key_id=0&outcome=allowed", path("logs"))).await;
        assert_eq!(log.status, 400, "0 is no key");
        let log = backend.get(&path("logs")).await.ok();
        let checks =
            members(&log["data"], "action").iter().filter(|action| *action == "verification").count();
        assert_eq!(checks, expected, "{range}");
        let figures = backend.get(&path("analytics")).await.ok();
        assert_eq!(figures["total_requests"], expected, "{range}");
        let points = backend.get(&path("timeseries")).await.ok();
        assert_eq!(points["data"].as_array().map(Vec::len), Some(expected), "{range}");
    }
    let tomorrow = format!("/api-auth/apps/acme/audit/logs?start_date={after}&end_date={after}");
    assert_eq!(backend.get(&tomorrow).await.ok()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_digit_for_digit_wherever_it_goes() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let send = async |method: Method, path: &str, body: String| {
        let request = backend.request(method, path).header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let path = "/api-auth/apps/acme/keys";
    let metadata = r#"{"a":123456789012345678901234567890,"b":[1.0,1e2,-0,{"c":0.1234567890123456789012345678901234567}]"#;
    let spaced = metadata.replace(':', " : ").replace(',', "\n,");
    let (status, created) =
        send(Method::POST, path, format!("{{\"name\":\"k\",\"metadata\":{spaced}}}}}")).await;
    let written = format!("\"metadata\":{metadata}}}");
    assert_eq!((status, created.matches(&written).count()), (200, 2), "{created}");
    let (_, listed) = send(Method::GET, path, String::new()).await;
    assert!(listed.contains(&written), "{listed}");
    let created: Value = serde_json::from_str(&created).unwrap();
    let (_, rotated) =
        send(Method::POST, &format!("{path}/{}/rotate", text(&created["id"])), String::new()).await;
    assert!(rotated.contains(&written), "{rotated}");
    let secret = text(&serde_json::from_str::<Value>(&rotated).unwrap()["secret"]);
    let checked = format!("\"metadata\":{metadata},\"principal_type\":\"api_key\"}}");
    for (path, body) in [
        ("/v1/authz/check", check_body(&secret)),
        ("/v1/authz/check/batch", json!({"checks": [check_body(&secret)]})),
    ] {
        let (status, response) = send(Method::POST, path, body.to_string()).await;
        assert!(status == 200 && response.contains(&checked), "{response}");
    }
    for (number, member) in [
        ("1e126", "metadata.n"),
        ("123456789012345678901234567890123456789", "metadata.n"),
        ("[1e-131]", "metadata.n[0]"),
    ] {
        let (status, refused) =
            send(Method::POST, path, format!("{{\"name\":\"k\",\"metadata\":{{\"n\":{number}}}}}")).await;
        assert!(
            status == 400 && refused.contains(&format!("{member} must have at most 38 digits")),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_reasons_and_descriptions_can_be_seen() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let key = text(&backend.create_key("acme", json!({})).await["id"]);
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 9}]);
    for unseen in ["\u{200B}", "evil\u{202E}gpj", "a\u{1B}[2J", "\u{378}"] {
        for (method, path, body, field) in [
            (Method::POST, "/api-auth/apps".to_owned(), json!({"app_slug": "new", "name": unseen}), "name"),
            (
                Method::POST,
                "/api-auth/apps".to_owned(),
                json!({"app_slug": "new", "name": "n", "description": unseen}),
                "description",
            ),
            (Method::PATCH, "/api-auth/apps/acme".to_owned(), json!({"name": unseen}), "name"),
            (Method::POST, "/api-auth/apps/acme/keys".to_owned(), json!({"name": unseen}), "name"),
            (
                Method::POST,
                "/api-auth/apps/acme/keys".to_owned(),
                json!({"name": "n", "owner_user_id": unseen}),
                "owner_user_id",
            ),
            (
                Method::POST,
                format!("/api-auth/apps/acme/keys/{key}/revoke"),
                json!({"reason": unseen}),
                "reason",
            ),
            (
                Method::POST,
                "/api-auth/rate-limit-schemes".to_owned(),
                json!({"slug": "s", "name": unseen, "rules": rules}),
                "name",
            ),
        ] {
            let refused = backend.send(method, &path, Some(body)).await;
            let message = text(&refused.is_error(400, "invalid_field").body["message"]);
            assert!(message.starts_with(&format!("{field} must ")), "{path}: {message}");
        }
        let mut browser = backend.browser("acme").await;
        browser.post_form("/api-auth/keys", &[("name", unseen)]).await.is_error(400, "invalid_field");
    }
    let name = "مفتاح 🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F} नमस्ते";
    let created = backend.post("/api-auth/apps/acme/keys", json!({"name": name})).await.ok();
    assert_eq!(created["name"], name);
    overwrite(&keyward, &key_row(&created), "KEY", "name", AttributeValue::S("evil\u{202E}gpj".into())).await;
    assert_eq!(backend.get("/api-auth/apps/acme/keys").await.ok()["keys"][0]["name"], "evil\u{FFFD}gpj");
}

#[tokio::test(flavor = "multi_thread")]
async fn granted_permissions_can_be_required_and_wildcards_take_each_separator() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    for word in ["AND", "OR"] {
        let refused =
            backend.post("/api-auth/apps/acme/keys", json!({"name": "k", "permissions": [word]})).await;
        assert!(
            text(&refused.is_error(400, "invalid_field").body["message"])
                .contains("joins required permissions")
        );
    }
    let key = backend.create_key("acme", json!({"permissions": ["a.*", "b/*", "c:*", "and"]})).await;
    for (required, allowed) in [
        ("a.read", true),
        ("b/read/all", true),
        ("c:read", true),
        ("and", true),
        ("a.read AND b/x OR nothing", true),
        ("a", false),
        ("a:read", false),
        ("b.read", false),
        ("c/read", false),
        ("ab", false),
    ] {
        let mut body = check_body(&text(&key["secret"]));
        body["required_permissions"] = json!([required]);
        assert_eq!(keyward.check_with(body).await.ok()["allowed"], allowed, "{required}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_in_suggested_headers_forge_nothing() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let key = json!({
        "name": "50 % Ü,x=y", "organization_id": "Ünï 1", "workspace_id": "%C3%9C",
        "metadata": {"note": "x,principal_type=oauth_access_token", "a=b,c": " é% ", "principal_type": "root", "n": 1, "plan": "pro"},
    });
    let created = backend.post("/api-auth/apps/acme/keys", key).await.ok();
    let headers = keyward.check(&text(&created["secret"])).await.ok()["headers"].clone();
    assert_eq!(headers["x-wacht-key-name"], "50 %25 %C3%9C,x=y");
    assert_eq!(headers["x-wacht-organization-id"], "%C3%9Cn%C3%AF%201");
    assert_eq!(headers["x-wacht-workspace-id"], "%25C3%259C", "no other id looks like this one");
    let metadata = text(&headers["x-wacht-metadata"]);
    assert_eq!(metadata, "a%3Db%2Cc=%20%C3%A9%25%20,note=x%2Cprincipal_type%3Doauth_access_token,plan=pro");
    let names: Vec<&str> = metadata.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    assert_eq!(names, ["a%3Db%2Cc", "note", "plan"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_keeps_no_controls_of_user_agents_and_paths() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let key = backend.create_key("acme", json!({})).await;
    let mut body = check_body(&text(&key["secret"]));
    body["user_agent"] = "curl\r\nforged: line\u{1B}[2J\u{0}\u{202E}".into();
    body["resource"] = "/v1/\u{202E}users".into();
    keyward.check_with(body).await.ok();
    keyward.settle().await;
    let row = backend.get("/api-auth/apps/acme/audit/logs?limit=1").await.ok()["data"][0].clone();
    assert_eq!(row["user_agent"], "curl%0D%0Aforged: line%1B[2J%00%E2%80%AE");
    assert_eq!(row["path"], "GET /v1/%E2%80%AEusers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_keys_is_of_its_own_list_alone() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    backend.create_app("other").await;
    let (_, stranger) = keyward.other_deployment(keyward_core::deployment::Mode::Staging, &[]).await;
    stranger.create_app("acme").await;
    join_all((0..5).map(|_| backend.create_key("acme", json!({})))).await;
    let path = "/api-auth/apps/acme/keys";
    let page = backend.get(&format!("{path}?limit=2")).await.ok();
    let cursor = text(&page["next_cursor"]);
    let next = backend.get(&format!("{path}?limit=3&cursor={cursor}")).await.ok();
    assert_eq!((next["keys"].as_array().map(Vec::len), &next["has_more"]), (Some(3), &json!(false)));
    assert_eq!(next["next_cursor"], Value::Null);
    let last = text(&page["keys"][1]["id"]);
    let altered = cursor.replacen(&cursor[20..21], if &cursor[20..21] == "A" { "B" } else { "A" }, 1);
    for (who, path) in [
        (&backend, format!("{path}?cursor={}", &cursor[1..])),
        (&backend, format!("{path}?cursor={}", &cursor[..cursor.len() - 1])),
        (&backend, format!("{path}?cursor={altered}")),
        (&backend, format!("{path}?cursor={cursor}A")),
        (&backend, format!("{path}?cursor={last}")),
        (&backend, format!("{path}?cursor=")),
        (&backend, format!("{path}?include_inactive=true&cursor={cursor}")),
        (&backend, format!("/api-auth/apps/other/keys?cursor={cursor}")),
        (&backend, format!("/api-auth/apps/acme/audit/logs?cursor={cursor}")),
        (&stranger, format!("{path}?cursor={cursor}")),
    ] {
        who.get(&path).await.is_error(400, "invalid_cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_the_log_is_of_its_own_list_alone() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    backend.create_app("other").await;
    let key = backend.create_key("acme", json!({})).await;
    let key_id = text(&key["id"]);
    for _ in 0..4 {
        keyward.check(&text(&key["secret"])).await.ok();
    }
    keyward.settle().await;
    let mut browser = backend.browser("acme").await;
    let day = Utc::now().format("%Y-%m-%d").to_string();
    let filters = [
        "",
        "outcome=allowed",
        "outcome=blocked",
        &format!("key_id={key_id}"),
        &format!("start_date={day}"),
        &format!("end_date={day}"),
        "start_date=2020-01-01",
        "end_date=9999-12-31",
    ]
    .map(str::to_owned);
    let path = "/api-auth/apps/acme/audit/logs";
    for made_for in filters.iter().filter(|filter| *filter != "outcome=blocked") {
        let page = backend.get(&format!("{path}?limit=2&{made_for}")).await.ok();
        let cursor = text(&page["next_cursor"]);
        let row = &page["data"][1];
        let pair = format!("cursor_ts={}&cursor_id={}", text(&row["timestamp"]), text(&row["request_id"]));
        let next = backend.get(&format!("{path}?limit=3&{made_for}&cursor={cursor}")).await.ok();
        assert_eq!(next["data"].as_array().map(Vec::len), Some(3), "{made_for}");
        assert_eq!(backend.get(&format!("{path}?limit=3&{made_for}&{pair}")).await.ok(), next);
        for filter in filters.iter().filter(|filter| *filter != made_for) {
            let elsewhere = format!("limit=3&{filter}&cursor={cursor}");
            backend.get(&format!("{path}?{elsewhere}")).await.is_error(400, "invalid_cursor");
            browser.get(&format!("/api-auth/audit/logs?{elsewhere}")).await.is_error(400, "invalid_cursor");
        }
        for (path, pair) in [
            ("/api-auth/apps/other/audit/logs", pair.clone()),
            (path, format!("{pair}&outcome=blocked")),
            (path, format!("{pair}&key_id=1")),
            (path, format!("{pair}&end_date=2020-01-01")),
            (path, format!("{pair}&start_date=2020-01-01&end_date=2021-01-01")),
            (path, pair.replace("cursor_ts=2", "cursor_ts=1")),
            (path, "cursor_ts=2026-01-01T00:00:00Z".to_owned()),
            (path, "cursor_ts=2026-01-01T00:00:00Z&cursor_id=req_01KDVDN8000000000000000000".to_owned()),
            (path, "cursor_ts=soon&cursor_id=req_01KDVDN8000000000000000000".to_owned()),
        ] {
            backend.get(&format!("{path}?{pair}")).await.is_error(400, "invalid_cursor");
        }
        backend
            .get(&format!("/api-auth/apps/acme/keys?cursor={cursor}"))
            .await
            .is_error(400, "invalid_cursor");
    }
    let page = browser.get("/api-auth/audit/logs?limit=2").await.ok();
    let next = format!("/api-auth/audit/logs?limit=1&cursor={}", text(&page["data"]["next_cursor"]));
    assert_eq!(browser.get(&next).await.ok()["data"]["data"].as_array().map(Vec::len), Some(1));
    let cut = next.get(..next.len() - 2).unwrap();
    browser.get(cut).await.is_error(400, "invalid_cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_pages_and_filters_of_apps_agree() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    for n in 0..5 {
        backend.create_app(&format!("app-{n}")).await;
    }
    for slug in ["app-1", "app-4"] {
        backend.patch(&format!("/api-auth/apps/{slug}"), json!({"is_active": false})).await.ok();
    }
    let all = ["app-4", "app-3", "app-2", "app-1", "app-0", "demo"];
    let active = ["app-3", "app-2", "app-0", "demo"];
    for (filter, expected) in [
        ("", &active[..]),
        ("include_inactive=true", &all),
        ("search=app-3", &["app-3"]),
        ("search=app-4", &[]),
        ("search=app-4&include_inactive=true", &["app-4"]),
        ("search=nope&include_inactive=true", &[]),
    ] {
        for offset in 0..=expected.len() + 1 {
            for limit in [None, Some(1), Some(2), Some(expected.len().max(1)), Some(1_000)] {
                let limited = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
                let query = format!("{filter}&offset={offset}{limited}");
                let page = backend.get(&format!("/api-auth/apps?{query}")).await.ok();
                let most = limit.unwrap_or(expected.len());
                let rows: Vec<&str> = expected.iter().copied().skip(offset).take(most).collect();
                assert_eq!(members(&page["apps"], "app_slug"), rows, "{query}");
                assert_eq!(page["data"], page["apps"]);
                assert_eq!(
                    [&page["total"], &page["has_more"], &page["limit"], &page["offset"]],
                    [
                        &json!(expected.len()),
                        &json!(offset + rows.len() < expected.len() && !rows.is_empty()),
                        &json!(most),
                        &json!(offset)
                    ],
                    "{query}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_filters_of_keys_and_the_log_agree() {
    let keyward = Keyward::start().await;
    let backend = acme(&keyward).await;
    let mut keys = vec![];
    for _ in 0..5 {
        keys.push(backend.create_key("acme", json!({})).await);
    }
    backend.revoke("acme", &text(&keys[1]["id"])).await.ok();
    backend.revoke("acme", &text(&keys[4]["id"])).await.ok();
    for n in [0, 1, 2, 0, 1] {
        keyward.check(&text(&keys[n]["secret"])).await;
    }
    keyward.settle().await;
    let of_key = format!("key_id={}", text(&keys[0]["id"]));
    for (path, rows, id, filters, by_offset) in [
        ("/api-auth/apps/acme/keys", "keys", "id", ["", "include_inactive=true", ""], false),
        ("/api-auth/apps/acme/audit/logs", "data", "request_id", ["", "outcome=blocked", &of_key], true),
    ] {
        for filter in filters {
            let ids = |page: &Value| members(&page[rows], id);
            let all = ids(&backend.get(&format!("{path}?{filter}&limit=1000")).await.ok());
            assert!(all.len() > 1, "{path} {filter}");
            for limit in [1, 2, all.len() - 1, all.len(), all.len() + 1] {
                let (mut seen, mut cursor) = (vec![], String::new());
                loop {
                    let page = backend.get(&format!("{path}?{filter}&limit={limit}{cursor}")).await.ok();
                    seen.extend(ids(&page));
                    assert_eq!(page["has_more"], seen.len() < all.len(), "{path} {filter} {limit}");
                    if page["has_more"] == false {
                        break;
                    }
                    cursor = format!("&cursor={}", text(&page["next_cursor"]));
                }
                assert_eq!(seen, all, "{path} {filter} {limit}");
                for offset in [1, all.len() - 1, all.len(), all.len() + 2].into_iter().filter(|_| by_offset) {
                    let page =
                        backend.get(&format!("{path}?{filter}&limit={limit}&offset={offset}")).await.ok();
                    let expected: Vec<String> = all.iter().skip(offset).take(limit).cloned().collect();
                    assert_eq!(ids(&page), expected, "{path} {filter} {limit} {offset}");
                    assert_eq!(
                        page["has_more"],
                        offset + limit < all.len(),
                        "{path} {filter} {limit} {offset}"
                    );
                }
            }
        }
    }
}
