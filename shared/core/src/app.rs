//! API auth apps, for which a SaaS issues keys.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::audit_settings::AuditSettings;
use crate::bounds::Bounds;
use crate::id::{AppNumber, DeploymentId};
use crate::path::PathPattern;
use crate::permission::Permission;
use crate::route::RoutePermission;
use crate::text::{
    Description, InvalidField, KeyPrefix, MAX_BYTES, Name, OwnerId, Slug, check_total, one_of,
};

/// An API auth app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The number that its keys carry.
    pub number: AppNumber,
    /// The deployment that it belongs to.
    pub deployment_id: DeploymentId,
    /// The name that callers address it by; unique in the deployment, also after deletion.
    pub app_slug: Slug,
    /// The SaaS's user that it belongs to.
    pub user_id: Option<OwnerId>,
    /// The settings, which can be changed.
    pub settings: AppSettings,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// A count of the changes; a change is conditional on it being the same.
    pub revision: u64,
}

/// The settings of an app, which callers choose when they make it and can change later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSettings {
    /// The name that people call it.
    pub name: Name,
    /// A description for people.
    pub description: Option<Description>,
    /// The beginning of its keys; keys that exist keep theirs.
    pub key_prefix: KeyPrefix,
    /// Whether its keys work.
    pub is_active: bool,
    /// The bounds of what its keys may be granted.
    pub permissions: Bounds<Permission>,
    /// The bounds of the paths that its keys may reach.
    pub resources: Bounds<PathPattern>,
    /// The permissions that requests to its routes need, whoever checks them.
    pub route_permissions: Vec<RoutePermission>,
    /// The scheme that limits its keys.
    pub rate_limit_scheme_slug: Option<Slug>,
    /// The response to a request whose rate limits cannot be counted, because the store fails.
    pub on_store_error: OnStoreError,
    /// The settings of its audit log.
    pub audit: AuditSettings,
    /// The SaaS's organization that it belongs to.
    pub organization_id: Option<OwnerId>,
    /// The SaaS's workspace that it belongs to.
    pub workspace_id: Option<OwnerId>,
}

/// An app to create.
#[derive(Debug, Clone)]
pub struct NewApp {
    /// See [`App::app_slug`].
    pub app_slug: Slug,
    /// See [`App::user_id`].
    pub user_id: Option<OwnerId>,
    /// See [`App::settings`].
    pub settings: AppSettings,
}

impl AppSettings {
    /// The settings of an app of which no more is said: it is active and bounds nothing.
    pub fn new(name: Name, key_prefix: KeyPrefix) -> Self {
        Self {
            name,
            description: None,
            key_prefix,
            is_active: true,
            permissions: Bounds::Unbounded,
            resources: Bounds::Unbounded,
            route_permissions: vec![],
            rate_limit_scheme_slug: None,
            on_store_error: OnStoreError::default(),
            audit: AuditSettings::default(),
            organization_id: None,
            workspace_id: None,
        }
    }
}

impl App {
    /// The app that a request creates at `now`.
    ///
    /// # Errors
    /// Its texts are too long together.
    pub fn create(
        new: NewApp,
        number: AppNumber,
        deployment_id: DeploymentId,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidField> {
        let NewApp { app_slug, user_id, settings } = new;
        let app = Self {
            number,
            deployment_id,
            app_slug,
            user_id,
            settings,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            revision: 1,
        };
        app.within_size_limit()
    }

    /// The app with other settings, from `now` on.
    ///
    /// # Errors
    /// Its texts are too long together.
    pub fn change(&self, settings: AppSettings, now: DateTime<Utc>) -> Result<Self, InvalidField> {
        let changed = Self { settings, updated_at: now, revision: self.revision + 1, ..self.clone() };
        changed.within_size_limit()
    }

    /// The app, deleted at `now`: its keys no longer work, and its slug stays taken.
    pub fn delete(&self, now: DateTime<Utc>) -> Self {
        Self { deleted_at: Some(now), updated_at: now, revision: self.revision + 1, ..self.clone() }
    }

    fn within_size_limit(self) -> Result<Self, InvalidField> {
        let settings = &self.settings;
        let texts = [settings.name.as_str(), self.app_slug.as_str(), settings.key_prefix.as_str()]
            .into_iter()
            .chain(settings.description.as_ref().map(Description::as_str))
            .chain(settings.permissions.entries().iter().map(Permission::as_str))
            .chain(settings.resources.entries().iter().map(PathPattern::as_str))
            .chain(settings.route_permissions.iter().flat_map(RoutePermission::texts))
            .chain(
                [&self.user_id, &settings.organization_id, &settings.workspace_id]
                    .into_iter()
                    .flatten()
                    .map(OwnerId::as_str),
            );
        check_total("the app's texts", MAX_BYTES, texts)?;
        Ok(self)
    }
}

/// The response to a request whose rate limits cannot be counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
        one_of(field, text, &[("deny", Self::Deny), ("allow", Self::Allow)])
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::examples::{self, NOW};

    #[test]
    fn a_change_keeps_all_but_the_settings() {
        let app = examples::app();
        let later = NOW + TimeDelta::seconds(1);
        let settings = AppSettings { is_active: false, ..app.settings.clone() };
        let changed = app.change(settings.clone(), later).unwrap();
        assert_eq!(changed, App { settings, updated_at: later, revision: 2, ..app });
    }

    #[test]
    fn a_deleted_app_is_the_same_but_for_its_end() {
        let app = examples::app();
        let later = NOW + TimeDelta::seconds(1);
        assert_eq!(app.delete(later), App { deleted_at: Some(later), updated_at: later, revision: 2, ..app });
    }

    #[test]
    fn the_texts_of_an_app_are_bounded_together() {
        let long = |length: usize| {
            let entries = vec![Permission::parse("permissions", &"a".repeat(length)).unwrap(); 20];
            let permissions = Bounds::Within(entries);
            let settings = AppSettings { permissions, ..examples::app().settings };
            let new = NewApp { app_slug: examples::app().app_slug, user_id: None, settings };
            App::create(new, AppNumber::mint(1), DeploymentId::new(1).unwrap(), NOW)
        };
        assert!(long(124).is_ok());
        let refused = long(126).unwrap_err();
        assert_eq!(refused.to_string(), "the app's texts total 2599 bytes; the limit is 2560");
        let app = long(124).unwrap();
        assert_eq!((app.created_at, app.updated_at, app.deleted_at, app.revision), (NOW, NOW, None, 1));
        let name = Name::parse("name", &"n".repeat(100)).unwrap();
        assert!(app.change(AppSettings { name, ..app.settings.clone() }, NOW).is_err(), "a change too");
    }

    #[test]
    fn settings_of_which_nothing_is_said_bound_nothing() {
        let AppSettings { name, key_prefix, .. } = examples::app().settings;
        let settings = AppSettings::new(name, key_prefix);
        assert_eq!(settings, examples::app().settings);
        assert!(settings.is_active && settings.on_store_error == OnStoreError::Deny);
    }

    #[test]
    fn on_store_error_is_deny_or_allow() {
        let parse = |text: &str| OnStoreError::parse("on_store_error", text);
        assert_eq!((parse("deny"), parse("allow")), (Ok(OnStoreError::Deny), Ok(OnStoreError::Allow)));
        assert_eq!(parse("Allow").unwrap_err().to_string(), "on_store_error must be 'deny' or 'allow'");
    }
}
