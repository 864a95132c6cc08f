//! Two deployments in one table never see each other.

use keyward_core::deployment::Mode;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use keyward_tests::{Backend, Browser, Keyward, text};

/// A route as the workspace's `Cargo.toml` gives it to the functions.
pub struct Route {
    pub function: String,
    pub method: Method,
    pub path: String,
}

/// All routes.
pub fn routes() -> Vec<Route> {
    #[derive(Deserialize)]
    struct Entry {
        method: String,
        function: String,
    }
    let manifest: toml::Value = toml::from_str(include_str!("../../Cargo.toml")).unwrap();
    let router = &manifest["workspace"]["metadata"]["lambda"]["watch"]["router"];
    let mut routes = vec![];
    for (path, entries) in router.as_table().unwrap() {
        for entry in entries.clone().try_into::<Vec<Entry>>().unwrap() {
            let method = entry.method.parse().unwrap();
            routes.push(Route { function: entry.function, method, path: path.clone() });
        }
    }
    assert!(routes.len() > 30);
    routes
}

/// The contents of a deployment, with texts that only its own responses may hold.
struct Tenant {
    backend: Backend,
    browser: Browser,
    slug: &'static str,
    key_id: String,
    secret: String,
}

async fn tenant(backend: Backend, slug: &'static str, mark: &str) -> Tenant {
    let scheme = json!({
        "slug": slug, "name": mark, "rules": [{"unit": "day", "duration": 1, "max_requests": 1}],
    });
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": slug, "name": mark, "rate_limit_scheme_slug": slug});
    backend.post("/api-auth/apps", app).await.ok();
    let key = json!({"name": mark, "metadata": {"mark": mark}});
    let key = backend.post(&format!("/api-auth/apps/{slug}/keys"), key).await.ok();
    Tenant {
        browser: backend.browser(slug).await,
        slug,
        key_id: text(&key["id"]),
        secret: text(&key["secret"]),
        backend,
    }
}

async fn everything(tenant: &Tenant) -> Value {
    let slug = tenant.slug;
    json!({
        "apps": tenant.backend.get("/api-auth/apps?include_inactive=true").await.ok(),
        "keys": tenant.backend.get(&format!("/api-auth/apps/{slug}/keys?include_inactive=true")).await.ok(),
        "schemes": tenant.backend.get("/api-auth/rate-limit-schemes").await.ok(),
        "log": tenant.backend.get(&format!("/api-auth/apps/{slug}/audit/logs")).await.ok(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_with_the_others_ids() {
    let keyward = Keyward::start().await;
    let (_, other) = keyward.other_deployment(Mode::Staging, &[]).await;
    let ours = tenant(keyward.backend(), "ours", "mark-of-ours").await;
    let theirs = tenant(other, "theirs", "mark-of-theirs").await;
    let before = everything(&theirs).await;
    for route in routes() {
        // The response of a check depends on the key alone, and is for its holder.
        if route.path == "/v1/authz/check" {
            continue;
        }
        let path = route.path.replace("{slug}", theirs.slug).replace("{id}", &theirs.key_id);
        let body = json!({
            "key_id": theirs.key_id,
            "name": "New",
            "app_slug": "new",
            "slug": "new",
            "ticket_type": "api_auth_access",
            "api_auth_app_slug": theirs.slug,
            "rate_limit_scheme_slug": theirs.slug,
            "rules": [{"unit": "day", "duration": 1, "max_requests": 1}],
        });
        let as_backend = ours.backend.request(route.method.clone(), &path);
        let as_browser = ours.browser.request(route.method.clone(), &path);
        for request in [as_backend, as_browser] {
            let request = if route.method == Method::GET { request } else { request.json(&body) };
            let response = request.send().await.unwrap();
            let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
            assert!(!text.contains("mark-of-theirs"), "{} {path}: {text}", route.method);
            assert!(status < 500, "{} {path}: {text}", route.method);
            if route.path.contains('{') {
                assert!([400, 401, 404].contains(&status), "{} {path}: {status} {text}", route.method);
            }
        }
    }
    assert_eq!(everything(&theirs).await, before, "nothing of theirs was changed");
    assert_eq!(keyward.check(&theirs.secret).await.ok()["allowed"], true);
    assert_eq!(keyward.check(&ours.secret).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_slugs_are_different_apps() {
    let keyward = Keyward::start().await;
    let (id, other) = keyward.other_deployment(Mode::Staging, &[]).await;
    let ours = tenant(keyward.backend(), "acme", "mark-of-ours").await;
    let theirs = tenant(other, "acme", "mark-of-theirs").await;
    let app = theirs.backend.get("/api-auth/apps/acme").await.ok();
    assert_eq!(app["name"], "mark-of-theirs");
    assert_eq!(app["deployment_id"], id.to_string());
    assert_eq!(theirs.backend.get("/api-auth/apps").await.ok()["total"], 1);
    ours.backend.delete("/api-auth/apps/acme").await.ok();
    theirs.backend.get("/api-auth/apps/acme").await.ok();
    keyward.check(&ours.secret).await.is_error(403, "app_deleted");
    assert_eq!(keyward.check(&theirs.secret).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_and_a_session_lead_to_their_own_deployment() {
    let keyward = Keyward::start().await;
    let (id, other) = keyward.other_deployment(Mode::Staging, &[]).await;
    let mut theirs = tenant(other, "acme", "mark-of-theirs").await;
    let session = theirs.browser.get("/api-auth/session").await.ok();
    assert_eq!(session["data"]["api_auth_app"]["name"], "mark-of-theirs");
    let deployment = theirs.browser.get("/deployment").await.ok();
    assert_eq!(deployment["data"]["id"], id.to_string());
}
