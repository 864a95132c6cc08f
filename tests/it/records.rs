//! Rows that a later release wrote: what this one does not know survives its changes, and what it must not read it refuses.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use keyward_cli::dev::TABLE;
use keyward_core::token::ApiKeyToken;
use keyward_tests::{Backend, Browser, Keyward, operator, text};
use serde_json::{Value, json};

type Item = HashMap<String, AttributeValue>;

/// All items of a type.
async fn items(client: &Client, kind: &str) -> Vec<Item> {
    let items = client
        .scan()
        .table_name(TABLE)
        .consistent_read(true)
        .filter_expression("#type = :type")
        .expression_attribute_names("#type", "type")
        .expression_attribute_values(":type", AttributeValue::S(kind.to_owned()));
    items.send().await.unwrap().items.unwrap()
}

/// Sets an attribute of all items of a type, or removes it.
async fn set_all(client: &Client, kind: &str, name: &str, value: Option<AttributeValue>) {
    let rows = items(client, kind).await;
    assert!(!rows.is_empty(), "{kind}");
    for row in rows {
        let key: Item = ["pk", "sk"].map(|name| (name.to_owned(), row[name].clone())).into();
        let update = client
            .update_item()
            .table_name(TABLE)
            .set_key(Some(key))
            .expression_attribute_names("#name", name);
        let update = match &value {
            Some(value) => update
                .update_expression("SET #name = :value")
                .expression_attribute_values(":value", value.clone()),
            None => update.update_expression("REMOVE #name"),
        };
        update.send().await.unwrap();
    }
}

struct Customer {
    backend: Backend,
    browser: Browser,
    /// A ticket that was not exchanged.
    ticket: String,
    id: String,
    secret: String,
}

