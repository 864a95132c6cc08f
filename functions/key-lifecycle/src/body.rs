//! Apps, keys and schemes in the form of the wire.

use keyward_core::app::OnStoreError;
use keyward_core::audit_settings::{AuditClientIp, AuditDurability, AuditLevel, RetentionDays, SampleOneIn};
use keyward_core::id::{DeploymentId, KeyId, SchemeId};
use keyward_core::instant::Instant;
use keyward_core::key::Owner;
use keyward_core::metadata::Members;
use keyward_core::path::PathPattern;
use keyward_core::permission::Permission;
use keyward_core::rate_limit::{Rule, Rules, Scheme};
use keyward_core::route::{RawRoute, RoutePermission};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Reason, Slug};
use keyward_core::token::ApiKeyToken;
use keyward_core::{ApiKey, App};
use keyward_store::AppAccess;
use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// An app, with the rules of its scheme.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = App)]
pub(crate) struct AppBody {
    deployment_id: DeploymentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<OwnerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<OwnerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<OwnerId>,
    app_slug: Slug,
    name: Name,
    description: Option<Description>,
    is_active: bool,
    key_prefix: KeyPrefix,
    /// The permissions that the app's keys may be given; no bounds where it is empty.
    permissions: Vec<Permission>,
    /// The paths that the app's keys may reach; no bounds where it is empty.
    #[schema(value_type = Vec<String>)]
    resources: Vec<PathPattern>,
    #[schema(value_type = Vec<RawRoute>)]
    route_permissions: Vec<RoutePermission>,
    /// The rules of its scheme.
    rate_limits: Vec<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_scheme_slug: Option<Slug>,
    on_store_error: OnStoreError,
    audit_durability: AuditDurability,
    audit_level: AuditLevel,
    audit_sample_one_in: SampleOneIn,
    audit_client_ip: AuditClientIp,
    audit_user_agent: bool,
    audit_request_days: RetentionDays,
    audit_change_days: RetentionDays,
    created_at: Instant,
    updated_at: Instant,
    deleted_at: Option<Instant>,
}

impl AppBody {
    pub(crate) fn new((app, rules): (App, Option<Rules>)) -> Self {
        let settings = app.settings;
        Self {
            deployment_id: app.deployment_id,
            user_id: app.user_id,
            organization_id: settings.organization_id,
            workspace_id: settings.workspace_id,
            app_slug: app.app_slug,
            name: settings.name,
            description: settings.description,
            is_active: settings.is_active,
            key_prefix: settings.key_prefix,
            permissions: settings.permissions.into_list(),
            resources: settings.resources.into_list(),
            route_permissions: settings.route_permissions,
            rate_limits: rules.map(Vec::from).unwrap_or_default(),
            rate_limit_scheme_slug: settings.rate_limit_scheme_slug,
            on_store_error: settings.on_store_error,
            audit_durability: settings.audit.durability,
            audit_level: settings.audit.level,
            audit_sample_one_in: settings.audit.sample_one_in,
            audit_client_ip: settings.audit.client_ip,
            audit_user_agent: settings.audit.user_agent,
            audit_request_days: settings.audit.request_days,
            audit_change_days: settings.audit.change_days,
            created_at: app.created_at.into(),
            updated_at: app.updated_at.into(),
            deleted_at: app.deleted_at.map(Instant::from),
        }
    }
}

/// A key, with the rules that limit it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct KeyBody {
    id: KeyId,
    deployment_id: DeploymentId,
    app_slug: Slug,
    name: Name,
    key_prefix: KeyPrefix,
    /// The last characters of the key, which are of its checksum and reveal nothing of the secret.
    key_suffix: String,
    permissions: Vec<Permission>,
    /// Your own: browsers do not see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Members>,
    /// The rules that limit it.
    rate_limits: Vec<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_scheme_slug: Option<Slug>,
    #[serde(flatten)]
    owner: Owner,
    org_role_permissions: Vec<Permission>,
    workspace_role_permissions: Vec<Permission>,
    expires_at: Option<Instant>,
    /// When it was last checked, to the minute.
    last_used_at: Option<Instant>,
    /// Whether it was not revoked.
    is_active: bool,
    created_at: Instant,
    updated_at: Instant,
    revoked_at: Option<Instant>,
    revoked_reason: Option<Reason>,
}

impl KeyBody {
    /// The key and the rules that limit it, as whoever has this access to its app may see them.
    pub(crate) fn new(key: ApiKey, rules: Option<Rules>, access: &AppAccess) -> Self {
        let app_scheme = || access.app().settings.rate_limit_scheme_slug.clone();
        Self {
            is_active: key.is_active(),
            id: key.id,
            deployment_id: key.deployment_id,
            app_slug: key.app_slug,
            name: key.name,
            key_prefix: key.key_prefix,
            key_suffix: key.key_suffix,
            permissions: key.permissions,
            metadata: access.is_backend().then(|| key.metadata.into_members()),
            rate_limits: rules.map(Vec::from).unwrap_or_default(),
            rate_limit_scheme_slug: key.rate_limit_scheme_slug.or_else(app_scheme),
            owner: key.owner,
            org_role_permissions: key.org_role_permissions,
            workspace_role_permissions: key.workspace_role_permissions,
            expires_at: key.expires_at.map(Instant::from),
            last_used_at: key.last_used_at.map(Instant::from),
            created_at: key.created_at.into(),
            updated_at: key.updated_at.into(),
            revoked_at: key.revoked_at.map(Instant::from),
            revoked_reason: key.revoked_reason,
        }
    }
}

/// A key with its secret, which is shown this once: the key's members, the key again as `key`, and `secret`.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyWithSecret)]
pub(crate) struct KeyWithSecret {
    #[serde(flatten)]
    flat: KeyBody,
    key: KeyBody,
    /// The whole key. It is shown in this response, and never again.
    #[schema(example = "acme_live_…")]
    secret: String,
}

impl KeyWithSecret {
    pub(crate) fn new(key: KeyBody, token: &ApiKeyToken) -> Self {
        Self { flat: key.clone(), key, secret: token.reveal().expose_secret().to_owned() }
    }
}

/// A rate-limit scheme.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitScheme)]
pub(crate) struct SchemeBody {
    id: SchemeId,
    deployment_id: DeploymentId,
    slug: Slug,
    name: Name,
    description: Option<Description>,
    #[schema(value_type = Vec<Rule>, min_items = 1, max_items = 20)]
    rules: Rules,
    created_at: Instant,
    updated_at: Instant,
}

impl SchemeBody {
    pub(crate) fn new(scheme: Scheme) -> Self {
        Self {
            id: scheme.id,
            deployment_id: scheme.deployment_id,
            slug: scheme.slug,
            name: scheme.name,
            description: scheme.description,
            rules: scheme.rules,
            created_at: scheme.created_at.into(),
            updated_at: scheme.updated_at.into(),
        }
    }
}

/// An empty object, for a change without a result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {}

/// A member of a PATCH: `None` where it is absent, `Some(None)` where it is null.
pub(crate) fn patched<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
