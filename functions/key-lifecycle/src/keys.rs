//! `/api-auth/apps/{slug}/keys` and the flat `/api-auth/keys/rotate|revoke`: keys, for backends.

use axum::extract::State;
use chrono::{DateTime, Utc};
use keyward_core::InvalidField;
use keyward_core::id::KeyId;
use keyward_core::key::{Metadata, Owner};
use keyward_core::text::{Name, Reason};
use keyward_http::{
    ApiError, Data, Json, LooseId, OptionalJson, Path, Query, Root, Services, app_slug, key_id, page_limit,
};
use keyward_store::{AppAccess, Error, KeyStatus, NewKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::apps::{owner, permissions, scheme};
use crate::body::{KeyBody, KeyWithSecret};

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    include_inactive: bool,
    limit: Option<u32>,
    cursor: Option<String>,
}

pub(crate) async fn list(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Data<Value>, ApiError> {
    let limit = page_limit(query.limit)?;
    let cursor = query.cursor.map(|text| text.parse::<KeyId>()).transpose();
    let before = cursor.map_err(|_| ApiError::bad_request("invalid_cursor", "invalid cursor"))?;
    let status = if query.include_inactive { KeyStatus::All } else { KeyStatus::Active };
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    let page = services.store.keys(&access, status, before, limit).await?;
    let keys: Vec<KeyBody> =
        page.keys.into_iter().map(|(key, rules)| KeyBody::new(key, rules, &access)).collect();
    Ok(Data(json!({"keys": keys, "has_more": page.next.is_some(), "next_cursor": page.next})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateRequest {
    name: String,
    permissions: Option<Vec<String>>,
    org_role_permissions: Option<Vec<String>>,
    workspace_role_permissions: Option<Vec<String>>,
    rate_limit_scheme_slug: Option<String>,
    metadata: Option<Value>,
    expires_at: Option<DateTime<Utc>>,
    owner_user_id: Option<LooseId>,
    organization_id: Option<LooseId>,
    workspace_id: Option<LooseId>,
    organization_membership_id: Option<LooseId>,
    workspace_membership_id: Option<LooseId>,
}

pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Json(request): Json<CreateRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let new = NewKey {
        name: Name::parse("name", &request.name)?,
        permissions: permissions("permissions", request.permissions)?,
        org_role_permissions: permissions("org_role_permissions", request.org_role_permissions)?,
        workspace_role_permissions: permissions(
            "workspace_role_permissions",
            request.workspace_role_permissions,
        )?,
        rate_limit_scheme_slug: scheme(request.rate_limit_scheme_slug)?,
        metadata: Metadata::parse("metadata", request.metadata.unwrap_or_default())?,
        expires_at: request.expires_at,
        owner: Owner {
            owner_user_id: owner("owner_user_id", request.owner_user_id)?,
            organization_id: owner("organization_id", request.organization_id)?,
            workspace_id: owner("workspace_id", request.workspace_id)?,
            organization_membership_id: owner(
                "organization_membership_id",
                request.organization_membership_id,
            )?,
            workspace_membership_id: owner("workspace_membership_id", request.workspace_membership_id)?,
        },
    };
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    created(&services, &access, new).await
}

pub(crate) async fn rotate(
    State(services): State<Services>,
    Root(access): Root,
    Path((app, id)): Path<(String, String)>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let id = key_id(&id)?;
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    rotated(&services, &access, id).await
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RevokeRequest {
    pub(crate) reason: Option<String>,
}

pub(crate) async fn revoke(
    State(services): State<Services>,
    Root(access): Root,
    Path((app, id)): Path<(String, String)>,
    OptionalJson(request): OptionalJson<RevokeRequest>,
) -> Result<Data<Value>, ApiError> {
    let id = key_id(&id)?;
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    revoked(&services, &access, id, request.reason).await
}

#[derive(Debug, Deserialize)]
pub(crate) struct ByIdRequest {
    key_id: Option<LooseId>,
    api_key_id: Option<LooseId>,
    reason: Option<String>,
}

impl ByIdRequest {
    fn id(&self) -> Result<KeyId, ApiError> {
        let id = self.key_id.as_ref().or(self.api_key_id.as_ref());
        let id = id.ok_or_else(|| ApiError::bad_request("invalid_field", "key_id is required"))?;
        key_id(&id.0)
    }
}

pub(crate) async fn rotate_by_id(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<ByIdRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let id = request.id()?;
    let access = services.store.app_access_by_key(&access, id).await?;
    rotated(&services, &access, id).await
}

pub(crate) async fn revoke_by_id(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<ByIdRequest>,
) -> Result<Data<Value>, ApiError> {
    let id = request.id()?;
    let access = services.store.app_access_by_key(&access, id).await?;
    revoked(&services, &access, id, request.reason).await
}

/// Makes a key and answers with its secret.
pub(crate) async fn created(
    services: &Services,
    access: &AppAccess,
    new: NewKey,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let (key, rules, token) = services.store.create_key(access, new).await?;
    Ok(Data(KeyWithSecret::new(KeyBody::new(key, rules, access), &token)))
}

/// Rotates a key and answers with its new secret.
pub(crate) async fn rotated(
    services: &Services,
    access: &AppAccess,
    id: KeyId,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let (key, rules, token) = services.store.rotate_key(access, id).await?;
    Ok(Data(KeyWithSecret::new(KeyBody::new(key, rules, access), &token)))
}

async fn revoked(
    services: &Services,
    access: &AppAccess,
    id: KeyId,
    reason: Option<String>,
) -> Result<Data<Value>, ApiError> {
    match services.store.revoke_key(access, id, parse_reason(reason)?).await? {
        Some(_) => Ok(Data(json!({}))),
        None => Err(Error::NotFound("API key not found or already revoked").into()),
    }
}

/// Parses a reason; a blank one is none.
pub(crate) fn parse_reason(text: Option<String>) -> Result<Option<Reason>, InvalidField> {
    let given = text.filter(|text| !text.trim().is_empty());
    given.map(|text| Reason::parse("reason", &text)).transpose()
}
