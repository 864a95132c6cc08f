//! `/api-auth/keys`: the keys of a session's app, for browsers.

use axum::extract::State;
use keyward_core::ErrorCode;
use keyward_core::id::KeyId;
use keyward_core::instant::Instant;
use keyward_core::key::NewKey;
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::text::Name;
use keyward_http::{ActiveSession, ApiError, Data, FormOrJson, Path, Query, key_id};
use keyward_runtime::Services;
use keyward_store::KeyStatus;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{KeyBody, KeyWithSecret};
use crate::keys::{RevokeRequest, RotateRequest, created, parse_reason, rotated};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// `active`, `revoked`, `expired` or `all`.
    #[param(default = "active")]
    status: Option<String>,
    /// Whether all keys are listed where `status` does not say.
    #[serde(default)]
    include_inactive: bool,
}

impl ListQuery {
    fn parse(&self) -> Result<KeyStatus, ApiError> {
        let status = self.status.as_deref().map(|text| text.trim().to_ascii_lowercase());
        match status.as_deref() {
            None if self.include_inactive => Ok(KeyStatus::All),
            None | Some("active") => Ok(KeyStatus::Active),
            Some("revoked") => Ok(KeyStatus::Revoked),
            Some("expired") => Ok(KeyStatus::Expired),
            Some("all") => Ok(KeyStatus::All),
            Some(_) => Err(ApiError::new(
                ErrorCode::InvalidStatus,
                "invalid status filter: must be active, revoked, expired or all",
            )),
        }
    }
}

/// Lists the keys of the session's app, newest first.
#[utoipa::path(
    get, path = "/api-auth/keys", operation_id = "listSessionKeys", tag = "Session",
    security(("session" = ["keys:read"])), params(ListQuery), responses((status = 200, body = Vec<KeyBody>)),
    extensions(("x-errors" = json!([ErrorCode::InvalidStatus]))),
)]
pub(crate) async fn list(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Query(query): Query<ListQuery>,
) -> Result<Data<Vec<KeyBody>>, ApiError> {
    let status = query.parse()?;
    let access = services.store.session_app(&session).await?;
    let page = services.store.keys(&access, status, None, None).await?;
    let keys = page.keys.into_iter();
    Ok(Data(keys.map(|(key, rules)| KeyBody::new(key, rules, &access)).collect()))
}

/// A new key that a customer creates. Permissions, limits and metadata are for the backend to set.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NewSessionKey)]
pub(crate) struct CreateRequest {
    #[serde(default)]
    #[schema(value_type = Name, required = true)]
    name: String,
    /// When it stops working: never where it is absent, empty or null.
    #[schema(value_type = Option<Instant>)]
    expires_at: Option<String>,
}

/// Creates a key. `data.secret` is the whole key, shown only this once.
#[utoipa::path(
    post, path = "/api-auth/keys", operation_id = "createSessionKey", tag = "Session",
    security(("session" = ["keys:create"])),
    request_body(content((CreateRequest = "application/json"), (CreateRequest = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = KeyWithSecret)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn create(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    FormOrJson(request): FormOrJson<CreateRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    if request.name.trim().is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidField, "name is required"));
    }
    let expires_at = request.expires_at.filter(|text| !text.trim().is_empty());
    let new = NewKey {
        name: Name::parse("name", &request.name)?,
        permissions: vec![],
        org_role_permissions: vec![],
        workspace_role_permissions: vec![],
        rate_limit_scheme_slug: None,
        metadata: Metadata::default(),
        expires_at: expires_at.map(|text| Instant::parse("expires_at", text.trim())).transpose()?,
        owner: Owner::default(),
    };
    let access = services.store.session_app(&session).await?;
    created(&services, &access, new).await
}

/// Gives a key a new secret, which is `data.secret`, shown only this once.
#[utoipa::path(
    post, path = "/api-auth/keys/{id}/rotate", operation_id = "rotateSessionKey", tag = "Session",
    security(("session" = ["keys:rotate"])), params(("id" = KeyId, Path, description = "The key's id.")),
    request_body(content((Option<RotateRequest> = "application/json"), (Option<RotateRequest> = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = KeyWithSecret)), extensions(("x-errors" = json!([ErrorCode::Conflict]))),
)]
pub(crate) async fn rotate(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Path(id): Path<String>,
    FormOrJson(RotateRequest {}): FormOrJson<RotateRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let id = key_id(&id)?;
    let access = services.store.session_app(&session).await?;
    rotated(&services, &access, id).await
}

/// That a key is revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Revoked {
    success: bool,
}

/// Revokes a key, for good. Revoking it again succeeds and changes nothing.
#[utoipa::path(
    post, path = "/api-auth/keys/{id}/revoke", operation_id = "revokeSessionKey", tag = "Session",
    security(("session" = ["keys:revoke"])), params(("id" = KeyId, Path, description = "The key's id.")),
    request_body(content((Option<RevokeRequest> = "application/json"), (Option<RevokeRequest> = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = Revoked)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn revoke(
    State(services): State<Services>,
    ActiveSession(session): ActiveSession,
    Path(id): Path<String>,
    FormOrJson(request): FormOrJson<RevokeRequest>,
) -> Result<Data<Revoked>, ApiError> {
    let id = key_id(&id)?;
    let reason = parse_reason(request.reason)?;
    let access = services.store.session_app(&session).await?;
    services.store.revoke_key(&access, id, reason).await?;
    Ok(Data(Revoked { success: true }))
}
