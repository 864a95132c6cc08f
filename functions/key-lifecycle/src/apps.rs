//! `/api-auth/apps`: apps, for backends.

use std::borrow::Cow;

use axum::extract::State;
use keyward_core::app::{AppSettings, NewApp, OnStoreError};
use keyward_core::audit_settings::{
    AuditClientIp, AuditDurability, AuditLevel, AuditSettings, RetentionDays, SampleOneIn,
};
use keyward_core::path::PathPattern;
use keyward_core::permission::Permission;
use keyward_core::route::{RawRoute, RoutePermission};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Slug};
use keyward_core::{Bounds, ErrorCode, InvalidField};
use keyward_http::{ApiError, Data, Json, LooseId, PageLimit, Path, Query, Root, app_slug, invalid_body};
use keyward_runtime::Services;
use keyward_store::ListApps;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::body::{AppBody, Done, patched};

/// The prefix of keys where their app does not say.
const DEFAULT_PREFIX: &str = "wk_live";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Whether disabled apps are listed too.
    #[serde(default)]
    include_inactive: bool,
    /// The number of apps on a page: all by default.
    limit: Option<PageLimit>,
    /// The number of apps to skip before the page.
    #[serde(default)]
    offset: u32,
    /// A slug: the app that has it is listed alone.
    #[param(value_type = Option<Slug>)]
    search: Option<String>,
}

/// Lists apps, newest first.
#[utoipa::path(
    get, path = "/api-auth/apps", operation_id = "listApps", tag = "Apps", security(("rootKey" = ["manage"])),
    params(ListQuery), responses((status = 200, body = AppList)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField]))),
)]
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
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppList {
    apps: Vec<AppBody>,
    /// The same, by the name that some clients read.
    data: Vec<AppBody>,
    /// The number of apps on all pages.
    total: usize,
    has_more: bool,
    /// The limit that was asked for, or `total`.
    limit: usize,
    offset: usize,
}

/// The members of a request that creates or changes an app. In a change, absent members stay and null ones are cleared.
// `None` is a member that is absent, `Some(None)` one that is null.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AppSettings)]
pub(crate) struct AppRequest {
    /// The app's slug. Of a new app alone: it never changes.
    #[schema(value_type = Option<Slug>)]
    app_slug: Option<String>,
    /// The same by another name.
    #[schema(value_type = Option<Slug>)]
    slug: Option<String>,
    /// The user whose app it is, in your own ids. Of a new app alone.
    user_id: Option<LooseId>,
    /// The name that people see.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Name)]
    name: Option<Option<String>>,
    /// The prefix of the app's keys. Those that exist keep theirs.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<KeyPrefix>, default = "wk_live")]
    key_prefix: Option<Option<String>>,
    /// Whether the app's keys work. Of a change alone: a new app is active.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = bool)]
    is_active: Option<Option<bool>>,
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Description>)]
    description: Option<Option<String>>,
    /// The permissions that the app's keys may be given. None, or an empty list, sets no bounds.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Vec<Permission>>)]
    permissions: Option<Option<Vec<String>>>,
    /// The paths that the app's keys may reach, in which `*` stands for any text. None, or an empty list, sets no bounds.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["/v1/users/*"]))]
    resources: Option<Option<Vec<String>>>,
    /// The permissions that requests to the app's routes need, however they are checked.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Vec<RawRoute>>, max_items = 32)]
    route_permissions: Option<Option<Vec<RawRoute>>>,
    /// The rate-limit scheme of the app's keys, but for those with one of their own.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<Slug>)]
    rate_limit_scheme_slug: Option<Option<String>>,
    /// The response to a request whose rate limits cannot be counted.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<OnStoreError>, default = "deny")]
    on_store_error: Option<Option<String>>,
    /// When the event of a check is written.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<AuditDurability>, default = "after_answer")]
    audit_durability: Option<Option<String>>,
    /// Of which checks there are events: a `sampled` one stands for `audit_sample_one_in`, and figures are estimates. The last
    /// use of keys is noted in any case.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<AuditLevel>, default = "all")]
    audit_level: Option<Option<String>>,
    /// Of how many checks one has an event, where they are `sampled`.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<SampleOneIn>, default = 100)]
    audit_sample_one_in: Option<Option<u32>>,
    /// The part of clients' addresses that events hold: `truncated` ones to 24 bits of IPv4 and 48 of IPv6.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<AuditClientIp>, default = "full")]
    audit_client_ip: Option<Option<String>>,
    /// Whether events hold clients' user agents.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<bool>, default = true)]
    audit_user_agent: Option<Option<bool>>,
    /// The number of days for which the events of checks are kept, from when they are written.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<RetentionDays>, default = 90)]
    audit_request_days: Option<Option<u32>>,
    /// The number of days for which the events of changes are kept, from when they are written.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<RetentionDays>, default = 730)]
    audit_change_days: Option<Option<u32>>,
    /// The organization whose app it is, in your own ids.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<LooseId>)]
    organization_id: Option<Option<LooseId>>,
    /// The workspace whose app it is, in your own ids.
    #[serde(default, deserialize_with = "patched")]
    #[schema(value_type = Option<LooseId>)]
    workspace_id: Option<Option<LooseId>>,
}

