//! The response to a check, and the headers that it suggests to pass on.

use std::collections::BTreeMap;

use keyward_core::ErrorCode;
use keyward_core::audit::{BlockedBy, EventId};
use keyward_core::decision::Denial;
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::metadata::Members;
use keyward_core::permission::Permission;
use keyward_core::rate_limit::Status;
use keyward_core::text::{Name, OwnerId, Slug};
use keyward_http::{ApiError, ErrorBody, ErrorContext};
use keyward_verifier::{Decision, PRINCIPAL_TYPE};
use serde::Serialize;
use serde_json::value::to_raw_value;
use utoipa::ToSchema;

const PRINCIPAL: &str = "api_key";

/// The answer on a key that works.
#[derive(Serialize, ToSchema)]
#[schema(as = Decision)]
pub(crate) struct CheckResponse {
    request_id: EventId,
    allowed: bool,
    /// `permission_denied` or `rate_limited`; null where it is allowed.
    #[schema(value_type = Option<String>)]
    reason: Option<ErrorCode>,
    /// The name of the rule that is exhausted, such as `100/60s`, or `reason`.
    #[schema(value_type = Option<String>)]
    blocked_rule: Option<BlockedBy>,
    /// For a request that may not go through, what errors have too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    identity: Identity,
    /// All that the key may do.
    permissions: Vec<Permission>,
    #[schema(value_type = Object)]
    metadata: Members,
    rate_limits: Vec<Status>,
    /// In how many seconds the rule that blocked it lets a request through again.
    retry_after: Option<u32>,
    /// Suggestions to pass on to your service.
    headers: BTreeMap<String, String>,
}

/// The responses to a batch, in the order of its checks.
#[derive(Serialize, ToSchema)]
#[schema(as = Decisions)]
pub(crate) struct Results {
    pub(crate) results: Vec<BatchResult>,
}

/// The response that the check would have had alone.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchResult {
    /// The status.
    status: u16,
    /// The members of the body.
    #[serde(flatten)]
    body: Body,
}

/// A decision, or the error.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = DecisionOrError)]
enum Body {
    Decision(Box<CheckResponse>),
    Error(ErrorBody),
}

impl BatchResult {
    /// The result of a check, in a request with this context: an error is in the log under its id.
    pub(crate) fn new(decided: Result<CheckResponse, ApiError>, context: &ErrorContext) -> Self {
        match decided {
            Ok(response) => Self { status: 200, body: Body::Decision(Box::new(response)) },
            Err(error) => {
                let error = no_decision(error);
                Self { status: error.status.as_u16(), body: Body::Error(error.into_body(context)) }
            }
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Identity {
    principal_type: &'static str,
    key_id: KeyId,
    deployment_id: DeploymentId,
    app_slug: Slug,
    key_name: Name,
    owner_user_id: Option<OwnerId>,
    organization_id: Option<OwnerId>,
    workspace_id: Option<OwnerId>,
    organization_membership_id: Option<OwnerId>,
    workspace_membership_id: Option<OwnerId>,
}

impl CheckResponse {
    pub(crate) fn new(decision: Decision) -> Self {
        let (allowed, retry_after, headers) =
            (decision.allowed(), decision.retry_after(), decision.headers());
        let Decision { request_id, key, permissions, limits, denied } = decision;
        let reason = denied.as_ref().map(Denial::code);
        let mut metadata = key.metadata.into_members();
        // Clients take the principal's type from here: what the SaaS wrote must not pass for it.
        metadata.remove(PRINCIPAL_TYPE);
        metadata.extend(to_raw_value(PRINCIPAL).map(|kind| (PRINCIPAL_TYPE.to_owned(), kind)));
        Self {
            request_id,
            allowed,
            reason,
            blocked_rule: denied.as_ref().map(Denial::blocked_by),
            code: reason,
            message: denied.as_ref().map(|denial| format!("Denied: {denial}")),
            identity: Identity {
                principal_type: PRINCIPAL,
                key_id: key.id,
                deployment_id: key.deployment_id,
                app_slug: key.app_slug,
                key_name: key.name,
                owner_user_id: key.owner.owner_user_id,
                organization_id: key.owner.organization_id,
                workspace_id: key.owner.workspace_id,
                organization_membership_id: key.owner.organization_membership_id,
                workspace_membership_id: key.owner.workspace_membership_id,
            },
            permissions,
            metadata,
            rate_limits: limits,
            retry_after,
            headers,
        }
    }
}

/// An error that has all the members of a response too, for clients that read those first.
pub(crate) fn no_decision(mut error: ApiError) -> ApiError {
    error.is_undecided = true;
    error
}
