//! The edge of an installation, around every request and response.
//!
//! Each request gets an id, which its response has in `x-request-id` (an error also in its body), and so have its lines in the
//! log. Its path is normalised before a route is looked up. Pages of an allowed origin may read its response.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use keyward_core::audit::EventId;
use keyward_core::{Clock, Entropy, ErrorCode};
use tracing::{Instrument, Span};

use crate::ApiError;
use crate::backend::render;
use crate::body::receive;
use crate::frontend::{allow_origin, expose};
use crate::initiator::single_value;
use keyward_runtime::{Services, Settings};

/// The header of every answer that holds the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, made here: what clients send under that name is not looked at.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub EventId);

impl RequestId {
    /// A new id for this instant.
    pub fn mint(clock: &Clock, entropy: &Entropy) -> Self {
        let random = entropy.bytes().map_or(0, u128::from_be_bytes);
        Self(EventId::mint(clock.now(), random))
    }

    /// The id of the request that these extensions belong to.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// The span of the request's lines in the log.
    pub fn span(self, aws_request_id: Option<&str>) -> Span {
        tracing::error_span!("request", request_id = %self.0, aws_request_id)
    }
}

/// The context that an error's body is written in.
#[derive(Debug, Clone, Default)]
pub struct ErrorContext {
    /// The request's id.
    pub request_id: Option<RequestId>,
    settings: Option<Arc<Settings>>,
}

impl ErrorContext {
    /// The context of a request of which nothing else is known.
    pub fn new(request_id: RequestId) -> Self {
        Self { request_id: Some(request_id), settings: None }
    }

    /// The context of the request that these extensions belong to.
    pub fn of(extensions: &Extensions) -> Self {
        Self { request_id: RequestId::of(extensions), settings: extensions.get().cloned() }
    }

    /// The page about errors with this code. It is relative (RFC 3986, 4.2) where the installation's URL is not known.
    pub(crate) fn doc_url(&self, code: ErrorCode) -> String {
        let url = self.settings.as_ref().map_or("", |settings| settings.public_url.as_str());
        format!("{url}{}", code.page())
    }
}

/// The path that a client asked for, where that is not the one that is looked for.
#[derive(Debug, Clone)]
struct RequestedPath;

/// A preflight (Fetch, "CORS-preflight request"): the method that it asks for.
fn preflight(request: &Request) -> Option<HeaderValue> {
    let is_asked = request.method() == Method::OPTIONS && request.headers().contains_key(header::ORIGIN);
    request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| is_asked).cloned()
}

/// Surrounds the routes of an application.
async fn with_edge(State(services): State<Services>, mut request: Request, next: Next) -> Response {
    let id = RequestId::mint(services.store.clock(), services.store.entropy());
    let preflight = preflight(&request).map(|method| (method, requested_headers(request.headers())));
    let origin = single_value(request.headers(), header::ORIGIN).flatten().map(str::to_owned);
    if let Some(uri) = without_outer_slashes(request.uri()) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(RequestedPath);
    }
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(services.settings.clone());
    // What cannot be read is not allowed.
    let deployment = match &origin {
        Some(_) => services.first_deployment().await.ok(),
        None => None,
    };
    let finish = |mut response: Response| {
        if let Some(allowed) =
            preflight.as_ref().and_then(|requested| preflight_response(&response, requested))
        {
            let decided = response.headers().clone();
            response = allowed;
            for name in
                [header::VARY, header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_ALLOW_CREDENTIALS]
            {
                response.headers_mut().extend(decided.get(&name).map(|value| (name, value.clone())));
            }
        }
        // The frontend API has decided by the session's deployment.
        let undecided = !response.headers().contains_key(header::VARY);
        if let Some((origin, deployment)) = origin.zip(deployment).filter(|_| undecided) {
            allow_origin(&services, response.headers_mut(), &origin, &deployment);
        }
        response
    };
    respond(id, request, async |request| finish(next.run(request).await)).await
}

/// Answers a request that no route can be asked for, since what they need is not there.
pub(crate) async fn refuse(id: RequestId, error: ApiError, request: Request) -> Response {
    let origin = single_value(request.headers(), header::ORIGIN).flatten().map(str::to_owned);
    respond(id, request, async |_| {
        let mut response = render(error.into_response(), &ErrorContext::new(id));
        // Which origins are allowed cannot be read, and this says nothing that any may not know.
        if let Some(origin) = origin.and_then(|origin| HeaderValue::try_from(origin).ok()) {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
            expose(headers, None);
        }
        response
    })
    .await
}

