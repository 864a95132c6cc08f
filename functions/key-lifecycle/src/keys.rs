//! `/api-auth/apps/{slug}/keys` and the flat `/api-auth/keys/rotate|revoke`: keys, for backends.

use axum::extract::State;
use keyward_core::cursor::{InvalidCursor, List};
use keyward_core::id::KeyId;
use keyward_core::instant::Instant;
use keyward_core::key::NewKey;
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::permission::Permission;
use keyward_core::text::{Name, Reason, Slug};
use keyward_core::{ErrorCode, InvalidField};
use keyward_http::{
    ApiError, Data, Json, LooseId, OptionalJson, PageLimit, Path, Query, RawJson, Root, app_slug, key_id,
};
use keyward_runtime::Services;
use keyward_store::{AppAccess, KeyStatus};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::apps::{owner, permissions, scheme};
use crate::body::{Done, KeyBody, KeyWithSecret};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Whether revoked keys are listed too.
    #[serde(default)]
    include_inactive: bool,
    /// The number of keys on a page: all by default.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists an app's keys, newest first.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}/keys", operation_id = "listKeys", tag = "Keys",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The app's slug."), ListQuery),
    responses((status = 200, body = KeyList)), extensions(("x-errors" = json!([ErrorCode::InvalidCursor]))),
)]
pub(crate) async fn list(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Data<KeyList>, ApiError> {
    let limit = query.limit.map(PageLimit::get);
    let status = if query.include_inactive { KeyStatus::All } else { KeyStatus::Active };
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    let list = cursors(&access, query.include_inactive);
    let before = query.cursor.map(|cursor| before(&list, &cursor)).transpose()?;
    let page = services.store.keys(&access, status, before, limit).await?;
    Ok(Data(KeyList {
        keys: page.keys.into_iter().map(|(key, rules)| KeyBody::new(key, rules, &access)).collect(),
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|last| list.cursor(&last.to_string())),
    }))
}

fn cursors(access: &AppAccess, include_inactive: bool) -> List {
    let app = access.app();
    let status = if include_inactive { "all" } else { "active" };
    List::new("keys", [app.deployment_id.to_string().as_str(), &app.number.base62(), status])
}

/// The key before which a page begins.
fn before(list: &List, cursor: &str) -> Result<KeyId, InvalidCursor> {
    list.position(cursor)?.parse().map_err(|_| InvalidCursor)
}

/// A page of keys.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyList)]
pub(crate) struct KeyList {
    keys: Vec<KeyBody>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// A new key. What it does not say of its owner, the app says.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewApiKey, example = json!({"name": "Billing", "permissions": ["invoices:read"], "owner_user_id": "user_42"}))]
pub(crate) struct CreateRequest {
    #[schema(value_type = Name)]
    name: String,
    /// Its permissions, within those that the app's keys may be given.
    #[schema(value_type = Option<Vec<Permission>>)]
    permissions: Option<Vec<String>>,
    /// The permissions that its owner's role in the organization adds.
    #[schema(value_type = Option<Vec<Permission>>)]
    org_role_permissions: Option<Vec<String>>,
    /// The permissions that its owner's role in the workspace adds.
    #[schema(value_type = Option<Vec<Permission>>)]
    workspace_role_permissions: Option<Vec<String>>,
    /// A rate-limit scheme in place of the app's.
    #[schema(value_type = Option<Slug>)]
    rate_limit_scheme_slug: Option<String>,
    /// A JSON object of your own, which comes back as it was written.
    #[serde(skip)]
    #[schema(value_type = Option<Object>)]
    #[expect(
        dead_code,
        reason = "it is read from the body itself, since no other type holds its numbers as they are written"
    )]
    metadata: Option<IgnoredAny>,
    /// When it stops working: in the future, or never where it is not given.
    expires_at: Option<Instant>,
    owner_user_id: Option<LooseId>,
    organization_id: Option<LooseId>,
    workspace_id: Option<LooseId>,
    organization_membership_id: Option<LooseId>,
    workspace_membership_id: Option<LooseId>,
}

/// Creates a key of an app. The response has the key's members, the key again as `key`, and, only this once, `secret`.
#[utoipa::path(
    post, path = "/api-auth/apps/{slug}/keys", operation_id = "createKey", tag = "Keys",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The app's slug.")),
    request_body = CreateRequest, responses((status = 200, body = KeyWithSecret)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    RawJson(request, body): RawJson<CreateRequest>,
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
        metadata: metadata(&body)?,
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

/// The metadata in a body, whose numbers no other type holds as they were written.
fn metadata(body: &[u8]) -> Result<Metadata, InvalidField> {
    #[derive(Deserialize)]
    struct Attached<'b> {
        #[serde(borrow)]
        metadata: Option<&'b RawValue>,
    }
    let attached: Attached<'_> =
        serde_json::from_slice(body).map_err(|_| InvalidField::new("metadata", "must be a JSON object"))?;
    attached.metadata.map_or_else(|| Ok(Metadata::default()), |value| Metadata::parse("metadata", value))
}

