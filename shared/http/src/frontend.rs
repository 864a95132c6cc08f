//! The frontend API, for browsers: sessions, CORS and the envelope.
//!
//! A session travels in the cookie `__Host-session` or, where the deployment is in staging mode, in the query parameter
//! `__dev_session__` and returned in the header `X-Development-Session`. The cookie comes first. Its prefix binds it to this
//! host (RFC 6265bis, 4.1.3.2): no sibling domain can make the browser send a session of its choice.
//!
//! A change that a cookie carries needs a script of an allowed origin, since browsers attach cookies to other pages'
//! requests too, and so does a request that creates a session or keeps it alive. HEAD, OPTIONS and prefetches change
//! nothing. A page may name its session in `X-Keyward-Session`, and is denied if its browser has another by now.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::audit::EventId;
use keyward_core::deployment::Mode;
use keyward_core::id::SessionId;
use keyward_core::instant::Instant;
use keyward_core::session::Session;
use keyward_core::token::{self, Token};
use keyward_core::{Deployment, ErrorCode};
use keyward_store::{Error, SessionAccess};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::backend::{Payload, error_of, json_response};
use crate::initiator::{Initiator, single_value};
use crate::{ApiError, ErrorContext, RequestId, origin};
use keyward_runtime::Services;

const COOKIE: &str = "__Host-session";
const PARAMETER: &str = "__dev_session__";
const DEVELOPMENT_SESSION: HeaderName = HeaderName::from_static("x-development-session");
/// The id of the session that a page means to act by.
const EXPECTED_SESSION: HeaderName = HeaderName::from_static("x-keyward-session");

/// The browser that a request comes from.
#[derive(Debug, Clone)]
pub struct Browser {
    /// The deployment of its session or, without one, the installation's own.
    pub deployment: Arc<Deployment>,
    /// Its session, if it sent a valid one.
    pub session: Option<SessionAccess>,
}

/// A session that the browser is to hold from now on: put into the extensions of a response.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// Its deployment.
    pub deployment: Arc<Deployment>,
    /// Its token.
    pub token: SecretString,
}

/// A session as the browser presented it.
struct PresentedSession {
    token: Token<token::Session>,
    in_cookie: bool,
}

/// Makes routes part of the frontend API: values and errors as
/// `{status, message, data, session, errors}`, with CORS headers and the session's transport.
pub fn frontend(routes: Router<Services>, services: Services) -> Router<Services> {
    routes.layer(from_fn_with_state(services, serve))
}

async fn serve(State(services): State<Services>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let context = ErrorContext::of(&parts.extensions);
    let asking = single_value(&parts.headers, header::ORIGIN).flatten().map(str::to_owned);
    let recognised = identify(&services, &parts).await;
    let (browser, presented) = match recognised {
        Ok(recognised) => recognised,
        Err(error) => {
            // The edge says whether the page that asks may read this.
            return render(error.into_response(), None, &context);
        }
    };
    let deployment = browser.deployment.clone();
    let mut session = browser.session.as_ref().map(|access| access.session().clone());
    // What a preflight is answered with is made of what the path answers to it.
    let mut response = if parts.method == Method::OPTIONS {
        next.run(Request::from_parts(parts, body)).await
    } else {
        match admit(&services, &parts, browser, presented.as_ref()).await {
            Ok(browser) => {
                session = browser.session.as_ref().map(|access| access.session().clone());
                parts.extensions.insert(browser);
                next.run(Request::from_parts(parts, body)).await
            }
            Err(error) => error.into_response(),
        }
    };
    let held = match (response.extensions_mut().remove::<NewSession>(), session, presented) {
        (Some(new), _, _) => Some(new),
        (None, Some(session), Some(presented)) => {
            Some(NewSession { session, deployment: deployment.clone(), token: presented.token.reveal() })
        }
        _ => None,
    };
    let in_use = held.as_ref().map_or(&deployment, |held| &held.deployment);
    if let Some(asking) = &asking {
        allow_origin(&services, response.headers_mut(), asking, in_use);
    }
    if let Some(held) = &held {
        set_session(response.headers_mut(), held, services.store.clock().now());
    }
    render(response, held.as_ref().map(|held| &held.session), &context)
}

