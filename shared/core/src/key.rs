//! API keys: all that is known of one but its secret.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::id::{AppNumber, DeploymentId, KeyId};
use crate::metadata::Metadata;
use crate::permission::Permission;
use crate::text::{KeyPrefix, Name, OwnerId, Reason, Slug};

/// An API key.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Its id; rotation keeps it.
    pub id: KeyId,
    /// Whose it is.
    pub deployment_id: DeploymentId,
    /// Its app's number.
    pub app: AppNumber,
    /// Its app's slug.
    pub app_slug: Slug,
    /// What people call it.
    pub name: Name,
    /// What it begins with.
    pub key_prefix: KeyPrefix,
    /// What it ends with.
    pub key_suffix: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// What the role of its owner in the organization lets it do beside that.
    pub org_role_permissions: Vec<Permission>,
    /// What the role of its owner in the workspace lets it do beside that.
    pub workspace_role_permissions: Vec<Permission>,
    /// The scheme that limits it, in place of the app's.
    pub rate_limit_scheme_slug: Option<Slug>,
    /// What the SaaS attached to it.
    pub metadata: Metadata,
    /// Whom it belongs to, in the SaaS's own ids.
    pub owner: Owner,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it last verified, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked. Revocation is final.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Why it was revoked.
    pub revoked_reason: Option<Reason>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes; a change is made on the condition that this has not moved.
    pub revision: u64,
}

impl ApiKey {
    /// All that it was granted, itself and by roles, whatever the bounds of its app.
    pub fn granted(&self) -> impl Iterator<Item = &Permission> {
        self.permissions.iter().chain(&self.org_role_permissions).chain(&self.workspace_role_permissions)
    }

    /// Whether it has not been revoked. It may have expired all the same.
    pub fn is_active(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether it has expired at `now`: at its expiry it no longer works.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The SaaS's own ids of whom a key belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// A user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_user_id: Option<OwnerId>,
    /// An organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OwnerId>,
    /// A workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<OwnerId>,
    /// A user's membership in the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_membership_id: Option<OwnerId>,
    /// A user's membership in the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_membership_id: Option<OwnerId>,
}
