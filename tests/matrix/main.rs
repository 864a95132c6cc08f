//! Every route with every kind of request that it must refuse, as far as each applies to it: a test for each, named by the
//! status, the route and what is wrong. The routes are those of `docs/openapi.json`, which must name each error.

use std::sync::Arc;

use keyward_core::base62;
use keyward_core::root_key::Scope;
use keyward_runtime::VerifyAuth;
use keyward_tests::{
    ApiResponse, Backend, Browser, Credential, Keyward, Operation, check_body, operations, text,
};
use libtest_mimic::{Arguments, Failed, Trial};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A fault in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NoCredential,
    OtherCredential,
    UnknownCredential,
    ScopesButThis,
    UnknownSlug,
    UnknownId,
    NoId,
    OtherMethod,
    TwiceInQuery,
    Malformed,
    TooLarge,
    OtherType,
    Encoded,
    OtherShape,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::NoCredential,
        Self::OtherCredential,
        Self::UnknownCredential,
        Self::ScopesButThis,
        Self::UnknownSlug,
        Self::UnknownId,
        Self::NoId,
        Self::OtherMethod,
        Self::TwiceInQuery,
        Self::Malformed,
        Self::TooLarge,
        Self::OtherType,
        Self::Encoded,
        Self::OtherShape,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::NoCredential => "no credential",
            Self::OtherCredential => "another kind of credential",
            Self::UnknownCredential => "an unknown credential",
            Self::ScopesButThis => "all scopes or capabilities but its own",
            Self::UnknownSlug => "an unknown slug",
            Self::UnknownId => "an unknown id",
            Self::NoId => "an id that is none",
            Self::OtherMethod => "another method",
            Self::TwiceInQuery => "a parameter that is given twice",
            Self::Malformed => "a body that is not JSON",
            Self::TooLarge => "a body that is too large",
            Self::OtherType => "a body of another type",
            Self::Encoded => "a body that is encoded",
            Self::OtherShape => "a body of another shape",
        }
    }

    /// The status and the code that a route responds with, where its requests can have this fault.
    fn refusal(self, operation: &Operation) -> Option<(u16, &'static str)> {
        let takes_body = !operation.bodies.is_empty();
        let is_for_browsers = operation.credential == Some(Credential::Session);
        match self {
            Self::NoCredential | Self::OtherCredential | Self::UnknownCredential if is_for_browsers => {
                Some((401, "no_session"))
            }
            Self::NoCredential => operation.credential.map(|_| (401, "missing_root_key")),
            Self::OtherCredential => operation.credential.map(|_| (401, "not_a_root_key")),
            Self::UnknownCredential => operation.credential.map(|_| (401, "invalid_root_key")),
            Self::ScopesButThis => (!operation.scopes.is_empty()).then_some((403, "forbidden")),
            Self::UnknownSlug => operation.path.contains("{slug}").then_some((404, "not_found")),
            Self::UnknownId => operation.path.contains("{id}").then_some((404, "not_found")),
            Self::NoId => operation.path.contains("{id}").then_some((400, "invalid_key_id")),
            Self::OtherMethod => Some((405, "method_not_allowed")),
            Self::TwiceInQuery => {
                let codes = operation.errors.get(&400)?;
                codes.iter().any(|code| code == "invalid_query").then_some((400, "invalid_query"))
            }
            Self::Malformed => takes_body.then_some((400, "malformed_json")),
            Self::TooLarge => takes_body.then_some((413, "body_too_large")),
            Self::OtherType => takes_body.then_some((415, "unsupported_media_type")),
            Self::Encoded => takes_body.then_some((415, "unsupported_content_encoding")),
            Self::OtherShape => takes_body.then_some((422, "invalid_body")),
        }
    }
}

/// An installation with one of each thing that a path names.
struct World {
    keyward: Keyward,
    backend: Backend,
    session: String,
    key: String,
    id: String,
}

