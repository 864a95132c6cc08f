//! Apps, and the numbers of apps by their slugs.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use keyward_core::app::{AppSettings, OnStoreError};
use keyward_core::audit_settings::{
    AuditClientIp, AuditDurability, AuditLevel, AuditSettings, RetentionDays, SampleOneIn,
};
use keyward_core::id::{AppNumber, DeploymentId};
use keyward_core::path::PathPattern;
use keyward_core::permission::Permission;
use keyward_core::route::{RawRoute, RoutePermission};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Slug};
use keyward_core::{App, Bounds};
use serde::{Deserialize, Serialize};

use super::{Entity, fill_with_empty_list, fill_with_null, nullable};
use crate::item::{Item, string};

/// An app. A bound that is absent is written down twice, in `any_…` and as an empty list: the releases before schema 1 read
/// the list alone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    number: AppNumber,
    deployment_id: DeploymentId,
    app_slug: Slug,
    name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
    key_prefix: KeyPrefix,
    is_active: bool,
    any_permission: bool,
    permissions: Vec<Permission>,
    any_resource: bool,
    resources: Vec<PathPattern>,
    route_permissions: Vec<RouteRecord>,
    #[serde(deserialize_with = "nullable")]
    rate_limit_scheme_slug: Option<Slug>,
    on_store_error: OnStoreError,
    /// Absent where all of it is the default, which earlier releases do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit: Option<AuditRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace_id: Option<OwnerId>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(deserialize_with = "nullable")]
    deleted_at: Option<DateTime<Utc>>,
    revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteRecord {
    method: String,
    path: String,
    permissions: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditRecord {
    durability: AuditDurability,
    level: AuditLevel,
    sample_one_in: SampleOneIn,
    client_ip: AuditClientIp,
    user_agent: bool,
    request_days: RetentionDays,
    change_days: RetentionDays,
}

impl From<AuditSettings> for AuditRecord {
    fn from(settings: AuditSettings) -> Self {
        let AuditSettings {
            durability,
            level,
            sample_one_in,
            client_ip,
            user_agent,
            request_days,
            change_days,
        } = settings;
        Self { durability, level, sample_one_in, client_ip, user_agent, request_days, change_days }
    }
}

impl From<AuditRecord> for AuditSettings {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord {
            durability,
            level,
            sample_one_in,
            client_ip,
            user_agent,
            request_days,
            change_days,
        } = record;
        Self { durability, level, sample_one_in, client_ip, user_agent, request_days, change_days }
    }
}

impl From<&RoutePermission> for RouteRecord {
    fn from(route: &RoutePermission) -> Self {
        let RawRoute { method, path, permissions } = route.clone().into();
        Self { method, path, permissions }
    }
}

impl TryFrom<RouteRecord> for RoutePermission {
    type Error = String;

    fn try_from(RouteRecord { method, path, permissions }: RouteRecord) -> Result<Self, String> {
        RawRoute { method, path, permissions }
            .try_into()
            .map_err(|error: keyward_core::InvalidField| error.to_string())
    }
}

fn bounds<T>(name: &str, any: bool, entries: Vec<T>) -> Result<Bounds<T>, String> {
    match (any, entries.is_empty()) {
        (true, true) => Ok(Bounds::Unbounded),
        (false, _) => Ok(Bounds::Within(entries)),
        (true, false) => Err(format!("its {name} are both bounded and unbounded")),
    }
}

impl Entity for App {
    const TYPE: &'static str = "app";
    const OPTIONAL: &'static [&'static str] =
        &["description", "audit", "user_id", "organization_id", "workspace_id"];
    type Record = AppRecord;

    fn to_record(&self) -> AppRecord {
        let settings = self.settings.clone();
        AppRecord {
            number: self.number,
            deployment_id: self.deployment_id,
            app_slug: self.app_slug.clone(),
            name: settings.name,
            description: settings.description,
            key_prefix: settings.key_prefix,
            is_active: settings.is_active,
            any_permission: settings.permissions == Bounds::Unbounded,
            permissions: settings.permissions.into_list(),
            any_resource: settings.resources == Bounds::Unbounded,
            resources: settings.resources.into_list(),
            route_permissions: settings.route_permissions.iter().map(RouteRecord::from).collect(),
            rate_limit_scheme_slug: settings.rate_limit_scheme_slug,
            on_store_error: settings.on_store_error,
            audit: (settings.audit != AuditSettings::default()).then(|| settings.audit.into()),
            user_id: self.user_id.clone(),
            organization_id: settings.organization_id,
            workspace_id: settings.workspace_id,
            created_at: self.created_at,
            updated_at: self.updated_at,
            deleted_at: self.deleted_at,
            revision: self.revision,
        }
    }

    fn shown(&self) -> AppRecord {
        AppRecord { audit: Some(self.settings.audit.into()), ..self.to_record() }
    }

    fn from_record(record: AppRecord) -> Result<Self, String> {
        let routes = record.route_permissions.into_iter();
        Ok(Self {
            number: record.number,
            deployment_id: record.deployment_id,
            app_slug: record.app_slug,
            user_id: record.user_id,
            settings: AppSettings {
                name: record.name,
                description: record.description,
                key_prefix: record.key_prefix,
                is_active: record.is_active,
                permissions: bounds("permissions", record.any_permission, record.permissions)?,
                resources: bounds("resources", record.any_resource, record.resources)?,
                route_permissions: routes.map(RoutePermission::try_from).collect::<Result<_, _>>()?,
                rate_limit_scheme_slug: record.rate_limit_scheme_slug,
                on_store_error: record.on_store_error,
                audit: record.audit.map(AuditSettings::from).unwrap_or_default(),
                organization_id: record.organization_id,
                workspace_id: record.workspace_id,
            },
            created_at: record.created_at,
            updated_at: record.updated_at,
            deleted_at: record.deleted_at,
            revision: record.revision,
        })
    }

    /// Schema 0 left out what was empty, not there or the default, and an empty list of bounds was none.
    fn upgrade(item: &mut Item, _from: u32) {
        fill_with_empty_list(item, &["permissions", "resources", "route_permissions"]);
        for (any, list) in [("any_permission", "permissions"), ("any_resource", "resources")] {
            let is_empty = item.get(list).and_then(|list| list.as_l().ok()).is_some_and(Vec::is_empty);
            item.insert(any.to_owned(), AttributeValue::Bool(is_empty));
        }
        fill_with_null(item, &["rate_limit_scheme_slug", "deleted_at"]);
        item.entry("on_store_error".to_owned()).or_insert_with(|| string("deny"));
    }
}

/// Which app has a slug.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppBySlug {
    pub(crate) number: AppNumber,
}

impl Entity for AppBySlug {
    const TYPE: &'static str = "app_slug";
    type Record = Self;

    fn to_record(&self) -> Self {
        Self { number: self.number }
    }

    fn from_record(record: Self) -> Result<Self, String> {
        Ok(record)
    }
}
