//! API keys.

use chrono::{DateTime, Utc};
use keyward_core::ApiKey;
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::permission::Permission;
use keyward_core::text::{KeyPrefix, Name, OwnerId, Reason, Slug};
use serde::{Deserialize, Serialize};

use super::{Entity, fill_with_empty_list, fill_with_null, nullable};
use crate::item::Item;

/// An API key. Two more attributes may be absent: `last_used_at` until the first use, since it is set on the condition that it is
/// absent or earlier, and `rate_limit_scheme_slug`, which is taken from keys that can never work again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    id: KeyId,
    deployment_id: DeploymentId,
    app: AppNumber,
    app_slug: Slug,
    name: Name,
    key_prefix: KeyPrefix,
    key_suffix: String,
    permissions: Vec<Permission>,
    org_role_permissions: Vec<Permission>,
    workspace_role_permissions: Vec<Permission>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit_scheme_slug: Option<Slug>,
    metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner_user_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_membership_id: Option<OwnerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace_membership_id: Option<OwnerId>,
    #[serde(deserialize_with = "nullable")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<DateTime<Utc>>,
    #[serde(deserialize_with = "nullable")]
    revoked_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_reason: Option<Reason>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    revision: u64,
}

impl Entity for ApiKey {
    const TYPE: &'static str = "key";
    const OPTIONAL: &'static [&'static str] = &[
        "owner_user_id",
        "organization_id",
        "workspace_id",
        "organization_membership_id",
        "workspace_membership_id",
        "revoked_reason",
    ];
    type Record = KeyRecord;

    fn to_record(&self) -> KeyRecord {
        let owner = self.owner.clone();
        KeyRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            app: self.app,
            app_slug: self.app_slug.clone(),
            name: self.name.clone(),
            key_prefix: self.key_prefix.clone(),
            key_suffix: self.key_suffix.clone(),
            permissions: self.permissions.clone(),
            org_role_permissions: self.org_role_permissions.clone(),
            workspace_role_permissions: self.workspace_role_permissions.clone(),
            rate_limit_scheme_slug: self.rate_limit_scheme_slug.clone(),
            metadata: self.metadata.clone(),
            owner_user_id: owner.owner_user_id,
            organization_id: owner.organization_id,
            workspace_id: owner.workspace_id,
            organization_membership_id: owner.organization_membership_id,
            workspace_membership_id: owner.workspace_membership_id,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
            revoked_at: self.revoked_at,
            revoked_reason: self.revoked_reason.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            revision: self.revision,
        }
    }

    fn from_record(record: KeyRecord) -> Result<Self, String> {
        Ok(Self {
            id: record.id,
            deployment_id: record.deployment_id,
            app: record.app,
            app_slug: record.app_slug,
            name: record.name,
            key_prefix: record.key_prefix,
            key_suffix: record.key_suffix,
            permissions: record.permissions,
            org_role_permissions: record.org_role_permissions,
            workspace_role_permissions: record.workspace_role_permissions,
            rate_limit_scheme_slug: record.rate_limit_scheme_slug,
            metadata: record.metadata,
            owner: Owner {
                owner_user_id: record.owner_user_id,
                organization_id: record.organization_id,
                workspace_id: record.workspace_id,
                organization_membership_id: record.organization_membership_id,
                workspace_membership_id: record.workspace_membership_id,
            },
            expires_at: record.expires_at,
            last_used_at: record.last_used_at,
            revoked_at: record.revoked_at,
            revoked_reason: record.revoked_reason,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
        })
    }

    /// Schema 0 left out what was empty or not there.
    fn upgrade(item: &mut Item, _from: u32) {
        fill_with_empty_list(item, &["permissions", "org_role_permissions", "workspace_role_permissions"]);
        fill_with_null(item, &["expires_at", "revoked_at"]);
    }
}
