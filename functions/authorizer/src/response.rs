//! Responses to API Gateway.

use keyward_core::id::KeyId;
use lambda_http::aws_lambda_events::apigw::{
    ApiGatewayCustomAuthorizerPolicy, ApiGatewayV2CustomAuthorizerSimpleResponse,
};
use lambda_http::aws_lambda_events::iam::{IamPolicyEffect, IamPolicyStatement};
use serde::Serialize;

use crate::context::{self, Context};
use crate::event::{Event, Form};

/// The longest response, in bytes of JSON. The one limit that AWS states, and for WebSocket APIs alone; of HTTP and REST APIs
/// it says nothing, but backends take what they are told in headers of about as much:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const MAX_BYTES: usize = 8 * 1024;
/// The principal of a policy about a request whose key is not known.
const UNKNOWN: &str = "unknown";

/// The response to an event, in the form that the event asks for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// Yes or no.
    Simple(ApiGatewayV2CustomAuthorizerSimpleResponse<Context>),
    /// An IAM policy.
    Policy(PolicyResponse),
}

/// An IAM policy about the one request that was asked about:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyResponse {
    principal_id: String,
    policy_document: ApiGatewayCustomAuthorizerPolicy,
    context: Context,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_identifier_key: Option<String>,
}

impl Response {
    /// Whether the request of this event may go through, and the context for the backend or the caller.
    pub(crate) fn new(event: &Event, is_authorized: bool, key: Option<KeyId>, context: Context) -> Self {
        let mut response = match event.form {
            Form::Simple => {
                let mut response = ApiGatewayV2CustomAuthorizerSimpleResponse::default();
                response.is_authorized = is_authorized;
                Self::Simple(response)
            }
            Form::Policy | Form::MeteredPolicy => Self::Policy(PolicyResponse {
                principal_id: key.map_or_else(|| UNKNOWN.to_owned(), |key| key.to_string()),
                policy_document: policy(is_authorized, &event.arn),
                context: Context::new(),
                usage_identifier_key: key
                    .filter(|_| event.form == Form::MeteredPolicy)
                    .map(usage_identifier_key),
            }),
        };
        let context = context::fit(context, MAX_BYTES.saturating_sub(context::size(&response)));
        match &mut response {
            Self::Simple(response) => response.context = context,
            Self::Policy(response) => response.context = context,
        }
        response
    }
}

/// The identifier that usage plans know the key by: their API keys have 20 to 128 characters.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-key-file-format.html>
fn usage_identifier_key(key: KeyId) -> String {
    format!("keyward{:019}", key.get())
}

fn policy(is_authorized: bool, arn: &str) -> ApiGatewayCustomAuthorizerPolicy {
    let mut statement = IamPolicyStatement::default();
    statement.action = vec!["execute-api:Invoke".to_owned()];
    statement.effect = if is_authorized { IamPolicyEffect::Allow } else { IamPolicyEffect::Deny };
    statement.resource = vec![arn.to_owned()];
    let mut policy = ApiGatewayCustomAuthorizerPolicy::default();
    policy.version = Some("2012-10-17".to_owned());
    policy.statement = vec![statement];
    policy
}
