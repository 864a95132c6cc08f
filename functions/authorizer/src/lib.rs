//! The Lambda authorizer of an HTTP API: whether a request that came with an API key may go through.
//!
//! Takes the authorizer event of payload format 2.0 and gives a simple response. A request without a valid key is not
//! authorized, which API Gateway answers with 403; when the store fails the authorizer fails, which it answers with 500.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html>

use keyward_core::decision::Target;
use keyward_core::metric::Metric;
use keyward_core::permission::Permission;
use keyward_http::Services;
use keyward_verifier::{Check, CheckError, Decision, Verifier};
use lambda_http::aws_lambda_events::apigw::{
    ApiGatewayV2CustomAuthorizerSimpleResponse, ApiGatewayV2CustomAuthorizerV2Request,
};
use lambda_http::http::HeaderMap;
use serde_json::{Map, Value};

/// The answer: whether the request is authorized, and what its backend is told of the key, all of it texts.
pub type Response = ApiGatewayV2CustomAuthorizerSimpleResponse<Map<String, Value>>;

/// Decides on a request, by the key in `Authorization: Bearer` or in `x-api-key`, and records the decision.
///
/// # Errors
/// The store could not tell.
pub async fn authorize(
    services: &Services,
    event: ApiGatewayV2CustomAuthorizerV2Request,
) -> Result<Response, lambda_http::Error> {
    let http = &event.request_context.http;
    let path = event.raw_path.as_deref().or(http.path.as_deref()).unwrap_or_default();
    let (Some(presented), Ok(target)) = (api_key(&event.headers), Target::parse(http.method.as_str(), path))
    else {
        return Ok(refused("missing_api_key"));
    };
    let check = Check {
        presented,
        target: &target,
        required_permissions: &[],
        client_ip: http.source_ip.as_deref().unwrap_or_default(),
        user_agent: http.user_agent.as_deref(),
    };
    let verifier = Verifier::new(services.store.clone(), services.recorder.clone());
    let decided = verifier.check(&check, None).await;
    // The process may be frozen as soon as it has answered.
    services.recorder.flush().await;
    match decided {
        Ok(decision) => Ok(authorized(decision)),
        Err(CheckError::InvalidKey) => Ok(refused("invalid_api_key")),
        Err(CheckError::Refused { refusal, .. }) => Ok(refused(refusal.code())),
        Err(CheckError::Store(error)) => {
            tracing::error!(metric = Metric::StoreFailures.name(), %error, "a request was not decided on");
            Err(error.into())
        }
    }
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| text("x-api-key"))
}

fn refused(code: &str) -> Response {
    let mut response = Response::default();
    response.context.insert("code".to_owned(), code.into());
    response
}

fn authorized(decision: Decision) -> Response {
    let allowed = decision.allowed();
    let Decision { request_id, key, permissions, .. } = decision;
    let permissions: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
    let owner = key.owner;
    let texts = [
        ("request_id", Some(request_id.to_string())),
        ("key_id", Some(key.id.to_string())),
        ("key_name", Some(key.name.to_string())),
        ("app_slug", Some(key.app_slug.to_string())),
        ("deployment_id", Some(key.deployment_id.to_string())),
        ("permissions", Some(permissions.join(","))),
        ("owner_user_id", owner.owner_user_id.map(|id| id.to_string())),
        ("organization_id", owner.organization_id.map(|id| id.to_string())),
        ("workspace_id", owner.workspace_id.map(|id| id.to_string())),
    ];
    let mut response = Response::default();
    response.is_authorized = allowed;
    response.context =
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?)))).collect();
    response
}
