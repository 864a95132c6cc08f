//! The settings of an app's audit log, and the events of changes of an app and its keys.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use keyward_cli::dev::TABLE;
use keyward_core::root_key::Scope;
use keyward_tests::{Backend, Keyward, check_body, text};
use serde_json::{Value, json};

/// An installation with the app `acme`, and a key of it.
async fn acme() -> (Keyward, Backend, Value) {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let key = backend.create_key("acme", json!({"permissions": ["read"]})).await;
    (keyward, backend, key)
}

async fn set(backend: &Backend, settings: Value) -> Value {
    backend.patch("/api-auth/apps/acme", settings).await.ok()
}

/// Checks a request to each of so many paths that needs this permission.
async fn checks(keyward: &Keyward, key: &Value, required: &str, times: usize) {
    for number in 0..times {
        let mut body = check_body(&text(&key["secret"]));
        body["required_permissions"] = json!([required]);
        body["resource"] = format!("/{number}").into();
        body["client_ip"] = "203.0.113.7".into();
        body["user_agent"] = "curl/8".into();
        keyward.check_with(body).await.ok();
    }
    keyward.settle().await;
}

/// The events in the table: of checks, or else of changes.
async fn events(keyward: &Keyward, of_checks: bool) -> Vec<HashMap<String, AttributeValue>> {
    let scan = Client::new(keyward.sdk_config()).scan().table_name(TABLE).consistent_read(true);
    let items = scan.send().await.unwrap().items.unwrap().into_iter();
    let events = items.filter(|item| item.get("type").is_some_and(|kind| kind.as_s().unwrap() == "event"));
    events.filter(|event| (event["action"].as_s().unwrap() == "verification") == of_checks).collect()
}