/// A new app: its settings, of which `name` and `app_slug` or `slug` are required.
pub(crate) struct NewAppSchema;

impl PartialSchema for NewAppSchema {
    fn schema() -> RefOr<Schema> {
        let with = |names: &[&str]| names.iter().fold(ObjectBuilder::new(), |all, name| all.required(*name));
        AllOfBuilder::new()
            .item(Ref::from_schema_name(AppRequest::name()))
            .item(with(&["name"]))
            .item(AnyOfBuilder::new().item(with(&["app_slug"])).item(with(&["slug"])))
            .description(Some("A new app. Its slug is `app_slug` or `slug`."))
            .examples([json!({"app_slug": "acme", "name": "Acme", "key_prefix": "acme_live"})])
            .into()
    }
}

impl ToSchema for NewAppSchema {
    fn name() -> Cow<'static, str> {
        "NewApp".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((AppRequest::name().into(), AppRequest::schema()));
        AppRequest::schemas(schemas);
    }
}

impl AppRequest {
    /// The new app.
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

    /// The change.
    fn into_change(self) -> Result<impl FnOnce(&mut AppSettings) + Send, InvalidField> {
        let name = non_null("name", self.name)?;
        let name = name.map(|text| Name::parse("name", &text)).transpose()?;
        let key_prefix = non_null("key_prefix", self.key_prefix)?;
        let key_prefix = key_prefix.map(|text| KeyPrefix::parse("key_prefix", &text)).transpose()?;
        let is_active = non_null("is_active", self.is_active)?;
        let description = self.description.map(description).transpose()?;
        let of_permissions = |texts| permissions("permissions", texts).map(Bounds::from_list);
        let permissions = self.permissions.map(of_permissions).transpose()?;
        let resources = self.resources.map(resources).transpose()?;
        let route_permissions = self.route_permissions.map(route_permissions).transpose()?;
        let rate_limit_scheme_slug = self.rate_limit_scheme_slug.map(scheme).transpose()?;
        let on_store_error =
            setting("on_store_error", self.on_store_error, OnStoreError::default(), |field, text| {
                OnStoreError::parse(field, &text)
            })?;
        let default = AuditSettings::default();
        let audit_durability =
            setting("audit_durability", self.audit_durability, default.durability, |field, text| {
                AuditDurability::parse(field, &text)
            })?;
        let audit_level = setting("audit_level", self.audit_level, default.level, |field, text| {
            AuditLevel::parse(field, &text)
        })?;
        let audit_sample_one_in = setting(
            "audit_sample_one_in",
            self.audit_sample_one_in,
            default.sample_one_in,
            SampleOneIn::parse,
        )?;
        let audit_client_ip =
            setting("audit_client_ip", self.audit_client_ip, default.client_ip, |field, text| {
                AuditClientIp::parse(field, &text)
            })?;
        let audit_user_agent = self.audit_user_agent.map(|keep| keep.unwrap_or(default.user_agent));
        let audit_request_days = setting(
            "audit_request_days",
            self.audit_request_days,
            default.request_days,
            RetentionDays::parse,
        )?;
        let audit_change_days =
            setting("audit_change_days", self.audit_change_days, default.change_days, RetentionDays::parse)?;
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
            set(&mut app.audit.durability, audit_durability);
            set(&mut app.audit.level, audit_level);
            set(&mut app.audit.sample_one_in, audit_sample_one_in);
            set(&mut app.audit.client_ip, audit_client_ip);
            set(&mut app.audit.user_agent, audit_user_agent);
            set(&mut app.audit.request_days, audit_request_days);
            set(&mut app.audit.change_days, audit_change_days);
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

/// Creates an app.
#[utoipa::path(
    post, path = "/api-auth/apps", operation_id = "createApp", tag = "Apps", security(("rootKey" = ["manage"])),
    request_body = NewAppSchema, responses((status = 200, body = AppBody)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::NotFound, ErrorCode::Conflict]))),
)]
pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<AppRequest>,
) -> Result<Data<AppBody>, ApiError> {
    Ok(Data(AppBody::new(services.store.create_app(&access, request.into_new()?).await?)))
}

