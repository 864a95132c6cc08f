//! A [`tower::Layer`] that lets requests with a valid key through and answers the others.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{ConnectInfo, OriginalUri};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use keyward_core::accepted::{Accepted, AcceptedApps, AcceptedDeployment};
use keyward_core::audit::EventId;
use keyward_core::decision::Denial;
use keyward_core::metric::Metric;
use keyward_core::requirement::Requirement;
use keyward_core::target::Target;
use keyward_core::text::Slug;
use keyward_core::{ClientAddress, ErrorCode, InvalidField, PublicUrl};
use serde::Serialize;
use tower::{Layer, Service};

use crate::{Check, CheckError, Decision, Verifier, presented};

/// Puts a check of the API key before a service, such as the routes of an [`axum::Router`].
///
/// It is made for the keys of an app ([`Self::app`]), or of any if that is said ([`Self::any_app`]). A working key of another
/// app, or of another deployment than the installation's first one ([`Self::deployment`]), is refused as one that does not
/// exist.
///
/// The key is looked for where [`presented`] does. Method, path and `User-Agent` are the request's own, the path that
/// which the client asked for, also in nested routers ([`OriginalUri`]). The client's address is that of the connection, if
/// the service knows it ([`ConnectInfo`]): see [`Self::client_ip`].
///
/// A request that may go through has the [`Decision`] in its extensions, in an [`Arc`]: with axum, take an
/// `Extension<Arc<Decision>>`. Extensions are no headers: no client can send one. The response gets
/// [`Decision::limit_headers`], where limits hold for the request. The others are answered with JSON,
/// `{code, message, errors: [{code, message}]}`, in which the inner `code` is the status; `doc_url`, if the layer knows
/// [where the installation is](Self::public_url); and `request_id`, if they are in the audit log:
///
/// | status | codes | headers |
/// |---|---|---|
/// | 400 | `invalid_field` | |
/// | 401 | `missing_api_key`, `invalid_api_key`, `key_expired` | `WWW-Authenticate` (RFC 6750, 3) |
/// | 403 | `key_revoked`, `app_disabled`, `app_deleted` | |
/// | 403 | `permission_denied` | `WWW-Authenticate` |
/// | 429 | `rate_limited` | `Retry-After`, [`Decision::limit_headers`] |
/// | 503 | `store_unavailable` | `Retry-After: 1` |
/// | 500 | `internal_error` | |
///
/// Every request is checked, a preflight too, which browsers send without a key: put a layer that answers those outside of
/// this one. Two of these layers on the way of a request check it twice, and count it twice.
#[derive(Debug, Clone)]
pub struct ApiKeyLayer(Gate);

/// The service that [`ApiKeyLayer`] makes.
#[derive(Debug, Clone)]
pub struct ApiKeyService<S> {
    gate: Gate,
    inner: S,
}

type ClientIp = dyn Fn(&Parts) -> Option<ClientAddress> + Send + Sync;

#[derive(Clone)]
struct Gate {
    verifier: Verifier,
    accepted: Accepted,
    required: Arc<[Requirement]>,
    client_ip: Arc<ClientIp>,
    public_url: Option<Arc<PublicUrl>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("accepted", &self.accepted)
            .field("required", &self.required)
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

impl ApiKeyLayer {
    /// A layer that lets through what this verifier allows with a key of this app, of the installation's first deployment.
    ///
    /// # Errors
    /// It is no slug.
    pub fn app(verifier: Verifier, slug: &str) -> Result<Self, InvalidField> {
        Ok(Self::accepting(verifier, AcceptedApps::Named(vec![Slug::parse("app", slug)?])))
    }

    /// A layer that lets through what this verifier allows with a key of any app, of the installation's first deployment:
    /// for a service that itself looks at [`Decision::key`], whose `app_slug` says which.
    pub fn any_app(verifier: Verifier) -> Self {
        Self::accepting(verifier, AcceptedApps::Any)
    }

    fn accepting(verifier: Verifier, apps: AcceptedApps) -> Self {
        let accepted = Accepted { deployment: AcceptedDeployment::First, apps };
        let client_ip = Arc::new(connected);
        Self(Gate { verifier, accepted, required: Arc::new([]), client_ip, public_url: None })
    }

    /// The same, for keys of this app too.
    ///
    /// # Errors
    /// It is no slug.
    pub fn or_app(mut self, slug: &str) -> Result<Self, InvalidField> {
        let slug = Slug::parse("app", slug)?;
        if let AcceptedApps::Named(slugs) = &mut self.0.accepted.apps {
            slugs.push(slug);
        }
        Ok(self)
    }

    /// The same, for apps of this deployment, or of any, instead of the first one.
    #[must_use]
    pub fn deployment(mut self, deployment: AcceptedDeployment) -> Self {
        self.0.accepted.deployment = deployment;
        self
    }

    /// The same, for keys that also have these permissions: an expression as in `required_permissions` of a check, such as
    /// `users:read AND (users:write OR admin)`.
    ///
    /// # Errors
    /// Says at which character the expression goes wrong.
    pub fn require(mut self, permissions: &str) -> Result<Self, InvalidField> {
        let one = Requirement::parse("permissions", permissions)?;
        self.0.required = self.0.required.iter().cloned().chain([one]).collect();
        Ok(self)
    }

