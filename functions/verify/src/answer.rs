//! The answer to a check, and the headers that it suggests to pass on.

use std::collections::BTreeMap;

use keyward_core::ApiKey;
use keyward_core::audit::EventId;
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::permission::Permission;
use keyward_core::text::{Name, OwnerId, Slug};
use keyward_http::ApiError;
use keyward_verifier::Decision;
use serde::Serialize;
use serde_json::{Map, Value, json};

const PRINCIPAL: &str = "api_key";
/// The member of the metadata from which clients take the principal's type.
const TYPE: &str = "principal_type";
const DENIED: &str = "permission_denied";

/// The answer on a key that works.
#[derive(Serialize)]
pub(crate) struct Answer {
    request_id: EventId,
    allowed: bool,
    reason: Option<&'static str>,
    blocked_rule: Option<&'static str>,
    identity: Identity,
    permissions: Vec<Permission>,
    metadata: Map<String, Value>,
    rate_limits: [Value; 0],
    retry_after: Option<u32>,
    headers: BTreeMap<&'static str, String>,
}

/// The answers to a batch, in the order of its checks.
#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) results: Vec<BatchResult>,
}

/// What the check would have been answered with alone.
#[derive(Serialize)]
pub(crate) struct BatchResult {
    /// The status.
    status: u16,
    /// The members of the body.
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body {
    Answer(Box<Answer>),
    Error(Map<String, Value>),
}

impl From<Result<Answer, ApiError>> for BatchResult {
    fn from(decided: Result<Answer, ApiError>) -> Self {
        match decided {
            Ok(answer) => Self { status: 200, body: Body::Answer(Box::new(answer)) },
            Err(error) => {
                let error = no_decision(error);
                Self { status: error.status.as_u16(), body: Body::Error(error.into_body()) }
            }
        }
    }
}

#[derive(Serialize)]
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

impl Answer {
    pub(crate) fn new(decision: Decision) -> Self {
        let headers = headers(&decision);
        let Decision { request_id, allowed, key, permissions } = decision;
        let denied = (!allowed).then_some(DENIED);
        let mut metadata = key.metadata.into_members();
        // Clients take the principal's type from here: what the SaaS wrote must not pass for it.
        metadata.insert(TYPE.to_owned(), PRINCIPAL.into());
        Self {
            request_id,
            allowed,
            reason: denied,
            blocked_rule: denied,
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
            rate_limits: [],
            retry_after: None,
            headers,
        }
    }
}

fn headers(decision: &Decision) -> BTreeMap<&'static str, String> {
    let Decision { key, .. } = decision;
    let legal = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let or_invalid = |text: &str| {
        if legal(text) { text.to_owned() } else { "invalid".to_owned() }
    };
    let mut headers = BTreeMap::from([
        ("x-wacht-key-id", key.id.to_string()),
        ("x-wacht-deployment-id", key.deployment_id.to_string()),
        ("x-wacht-app-slug", key.app_slug.to_string()),
        ("x-wacht-key-name", or_invalid(key.name.as_str())),
    ]);
    let owner = &key.owner;
    for (name, id) in [
        ("x-wacht-organization-id", &owner.organization_id),
        ("x-wacht-workspace-id", &owner.workspace_id),
        ("x-wacht-organization-membership-id", &owner.organization_membership_id),
        ("x-wacht-workspace-membership-id", &owner.workspace_membership_id),
    ] {
        if let Some(id) = id {
            headers.insert(name, or_invalid(id.as_str()));
        }
    }
    let permissions: Vec<&str> = decision.permissions.iter().map(Permission::as_str).collect();
    for (name, text) in
        [("x-wacht-permissions", permissions.join(",")), ("x-wacht-metadata", flat_metadata(key))]
    {
        if !text.is_empty() && legal(&text) {
            headers.insert(name, text);
        }
    }
    if !decision.allowed {
        headers.insert("x-wacht-permission-denied", "true".to_owned());
    }
    headers
}

/// The metadata's texts as `name=text`, separated by commas, but for what could pass for the principal's type.
fn flat_metadata(key: &ApiKey) -> String {
    let members = key.metadata.members().iter().filter(|(name, _)| *name != TYPE);
    let texts = members.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
    texts.collect::<Vec<_>>().join(",")
}

/// An error that has all the members of an answer too, blank, for clients that read those first.
pub(crate) fn no_decision(mut error: ApiError) -> ApiError {
    let blank = json!({
        "request_id": null,
        "allowed": false,
        "reason": null,
        "blocked_rule": null,
        "identity": null,
        "permissions": [],
        "metadata": null,
        "rate_limits": [],
        "retry_after": null,
        "headers": {},
    });
    if let Value::Object(blank) = blank {
        for (name, value) in blank {
            error.members.entry(name).or_insert(value);
        }
    }
    error
}
