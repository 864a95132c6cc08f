//! `POST /v1/authz/check`: whether a request that came with an API key may go through; and the same of several at once.

mod answer;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::routing::post;
use keyward_core::accepted::{Accepted, AcceptedApps, AcceptedDeployment};
use keyward_core::id::DeploymentId;
use keyward_core::requirement::Requirement;
use keyward_core::target::Target;
use keyward_core::token::{RootKey, Token};
use keyward_core::{ClientAddress, InvalidField};
use keyward_http::{
    ApiError, Data, Item, Json, RequestId, Services, VerifyAuth, backend, invalid_root_key, origin, root_key,
};
use keyward_store::Error;
use keyward_verifier::{Check, CheckError, Verifier};
use serde::Deserialize;

use crate::answer::{Answer, BatchResult, Results, no_decision};

/// The routes of this function.
pub fn routes(_services: &Services) -> Router<Services> {
    let routes = Router::new().route("/v1/authz/check", post(check));
    backend(routes.route("/v1/authz/check/batch", post(check_batch)))
}

/// How many requests one call decides on.
const LONGEST_BATCH: usize = 100;

#[derive(Debug, Deserialize)]
struct Batch {
    checks: Vec<Item<Request>>,
}

#[derive(Debug, Deserialize)]
struct Request {
    principal: Principal,
    resource: String,
    method: String,
    client_ip: Option<String>,
    user_agent: Option<String>,
    required_permissions: Option<Vec<String>>,
    apps: Option<Vec<String>>,
    deployment_id: Option<DeploymentId>,
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
    decided.map(Data).map_err(no_decision)
}

async fn decide(
    services: &Services,
    parts: &Parts,
    request: Result<Json<Request>, ApiError>,
) -> Result<Answer, ApiError> {
    let caller = caller(services, parts)?;
    let Json(request) = request?;
    let asked = Asked::parse(request)?;
    let peer = Peer::of(services, parts);
    let request_id = RequestId::of(&parts.extensions).map(|RequestId(id)| id);
    let check = Check { request_id, ..asked.check(&peer) };
    let decided = verifier(services).check(&check, caller).await;
    decided.map(Answer::new).map_err(refused)
}

async fn check_batch(
    State(services): State<Services>,
    parts: Parts,
    batch: Result<Json<Batch>, ApiError>,
) -> Result<Data<Results>, ApiError> {
    let caller = caller(&services, &parts)?;
    let Json(batch) = batch?;
    if !(1..=LONGEST_BATCH).contains(&batch.checks.len()) {
        return Err(InvalidField::new("checks", format!("must hold 1 to {LONGEST_BATCH} checks")).into());
    }
    let peer = Peer::of(&services, &parts);
    let asked: Vec<Result<Asked, ApiError>> =
        batch.checks.into_iter().map(|Item(check)| Asked::parse(check?)).collect();
    let checks: Vec<Check<'_>> = asked.iter().flatten().map(|asked| asked.check(&peer)).collect();
    let decided = verifier(&services).check_all(&checks, caller).await;
    let mut decided = decided.map_err(|error| refused(error.into()))?.into_iter();
    let results = asked.iter().filter_map(|asked| match asked {
        Ok(_) => decided.next().map(|decided| decided.map(Answer::new).map_err(refused)),
        Err(wrong) => Some(Err(wrong.clone())),
    });
    let id = RequestId::of(&parts.extensions);
    Ok(Data(Results { results: results.map(|decided| BatchResult::new(decided, id)).collect() }))
}

/// The root key of whoever asks, where the installation wants one.
fn caller(services: &Services, parts: &Parts) -> Result<Option<Token<RootKey>>, ApiError> {
    match services.settings.verify_auth {
        VerifyAuth::Required => root_key(parts).map(Some),
        VerifyAuth::Open => Ok(None),
    }
}

fn verifier(services: &Services) -> Verifier {
    Verifier::new(services.store.clone(), services.recorder.clone(), services.public.deployment_id())
}

/// What is asked of one request, parsed.
struct Asked {
    request: Request,
    client_ip: Option<ClientAddress>,
    accepted: Accepted,
    target: Target,
    required: Vec<Requirement>,
}

impl Asked {
    fn parse(request: Request) -> Result<Self, ApiError> {
        let target = Target::parse(&request.method, &request.resource)?;
        let client_ip = request.client_ip.as_deref().map(|text| ClientAddress::parse("client_ip", text));
        let client_ip = client_ip.transpose()?;
        let accepted = accepted(request.apps.as_deref(), request.deployment_id)?;
        let required = request.required_permissions.as_deref().unwrap_or_default();
        let required = Requirement::parse_all("required_permissions", required)?;
        if request.principal.kind == PrincipalType::OauthAccessToken {
            return Err(ApiError::unauthorized(
                "unsupported_principal",
                "OAuth access tokens are not issued here: send an API key as a principal of type 'api_key'",
            ));
        }
        Ok(Self { request, client_ip, accepted, target, required })
    }

    /// `peer` is taken for the client where the request names none.
    fn check<'a>(&'a self, peer: &'a Peer) -> Check<'a> {
        Check {
            presented: &self.request.principal.value,
            accepted: &self.accepted,
            target: &self.target,
            required_permissions: &self.required,
            client_ip: self.client_ip.or(peer.client_ip),
            user_agent: self.request.user_agent.as_deref().or(peer.user_agent.as_deref()),
            request_id: None,
        }
    }
}

/// Whose keys are accepted. Slugs are those of one deployment: the one that is named, that of the root key, or the first.
fn accepted(apps: Option<&[String]>, deployment: Option<DeploymentId>) -> Result<Accepted, InvalidField> {
    let apps = apps.map_or(Ok(AcceptedApps::Any), |slugs| AcceptedApps::named("apps", slugs))?;
    let deployment = match (deployment, &apps) {
        (Some(id), _) => AcceptedDeployment::Id(id),
        (None, AcceptedApps::Named(_)) => AcceptedDeployment::First,
        (None, AcceptedApps::Any) => AcceptedDeployment::Any,
    };
    Ok(Accepted { deployment, apps })
}

/// The client as whoever asks passes it on in headers, or else whoever asks.
struct Peer {
    client_ip: Option<ClientAddress>,
    user_agent: Option<String>,
}

impl Peer {
    fn of(services: &Services, parts: &Parts) -> Self {
        let peer = origin(parts, &services.settings.trusted_proxies);
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            client_ip: header("x-original-client-ip").and_then(|text| text.parse().ok()).or(peer.client_ip),
            user_agent: header("x-original-user-agent").map(str::to_owned).or(peer.user_agent),
        }
    }
}

fn refused(error: CheckError) -> ApiError {
    let mut refused = ApiError::new(error.status(), error.code(), error.to_string());
    match error {
        CheckError::InvalidKey => {}
        CheckError::Refused { request_id, .. } => {
            refused.members.insert("request_id".to_owned(), request_id.to_string().into());
        }
        CheckError::Store(Error::Unauthenticated) => return invalid_root_key(),
        CheckError::Store(error) => return error.into(),
    }
    refused
}