    /// The same, with the client's address from this function: of a service behind a proxy, from the header in which that
    /// proxy tells it. What a client can set itself is no address to limit it by. Where the function knows none, it is that
    /// of the connection.
    #[must_use]
    pub fn client_ip(mut self, of: impl Fn(&Parts) -> Option<ClientAddress> + Send + Sync + 'static) -> Self {
        self.0.client_ip = Arc::new(of);
        self
    }

    /// The same, with a `doc_url` in error responses, the page about the code: of the installation at this URL, the stack's
    /// output `Url`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidField> {
        let url =
            PublicUrl::from_str(url).map_err(|error| InvalidField::new("public_url", error.to_string()))?;
        self.0.public_url = Some(Arc::new(url));
        Ok(self)
    }
}

fn connected(parts: &Parts) -> Option<ClientAddress> {
    let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map(|ConnectInfo(address)| address.ip().into())
}

impl<S> Layer<S> for ApiKeyLayer {
    type Service = ApiKeyService<S>;

    fn layer(&self, inner: S) -> ApiKeyService<S> {
        ApiKeyService { gate: self.0.clone(), inner }
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for ApiKeyService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    RequestBody: Send + 'static,
    ResponseBody: From<String>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        // The clone may not be ready: `tower::Service`, "Be careful when cloning inner services".
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let gate = self.gate.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let decision = match gate.decide(&parts).await {
                Ok(decision) => Arc::new(decision),
                Err(refused) => return Ok(refused.into_response(gate.public_url.as_deref())),
            };
            parts.extensions.insert(decision.clone());
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            put(response.headers_mut(), decision.limit_headers());
            Ok(response)
        })
    }
}

impl Gate {
    async fn decide(&self, parts: &Parts) -> Result<Decision, ErrorResponse> {
        let presented = presented(&parts.headers)?.ok_or_else(ErrorResponse::without_key)?;
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        let target = Target::parse(parts.method.as_str(), uri.path())?;
        let check = Check {
            presented,
            accepted: &self.accepted,
            target: &target,
            required_permissions: &self.required,
            client_ip: (self.client_ip)(parts).or_else(|| connected(parts)),
            user_agent: parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()),
            request_id: None,
        };
        let decision = self.verifier.check(&check, None).await?;
        match &decision.denied {
            None => Ok(decision),
            Some(denial) => Err(ErrorResponse::denied(&decision, denial)),
        }
    }
}

/// An error response of the layer itself.
struct ErrorResponse {
    code: ErrorCode,
    message: String,
    request_id: Option<EventId>,
    headers: BTreeMap<String, String>,
}

impl ErrorResponse {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), request_id: None, headers: BTreeMap::new() }
    }

    fn without_key() -> Self {
        let message = "The request has no API key: send it as 'Authorization: Bearer KEY' or in x-api-key";
        Self::new(ErrorCode::MissingApiKey, message)
    }

    fn denied(decision: &Decision, denial: &Denial) -> Self {
        let headers = decision.limit_headers();
        let refused = Self::new(denial.code(), format!("Denied: {denial}"));
        Self { request_id: Some(decision.request_id), headers, ..refused }
    }

    fn into_response<B: From<String>>(self, public_url: Option<&PublicUrl>) -> Response<B> {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let challenge = self.code.challenge("api").and_then(|text| HeaderValue::try_from(text).ok());
        let body = ErrorBody {
            code: self.code,
            message: &self.message,
            errors: [ErrorEntry { code: status.as_u16(), message: &self.message }],
            doc_url: public_url.map(|url| format!("{url}{}", self.code.page())),
            request_id: self.request_id,
        };
        let mut response = Response::new(B::from(serde_json::to_string(&body).unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        put(headers, self.headers);
        response
    }
}

/// An error as clients read it.
#[derive(Serialize)]
struct ErrorBody<'a> {
    code: ErrorCode,
    message: &'a str,
    errors: [ErrorEntry<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<EventId>,
}

/// The error again, with its status in place of its code.
#[derive(Serialize)]
struct ErrorEntry<'a> {
    code: u16,
    message: &'a str,
}

impl From<InvalidField> for ErrorResponse {
    fn from(wrong: InvalidField) -> Self {
        Self::new(ErrorCode::InvalidField, wrong.to_string())
    }
}

impl From<CheckError> for ErrorResponse {
    fn from(error: CheckError) -> Self {
        let code = error.code();
        match error {
            CheckError::InvalidKey => Self::new(code, error.to_string()),
            CheckError::Refused { request_id, .. } => {
                Self { request_id: Some(request_id), ..Self::new(code, error.to_string()) }
            }
            CheckError::Store(error) => {
                tracing::error!(metric = error.metric().map(Metric::name), %error, "a request could not be decided");
                if code != ErrorCode::StoreUnavailable {
                    return Self::new(code, "Something went wrong");
                }
                let message = "API keys cannot be checked right now; try again";
                let headers = BTreeMap::from([(RETRY_AFTER.to_string(), "1".to_owned())]);
                Self { headers, ..Self::new(code, message) }
            }
        }
    }
}

fn put(headers: &mut HeaderMap, texts: BTreeMap<String, String>) {
    for (name, text) in texts {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
            headers.insert(name, value);
        }
    }
}