/// An object of which no member is read.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Rotation)]
pub(crate) struct RotateRequest {}

/// Gives a key a new secret; the old one stops working immediately. The response is that of creation.
#[utoipa::path(
    post, path = "/api-auth/apps/{slug}/keys/{id}/rotate", operation_id = "rotateKey", tag = "Keys",
    security(("rootKey" = ["manage"])),
    params(("slug" = Slug, Path, description = "The app's slug."), ("id" = KeyId, Path, description = "The key's id.")),
    request_body(content = Option<RotateRequest>), responses((status = 200, body = KeyWithSecret)),
    extensions(("x-errors" = json!([ErrorCode::Conflict]))),
)]
pub(crate) async fn rotate(
    State(services): State<Services>,
    Root(access): Root,
    Path((app, id)): Path<(String, String)>,
    OptionalJson(RotateRequest {}): OptionalJson<RotateRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let id = key_id(&id)?;
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    rotated(&services, &access, id).await
}

/// Why a key is revoked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Revocation)]
pub(crate) struct RevokeRequest {
    #[schema(value_type = Option<Reason>)]
    pub(crate) reason: Option<String>,
}

/// Revokes a key, for good.
#[utoipa::path(
    post, path = "/api-auth/apps/{slug}/keys/{id}/revoke", operation_id = "revokeKey", tag = "Keys",
    security(("rootKey" = ["manage"])),
    params(("slug" = Slug, Path, description = "The app's slug."), ("id" = KeyId, Path, description = "The key's id.")),
    request_body(content = Option<RevokeRequest>), responses((status = 200, body = Done)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn revoke(
    State(services): State<Services>,
    Root(access): Root,
    Path((app, id)): Path<(String, String)>,
    OptionalJson(request): OptionalJson<RevokeRequest>,
) -> Result<Data<Done>, ApiError> {
    let id = key_id(&id)?;
    let access = services.store.app_access(&access, &app_slug(&app)?).await?;
    revoked(&services, &access, id, request.reason).await
}

/// A key by its id: `key_id` or `api_key_id`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KeyById, example = json!({"key_id": "251658240000000000"}))]
pub(crate) struct ByIdRequest {
    key_id: Option<LooseId>,
    /// The same by another name.
    api_key_id: Option<LooseId>,
    /// Why it is revoked. Of a revocation alone.
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
}

impl ByIdRequest {
    fn id(&self) -> Result<KeyId, ApiError> {
        let id = self.key_id.as_ref().or(self.api_key_id.as_ref());
        let id = id.ok_or_else(|| ApiError::new(ErrorCode::InvalidField, "key_id is required"))?;
        key_id(&id.0)
    }
}

/// Gives a key a new secret, by its id alone.
#[utoipa::path(
    post, path = "/api-auth/keys/rotate", operation_id = "rotateKeyById", tag = "Keys",
    security(("rootKey" = ["manage"])), request_body = ByIdRequest, responses((status = 200, body = KeyWithSecret)),
    extensions(("x-errors" = json!([
        ErrorCode::InvalidField, ErrorCode::InvalidKeyId, ErrorCode::NotFound, ErrorCode::Conflict
    ]))),
)]
pub(crate) async fn rotate_by_id(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<ByIdRequest>,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let id = request.id()?;
    let access = services.store.app_access_by_key(&access, id).await?;
    rotated(&services, &access, id).await
}

/// Revokes a key for good, by its id alone.
#[utoipa::path(
    post, path = "/api-auth/keys/revoke", operation_id = "revokeKeyById", tag = "Keys",
    security(("rootKey" = ["manage"])), request_body = ByIdRequest, responses((status = 200, body = Done)),
    extensions(("x-errors" = json!([
        ErrorCode::InvalidField, ErrorCode::InvalidKeyId, ErrorCode::NotFound, ErrorCode::Conflict
    ]))),
)]
pub(crate) async fn revoke_by_id(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<ByIdRequest>,
) -> Result<Data<Done>, ApiError> {
    let id = request.id()?;
    let access = services.store.app_access_by_key(&access, id).await?;
    revoked(&services, &access, id, request.reason).await
}

/// Creates a key and responds with its secret.
pub(crate) async fn created(
    services: &Services,
    access: &AppAccess,
    new: NewKey,
) -> Result<Data<KeyWithSecret>, ApiError> {
    let (key, rules, token) = services.store.create_key(access, new).await?;
    Ok(Data(KeyWithSecret::new(KeyBody::new(key, rules, access), &token)))
}

/// Rotates a key and responds with its new secret.
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
) -> Result<Data<Done>, ApiError> {
    match services.store.revoke_key(access, id, parse_reason(reason)?).await? {
        Some(_) => Ok(Data(Done {})),
        None => Err(ApiError::new(ErrorCode::NotFound, "API key not found or already revoked")),
    }
}

/// Parses a reason; a blank one is none.
pub(crate) fn parse_reason(text: Option<String>) -> Result<Option<Reason>, InvalidField> {
    let given = text.filter(|text| !text.trim().is_empty());
    given.map(|text| Reason::parse("reason", &text)).transpose()
}
