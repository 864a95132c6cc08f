//! `/api-auth/apps/{slug}/keys` and the flat `/api-auth/keys/rotate|revoke`: keys, for backends.

use axum::extract::State;
use keyward_core::InvalidField;
use keyward_core::cursor::{InvalidCursor, List};
use keyward_core::id::KeyId;
use keyward_core::instant::Instant;
use keyward_core::key::NewKey;
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::text::{Name, Reason};
use keyward_http::{
    ApiError, Data, Json, JsonAsWritten, LooseId, OptionalJson, PageLimit, Path, Query, Root, Services,
    app_slug, key_id,
};
use keyward_store::{AppAccess, Error, KeyStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::apps::{owner, permissions, scheme};
use crate::body::{Done, KeyBody, KeyWithSecret};

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    include_inactive: bool,
    limit: Option<PageLimit>,
    cursor: Option<String>,
}

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
#[derive(Serialize)]
pub(crate) struct KeyList {
    keys: Vec<KeyBody>,
    has_more: bool,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateRequest {
    name: String,
    permissions: Option<Vec<String>>,
    org_role_permissions: Option<Vec<String>>,
    workspace_role_permissions: Option<Vec<String>>,
    rate_limit_scheme_slug: Option<String>,
    expires_at: Option<Instant>,
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
    JsonAsWritten(request, body): JsonAsWritten<CreateRequest>,
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
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RotateRequest {}

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

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RevokeRequest {
    pub(crate) reason: Option<String>,
}

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
) -> Result<Data<Done>, ApiError> {
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
) -> Result<Data<Done>, ApiError> {
    match services.store.revoke_key(access, id, parse_reason(reason)?).await? {
        Some(_) => Ok(Data(Done {})),
        None => Err(Error::NotFound("API key not found or already revoked").into()),
    }
}

/// Parses a reason; a blank one is none.
pub(crate) fn parse_reason(text: Option<String>) -> Result<Option<Reason>, InvalidField> {
    let given = text.filter(|text| !text.trim().is_empty());
    given.map(|text| Reason::parse("reason", &text)).transpose()
}
