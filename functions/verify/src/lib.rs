//! `POST /v1/authz/check`: whether a request that came with an API key may go through.

mod answer;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::routing::post;
use keyward_core::decision::Target;
use keyward_core::requirement::Requirement;
use keyward_http::{ApiError, Data, Json, Services, VerifyAuth, backend, invalid_root_key, origin, root_key};
use keyward_store::Error;
use keyward_verifier::{Check, CheckError, Verifier};
use serde::Deserialize;

use crate::answer::{Answer, no_decision};

/// The routes of this function.
pub fn routes(_services: &Services) -> Router<Services> {
    backend(Router::new().route("/v1/authz/check", post(check)))
}

#[derive(Debug, Deserialize)]
struct Request {
    principal: Principal,
    resource: String,
    method: String,
    client_ip: Option<String>,
    user_agent: Option<String>,
    required_permissions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Principal {
    #[serde(rename = "type")]
    kind: PrincipalType,
    value: String,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrincipalType {
    ApiKey,
    OauthAccessToken,
}

async fn check(
    State(services): State<Services>,
    parts: Parts,
    request: Result<Json<Request>, ApiError>,
) -> Result<Data<Answer>, ApiError> {
    let decided = decide(&services, &parts, request).await;
    decided.map_err(no_decision)
}

async fn decide(
    services: &Services,
    parts: &Parts,
    request: Result<Json<Request>, ApiError>,
) -> Result<Data<Answer>, ApiError> {
    let caller = match services.settings.verify_auth {
        VerifyAuth::Required => Some(root_key(parts)?),
        VerifyAuth::Open => None,
    };
    let Json(request) = request?;
    let target = Target::parse(&request.method, &request.resource)?;
    let required = request.required_permissions.unwrap_or_default();
    let required = Requirement::parse_all("required_permissions", &required)?;
    if request.principal.kind == PrincipalType::OauthAccessToken {
        return Err(ApiError::unauthorized(
            "unsupported_principal",
            "OAuth access tokens are not issued here: send an API key as a principal of type 'api_key'",
        ));
    }
    let peer = origin(parts);
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let client_ip = request.client_ip.as_deref().or_else(|| header("x-original-client-ip"));
    let user_agent = request.user_agent.as_deref().or_else(|| header("x-original-user-agent"));
    let check = Check {
        presented: &request.principal.value,
        target,
        required_permissions: &required,
        client_ip: client_ip.unwrap_or(&peer.client_ip),
        user_agent: user_agent.or(peer.user_agent.as_deref()),
        caller: caller.as_ref(),
    };
    let verifier = Verifier::new(services.store.clone(), services.recorder.clone());
    match verifier.check(check).await {
        Ok(decision) => Ok(Data(Answer::new(decision))),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: CheckError) -> ApiError {
    use keyward_core::decision::Refusal;
    match error {
        CheckError::InvalidKey => ApiError::unauthorized("invalid_api_key", "The API key is not valid"),
        CheckError::Refused { refusal, request_id } => {
            let message = format!("Refused: {refusal}");
            let mut error = match refusal {
                Refusal::KeyExpired => ApiError::unauthorized(refusal.code(), message),
                Refusal::KeyRevoked | Refusal::AppDisabled | Refusal::AppDeleted => {
                    ApiError::forbidden(refusal.code(), message)
                }
            };
            error.members.insert("request_id".to_owned(), request_id.to_string().into());
            error
        }
        CheckError::Store(Error::Unauthenticated) => invalid_root_key(),
        CheckError::Store(error) => error.into(),
    }
}
