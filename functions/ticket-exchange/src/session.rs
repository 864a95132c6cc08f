//! `GET /session/ticket/exchange` and `GET /api-auth/session`.

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use keyward_core::id::SessionId;
use keyward_core::rate_limit::{Rule, Rules};
use keyward_core::token::{self, Token};
use keyward_core::{App, ErrorCode};
use keyward_http::{
    ActiveSession, ApiError, Browser, Data, Initiator, NewSession, Query, origin, require_intent,
};
use keyward_runtime::Services;
use keyward_store::Error;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExchangeQuery {
    /// The ticket. Required.
    #[param(required = true, value_type = String)]
    ticket: Option<String>,
}

/// A new session.
#[derive(Serialize, ToSchema)]
struct Exchanged {
    success: bool,
    message: &'static str,
    #[serde(flatten)]
    access: Access,
}

/// A session and its app.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionAccess)]
pub(crate) struct Access {
    session_id: SessionId,
    api_auth_app: SessionApp,
}

/// The app that a session is for.
#[derive(Serialize, ToSchema)]
struct SessionApp {
    /// The slug again, by the name that older clients read.
    id: String,
    app_slug: String,
    name: String,
    key_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    is_active: bool,
    /// The rules of its scheme.
    rate_limits: Vec<Rule>,
}

impl Access {
    fn new(session_id: SessionId, app: &App, rules: Option<Rules>) -> Self {
        Self {
            session_id,
            api_auth_app: SessionApp {
                id: app.app_slug.to_string(),
                app_slug: app.app_slug.to_string(),
                name: app.settings.name.to_string(),
                key_prefix: app.settings.key_prefix.to_string(),
                description: app.settings.description.as_ref().map(ToString::to_string),
                is_active: app.settings.is_active,
                rate_limits: rules.map(Vec::from).unwrap_or_default(),
            },
        }
    }
}

/// Exchanges a ticket for a session, once. The browser that won may repeat it.
#[utoipa::path(
    get, path = "/session/ticket/exchange", operation_id = "exchangeTicket", tag = "Session", params(ExchangeQuery),
    responses((status = 200, body = Exchanged)),
    extensions(("x-errors" = json!([
        ErrorCode::TicketRequired, ErrorCode::InvalidTicket, ErrorCode::Forbidden, ErrorCode::Conflict
    ]))),
)]
pub(crate) async fn exchange(
    State(services): State<Services>,
    Extension(browser): Extension<Browser>,
    Query(query): Query<ExchangeQuery>,
    parts: axum::http::request::Parts,
) -> Result<Response, ApiError> {
    // An exchange is no safe method (RFC 9110, 9.2.1), whatever the protocol calls it: HEAD must not stand for it.
    if parts.method == Method::HEAD {
        return Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response());
    }
    let text = query.ticket.filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| ApiError::new(ErrorCode::TicketRequired, "ticket is required"))?;
    let ticket = Token::<token::Ticket>::parse(&text).map_err(|_| invalid())?;
    let recognised = services.store.authenticate_ticket(&ticket).await.map_err(to_api_error)?;
    require_intent(&services, Initiator::of(&parts.headers), recognised.deployment())?;
    let origin = origin(&parts, &services.settings.trusted_proxies);
    let exchange = services.store.exchange_ticket(recognised, browser.session.as_ref(), &origin).await;
    let exchange = exchange.map_err(to_api_error)?;
    let body = Data(Exchanged {
        success: true,
        message: "API auth app session created",
        access: Access::new(exchange.session.id, &exchange.app, exchange.rules),
    });
    let mut response = body.into_response();
    if let Some(token) = exchange.token {
        response.extensions_mut().insert(NewSession {
            session: exchange.session,
            deployment: exchange.deployment,
            token: token.reveal(),
        });
    }
    Ok(response)
}

fn to_api_error(error: Error) -> ApiError {
    match error {
        Error::Unauthenticated => invalid(),
        error => error.into(),
    }
}

fn invalid() -> ApiError {
    ApiError::new(ErrorCode::InvalidTicket, "Invalid or expired ticket")
}

/// Gets the session's app.
#[utoipa::path(
    get, path = "/api-auth/session", operation_id = "getSession", tag = "Session", security(("session" = [])),
    responses((status = 200, body = Access)), extensions(("x-errors" = json!([[400, ErrorCode::AppDeleted]]))),
)]
pub(crate) async fn current(
    State(services): State<Services>,
    ActiveSession(access): ActiveSession,
) -> Result<Data<Access>, ApiError> {
    let app = services.store.session_app(&access).await.map_err(|error| match error {
        Error::NotFound(_) => {
            ApiError::new(ErrorCode::AppDeleted, "Invalid API auth app session: the app was deleted")
                .with_status(StatusCode::BAD_REQUEST)
        }
        error => error.into(),
    })?;
    let rules = services.store.app_rules(&app).await?;
    Ok(Data(Access::new(access.session().id, app.app(), rules)))
}