/// How long an event is kept, in days from when it happened.
fn days(event: &HashMap<String, AttributeValue>) -> i64 {
    let id: keyward_core::audit::EventId = event["id"].as_s().unwrap().parse().unwrap();
    let purged: i64 = event["purge_at"].as_n().unwrap().parse().unwrap();
    TimeDelta::seconds(purged - id.timestamp().timestamp()).num_days()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_says_what_its_audit_log_holds() {
    let (_keyward, backend, _) = acme().await;
    let defaults = json!({
        "audit_durability": "after_answer", "audit_level": "all", "audit_sample_one_in": 100,
        "audit_client_ip": "full", "audit_user_agent": true, "audit_request_days": 90, "audit_change_days": 730,
    });
    let others = json!({
        "audit_durability": "before_answer", "audit_level": "sampled", "audit_sample_one_in": 2,
        "audit_client_ip": "truncated", "audit_user_agent": false, "audit_request_days": 1,
        "audit_change_days": 3650,
    });
    let of_app = |app: &Value| -> Value {
        let names = defaults.as_object().unwrap().keys();
        names.map(|name| (name.clone(), app[name].clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let app = async || of_app(&backend.get("/api-auth/apps/acme").await.ok());
    assert_eq!(app().await, defaults);
    assert_eq!(of_app(&set(&backend, others.clone()).await), others);
    set(&backend, json!({"name": "Other"})).await;
    assert_eq!(app().await, others, "other changes leave them");
    for (name, wrong) in [
        ("audit_durability", json!("never")),
        ("audit_level", json!("some")),
        ("audit_sample_one_in", json!(1)),
        ("audit_sample_one_in", json!(10_001)),
        ("audit_client_ip", json!("half")),
        ("audit_request_days", json!(0)),
        ("audit_change_days", json!(3_651)),
    ] {
        let refused = backend.patch("/api-auth/apps/acme", json!({name: wrong})).await;
        refused.is_error(400, "invalid_field");
        assert!(text(&refused.body["message"]).starts_with(&format!("{name} must be ")), "{}", refused.body);
    }
    assert_eq!(app().await, others, "what is refused changes nothing");
    let mut cleared = others.clone();
    for name in defaults.as_object().unwrap().keys() {
        cleared[name] = Value::Null;
    }
    assert_eq!(of_app(&set(&backend, cleared).await), defaults);
    let mut new = others.clone();
    new["app_slug"] = "new".into();
    new["name"] = "New".into();
    assert_eq!(of_app(&backend.post("/api-auth/apps", new).await.ok()), others);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_says_which_checks_are_logged_and_each_use_is_noted() {
    let (keyward, backend, key) = acme().await;
    let last_used = async || {
        let keys = backend.get("/api-auth/apps/acme/keys").await.ok();
        text(&keys["keys"][0]["last_used_at"])
    };
    let mut before = 0;
    let mut used = String::new();
    for (level, logged) in [("all", 15), ("blocked", 5), ("none", 0)] {
        keyward.pass(TimeDelta::minutes(2));
        set(&backend, json!({"audit_level": level})).await;
        checks(&keyward, &key, "read", 10).await;
        checks(&keyward, &key, "write", 5).await;
        let after = events(&keyward, true).await.len();
        assert_eq!(after - before, logged, "{level}");
        before = after;
        let now = last_used().await;
        assert!(now > used, "{level}");
        used = now;
    }
    let figures = backend.get("/api-auth/apps/acme/audit/analytics").await.ok();
    assert_eq!((&figures["total_requests"], &figures["is_estimate"]), (&json!(20), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_check_stands_for_others_and_figures_say_so() {
    let (keyward, backend, key) = acme().await;
    set(&backend, json!({"audit_level": "sampled", "audit_sample_one_in": 4})).await;
    checks(&keyward, &key, "read", 400).await;
    let sampled = events(&keyward, true).await.len();
    assert!((60..=140).contains(&sampled), "about one in four of 400: {sampled}");
    let analytics = "/api-auth/apps/acme/audit/analytics?include_top_keys=true&include_top_paths=true";
    let figures = backend.get(analytics).await.ok();
    assert_eq!(figures["total_requests"], 4 * sampled);
    assert_eq!((&figures["is_estimate"], &figures["success_rate"]), (&json!(true), &json!(100.0)));
    assert_eq!(figures["top_keys"][0]["total_requests"], 4 * sampled);
    assert_eq!(figures["top_paths"][0]["total_requests"], 4);
    let series = backend.get("/api-auth/apps/acme/audit/timeseries?interval=month").await.ok();
    let total: u64 =
        series["data"].as_array().unwrap().iter().map(|of| of["total_requests"].as_u64().unwrap()).sum();
    assert_eq!((total, &series["is_estimate"]), (4 * sampled as u64, &json!(true)));
    let log = backend.get("/api-auth/apps/acme/audit/logs?limit=1000").await.ok();
    let weight = |action: &str| {
        let rows = log["data"].as_array().unwrap();
        rows.iter().find(|row| row["action"] == action).unwrap()["weight"].clone()
    };
    assert_eq!((weight("verification"), weight("key.created")), (json!(4), json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_kept_as_long_as_the_app_says_and_hold_what_it_lets_them() {
    let (keyward, backend, key) = acme().await;
    checks(&keyward, &key, "read", 1).await;
    let [event] = &events(&keyward, true).await[..] else { panic!("one check") };
    assert_eq!(days(event), 90);
    assert_eq!(event["client_ip"].as_s().unwrap(), "203.0.113.7");
    assert_eq!(event["user_agent"].as_s().unwrap(), "curl/8");
    assert!(events(&keyward, false).await.iter().all(|event| days(event) == 730));

    let settings = json!({
        "audit_client_ip": "truncated", "audit_user_agent": false, "audit_request_days": 7, "audit_change_days": 30,
    });
    set(&backend, settings).await;
    checks(&keyward, &key, "write", 1).await;
    let logged = events(&keyward, true).await;
    let event = logged.iter().find(|event| event["outcome"].as_s().unwrap() == "blocked").unwrap();
    assert_eq!(days(event), 7);
    assert_eq!(event["client_ip"].as_s().unwrap(), "203.0.113.0");
    assert_eq!(event.get("user_agent"), None);
    backend.revoke("acme", &text(&key["id"])).await.ok();
    let changes = events(&keyward, false).await;
    let revoked = changes.iter().find(|event| event["action"].as_s().unwrap() == "key.revoked").unwrap();
    assert_eq!((days(revoked), revoked.get("user_agent")), (30, None));
    assert_eq!(revoked["client_ip"].as_s().unwrap(), "127.0.0.0");
    set(&backend, json!({"audit_client_ip": "none"})).await;
    keyward.check(&text(&key["secret"])).await.is_error(403, "key_revoked");
    keyward.settle().await;
    let without =
        events(&keyward, true).await.iter().filter(|event| !event.contains_key("client_ip")).count();
    assert_eq!(without, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_can_be_read_also_after_the_app_was_deleted() {
    let (keyward, backend, key) = acme().await;
    let id = text(&key["id"]);
    checks(&keyward, &key, "read", 3).await;
    backend.post(&format!("/api-auth/apps/acme/keys/{id}/rotate"), json!({})).await.ok();
    let mut browser = backend.browser("acme").await;
    let made = browser.post_form("/api-auth/keys", &[("name", "Theirs")]).await.ok();
    let of_session = browser.get("/api-auth/audit/events").await.ok();
    backend.delete("/api-auth/apps/acme").await.ok();
    backend.get("/api-auth/apps/acme/audit/logs").await.is_error(404, "not_found");

    let events = "/api-auth/apps/acme/audit/events";
    let all = backend.get(events).await.ok();
    let actions = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|event| text(&event["action"])).collect()
    };
    let done = [
        "app.deleted",
        "key.created",
        "session.created",
        "ticket.issued",
        "key.rotated",
        "key.created",
        "app.created",
    ];
    assert_eq!(actions(&all), done);
    assert_eq!((&all["has_more"], &all["next_cursor"]), (&json!(false), &Value::Null));
    assert_eq!(all["data"][0]["actor"]["type"], "root_key");
    assert_eq!(all["data"][1]["actor"]["type"], "session");
    assert_eq!(all["data"][0]["key_id"], Value::Null);
    assert_eq!(actions(&of_session["data"]), ["key.created", "key.rotated", "key.created"]);
    browser.get("/api-auth/audit/events").await.is_error(404, "not_found");

    let (mut paged, mut cursor) = (vec![], String::new());
    loop {
        let page = backend.get(&format!("{events}?limit=2{cursor}")).await.ok();
        paged.extend(actions(&page));
        if page["has_more"] == false {
            break;
        }
        cursor = format!("&cursor={}", text(&page["next_cursor"]));
    }
    assert_eq!(paged, done);
    backend.get(&format!("{events}?key_id=1{cursor}")).await.is_error(400, "invalid_cursor");
    let of_key = backend.get(&format!("{events}?key_id={id}")).await.ok();
    assert_eq!(actions(&of_key), ["key.rotated", "key.created"]);
    let of_theirs = backend.get(&format!("{events}?key_id={}", text(&made["data"]["id"]))).await.ok();
    assert_eq!(actions(&of_theirs), ["key.created"]);
    assert_eq!(actions(&backend.get(&format!("{events}?end_date=2020-01-01")).await.ok()), [""; 0]);
    backend
        .get(&format!("{events}?start_date=2020-01-02&end_date=2020-01-01"))
        .await
        .is_error(400, "invalid_field");

    backend.get("/api-auth/apps/none/audit/events").await.is_error(404, "not_found");
    let manager = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    manager.get(events).await.is_error(403, "forbidden");
    let auditor = keyward.backend_with(keyward.deployment(), &[Scope::Audit]).await;
    assert_eq!(actions(&auditor.get(events).await.ok()), done);
    let (_, other) = keyward.other_deployment(keyward_core::deployment::Mode::Staging, &[]).await;
    other.get(events).await.is_error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_tells_what_it_changed_and_who_made_it() {
    let (keyward, backend, key) = acme().await;
    let events = async |path: &str| backend.get(path).await.ok()["data"].as_array().unwrap().clone();
    let of_app = "/api-auth/apps/acme/audit/events";
    set(&backend, json!({"name": "Renamed", "permissions": ["read", "write"], "audit_level": "blocked"}))
        .await;
    let [changed, ..] = &events(of_app).await[..] else { panic!("a change") };
    assert_eq!(
        changed["changes"],
        json!({
            "name": {"before": "acme", "after": "Renamed"},
            "permissions": {"before": [], "after": ["read", "write"]},
            "audit_level": {"before": "all", "after": "blocked"},
        })
    );
    assert_eq!(changed["actor"]["type"], "root_key");
    assert!(!text(&changed["actor"]["name"]).is_empty(), "{changed}");
    set(&backend, json!({"name": "Renamed"})).await;
    assert_eq!(events(of_app).await[0]["changes"], json!({}), "a change to what was there");

    let secret = text(&key["secret"]);
    let id = text(&key["id"]);
    let rotated = backend.post(&format!("/api-auth/apps/acme/keys/{id}/rotate"), json!({})).await.ok();
    let suffixes = json!({"before": key["key"]["key_suffix"], "after": rotated["key"]["key_suffix"]});
    assert_eq!(events(of_app).await[0]["changes"], json!({"key_suffix": suffixes}));
    let revoke = format!("/api-auth/apps/acme/keys/{id}/revoke");
    backend.post(&revoke, json!({"reason": "Leaked"})).await.ok();
    let revoked = &events(of_app).await[0];
    assert_eq!(revoked["changes"]["revoked_reason"], json!({"before": null, "after": "Leaked"}));
    assert!(revoked["changes"]["revoked_at"]["after"].is_string(), "{revoked}");

    let rule = |max: u32| json!([{"unit": "day", "duration": 1, "max_requests": max}]);
    let scheme = json!({"slug": "standard", "name": "S", "rules": rule(1)});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    backend.patch("/api-auth/rate-limit-schemes/standard", json!({"rules": rule(2)})).await.ok();
    backend.delete("/api-auth/rate-limit-schemes/standard").await;
    let of_deployment = "/api-auth/deployment/audit/events";
    let all = events(of_deployment).await;
    let told: Vec<[&Value; 3]> = all
        .iter()
        .map(|event| [&event["action"], &event["app_slug"], &event["rate_limit_scheme_slug"]])
        .collect();
    assert_eq!(
        json!(told[..9]),
        json!([
            ["scheme.deleted", null, "standard"],
            ["scheme.updated", null, "standard"],
            ["scheme.created", null, "standard"],
            ["key.revoked", "acme", null],
            ["key.rotated", "acme", null],
            ["app.updated", "acme", null],
            ["app.updated", "acme", null],
            ["key.created", "acme", null],
            ["app.created", "acme", null],
        ])
    );
    assert_eq!(all[1]["changes"]["rules"]["before"][0]["max_requests"], 1);
    assert_eq!(all[1]["changes"]["rules"]["after"][0]["max_requests"], 2);
    let root_key = all.iter().find(|event| event["action"] == "root_key.created").unwrap();
    assert!(root_key["root_key_id"].is_string() && root_key["actor"]["type"] == "operator", "{root_key}");
    let texts = Value::Array(all.clone()).to_string();
    for secret in [&secret, &text(&rotated["secret"]), &keyward.described.root_key] {
        assert!(!texts.contains(secret.as_str()));
    }

    let (mut paged, mut cursor) = (vec![], String::new());
    loop {
        let page = backend.get(&format!("{of_deployment}?limit=4{cursor}")).await.ok();
        paged.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        cursor = format!("&cursor={}", text(&page["next_cursor"]));
    }
    assert_eq!(paged, all);
    backend.get(&format!("{of_app}?limit=4{cursor}")).await.is_error(400, "invalid_cursor");
    let manager = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    manager.get(of_deployment).await.is_error(403, "forbidden");
    let (_, other) = keyward.other_deployment(keyward_core::deployment::Mode::Staging, &[]).await;
    let of_other = other.get(of_deployment).await.ok();
    let of_other: Vec<&Value> =
        of_other["data"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(of_other, ["root_key.created", "deployment.created"], "of that deployment alone");
}