/// Finds out who is asking. A session that is not valid is no session.
async fn identify(
    services: &Services,
    parts: &Parts,
) -> Result<(Browser, Option<PresentedSession>), ApiError> {
    let presented = presented(parts);
    let session = match &presented {
        Some(PresentedSession { token, .. }) => {
            match services
                .store
                .authenticate_session(token, origin(parts, &services.settings.trusted_proxies))
                .await
            {
                Ok(access) => Some(access),
                Err(Error::Unauthenticated) => None,
                Err(error) => return Err(error.into()),
            }
        }
        None => None,
    };
    let deployment = match &session {
        Some(access) => services.store.session_deployment(access).await?,
        None => services.first_deployment().await?,
    };
    // In production, sessions travel in cookies only.
    let in_cookie = presented.as_ref().is_some_and(|presented| presented.in_cookie);
    let session = session.filter(|_| in_cookie || deployment.mode == Mode::Staging);
    Ok((Browser { deployment, session }, presented))
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "__dev_session__")]
    token: Option<String>,
}

/// The session that is presented: one of several cookies would be anybody's guess.
fn presented(parts: &Parts) -> Option<PresentedSession> {
    let cookies = parts.headers.get_all(header::COOKIE).into_iter();
    let mut cookies = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == COOKIE).then_some(value));
    if let Some(value) = cookies.next() {
        let token = Token::parse(value).ok().filter(|_| cookies.next().is_none())?;
        return Some(PresentedSession { token, in_cookie: true });
    }
    let query = parts.uri.query().filter(|query| query.contains(PARAMETER))?;
    let Parameters { token } = serde_urlencoded::from_str(query).ok()?;
    let token = Token::parse(&token?).ok()?;
    Some(PresentedSession { token, in_cookie: false })
}

/// Lets a request through to its handler, with a session that it keeps alive.
async fn admit(
    services: &Services,
    parts: &Parts,
    mut browser: Browser,
    presented: Option<&PresentedSession>,
) -> Result<Browser, ApiError> {
    let Some(access) = browser.session.take() else { return Ok(browser) };
    let expected = single_value(&parts.headers, EXPECTED_SESSION);
    if expected
        .is_none_or(|expected| expected.is_some_and(|expected| expected != access.session().id.to_string()))
    {
        return Err(ApiError::new(
            ErrorCode::SessionChanged,
            "Another session was opened in this browser since the page was loaded: reload the page",
        ));
    }
    let initiator = Initiator::of(&parts.headers);
    let intent = require_intent(services, initiator, &browser.deployment);
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    if changes && presented.is_some_and(|presented| presented.in_cookie) {
        intent.clone()?;
        // Browsers name the origin of each such request, their own pages' too.
        if !matches!(initiator, Initiator::Script(_)) {
            return Err(origin_not_allowed());
        }
    }
    browser.session = if intent.is_err() || parts.method == Method::HEAD {
        Some(access)
    } else {
        match services.store.extend_session(access).await {
            Ok(access) => Some(access),
            Err(Error::Unauthenticated) => None,
            Err(error) => return Err(error.into()),
        }
    };
    Ok(browser)
}

/// Requires that somebody who may use the deployment's sessions had a request sent on purpose: a script of an allowed page,
/// or a program that is no browser.
///
/// # Errors
/// 403: another page did, or nobody.
pub fn require_intent(
    services: &Services,
    initiator: Initiator<'_>,
    deployment: &Deployment,
) -> Result<(), ApiError> {
    match initiator {
        Initiator::Script(origin) if !allowed(services, deployment, origin) => Err(origin_not_allowed()),
        Initiator::Script(_) | Initiator::OwnScript | Initiator::Program => Ok(()),
        // Without cookies there is nothing that another page could use or replace.
        Initiator::SilentBrowser if deployment.mode == Mode::Staging => Ok(()),
        Initiator::SilentBrowser | Initiator::Other => Err(ApiError::new(
            ErrorCode::ScriptRequired,
            "Only a script of an allowed page may send this request, not a navigation, a prefetch or an embedded resource",
        )),
    }
}

fn origin_not_allowed() -> ApiError {
    ApiError::new(
        ErrorCode::OriginNotAllowed,
        "This page's origin is not one of the deployment's allowed origins",
    )
}

/// Whether pages of this origin may use the deployment's sessions: those that it or the installation names, and the
/// hosted page.
fn allowed(services: &Services, deployment: &Deployment, origin: &str) -> bool {
    let settings = &services.settings;
    deployment.mode == Mode::Staging
        || origin.parse().is_ok_and(|origin| {
            deployment.allows_origin(&origin)
                || origin == *settings.public_url.origin()
                || settings.allowed_origins.contains(&origin)
        })
}

