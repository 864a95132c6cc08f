//! `/api-auth/apps`: apps, for backends.

use axum::extract::State;
use keyward_core::app::{AppSettings, NewApp, OnStoreError};
use keyward_core::path::PathPattern;
use keyward_core::permission::Permission;
use keyward_core::route::{RoutePermission, WrittenRoute};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Slug};
use keyward_core::{Bounds, InvalidField};
use keyward_http::{
    ApiError, Data, Json, LooseId, PageLimit, Path, Query, Root, Services, app_slug, invalid_body,
};
use keyward_store::ListApps;
use serde::{Deserialize, Serialize};

use crate::body::{AppBody, Done, patched};

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
) -> Result<Data<AppList>, ApiError> {
    let search = query.search.filter(|text| !text.trim().is_empty());
    let which = ListApps {
        include_inactive: query.include_inactive,
        search: search.map(|text| Slug::parse("search", text.trim())).transpose()?,
        limit: query.limit.map(PageLimit::get),
        offset: query.offset as usize,
    };
    let page = services.store.apps(&access, &which).await?;
    let apps: Vec<AppBody> = page.apps.into_iter().map(AppBody::new).collect();
    Ok(Data(AppList {
        data: apps.clone(),
        apps,
        total: page.total,
        has_more: page.has_more,
        limit: which.limit.unwrap_or(page.total),
        offset: which.offset,
    }))
}

/// A page of apps, newest first.
#[derive(Debug, Serialize)]
pub(crate) struct AppList {
    apps: Vec<AppBody>,
    /// The same, by the name that some clients read.
    data: Vec<AppBody>,
    /// The number of apps on all pages.
    total: usize,
    has_more: bool,
    limit: usize,
    offset: usize,
}

/// The members of a request that makes or changes an app. Of those that can be changed, `None` is a member that is absent,
/// `Some(None)` one that is null.
#[derive(Debug, Deserialize)]
pub(crate) struct AppRequest {
    /// Of a new app alone, as is `user_id`.
    app_slug: Option<String>,
    slug: Option<String>,
    user_id: Option<LooseId>,
    #[serde(default, deserialize_with = "patched")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "patched")]
    key_prefix: Option<Option<String>>,
    /// Of a change alone: a new app is active.
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

impl AppRequest {
    /// What a new app is to be.
    fn into_new(mut self) -> Result<NewApp, ApiError> {
        let slug = self.app_slug.take().or(self.slug.take());
        let slug = slug.ok_or_else(|| invalid_body("app_slug is required"))?;
        let app_slug = Slug::parse("app_slug", &slug)?;
        let name = self.name.take().ok_or_else(|| invalid_body("name is required"))?;
        let name = Name::parse("name", &name.ok_or_else(|| invalid_body("name must be text"))?)?;
        let key_prefix = self.key_prefix.take().flatten();
        let key_prefix = KeyPrefix::parse("key_prefix", key_prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?;
        let user_id = owner("user_id", self.user_id.take())?;
        self.is_active = None;
        let mut settings = AppSettings::new(name, key_prefix);
        self.into_change()?(&mut settings);
        Ok(NewApp { app_slug, user_id, settings })
    }

    /// What it changes.
    fn into_change(self) -> Result<impl FnOnce(&mut AppSettings) + Send, InvalidField> {
        let name = kept("name", self.name)?;
        let name = name.map(|text| Name::parse("name", &text)).transpose()?;
        let key_prefix = kept("key_prefix", self.key_prefix)?;
        let key_prefix = key_prefix.map(|text| KeyPrefix::parse("key_prefix", &text)).transpose()?;
        let is_active = kept("is_active", self.is_active)?;
        let description = self.description.map(description).transpose()?;
        let of_permissions = |texts| permissions("permissions", texts).map(Bounds::from_list);
        let permissions = self.permissions.map(of_permissions).transpose()?;
        let resources = self.resources.map(resources).transpose()?;
        let route_permissions = self.route_permissions.map(route_permissions).transpose()?;
        let rate_limit_scheme_slug = self.rate_limit_scheme_slug.map(scheme).transpose()?;
        let on_store_error = self.on_store_error.map(on_store_error).transpose()?;
        let organization_id = self.organization_id.map(|id| owner("organization_id", id)).transpose()?;
        let workspace_id = self.workspace_id.map(|id| owner("workspace_id", id)).transpose()?;
        Ok(move |app: &mut AppSettings| {
            set(&mut app.name, name);
            set(&mut app.key_prefix, key_prefix);
            set(&mut app.is_active, is_active);
            set(&mut app.description, description);
            set(&mut app.permissions, permissions);
            set(&mut app.resources, resources);
            set(&mut app.route_permissions, route_permissions);
            set(&mut app.rate_limit_scheme_slug, rate_limit_scheme_slug);
            set(&mut app.on_store_error, on_store_error);
            set(&mut app.organization_id, organization_id);
            set(&mut app.workspace_id, workspace_id);
        })
    }
}

/// Sets what a request names.
fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<AppRequest>,
) -> Result<Data<AppBody>, ApiError> {
    Ok(Data(AppBody::new(services.store.create_app(&access, request.into_new()?).await?)))
}

pub(crate) async fn get(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<AppBody>, ApiError> {
    Ok(Data(AppBody::new(services.store.app(&access, &app_slug(&app)?).await?)))
}

pub(crate) async fn update(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Json(request): Json<AppRequest>,
) -> Result<Data<AppBody>, ApiError> {
    let change = request.into_change()?;
    Ok(Data(AppBody::new(services.store.update_app(&access, &app_slug(&app)?, change).await?)))
}

pub(crate) async fn delete(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<Done>, ApiError> {
    services.store.delete_app(&access, &app_slug(&app)?).await?;
    Ok(Data(Done {}))
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
