//! Whether each function responds: a request to each that changes nothing.

use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::stack::cause;

/// Longer than a function takes to start.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The first route that is tried.
const HEALTH: &str = "/health";

/// Where an installation is reached.
pub(super) struct Endpoint<'a> {
    pub(super) url: &'a str,
    pub(super) root_key: Option<&'a str>,
    /// The remedy if nothing responds there.
    pub(super) fix: String,
    pub(super) log: Log<'a>,
    /// Whether it has the sample route.
    pub(super) sample: bool,
}

/// Where functions say why they fail.
pub(super) enum Log<'a> {
    OfTheProcess,
    OfStack(&'a str),
}

impl Log<'_> {
    fn of(&self, function: &str) -> String {
        match self {
            Self::OfTheProcess => "the output of its process".to_owned(),
            Self::OfStack(stack) => format!("'aws logs tail /aws/lambda/{stack}-{function}'"),
        }
    }
}

struct Probe {
    function: &'static str,
    method: Method,
    path: &'static str,
    body: Option<&'static str>,
    /// The codes of the responses to a root key, and without one.
    expected: [&'static [u16]; 2],
}

impl Probe {
    fn takes_root_key(&self) -> bool {
        let [with, without] = self.expected;
        with != without
    }
}

fn probes() -> [Probe; 7] {
    let get = |function, path, expected| Probe { function, method: Method::GET, path, body: None, expected };
    let post =
        |function, path, expected| Probe { function, method: Method::POST, path, body: Some("{}"), expected };
    [
        get("ticket-exchange", HEALTH, [&[200], &[200]]),
        post("ticket-issuance", "/session/tickets", [&[403, 422], &[401]]),
        get("key-lifecycle", "/api-auth/apps?limit=1", [&[200, 403], &[401]]),
        post("verify", "/v1/authz/check", [&[403, 422], &[401, 422]]),
        get("audit-query", "/api-auth/apps/-/audit/logs", [&[400, 403, 404], &[401]]),
        get("hosted-page", "/vanity/api-auth", [&[200], &[200]]),
        get("authorizer", "/sample", [&[401, 403], &[401, 403]]),
    ]
}

/// The names of the functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    probes().into_iter().map(|probe| probe.function)
}

/// The findings of a request to each function, or that there is no Keyward where it should be reached.
pub(super) async fn probe(reached: &Endpoint<'_>) -> Vec<(&'static str, Result<String, String>)> {
    let http = match Client::builder().timeout(TIMEOUT).build() {
        Ok(http) => http,
        Err(error) => return vec![("url", Err(cause(&error)))],
    };
    let mut outcomes = Vec::new();
    for probe in probes().into_iter().filter(|probe| probe.function != "authorizer" || reached.sample) {
        let url = format!("{}{}", reached.url.trim_end_matches('/'), probe.path);
        let mut request = http.request(probe.method.clone(), &url);
        if let Some(root_key) = reached.root_key.filter(|_| probe.takes_root_key()) {
            request = request.bearer_auth(root_key);
        }
        if let Some(body) = probe.body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let no_response =
                    format!("{} does not respond ({}): {}", reached.url, cause(&error), reached.fix);
                outcomes.push(("url", Err(no_response)));
                return outcomes;
            }
        };
        let status = response.status();
        if probe.path == HEALTH && !status.is_server_error() && !is_health(response).await {
            let other = format!("the server at {} is not Keyward: {}", reached.url, reached.fix);
            return vec![("url", Err(other))];
        }
        if status == StatusCode::UNAUTHORIZED && reached.root_key.is_some() && probe.takes_root_key() {
            let refused = "this root key does not belong to the installation: create another with 'keyward root-key create', or restart 'keyward dev'";
            outcomes.push(("root key", Err(refused.to_owned())));
            return outcomes;
        }
        outcomes.push((probe.function, evaluate(&probe, reached, status, &url)));
    }
    outcomes
}

/// Whether this is what Keyward says of its health.
async fn is_health(response: Response) -> bool {
    let health = response.json::<Value>().await.unwrap_or_default();
    health.get("status").is_some_and(|status| status == "healthy") && health.get("timestamp").is_some()
}

fn evaluate(probe: &Probe, reached: &Endpoint<'_>, status: StatusCode, url: &str) -> Result<String, String> {
    let [with, without] = probe.expected;
    let wanted = if reached.root_key.is_some() { with } else { without };
    let function = probe.function;
    if wanted.contains(&status.as_u16()) {
        Ok("responds".to_owned())
    } else if status.is_server_error() {
        Err(format!(
            "{function} responds with {status} to {} {url}: find the reason in {}",
            probe.method,
            reached.log.of(function)
        ))
    } else {
        Err(format!("{url} does not reach {function} ({status}): {}", reached.fix))
    }
}
