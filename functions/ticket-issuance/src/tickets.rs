//! `POST /session/tickets`.

use axum::extract::State;
use chrono::TimeDelta;
use keyward_core::session::{Capability, TICKET_LIFETIME};
use keyward_core::text::{OwnerId, Slug};
use keyward_core::{ErrorCode, InvalidField};
use keyward_http::{ApiError, Data, Json, LooseId, Root};
use keyward_runtime::Services;
use keyward_store::NewTicket;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest lifetime of a ticket, in seconds.
const MAX_LIFETIME: u64 = 3_600;

/// A ticket to issue.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewTicket, example = json!({
    "ticket_type": "api_auth_access", "api_auth_app_slug": "acme", "user_id": "user_42"
}))]
pub(crate) struct Request {
    /// `api_auth_access`.
    ticket_type: String,
    /// The app that it leads to. Required.
    #[schema(value_type = Slug, required = true)]
    api_auth_app_slug: Option<String>,
    /// Your user, on whose behalf the session will act.
    user_id: Option<LooseId>,
    /// The capabilities of the session: all of them where it is not given.
    #[schema(value_type = Option<Vec<Capability>>, min_items = 1)]
    capabilities: Option<Vec<String>>,
    /// For how many seconds it can be exchanged.
    #[schema(minimum = 1, maximum = 3_600, default = 120)]
    expires_in: Option<u64>,
}

/// A ticket.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(crate) struct Issued {
    /// The ticket, which can be exchanged once.
    ticket: String,
    /// In Unix seconds.
    expires_at: i64,
    /// The hosted page, with the ticket.
    url: String,
}

/// Issues a ticket, which a browser exchanges for a session for one app, once your backend has authorized its user.
#[utoipa::path(
    post, path = "/session/tickets", operation_id = "issueTicket", tag = "Tickets", security(("rootKey" = ["tickets"])),
    request_body = Request, responses((status = 200, body = Issued)),
    extensions(("x-errors" = json!([
        ErrorCode::InvalidField, ErrorCode::InvalidTicketType, ErrorCode::UnsupportedTicketType, ErrorCode::NotFound
    ]))),
)]
pub(crate) async fn issue(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<Request>,
) -> Result<Data<Issued>, ApiError> {
    let (ticket, token) = services.store.issue_ticket(&access, parse(request)?).await?;
    let text = token.reveal();
    let text = text.expose_secret();
    Ok(Data(Issued {
        ticket: text.to_owned(),
        expires_at: ticket.expires_at.timestamp(),
        url: format!("{}/vanity/api-auth?ticket={text}", services.settings.public_url),
    }))
}

fn parse(request: Request) -> Result<NewTicket, ApiError> {
    match request.ticket_type.as_str() {
        "api_auth_access" => {}
        "impersonation" | "agent_access" | "webhook_app_access" => {
            return Err(ApiError::new(
                ErrorCode::UnsupportedTicketType,
                "Only tickets of the type 'api_auth_access' are issued here",
            ));
        }
        _ => {
            return Err(ApiError::new(
                ErrorCode::InvalidTicketType,
                "Invalid ticket_type. Must be 'api_auth_access'",
            ));
        }
    }
    let slug = request.api_auth_app_slug.ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidField, "api_auth_app_slug is required for api_auth_access tickets")
    })?;
    let lifetime = match request.expires_in {
        None => TICKET_LIFETIME,
        Some(seconds @ 1..=MAX_LIFETIME) => TimeDelta::seconds(seconds.cast_signed()),
        Some(_) => {
            let problem = format!("must be 1 to {MAX_LIFETIME} seconds");
            return Err(InvalidField::new("expires_in", problem).into());
        }
    };
    let capabilities = match request.capabilities {
        None => Capability::ALL.to_vec(),
        Some(names) if names.is_empty() => {
            return Err(InvalidField::new("capabilities", "must not be empty").into());
        }
        Some(names) => {
            names.iter().map(|name| Capability::parse("capabilities", name)).collect::<Result<_, _>>()?
        }
    };
    Ok(NewTicket {
        app_slug: Slug::parse("api_auth_app_slug", &slug)?,
        actor: request.user_id.map(|id| OwnerId::parse("user_id", &id.0)).transpose()?,
        capabilities,
        lifetime,
    })
}
