//! `/api-auth/apps`: apps, for backends.

use axum::extract::State;
use keyward_core::app::OnStoreError;
use keyward_core::path::PathPattern;
use keyward_core::permission::Permission;
use keyward_core::route::{RoutePermission, WrittenRoute};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Slug};
use keyward_core::{Bounds, InvalidField};
use keyward_http::{
    ApiError, Data, Json, LooseId, PageLimit, Path, Query, Root, Services, app_slug, invalid_body,
};
use keyward_store::{AppChanges, ListApps, NewApp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{AppBody, patched};

/// What keys begin with where their app does not say.
const DEFAULT_PREFIX: &str = "wk_live";

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    include_inactive: bool,
    limit: Option<PageLimit>,
    #[serde(default)]
    offset: u32,
    search: Option<String>,
}

pub(crate) async fn list(
    State(services): State<Services>,
    Root(access): Root,
    Query(query): Query<ListQuery>,
) -> Result<Data<Value>, ApiError> {
    let search = query.search.filter(|text| !text.trim().is_empty());
    let which = ListApps {
        include_inactive: query.include_inactive,
        search: search.map(|text| Slug::parse("search", text.trim())).transpose()?,
        limit: query.limit.map(PageLimit::get),
        offset: query.offset as usize,
    };
    let page = services.store.apps(&access, &which).await?;
    let apps: Vec<AppBody> = page.apps.into_iter().map(AppBody::new).collect();
    Ok(Data(json!({
        "apps": apps,
        "data": apps,
        "total": page.total,
        "has_more": page.has_more,
        "limit": which.limit.unwrap_or(page.total),
        "offset": which.offset,
    })))
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateRequest {
    app_slug: Option<String>,
    slug: Option<String>,
    name: String,
    key_prefix: Option<String>,
    description: Option<String>,
    permissions: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    route_permissions: Option<Vec<WrittenRoute>>,
    rate_limit_scheme_slug: Option<String>,
    on_store_error: Option<String>,
    user_id: Option<LooseId>,
    organization_id: Option<LooseId>,
    workspace_id: Option<LooseId>,
}

pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<CreateRequest>,
) -> Result<Data<AppBody>, ApiError> {
    let slug = request.app_slug.or(request.slug).ok_or_else(|| invalid_body("app_slug is required"))?;
    let new = NewApp {
        app_slug: Slug::parse("app_slug", &slug)?,
        name: Name::parse("name", &request.name)?,
        key_prefix: KeyPrefix::parse("key_prefix", request.key_prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?,
        description: description(request.description)?,
        permissions: Bounds::from_list(permissions("permissions", request.permissions)?),
        resources: resources(request.resources)?,
        route_permissions: route_permissions(request.route_permissions)?,
        rate_limit_scheme_slug: scheme(request.rate_limit_scheme_slug)?,
        on_store_error: on_store_error(request.on_store_error)?,
        user_id: owner("user_id", request.user_id)?,
        organization_id: owner("organization_id", request.organization_id)?,
        workspace_id: owner("workspace_id", request.workspace_id)?,
    };
    Ok(Data(AppBody::new(services.store.create_app(&access, new).await?)))
}

pub(crate) async fn get(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<AppBody>, ApiError> {
    Ok(Data(AppBody::new(services.store.app(&access, &app_slug(&app)?).await?)))
}

#[derive(Debug, Deserialize)]
pub(crate) struct UpdateRequest {
    #[serde(default, deserialize_with = "patched")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    key_prefix: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    is_active: Option<Option<bool>>,
    #[serde(default, deserialize_with = "patched")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    permissions: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "patched")]
    resources: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "patched")]
    route_permissions: Option<Option<Vec<WrittenRoute>>>,
    #[serde(default, deserialize_with = "patched")]
    rate_limit_scheme_slug: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    on_store_error: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    organization_id: Option<Option<LooseId>>,
    #[serde(default, deserialize_with = "patched")]
    workspace_id: Option<Option<LooseId>>,
}

pub(crate) async fn update(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Json(request): Json<UpdateRequest>,
) -> Result<Data<AppBody>, ApiError> {
    let name = kept("name", request.name)?;
    let key_prefix = kept("key_prefix", request.key_prefix)?;
    let changes = AppChanges {
        name: name.map(|text| Name::parse("name", &text)).transpose()?,
        key_prefix: key_prefix.map(|text| KeyPrefix::parse("key_prefix", &text)).transpose()?,
        is_active: kept("is_active", request.is_active)?,
        permissions: request
            .permissions
            .map(|texts| permissions("permissions", texts).map(Bounds::from_list))
            .transpose()?,
        resources: request.resources.map(resources).transpose()?,
        route_permissions: request.route_permissions.map(route_permissions).transpose()?,
        description: request.description.map(description).transpose()?,
        rate_limit_scheme_slug: request.rate_limit_scheme_slug.map(scheme).transpose()?,
        on_store_error: request.on_store_error.map(on_store_error).transpose()?,
        organization_id: request.organization_id.map(|id| owner("organization_id", id)).transpose()?,
        workspace_id: request.workspace_id.map(|id| owner("workspace_id", id)).transpose()?,
    };
    let updated = services.store.update_app(&access, &app_slug(&app)?, changes).await?;
    Ok(Data(AppBody::new(updated)))
}

pub(crate) async fn delete(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<Value>, ApiError> {
    services.store.delete_app(&access, &app_slug(&app)?).await?;
    Ok(Data(json!({})))
}

/// A member that can be changed but not cleared.
fn kept<T>(field: &str, member: Option<Option<T>>) -> Result<Option<T>, InvalidField> {
    match member {
        Some(None) => Err(InvalidField::new(field, "must not be null")),
        Some(value) => Ok(value),
        None => Ok(None),
    }
}

fn description(text: Option<String>) -> Result<Option<Description>, InvalidField> {
    text.map(|text| Description::parse("description", &text)).transpose()
}

/// The default where none is given.
fn on_store_error(text: Option<String>) -> Result<OnStoreError, InvalidField> {
    text.map_or(Ok(OnStoreError::default()), |text| OnStoreError::parse("on_store_error", &text))
}

pub(crate) fn scheme(text: Option<String>) -> Result<Option<Slug>, InvalidField> {
    text.map(|text| Slug::parse("rate_limit_scheme_slug", &text)).transpose()
}

/// The permissions in this field, without duplicates, in the order they came.
pub(crate) fn permissions(field: &str, texts: Option<Vec<String>>) -> Result<Vec<Permission>, InvalidField> {
    distinct(texts, |text| Permission::parse(field, text))
}

fn resources(texts: Option<Vec<String>>) -> Result<Bounds<PathPattern>, InvalidField> {
    distinct(texts, |text| PathPattern::parse("resources", text)).map(Bounds::from_list)
}

fn route_permissions(routes: Option<Vec<WrittenRoute>>) -> Result<Vec<RoutePermission>, InvalidField> {
    RoutePermission::parse_all("route_permissions", &routes.unwrap_or_default())
}

fn distinct<T: PartialEq>(
    texts: Option<Vec<String>>,
    parse: impl Fn(&str) -> Result<T, InvalidField>,
) -> Result<Vec<T>, InvalidField> {
    let mut found = Vec::new();
    for text in texts.unwrap_or_default() {
        let value = parse(&text)?;
        if !found.contains(&value) {
            found.push(value);
        }
    }
    Ok(found)
}

pub(crate) fn owner(field: &str, id: Option<LooseId>) -> Result<Option<OwnerId>, InvalidField> {
    id.map(|id| OwnerId::parse(field, &id.0)).transpose()
}
