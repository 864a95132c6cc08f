//! Entities for the tests of this crate: a test changes the members that it is about.

use chrono::{DateTime, Utc};

use crate::app::AppSettings;
use crate::id::{AppNumber, DeploymentId, KeyId};
use crate::key::Owner;
use crate::metadata::Metadata;
use crate::text::{KeyPrefix, Name, Slug};
use crate::token::{ApiKeyToken, Secret};
use crate::{ApiKey, App};

/// When they were created.
pub(crate) const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// An app that bounds nothing.
pub(crate) fn app() -> App {
    let name = Name::parse("name", "Acme").unwrap();
    App {
        number: AppNumber::mint(1),
        deployment_id: DeploymentId::new(1).unwrap(),
        app_slug: Slug::parse("app_slug", "acme").unwrap(),
        user_id: None,
        settings: AppSettings::new(name, KeyPrefix::parse("key_prefix", "sk").unwrap()),
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
        revision: 1,
    }
}

/// The token of that key.
pub(crate) fn token() -> ApiKeyToken {
    ApiKeyToken {
        prefix: KeyPrefix::parse("key_prefix", "sk").unwrap(),
        app: AppNumber::mint(1),
        id: KeyId::new(1).unwrap(),
        secret: Secret::from_random(&[5; 32]),
    }
}

/// A key of that app without permissions, which works forever.
pub(crate) fn key() -> ApiKey {
    ApiKey {
        id: KeyId::new(1).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        app: AppNumber::mint(1),
        app_slug: Slug::parse("app_slug", "acme").unwrap(),
        name: Name::parse("name", "Key").unwrap(),
        key_prefix: KeyPrefix::parse("key_prefix", "sk").unwrap(),
        key_suffix: "x".into(),
        permissions: vec![],
        org_role_permissions: vec![],
        workspace_role_permissions: vec![],
        rate_limit_scheme_slug: None,
        metadata: Metadata::default(),
        owner: Owner::default(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_reason: None,
        created_at: NOW,
        updated_at: NOW,
        revision: 1,
    }
}
