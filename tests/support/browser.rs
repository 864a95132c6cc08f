//! A customer's browser, as the hooks drive it: bodies are forms, and the session travels as the deployment hands it
//! out, in the query in staging mode and in a cookie in production.

use reqwest::Method;

use crate::{ApiResponse, Backend};

pub struct Browser {
    pub url: String,
    pub http: reqwest::Client,
    /// The session that the last response set.
    pub session: String,
    in_cookie: bool,
}

impl Browser {
    pub fn new(backend: &Backend) -> Self {
        Self {
            url: backend.url.clone(),
            http: backend.http.clone(),
            session: String::new(),
            in_cookie: false,
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let joint = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}", self.url);
        let request = if self.in_cookie {
            self.http.request(method, url).header("cookie", format!("__Host-session={}", self.session))
        } else {
            self.http.request(method, format!("{url}{joint}__dev_session__={}", self.session))
        };
        request.header("origin", "http://localhost:3000")
    }

    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> ApiResponse {
        let response = ApiResponse::of(request.send().await.expect("an answer")).await;
        if let Some(session) = response.header("x-development-session") {
            self.session = session.to_owned();
        }
        let cookie = response.header("set-cookie").and_then(|cookie| cookie.strip_prefix("__Host-session="));
        if let Some(cookie) = cookie {
            self.session = cookie.split(';').next().unwrap_or_default().to_owned();
            self.in_cookie = true;
        }
        response
    }

    pub async fn exchange(&mut self, ticket: &str) -> ApiResponse {
        self.get(&format!("/session/ticket/exchange?ticket={ticket}")).await
    }

    pub async fn get(&mut self, path: &str) -> ApiResponse {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post_form(&mut self, path: &str, form: &[(&str, &str)]) -> ApiResponse {
        self.send(self.request(Method::POST, path).form(form)).await
    }

    /// Without a body and a content type.
    pub async fn post(&mut self, path: &str) -> ApiResponse {
        self.send(self.request(Method::POST, path)).await
    }
}
