//! The SaaS's backend, with a root key.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{ApiResponse, Browser, check_body};

#[derive(Clone)]
pub struct Backend {
    pub url: String,
    pub root_key: String,
    pub http: reqwest::Client,
}

impl Backend {
    pub fn new(url: &str, root_key: &str, http: reqwest::Client) -> Self {
        Self { url: url.to_owned(), root_key: root_key.to_owned(), http }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.http.request(method, url).bearer_auth(&self.root_key)
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> ApiResponse {
        let request = self.request(method, path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        ApiResponse::of(request.send().await.expect("an answer")).await
    }

    pub async fn get(&self, path: &str) -> ApiResponse {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> ApiResponse {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> ApiResponse {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> ApiResponse {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn create_app(&self, slug: &str) -> Value {
        let app = json!({"app_slug": slug, "name": slug, "key_prefix": "sk_test"});
        self.post("/api-auth/apps", app).await.ok()
    }

    /// A new key with its secret. `members` are added to its name.
    pub async fn create_key(&self, slug: &str, mut members: Value) -> Value {
        members["name"] = "Test key".into();
        self.post(&format!("/api-auth/apps/{slug}/keys"), members).await.ok()
    }

    pub async fn revoke(&self, slug: &str, id: &str) -> ApiResponse {
        self.post(&format!("/api-auth/apps/{slug}/keys/{id}/revoke"), json!({})).await
    }

    pub async fn rotate(&self, slug: &str, id: &str) -> ApiResponse {
        self.send(Method::POST, &format!("/api-auth/apps/{slug}/keys/{id}/rotate"), None).await
    }

    /// Checks a request to `GET /v1/users` with this key, as the SaaS's API does: without a root key.
    pub async fn check(&self, key: &str) -> ApiResponse {
        self.check_with(check_body(key)).await
    }

    pub async fn check_with(&self, body: Value) -> ApiResponse {
        let url = format!("{}/v1/authz/check", self.url);
        ApiResponse::of(self.http.post(url).json(&body).send().await.expect("an answer")).await
    }

    pub async fn ticket(&self, slug: &str) -> String {
        self.ticket_with(slug, json!({})).await
    }

    pub async fn ticket_with(&self, slug: &str, mut members: Value) -> String {
        members["ticket_type"] = "api_auth_access".into();
        members["api_auth_app_slug"] = slug.into();
        text(&self.post("/session/tickets", members).await.ok()["ticket"])
    }

    /// A browser in staging mode that has exchanged a ticket for this app.
    pub async fn browser(&self, slug: &str) -> Browser {
        let mut browser = Browser::new(self);
        browser.exchange(&self.ticket(slug).await).await.ok();
        browser
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
