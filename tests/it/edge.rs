//! The edge: request ids, slashes around paths, and what pages of an allowed origin may read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use keyward_cli::FUNCTIONS;
use keyward_core::audit::EventId;
use keyward_http::{application, function, respond};
use keyward_runtime::AssemblyError;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};
use wacht::{WachtClient, WachtConfig};

use crate::tenancy::{Route, routes};
use keyward_tests::{ApiResponse, Backend, Keyward, check_body, text};

const PAGE: &str = "https://app.example.com";

/// The log of the requests of all tests in this module.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn start() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let lines = log.clone();
            let levels =
                Targets::new().with_default(Level::ERROR).with_target("keyward::request", Level::INFO);
            let lines = fmt::layer().json().with_span_list(false).with_writer(move || lines.clone());
            registry().with(lines.with_filter(levels)).init();
            log
        });
        log.clone()
    }

    /// The log of all tests so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about the request with this id.
    fn about(&self, id: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }
}

fn id_of(response: &ApiResponse) -> String {
    let id = response.header("x-request-id").expect("an id").to_owned();
    id.parse::<EventId>().expect("an id of an event");
    id
}

fn path_of(route: &Route) -> String {
    route.path.replace("{slug}", "acme").replace("{id}", "12345")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_an_id_that_errors_and_the_log_have_too() {
    let log = Log::start();
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let mut seen = BTreeSet::new();
    for route in routes() {
        let path = path_of(&route);
        for (method, path) in [
            (route.method.clone(), path.clone()),
            (Method::PUT, path.clone()),
            (Method::OPTIONS, path.clone()),
            (route.method.clone(), format!("{path}/x/y/z")),
        ] {
            // A client's own id is ignored.
            let request = backend.request(method.clone(), &path).header("x-request-id", "req_of_a_client");
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            id.parse::<EventId>().unwrap();
            assert!(seen.insert(id.clone()), "{id}");
            let text = response.text().await.unwrap();
            if status >= 400 {
                let body: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(body["request_id"], id, "{method} {path}: {body}");
            }
            let lines = log.about(&id);
            assert_eq!(lines.len(), 1, "{method} {path}: {lines:?}");
            assert_eq!(lines[0]["fields"]["status"], status);
            let known = if path.ends_with("/x/y/z") { "(none)" } else { &route.path };
            assert_eq!(lines[0]["fields"]["route"], known);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_has_one_id_in_header_body_and_audit_log() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let key = backend.create_key("acme", json!({})).await;
    let revoked = backend.create_key("acme", json!({})).await;
    backend.revoke("acme", &text(&revoked["id"])).await.ok();
    for key in [&key, &revoked] {
        let checked = keyward.check(&text(&key["secret"])).await;
        assert_eq!(checked.body["request_id"], id_of(&checked));
        keyward.settle().await;
        let log = backend.get("/api-auth/apps/acme/audit/logs?limit=1").await.ok();
        assert_eq!(log["data"][0]["request_id"], id_of(&checked));
    }
    let unknown = keyward.check("sk_test_unknown").await;
    assert_eq!(unknown.body["request_id"], id_of(&unknown));

    let secret = text(&key["secret"]);
    let checks = json!({"checks": [check_body(&secret), check_body(&secret), check_body("sk_test_unknown")]});
    let batch = backend.post("/v1/authz/check/batch", checks).await;
    let ids: Vec<String> = (0..3).map(|at| text(&batch.body["results"][at]["request_id"])).collect();
    let whole = id_of(&batch);
    assert!(ids[0] != ids[1] && ids[0] != whole && ids[1] != whole, "each decision has its own");
    assert_eq!(ids[2], whole, "nothing was decided");
}

/// The parts of a response that are always the same.
fn summary(response: &ApiResponse) -> (u16, Value) {
    (response.status, response.body["code"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_around_a_path_change_nothing() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    for route in routes().into_iter().filter(|route| !route.path.starts_with("/vanity")) {
        let path = path_of(&route);
        let ask = async |path: String| {
            let request = backend.request(route.method.clone(), &path).json(&json!({"app_slug": "acme"}));
            summary(&ApiResponse::of(request.send().await.unwrap()).await)
        };
        let plain = ask(path.clone()).await;
        assert_ne!(plain.1, "route_not_found");
        // What is gone is not deleted again.
        if route.method == Method::DELETE {
            continue;
        }
        for slashes in [format!("/{path}"), format!("{path}/"), format!("//{path}//?x=1")] {
            assert_eq!(ask(slashes.clone()).await, plain, "{} {slashes}", route.method);
        }
    }
    for within in
        ["/api-auth//apps", "/api-auth/apps//acme", "/api-auth/apps//keys", "/api-auth/apps/acme//audit/logs"]
    {
        assert_eq!(backend.get(within).await.status, 404, "{within}");
    }
    backend.get("/api-auth/apps/acme%2Fkeys").await.is_error(404, "not_found");
}

/// An API Gateway before the functions: it finds a route only by the exact form of its path, and sends all else to
/// `ticket-exchange`.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html>
async fn gateway(keyward: &Keyward) -> String {
    let functions: BTreeMap<&str, Router> = FUNCTIONS
        .iter()
        .map(|function| {
            let routes = (function.routes)(&keyward.services);
            (function.name, application(routes, keyward.services.clone()))
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let route = async move |request: Request| -> Response {
        let asked: Vec<&str> = request.uri().path().split('/').collect();
        let found = routes().into_iter().find(|route| {
            let path: Vec<&str> = route.path.split('/').collect();
            let fits = |(known, asked): (&&str, &&str)| {
                known == asked || known.starts_with('{') && !asked.is_empty()
            };
            let method = route.method == request.method() || request.method() == Method::OPTIONS;
            method && path.len() == asked.len() && path.iter().zip(&asked).all(fits)
        });
        let function = found.map_or("ticket-exchange".to_owned(), |route| route.function);
        functions[function.as_str()].clone().oneshot(request).await.unwrap()
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(route)).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_base_url_ends_in_a_slash_is_served_through_a_gateway() {
    let keyward = Keyward::start().await;
    let url = gateway(&keyward).await;
    for base in [keyward.url.clone(), url.clone()] {
        let mut config = WachtConfig::new(&keyward.described.root_key, &base);
        config.base_url = format!("{base}/");
        let api = WachtClient::new(config).unwrap();
        let api = api.api_keys();
        let created = api.create_api_key(
            "demo",
            wacht::api::api_keys::CreateApiKeyRequest {
                name: "Through slashes".into(),
                permissions: None,
                expires_at: None,
                metadata: None,
            },
        );
        assert!(created.send().await.unwrap().secret.starts_with("demo_"));
        assert_eq!(api.list_api_auth_apps().send().await.unwrap().len(), 1);
    }
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask =
        async |path: &str| ApiResponse::of(http.get(format!("{url}{path}")).send().await.unwrap()).await;
    let sent = ask("//api-auth/apps/?limit=1").await;
    assert_eq!((sent.status, sent.header("location")), (308, Some("/api-auth/apps?limit=1")));
    assert_eq!(sent.body["code"], "redirected");
    assert_eq!(ask("//evil.example//").await.header("location"), Some("/evil.example"), "never elsewhere");
    ask("//health/").await.ok();
    ask("/nowhere").await.is_error(404, "route_not_found");
}

/// An event of API Gateway (payload format 2.0) or of a function URL, which sends the same.
fn event(method: &str, path: &str, origin: &str) -> Request {
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "abc.lambda-url.us-east-1.on.aws", "origin": origin},
        "requestContext": {
            "accountId": "anonymous", "apiId": "abc", "domainName": "abc.lambda-url.us-east-1.on.aws", "domainPrefix": "abc",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t"},
            "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1_767_225_600_000_i64,
        },
        "body": "{}", "isBase64Encoded": false,
    });
    lambda_http::request::from_str(&event.to_string()).unwrap().map(Body::new)
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_url_serves_paths_with_slashes_around_them() {
    let keyward = Keyward::start().await;
    let services = keyward.services.clone();
    let start = move || {
        let services = services.clone();
        async move { Ok(services) }
    };
    let verify = function(start, verify::routes);
    for path in ["/v1/authz/check", "//v1/authz/check", "/v1/authz/check/", "//v1/authz/check//"] {
        let response = respond(&verify, event("POST", path, PAGE)).await.unwrap();
        assert_eq!(response.status(), 422, "{path}");
        assert_eq!(body(response).await["message"], "invalid body: principal is required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_start_gives_an_id_and_can_be_read() {
    let log = Log::start();
    let verify = function(async || Err(AssemblyError::NoDeployment.into()), verify::routes);
    let response = respond(&verify, event("POST", "/v1/authz/check", PAGE)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
    assert_eq!(response.headers()["access-control-expose-headers"], "X-Request-Id");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = body(response).await;
    assert_eq!((&body["code"], &body["request_id"]), (&json!("not_ready"), &json!(id)));
    let message: Vec<Value> =
        log.about(&id).into_iter().map(|line| line["fields"]["message"].clone()).collect();
    assert!(message.contains(&json!("the function cannot start")), "{message:?}");
}

/// A page of this origin asks, with or without a body that is too long.
async fn page(backend: &Backend, origin: &str, method: Method, path: &str, long: bool) -> ApiResponse {
    let request = backend.http.request(method, format!("{}{path}", backend.url)).header("origin", origin);
    let request = if long { request.body("x".repeat(300_000)) } else { request };
    ApiResponse::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_origin_can_read_every_answer_and_no_other_can_any() {
    let keyward = Keyward::start().await;
    keyward.set_deployment("mode", AttributeValue::S("production".into())).await;
    let mut services = keyward.services.clone();
    Arc::make_mut(&mut services.settings).allowed_origins = vec![PAGE.parse().unwrap()];
    let application = application(keyward_cli::routes(&services), services);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, application).await });
    let backend = Backend { url, ..keyward.backend() };
    let mut statuses = BTreeSet::new();
    for route in routes().into_iter().filter(|route| !route.path.starts_with("/vanity")) {
        let path = path_of(&route);
        for (method, path, long) in [
            (route.method.clone(), path.clone(), false),
            (route.method.clone(), path.clone(), route.method == Method::POST),
            (Method::PUT, path.clone(), false),
            (route.method.clone(), format!("{path}/nowhere"), false),
        ] {
            let readable = page(&backend, PAGE, method.clone(), &path, long).await;
            statuses.insert(readable.status);
            assert_eq!(readable.header("access-control-allow-origin"), Some(PAGE), "{method} {path}");
            assert_eq!(readable.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(readable.header("access-control-expose-headers"), Some("X-Request-Id"));
            assert_eq!(readable.headers.get_all("vary").iter().count(), 1, "{method} {path}");
            let other = page(&backend, "https://elsewhere.example", method.clone(), &path, long).await;
            assert_eq!(other.header("access-control-allow-origin"), None, "{method} {path}");
            assert_eq!(other.header("vary"), Some("Origin"), "a cache keeps them apart");
        }
    }
    assert!([200, 401, 404, 405, 413].iter().all(|status| statuses.contains(status)), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_says_what_there_is() {
    let keyward = Keyward::start().await;
    let preflight = async |path: &str, method: &str| {
        let request = keyward.http.request(Method::OPTIONS, format!("{}{path}", keyward.url));
        let request = request.header("origin", PAGE).header("access-control-request-method", method);
        let request = request.header("access-control-request-headers", "content-type,x-a");
        let response = ApiResponse::of(request.send().await.unwrap()).await;
        assert_eq!(response.header("access-control-allow-origin"), Some(PAGE), "{path} {method}");
        response
    };
    for route in routes() {
        let response = preflight(&path_of(&route), route.method.as_str()).await;
        assert_eq!(response.status, 204, "{} {}", route.method, route.path);
        let methods = response.header("access-control-allow-methods").unwrap();
        assert!(methods.split(',').any(|method| method == route.method.as_str()), "{methods}");
        assert_eq!(response.header("access-control-allow-headers"), Some("content-type,x-a"));
        preflight(&path_of(&route), "PUT").await.is_error(405, "method_not_allowed");
    }
    preflight("/nowhere", "GET").await.is_error(404, "route_not_found");
    preflight("/api-auth/keys/1/nothing", "POST").await.is_error(404, "route_not_found");
}
