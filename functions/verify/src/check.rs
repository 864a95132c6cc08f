//! `POST /v1/authz/check` and `POST /v1/authz/check/batch`.

use axum::extract::State;
use axum::http::request::Parts;
use keyward_core::accepted::{Accepted, AcceptedApps, AcceptedDeployment};
use keyward_core::id::DeploymentId;
use keyward_core::requirement::Requirement;
use keyward_core::target::Target;
use keyward_core::text::Slug;
use keyward_core::token::{RootKey, Token};
use keyward_core::{ClientAddress, ErrorCode, InvalidField};
use keyward_http::{ApiError, Data, ErrorContext, Item, Json, RequestId, invalid_root_key, origin, root_key};
use keyward_runtime::{Services, VerifyAuth};
use keyward_store::Error;
use keyward_verifier::{Check, CheckError, Verifier};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::response::{BatchResult, CheckResponse, Results, no_decision};

/// The maximum number of checks in a batch.
const MAX_BATCH: usize = 100;

/// Requests to decide on, which are decided in this order.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CheckBatch)]
pub(crate) struct Batch {
    #[schema(value_type = Vec<Request>, min_items = 1, max_items = 100)]
    checks: Vec<Item<Request>>,
}

/// A request to your API, to be decided on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Check, example = json!({
    "principal": {"type": "api_key", "value": "acme_live_…"}, "apps": ["acme"], "method": "GET", "resource": "/v1/users"
}))]
pub(crate) struct Request {
    principal: Principal,
    /// The target as your service got it: a path, or a URL of which the path counts.
    resource: String,
    method: String,
    /// The address of your customer's client, for limits by address and the audit log: the header `x-original-client-ip`,
    /// or else the caller, where it is not given.
    client_ip: Option<String>,
    /// The client's `User-Agent`: the header `x-original-user-agent`, or else that of the caller, where it is not given.
    user_agent: Option<String>,
    /// Permissions, or expressions of them with `AND`, `OR`, commas and parentheses, all of which must hold.
    required_permissions: Option<Vec<String>>,
    /// The apps whose keys your API is for. Without them a key of any app passes.
    #[schema(value_type = Option<Vec<Slug>>, min_items = 1, max_items = 100)]
    apps: Option<Vec<String>>,
    /// The deployment of these apps: that of the root key or else the first, where it is not given.
    deployment_id: Option<DeploymentId>,
}

/// The credential that the request came with.
#[derive(Deserialize, ToSchema)]
struct Principal {
    #[serde(rename = "type")]
    kind: PrincipalType,
    /// The API key.
    value: String,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

/// The kind of credential. Only API keys are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PrincipalType {
    ApiKey,
    OauthAccessToken,
}

/// Decides on a request to your API that came with an API key, and records the decision.
#[utoipa::path(
    post, path = "/v1/authz/check", operation_id = "check", tag = "Checks", security((), ("rootKey" = ["verify"])),
    request_body = Request, responses((status = 200, body = CheckResponse)),
    extensions(("x-errors" = json!([
        ErrorCode::InvalidField, ErrorCode::UnsupportedPrincipal, ErrorCode::InvalidApiKey, ErrorCode::KeyExpired,
        ErrorCode::KeyRevoked, ErrorCode::AppDisabled, ErrorCode::AppDeleted
    ]))),
)]
pub(crate) async fn check(
    State(services): State<Services>,
    parts: Parts,
    request: Result<Json<Request>, ApiError>,
) -> Result<Data<CheckResponse>, ApiError> {
    let decided = decide(&services, &parts, request).await;
    decided.map(Data).map_err(no_decision)
}

async fn decide(
    services: &Services,
    parts: &Parts,
    request: Result<Json<Request>, ApiError>,
) -> Result<CheckResponse, ApiError> {
    let caller = caller(services, parts)?;
    let Json(request) = request?;
    let parsed = ParsedCheck::parse(request)?;
    let peer = Peer::of(services, parts);
    let request_id = RequestId::of(&parts.extensions).map(|RequestId(id)| id);
    let check = Check { request_id, ..parsed.check(&peer) };
    let decided = verifier(services).check(&check, caller).await;
    decided.map(CheckResponse::new).map_err(to_api_error)
}