/// Gets an app.
#[utoipa::path(
    get, path = "/api-auth/apps/{slug}", operation_id = "getApp", tag = "Apps", security(("rootKey" = ["manage"])),
    params(("slug" = Slug, Path, description = "The app's slug.")), responses((status = 200, body = AppBody)),
)]
pub(crate) async fn get(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<AppBody>, ApiError> {
    Ok(Data(AppBody::new(services.store.app(&access, &app_slug(&app)?).await?)))
}

/// Changes an app: absent members stay, null ones are cleared. `is_active: false` disables all its keys.
#[utoipa::path(
    patch, path = "/api-auth/apps/{slug}", operation_id = "updateApp", tag = "Apps",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The app's slug.")),
    request_body = AppRequest, responses((status = 200, body = AppBody)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn update(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
    Json(request): Json<AppRequest>,
) -> Result<Data<AppBody>, ApiError> {
    let change = request.into_change()?;
    Ok(Data(AppBody::new(services.store.update_app(&access, &app_slug(&app)?, change).await?)))
}

/// Deletes an app: its keys stop working, and its slug stays taken.
#[utoipa::path(
    delete, path = "/api-auth/apps/{slug}", operation_id = "deleteApp", tag = "Apps",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The app's slug.")),
    responses((status = 200, body = Done)), extensions(("x-errors" = json!([ErrorCode::Conflict]))),
)]
pub(crate) async fn delete(
    State(services): State<Services>,
    Root(access): Root,
    Path(app): Path<String>,
) -> Result<Data<Done>, ApiError> {
    services.store.delete_app(&access, &app_slug(&app)?).await?;
    Ok(Data(Done {}))
}

/// A member that can be changed but not cleared.
fn non_null<T>(field: &str, member: Option<Option<T>>) -> Result<Option<T>, InvalidField> {
    match member {
        Some(None) => Err(InvalidField::new(field, "must not be null")),
        Some(value) => Ok(value),
        None => Ok(None),
    }
}

fn description(text: Option<String>) -> Result<Option<Description>, InvalidField> {
    text.map(|text| Description::parse("description", &text)).transpose()
}

/// The value of a member, parsed; the default where it is null.
fn setting<T, V>(
    field: &str,
    member: Option<Option<V>>,
    default: T,
    parse: impl FnOnce(&str, V) -> Result<T, InvalidField>,
) -> Result<Option<T>, InvalidField> {
    member.map(|value| value.map_or(Ok(default), |value| parse(field, value))).transpose()
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

fn route_permissions(routes: Option<Vec<RawRoute>>) -> Result<Vec<RoutePermission>, InvalidField> {
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