impl Customer {
    /// A customer with a row of each type that is changed.
    async fn of(keyward: &Keyward) -> Self {
        let backend = keyward.backend();
        let rule = json!({"unit": "day", "duration": 1, "max_requests": 1000});
        let scheme = json!({"slug": "standard", "name": "Standard", "rules": [rule]});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
        let app = json!({"app_slug": "acme", "name": "Acme", "key_prefix": "sk", "rate_limit_scheme_slug": "standard"});
        backend.post("/api-auth/apps", app).await.ok();
        let created = backend.create_key("acme", json!({})).await;
        let browser = backend.browser("acme").await;
        let ticket = backend.ticket("acme").await;
        let (id, secret) = (text(&created["key"]["id"]), text(&created["secret"]));
        Self { backend, browser, ticket, id, secret }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_a_later_release_survive_every_change() {
    let keyward = Keyward::start().await;
    let client = Client::new(keyward.sdk_config());
    let mut customer = Customer::of(&keyward).await;
    let backend = customer.backend.clone();
    let kinds = ["app", "key", "scheme", "session", "ticket", "pepper"];
    let added = AttributeValue::S("by a later release".into());
    for kind in kinds {
        set_all(&client, kind, "added", Some(added.clone())).await;
    }

    let app =
        json!({"name": "Other", "permissions": ["a"], "resources": ["/a"], "rate_limit_scheme_slug": null});
    backend.patch("/api-auth/apps/acme", app).await.ok();
    backend.patch("/api-auth/apps/acme", json!({"permissions": [], "is_active": false})).await.ok();
    backend.patch("/api-auth/apps/acme", json!({"is_active": true})).await.ok();
    backend.patch("/api-auth/rate-limit-schemes/standard", json!({"name": "Other"})).await.ok();
    let rotated = backend.rotate("acme", &customer.id).await.ok();
    keyward.check(&text(&rotated["secret"])).await.ok();
    keyward.pass(chrono::TimeDelta::minutes(2));
    customer.browser.get("/api-auth/keys").await.ok();
    backend.revoke("acme", &customer.id).await.ok();
    backend.delete("/api-auth/apps/acme").await.ok();
    keyward.services.store.table().rotate_pepper(&operator(), &*keyward.provider()).await.unwrap();
    keyward.settle().await;

    for kind in kinds {
        let rows = items(&client, kind).await;
        let kept = rows.iter().filter(|row| row.get("added") == Some(&added)).count();
        assert_eq!(kept, rows.len() - usize::from(kind == "pepper"), "{kind}: {rows:?}");
    }
    let apps = items(&client, "app").await;
    assert!(apps.iter().any(|app| app["name"] == AttributeValue::S("Other".into())), "it was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_later_release_alone_understands_is_refused_and_left_alone() {
    let keyward = Keyward::start().await;
    let client = Client::new(keyward.sdk_config());
    let mut customer = Customer::of(&keyward).await;
    let backend = customer.backend.clone();
    let later = || Some(AttributeValue::N("2".into()));
    let as_it_is = || Some(AttributeValue::N("1".into()));
    keyward.check(&customer.secret).await.ok();

    set_all(&client, "app", "schema", later()).await;
    let before = items(&client, "app").await;
    keyward.check(&customer.secret).await.is_error(500, "internal_error");
    backend.get("/api-auth/apps/acme").await.is_error(500, "internal_error");
    backend.patch("/api-auth/apps/acme", json!({"name": "Other"})).await.is_error(500, "internal_error");
    backend.delete("/api-auth/apps/acme").await.is_error(500, "internal_error");
    customer.browser.get("/api-auth/keys").await.is_error(500, "internal_error");
    let listed = backend.get("/api-auth/apps").await.ok();
    assert_eq!((&listed["apps"], &listed["total"]), (&json!([]), &json!(2)), "left out, and counted");
    assert_eq!(items(&client, "app").await.len(), before.len());
    set_all(&client, "app", "schema", as_it_is()).await;

    set_all(&client, "key", "schema", later()).await;
    let before = items(&client, "key").await;
    keyward.check(&customer.secret).await.is_error(500, "internal_error");
    backend.rotate("acme", &customer.id).await.is_error(500, "internal_error");
    backend.revoke("acme", &customer.id).await.is_error(500, "internal_error");
    assert_eq!(backend.get("/api-auth/apps/acme/keys").await.ok()["keys"], json!([]));
    assert_eq!(items(&client, "key").await, before);
    set_all(&client, "key", "schema", as_it_is()).await;

    set_all(&client, "scheme", "schema", later()).await;
    keyward.check(&customer.secret).await.is_error(500, "internal_error");
    let path = "/api-auth/rate-limit-schemes/standard";
    backend.patch(path, json!({"name": "Other"})).await.is_error(500, "internal_error");
    backend.delete(path).await.is_error(500, "internal_error");
    set_all(&client, "scheme", "schema", as_it_is()).await;

    set_all(&client, "session", "schema", later()).await;
    customer.browser.get("/api-auth/keys").await.is_error(500, "internal_error");
    set_all(&client, "session", "schema", as_it_is()).await;

    set_all(&client, "ticket", "schema", later()).await;
    Browser::new(&backend).exchange(&customer.ticket).await.is_error(500, "internal_error");
    set_all(&client, "ticket", "schema", as_it_is()).await;

    set_all(&client, "root_key", "schema", later()).await;
    backend.get("/api-auth/apps").await.is_error(500, "internal_error");
    set_all(&client, "root_key", "schema", as_it_is()).await;

    keyward.check(&customer.secret).await.ok();
    Browser::new(&backend).exchange(&customer.ticket).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_gone_refuses_and_never_opens() {
    let keyward = Keyward::start().await;
    let client = Client::new(keyward.sdk_config());
    let customer = Customer::of(&keyward).await;
    let app = json!({"permissions": ["users:read"], "resources": ["/v1/*"]});
    customer.backend.patch("/api-auth/apps/acme", app).await.ok();
    let id = ApiKeyToken::parse(&customer.secret).unwrap().app.base62();
    let of_app = ["permissions", "resources", "route_permissions", "rate_limit_scheme_slug", "deleted_at"];
    for (kind, name) in of_app.map(|name| ("app", name)).into_iter().chain([
        ("app", "any_permission"),
        ("app", "any_resource"),
        ("key", "expires_at"),
        ("key", "revoked_at"),
        ("scheme", "rules"),
    ]) {
        keyward.check(&customer.secret).await.ok();
        let own = |row: &&Item| kind != "app" || row["pk"] == AttributeValue::S(format!("APP#{id}"));
        let rows = items(&client, kind).await;
        let value = rows.iter().find(own).unwrap()[name].clone();
        set_all(&client, kind, name, None).await;
        keyward.check(&customer.secret).await.is_error(500, "internal_error");
        set_all(&client, kind, name, Some(value)).await;
    }
    let allowed: Value = keyward.check(&customer.secret).await.ok();
    assert_eq!(allowed["allowed"], true);
}