/// Decides on 1 to 100 requests. `results` are in their order: the response that each would have had alone, and its
/// `status`. A failure of one does not affect the others.
#[utoipa::path(
    post, path = "/v1/authz/check/batch", operation_id = "checkBatch", tag = "Checks",
    security((), ("rootKey" = ["verify"])), request_body = Batch, responses((status = 200, body = Results)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
pub(crate) async fn check_batch(
    State(services): State<Services>,
    parts: Parts,
    batch: Result<Json<Batch>, ApiError>,
) -> Result<Data<Results>, ApiError> {
    let caller = caller(&services, &parts)?;
    let Json(batch) = batch?;
    if !(1..=MAX_BATCH).contains(&batch.checks.len()) {
        return Err(InvalidField::new("checks", format!("must have 1 to {MAX_BATCH} entries")).into());
    }
    let peer = Peer::of(&services, &parts);
    let parsed: Vec<Result<ParsedCheck, ApiError>> =
        batch.checks.into_iter().map(|Item(check)| ParsedCheck::parse(check?)).collect();
    let checks: Vec<Check<'_>> = parsed.iter().flatten().map(|parsed| parsed.check(&peer)).collect();
    let decided = verifier(&services).check_all(&checks, caller).await;
    let mut decided = decided.map_err(|error| to_api_error(error.into()))?.into_iter();
    let results = parsed.iter().filter_map(|parsed| match parsed {
        Ok(_) => decided.next().map(|decided| decided.map(CheckResponse::new).map_err(to_api_error)),
        Err(wrong) => Some(Err(wrong.clone())),
    });
    let context = ErrorContext::of(&parts.extensions);
    Ok(Data(Results { results: results.map(|decided| BatchResult::new(decided, &context)).collect() }))
}

/// The root key of the caller, where the installation requires one.
fn caller(services: &Services, parts: &Parts) -> Result<Option<Token<RootKey>>, ApiError> {
    match services.settings.verify_auth {
        VerifyAuth::Required => root_key(parts).map(Some),
        VerifyAuth::Open => Ok(None),
    }
}

fn verifier(services: &Services) -> Verifier {
    Verifier::new(services.store.clone(), services.recorder.clone(), services.public.deployment_id())
}

/// A check, parsed.
struct ParsedCheck {
    request: Request,
    client_ip: Option<ClientAddress>,
    accepted: Accepted,
    target: Target,
    required: Vec<Requirement>,
}

impl ParsedCheck {
    fn parse(request: Request) -> Result<Self, ApiError> {
        let target = Target::parse(&request.method, &request.resource)?;
        let client_ip = request.client_ip.as_deref().map(|text| ClientAddress::parse("client_ip", text));
        let client_ip = client_ip.transpose()?;
        let accepted = accepted(request.apps.as_deref(), request.deployment_id)?;
        let required = request.required_permissions.as_deref().unwrap_or_default();
        let required = Requirement::parse_all("required_permissions", required)?;
        if request.principal.kind == PrincipalType::OauthAccessToken {
            return Err(ApiError::new(
                ErrorCode::UnsupportedPrincipal,
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

/// The apps whose keys are accepted. Slugs are those of one deployment: the one that is named, that of the root key, or
/// the first.
fn accepted(apps: Option<&[String]>, deployment: Option<DeploymentId>) -> Result<Accepted, InvalidField> {
    let apps = apps.map_or(Ok(AcceptedApps::Any), |slugs| AcceptedApps::named("apps", slugs))?;
    let deployment = match (deployment, &apps) {
        (Some(id), _) => AcceptedDeployment::Id(id),
        (None, AcceptedApps::Named(_)) => AcceptedDeployment::First,
        (None, AcceptedApps::Any) => AcceptedDeployment::Any,
    };
    Ok(Accepted { deployment, apps })
}

/// The client as the caller passes it on in headers, or else the caller.
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

fn to_api_error(error: CheckError) -> ApiError {
    let mut api_error = ApiError::new(error.code(), error.to_string());
    match error {
        CheckError::InvalidKey => {}
        CheckError::Refused { request_id, .. } => {
            api_error.request_id = Some(request_id);
        }
        CheckError::Store(Error::Unauthenticated) => return invalid_root_key(),
        CheckError::Store(error) => return error.into(),
    }
    api_error
}