impl World {
    async fn new() -> Self {
        let keyward = Keyward::start_with(VerifyAuth::Required).await;
        let backend = keyward.backend();
        backend.create_app("acme").await;
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1}]);
        let scheme = json!({"slug": "scheme", "name": "Scheme", "rules": rules});
        backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
        let key = backend.create_key("acme", json!({})).await;
        let session = backend.browser("acme").await.session;
        Self { keyward, backend, session, key: text(&key["secret"]), id: text(&key["id"]) }
    }

    /// The root key or the session that a request with this fault comes with.
    async fn credential(&self, operation: &Operation, fault: Fault) -> Option<String> {
        let kind = operation.credential?;
        match (fault, kind) {
            (Fault::NoCredential, _) => None,
            (Fault::OtherCredential, Credential::RootKey) => Some(self.key.clone()),
            (Fault::OtherCredential, Credential::Session) => Some(self.backend.root_key.clone()),
            (Fault::UnknownCredential, Credential::RootKey) => Some(altered(&self.backend.root_key)),
            (Fault::UnknownCredential, Credential::Session) => Some(altered(&self.session)),
            (Fault::ScopesButThis, Credential::RootKey) => {
                let others: Vec<Scope> = Scope::ALL
                    .into_iter()
                    .filter(|scope| !operation.scopes.iter().any(|own| json!(own) == json!(scope)))
                    .collect();
                Some(self.keyward.backend_with(self.keyward.deployment(), &others).await.root_key)
            }
            (Fault::ScopesButThis, Credential::Session) => {
                let all = ["keys:read", "keys:create", "keys:rotate", "keys:revoke", "audit:read"];
                let others: Vec<&str> =
                    all.into_iter().filter(|one| !operation.scopes.iter().any(|own| own == one)).collect();
                let ticket = self.backend.ticket_with("acme", json!({"capabilities": others})).await;
                let mut browser = Browser::new(&self.backend);
                browser.exchange(&ticket).await.ok();
                Some(browser.session)
            }
            (_, Credential::RootKey) => Some(self.backend.root_key.clone()),
            (_, Credential::Session) => Some(self.session.clone()),
        }
    }

    /// A request that is as it should be, but for this fault.
    async fn request(&self, operation: &Operation, fault: Fault) -> RequestBuilder {
        let slug = if operation.path.starts_with("/api-auth/rate-limit-schemes") { "scheme" } else { "acme" };
        let slug = if fault == Fault::UnknownSlug { "nowhere" } else { slug };
        let id = match fault {
            Fault::UnknownId => "1",
            Fault::NoId => "none",
            _ => &self.id,
        };
        let path = operation.path.replace("{slug}", slug).replace("{id}", id);
        let mut query = Vec::new();
        if let (Fault::TwiceInQuery, Some(name)) = (fault, operation.query.first()) {
            query.extend([(name.clone(), "1".to_owned()), (name.clone(), "1".to_owned())]);
        }
        let method = if fault == Fault::OtherMethod { Method::PUT } else { operation.method.clone() };
        let request = self.keyward.http.request(method, format!("{}{path}", self.keyward.url));
        let request = match (self.credential(operation, fault).await, operation.credential) {
            (Some(token), Some(Credential::RootKey)) => request.bearer_auth(token),
            (Some(token), Some(Credential::Session)) => {
                query.push(("__dev_session__".to_owned(), token));
                request
            }
            _ => request,
        };
        let request = request.query(&query);
        if operation.bodies.is_empty() {
            return request;
        }
        match fault {
            Fault::OtherType => request.header(CONTENT_TYPE, "text/plain").body("{}"),
            Fault::Encoded => {
                request.header(CONTENT_TYPE, "application/json").header(CONTENT_ENCODING, "gzip").body("{}")
            }
            Fault::Malformed => request.header(CONTENT_TYPE, "application/json").body("{"),
            Fault::OtherShape => request.json(&json!([])),
            Fault::TooLarge => request.json(&json!({"name": "x".repeat(300 * 1024)})),
            _ => request.json(&self.body(operation)),
        }
    }

    /// A body that a route takes.
    fn body(&self, operation: &Operation) -> Value {
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": 1}]);
        match operation.path.as_str() {
            "/api-auth/apps" => json!({"app_slug": "new", "name": "New"}),
            "/api-auth/rate-limit-schemes" => json!({"slug": "new", "name": "New", "rules": rules}),
            "/session/tickets" => json!({"ticket_type": "api_auth_access", "api_auth_app_slug": "acme"}),
            "/api-auth/keys/rotate" | "/api-auth/keys/revoke" => json!({"key_id": self.id}),
            "/v1/authz/check" => check_body(&self.key),
            "/v1/authz/check/batch" => json!({"checks": [check_body(&self.key)]}),
            _ => json!({"name": "New"}),
        }
    }

    async fn refuses(
        &self,
        operation: &Operation,
        fault: Fault,
        status: u16,
        code: &str,
    ) -> Result<(), Failed> {
        let sent = self.request(operation, fault).await.send().await?;
        let response = ApiResponse::of(sent).await;
        response.is_error(status, code);
        let declared = operation.errors.get(&status).is_some_and(|codes| codes.iter().any(|one| one == code));
        if !declared && fault != Fault::OtherMethod {
            return Err(format!("docs/openapi.json does not name {status} {code}").into());
        }
        let page = self.keyward.http.get(text(&response.body["doc_url"])).send().await?.text().await?;
        if !page.starts_with(&format!("# `{code}`\n")) {
            return Err(format!("{} leads to {page}", response.body["doc_url"]).into());
        }
        Ok(())
    }
}

/// A token of the same form that was never issued.
fn altered(token: &str) -> String {
    let (secret, _checksum) = token.split_at(token.len() - 6);
    let (start, last) = secret.split_at(secret.len() - 1);
    let other = format!("{start}{}", if last == "0" { "1" } else { "0" });
    let checksum = base62::encode(crc32fast::hash(other.as_bytes()).into(), 6);
    other + &checksum
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let world = if arguments.list { None } else { Some(Arc::new(runtime.block_on(World::new()))) };
    let mut trials = Vec::new();
    for operation in operations() {
        for fault in Fault::ALL {
            let Some((status, code)) = fault.refusal(&operation) else { continue };
            let name = format!("{status} {} {}: {}", operation.method, operation.path, fault.name());
            let (runtime, world, operation) = (runtime.clone(), world.clone(), operation.clone());
            trials.push(Trial::test(name, move || {
                let world = world.ok_or("there is no installation to try it on")?;
                runtime.block_on(world.refuses(&operation, fault, status, code))
            }));
        }
    }
    assert!(trials.len() > 250, "{} are too few", trials.len());
    libtest_mimic::run(&arguments, trials).exit();
}
