//! Lists of apps and keys: order, pages, what they cost.

use futures::future::join_all;
use serde_json::{Value, json};

use keyward_tests::{Keyward, text};

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| text(&item["name"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_page_by_offset_and_are_all_there_without_a_limit() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    for n in 0..7 {
        backend.create_app(&format!("app-{n}")).await;
    }
    let all = backend.get("/api-auth/apps").await.ok();
    assert_eq!((&all["total"], &all["has_more"]), (&json!(8), &json!(false)));
    assert_eq!(all["apps"], all["data"]);
    assert_eq!(names(&all["apps"])[..2], ["app-6", "app-5"]);
    let page = backend.get("/api-auth/apps?limit=3&offset=3").await.ok();
    assert_eq!(names(&page["apps"]), ["app-3", "app-2", "app-1"]);
    assert_eq!(
        [&page["total"], &page["has_more"], &page["limit"], &page["offset"]],
        [&json!(8), &json!(true), &json!(3), &json!(3)]
    );
    let last = backend.get("/api-auth/apps?limit=3&offset=6").await.ok();
    assert_eq!((names(&last["apps"]).len(), &last["has_more"]), (2, &json!(false)));
    let beyond = backend.get("/api-auth/apps?limit=3&offset=60").await.ok();
    assert_eq!((&beyond["apps"], &beyond["has_more"]), (&json!([]), &json!(false)));
    let found = backend.get("/api-auth/apps?search=app-4").await.ok();
    assert_eq!(names(&found["apps"]), ["app-4"]);
    assert_eq!(backend.get("/api-auth/apps?search=nope").await.ok()["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_moves_between_active_and_inactive() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let listed = |query: &'static str| {
        let backend = backend.clone();
        async move { names(&backend.get(&format!("/api-auth/apps{query}")).await.ok()["apps"]) }
    };
    for active in [false, true, false] {
        backend.patch("/api-auth/apps/acme", json!({"is_active": active})).await.ok();
        let expected: &[&str] = if active { &["acme", "Demo"] } else { &["Demo"] };
        assert_eq!(listed("").await, expected);
        assert_eq!(listed("?include_inactive=true").await, ["acme", "Demo"]);
    }
    assert_eq!(listed("?search=acme").await, [""; 0]);
    backend.delete("/api-auth/apps/acme").await.ok();
    assert_eq!(listed("?include_inactive=true").await, ["Demo"]);
    let again = json!({"app_slug": "acme", "name": "Again"});
    backend.post("/api-auth/apps", again).await.is_error(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_in_a_patch_clears_a_member() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1}]);
    for slug in ["one", "two"] {
        let scheme = json!({"slug": slug, "name": slug, "rules": rules});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    }
    let app = json!({
        "app_slug": "acme", "name": "Acme", "description": "d", "permissions": ["a"], "resources": ["b"],
        "rate_limit_scheme_slug": "one", "organization_id": "o", "workspace_id": "w", "user_id": "u",
    });
    backend.post("/api-auth/apps", app).await.ok();
    let patch = |body: Value| backend.patch("/api-auth/apps/acme", body);
    let delete = |slug: &'static str| {
        let backend = backend.clone();
        async move { backend.delete(&format!("/api-auth/rate-limit-schemes/{slug}")).await }
    };
    delete("one").await.is_error(400, "in_use");
    patch(json!({"rate_limit_scheme_slug": "two"})).await.ok();
    assert_eq!(delete("one").await.status, 204);
    delete("two").await.is_error(400, "in_use");
    let untouched = patch(json!({})).await.ok();
    assert_eq!(untouched["rate_limit_scheme_slug"], "two");
    assert_eq!(untouched["description"], "d");
    let cleared = patch(json!({
        "description": null, "permissions": null, "resources": null, "rate_limit_scheme_slug": null,
        "organization_id": null, "workspace_id": null,
    }))
    .await
    .ok();
    assert_eq!(cleared["description"], Value::Null);
    assert_eq!([&cleared["permissions"], &cleared["resources"]], [&json!([]), &json!([])]);
    for gone in ["rate_limit_scheme_slug", "organization_id", "workspace_id"] {
        assert!(cleared.get(gone).is_none(), "{gone}");
    }
    assert_eq!(cleared["user_id"], "u");
    assert_eq!(delete("two").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_page_by_cursor_and_are_all_there_without_a_limit() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut ids = vec![];
    for _ in 0..11 {
        let created = join_all((0..10).map(|_| backend.create_key("acme", json!({})))).await;
        ids.extend(created.iter().map(|key| text(&key["id"]).parse::<i64>().unwrap()));
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    for id in ids.iter().step_by(2) {
        backend.revoke("acme", &id.to_string()).await.ok();
    }
    let listed = |query: String| {
        let backend = backend.clone();
        async move {
            let page = backend.get(&format!("/api-auth/apps/acme/keys{query}")).await.ok();
            let keys = page["keys"].as_array().unwrap();
            let ids: Vec<i64> = keys.iter().map(|key| text(&key["id"]).parse().unwrap()).collect();
            (ids, page["next_cursor"].as_str().map(str::to_owned), page["has_more"] == true)
        }
    };
    let active: Vec<i64> = ids.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(listed(String::new()).await, (active, None, false));
    assert_eq!(listed("?include_inactive=true".into()).await, (ids.clone(), None, false));

    let (mut seen, mut cursor) = (vec![], None);
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (page, next, has_more) = listed(format!("?include_inactive=true&limit=20{after}")).await;
        assert!(page.len() == 20 || !has_more);
        seen.extend(page);
        cursor = next;
        assert_eq!(cursor.is_some(), has_more);
        if !has_more {
            break;
        }
    }
    assert_eq!(seen, ids);

    // A page costs what it holds, however many keys there are beside it.
    keyward.calls.take_units();
    listed("?limit=5".into()).await;
    let units: f64 = keyward.calls.take_units().iter().sum();
    assert!(units <= 6.0, "{units}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_filter_keys_by_status() {
    use chrono::{TimeDelta, Utc};
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let soon = json!({"name": "expired", "expires_at": Utc::now() + TimeDelta::minutes(1)});
    backend.post("/api-auth/apps/acme/keys", soon).await.ok();
    let active = json!({"name": "active"});
    backend.post("/api-auth/apps/acme/keys", active).await.ok();
    let revoked = backend.post("/api-auth/apps/acme/keys", json!({"name": "revoked"})).await.ok();
    backend.revoke("acme", &text(&revoked["id"])).await.ok();
    keyward.pass(TimeDelta::minutes(2));
    let mut browser = backend.browser("acme").await;
    for (query, expected) in [
        ("", vec!["active", "expired"]),
        ("?status=active", vec!["active", "expired"]),
        ("?status=revoked", vec!["revoked"]),
        ("?status=expired", vec!["expired"]),
        ("?status=all", vec!["revoked", "active", "expired"]),
        ("?include_inactive=true", vec!["revoked", "active", "expired"]),
    ] {
        let list = browser.get(&format!("/api-auth/keys{query}")).await.ok();
        assert_eq!(names(&list["data"]), expected, "{query}");
    }
}
