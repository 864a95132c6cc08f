//! API auth apps: what a SaaS issues keys for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::bounds::Bounds;
use crate::id::{AppNumber, DeploymentId};
use crate::path::PathPattern;
use crate::permission::Permission;
use crate::route::RoutePermission;
use crate::text::{Description, InvalidField, KeyPrefix, Name, OwnerId, Slug};

/// An API auth app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The number that its keys carry.
    pub number: AppNumber,
    /// Whose it is.
    pub deployment_id: DeploymentId,
    /// What callers address it by; unique in the deployment, also after deletion.
    pub app_slug: Slug,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub description: Option<Description>,
    /// What its keys begin with.
    pub key_prefix: KeyPrefix,
    /// Whether its keys work.
    pub is_active: bool,
    /// What its keys may be granted.
    pub permissions: Bounds<Permission>,
    /// Which paths its keys may reach.
    pub resources: Bounds<PathPattern>,
    /// What requests to its routes need, whoever checks them.
    pub route_permissions: Vec<RoutePermission>,
    /// The scheme that limits its keys.
    pub rate_limit_scheme_slug: Option<Slug>,
    /// What becomes of a request whose rate limits cannot be counted, because the store fails.
    pub on_store_error: OnStoreError,
    /// The SaaS's user it belongs to.
    pub user_id: Option<OwnerId>,
    /// The SaaS's organization it belongs to.
    pub organization_id: Option<OwnerId>,
    /// The SaaS's workspace it belongs to.
    pub workspace_id: Option<OwnerId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Counts the changes; a change is made on the condition that this has not moved.
    pub revision: u64,
}

/// What becomes of a request whose rate limits cannot be counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// It is not decided on: the caller gets an error.
    #[default]
    Deny,
    /// It is allowed without being counted, if all else is well.
    Allow,
}

impl OnStoreError {
    /// Parses the value of the request's field `field`.
    ///
    /// # Errors
    /// It is neither `deny` nor `allow`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        match text {
            "deny" => Ok(Self::Deny),
            "allow" => Ok(Self::Allow),
            _ => Err(InvalidField::new(field, "must be 'deny' or 'allow'")),
        }
    }
}