/// The response, with the request's id in it and in its line in the log.
async fn respond(
    id: RequestId,
    request: Request,
    handler: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let lambda = request.extensions().get::<lambda_http::Context>().map(|context| context.request_id.clone());
    let span = id.span(lambda.as_deref());
    let mut response = handler(request).instrument(span.clone()).await;
    if let Ok(id) = HeaderValue::try_from(id.0.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    // The route rather than the path: a secret in the wrong place may be in that.
    let route = response.extensions_mut().remove::<MatchedPath>();
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let (status, ms) = (response.status().as_u16(), start.elapsed().as_millis());
    span.in_scope(|| tracing::info!(target: "keyward::request", %method, route, status, ms));
    response
}

/// Records which route responded, for the edge.
async fn record_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

fn requested_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned()
}

/// The response to a preflight, made from what the path answers to its `OPTIONS`: where that says which methods there are and
/// the one that is asked for is among them. What was asked for in another form of the path is judged when it comes.
fn preflight_response(
    response: &Response,
    requested: &(HeaderValue, Option<HeaderValue>),
) -> Option<Response> {
    let (method, headers) = requested;
    let methods = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => response.headers().get(header::ALLOW)?,
        StatusCode::PERMANENT_REDIRECT => method,
        _ => return None,
    };
    let is_among = methods
        .to_str()
        .is_ok_and(|list| list.split(',').any(|one| one.trim().as_bytes() == method.as_bytes()));
    if !is_among {
        return None;
    }
    let mut preflight = StatusCode::NO_CONTENT.into_response();
    preflight.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
    preflight.headers_mut().insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(headers) = headers {
        preflight.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    Some(preflight)
}

/// The URI with one slash before its path and none behind it, unless it is so already. Empty segments within a path stay:
/// there a parameter is missing, and another path would be another thing.
fn without_outer_slashes(uri: &Uri) -> Option<Uri> {
    let inner = uri.path().trim_matches('/');
    let path = format!("/{inner}");
    if path == uri.path() {
        return None;
    }
    let target = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// A service of these routes: unknown paths get an error in JSON, and each request an id, its path in one form and CORS headers.
///
/// A path with more slashes around it than it needs is served as without them. Where that is no path of these routes,
/// another function may have it, which was not asked because of those slashes: the client is sent there.
pub fn application(routes: Router<Services>, services: Services) -> Router {
    let unknown = async |request: Request| {
        let context = ErrorContext::of(request.extensions());
        let other = request.extensions().get::<RequestedPath>().and_then(|_| request.uri().path_and_query());
        let Some(other) = other else {
            let error = ApiError::new(ErrorCode::RouteNotFound, "There is no such path");
            return render(error.into_response(), &context);
        };
        let message = "A path has one slash at its beginning and none at its end: use the path in Location";
        let error = ApiError::new(ErrorCode::Redirected, message);
        let mut response = render(error.into_response(), &context);
        response
            .headers_mut()
            .extend(HeaderValue::try_from(other.as_str()).ok().map(|to| (header::LOCATION, to)));
        response
    };
    let routes = routes.fallback(unknown).layer(from_fn(receive)).layer(from_fn(record_route));
    // Around all of it, since the router looks at the path before it asks a layer of its own.
    let surrounded = Router::new().fallback_service(routes.with_state(services.clone()));
    surrounded.layer(from_fn_with_state(services, with_edge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_one_slash_and_ends_with_none() {
        for (requested, looked_for) in [
            ("//api-auth/apps", Some("/api-auth/apps")),
            ("/api-auth/apps/", Some("/api-auth/apps")),
            ("///api-auth/apps///?x=//&y=/", Some("/api-auth/apps?x=//&y=/")),
            ("http://h//a/b/", Some("http://h/a/b")),
            ("//", Some("/")),
            ("/", None),
            ("/a", None),
            ("/a?x=/", None),
            ("/a//b", None),
            ("/%2F/a%2F", None),
            ("//a//b/", Some("/a//b")),
        ] {
            let uri: Uri = requested.parse().unwrap();
            let found = without_outer_slashes(&uri).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), looked_for, "{requested}");
        }
    }
}
