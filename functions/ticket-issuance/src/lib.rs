//! `POST /session/tickets`: a backend that has authorized its user hands the user's browser a ticket.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use chrono::TimeDelta;
use keyward_core::InvalidField;
use keyward_core::session::{Capability, TICKET_LIFETIME};
use keyward_core::text::{OwnerId, Slug};
use keyward_http::{ApiError, Data, Json, LooseId, Root, Services, backend};
use keyward_store::NewTicket;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// The longest lifetime of a ticket, in seconds.
const LONGEST: u64 = 3_600;

/// The routes of this function.
pub fn routes(_services: &Services) -> Router<Services> {
    backend(Router::new().route("/session/tickets", post(issue)))
}

#[derive(Debug, Deserialize)]
struct Request {
    ticket_type: String,
    api_auth_app_slug: Option<String>,
    user_id: Option<LooseId>,
    capabilities: Option<Vec<String>>,
    expires_in: Option<u64>,
}

#[derive(Serialize)]
struct Issued {
    ticket: String,
    /// Unix seconds.
    expires_at: i64,
    url: String,
}

async fn issue(
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
            return Err(ApiError::bad_request(
                "unsupported_ticket_type",
                "Only tickets of the type 'api_auth_access' are issued here",
            ));
        }
        _ => {
            return Err(ApiError::bad_request(
                "invalid_ticket_type",
                "Invalid ticket_type. Must be 'api_auth_access'",
            ));
        }
    }
    let slug = request.api_auth_app_slug.ok_or_else(|| {
        ApiError::bad_request("invalid_field", "api_auth_app_slug is required for api_auth_access tickets")
    })?;
    let lifetime = match request.expires_in {
        None => TICKET_LIFETIME,
        Some(seconds @ 1..=LONGEST) => TimeDelta::seconds(seconds.cast_signed()),
        Some(_) => {
            let problem = format!("must be 1 to {LONGEST} seconds");
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