/// Lets a page of this origin read the response, if the deployment allows it.
pub(crate) fn allow_origin(
    services: &Services,
    headers: &mut HeaderMap,
    asking: &str,
    deployment: &Deployment,
) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = HeaderValue::from_str(asking).ok().filter(|_| allowed(services, deployment, asking))
    else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    expose(headers, Some(deployment.mode));
}

/// Lets a page read what is not in the body, of a deployment of this mode.
pub(crate) fn expose(headers: &mut HeaderMap, mode: Option<Mode>) {
    let names = match mode {
        Some(Mode::Staging) => "X-Request-Id, X-Development-Session",
        Some(Mode::Production) | None => "X-Request-Id",
    };
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(names));
}

/// Sets the session in the browser, for as long as it lasts without another request.
fn set_session(headers: &mut HeaderMap, held: &NewSession, now: DateTime<Utc>) {
    let token = held.token.expose_secret();
    let (name, value) = match held.deployment.mode {
        Mode::Staging => (DEVELOPMENT_SESSION, token.to_owned()),
        Mode::Production => {
            let left = (held.session.expires_at() - now).max(TimeDelta::zero());
            let seconds = (left + TimeDelta::milliseconds(999)).num_seconds();
            let attributes =
                format!("Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=None; Partitioned");
            (header::SET_COOKIE, format!("{COOKIE}={token}; {attributes}"))
        }
    };
    // A token is letters, digits and `_` only: it is always a legal value.
    if let Ok(mut value) = HeaderValue::try_from(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// The envelope of every value and every error.
#[derive(Serialize)]
struct Envelope<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ErrorCode>,
    message: &'a str,
    data: Option<&'a RawValue>,
    session: Option<EnvelopeSession>,
    errors: Option<[EnvelopeError<'a>; 1]>,
    /// Of an error, as is `request_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<EventId>,
}

/// The session that the request was made with or led to.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub struct EnvelopeSession {
    id: SessionId,
    created_at: Instant,
    updated_at: Instant,
}

#[derive(Serialize, ToSchema)]
struct EnvelopeError<'a> {
    /// The code, for programs.
    #[schema(value_type = String, example = "no_session")]
    code: ErrorCode,
    message: &'a str,
}

/// An error, as pages read it.
#[derive(ToSchema)]
#[schema(as = BrowserError)]
#[expect(dead_code, reason = "what is written is an envelope; this describes those of errors")]
pub struct ErrorEnvelope<'a> {
    /// The HTTP status.
    status: u16,
    /// The code, for programs.
    #[schema(value_type = String, example = "no_session")]
    code: ErrorCode,
    /// A sentence for people, which may change.
    message: &'a str,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    data: (),
    session: Option<EnvelopeSession>,
    /// The error again, for clients that read a list.
    errors: [EnvelopeError<'a>; 1],
    /// The page about errors with this code.
    #[schema(example = "https://keys.example.com/errors/no_session")]
    doc_url: String,
    /// The id under which the log has the request.
    request_id: Option<EventId>,
}

fn render(mut response: Response, session: Option<&Session>, context: &ErrorContext) -> Response {
    let session = session.map(|session| EnvelopeSession {
        id: session.id,
        created_at: session.created_at.into(),
        updated_at: session.updated_at.into(),
    });
    let payload = response.extensions_mut().remove::<Payload>();
    let error = if payload.is_none() { error_of(&mut response) } else { None };
    let envelope = match (&payload, &error) {
        (Some(Payload(data)), _) => {
            let (message, data) = ("", Some(&**data));
            Envelope {
                status: 200,
                code: None,
                message,
                data,
                session,
                errors: None,
                doc_url: None,
                request_id: None,
            }
        }
        (None, Some(error)) => Envelope {
            status: error.status.as_u16(),
            code: Some(error.code),
            message: &error.message,
            data: None,
            session,
            errors: Some([EnvelopeError { code: error.code, message: &error.message }]),
            doc_url: Some(context.doc_url(error.code)),
            request_id: context.request_id.map(|RequestId(id)| id),
        },
        (None, None) => return response,
    };
    match serde_json::to_string(&envelope) {
        Ok(json) => json_response(response, json),
        Err(error) => {
            tracing::error!(%error, "an envelope could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
