//! API keys, without their secrets.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::id::{AppNumber, DeploymentId, KeyId};
use crate::instant::Instant;
use crate::metadata::Metadata;
use crate::permission::Permission;
use crate::text::{InvalidField, KeyPrefix, MAX_BYTES, Name, OwnerId, Reason, Slug, check_total};
use crate::token::ApiKeyToken;

/// An API key.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Its id; rotation keeps it.
    pub id: KeyId,
    /// Its deployment's id.
    pub deployment_id: DeploymentId,
    /// Its app's number.
    pub app: AppNumber,
    /// Its app's slug.
    pub app_slug: Slug,
    /// Its name.
    pub name: Name,
    /// The prefix that it begins with.
    pub key_prefix: KeyPrefix,
    /// The last characters of it, which lists show.
    pub key_suffix: String,
    /// Its own permissions.
    pub permissions: Vec<Permission>,
    /// The permissions that its owner's role in the organization adds.
    pub org_role_permissions: Vec<Permission>,
    /// The permissions that its owner's role in the workspace adds.
    pub workspace_role_permissions: Vec<Permission>,
    /// The scheme that limits it, in place of the app's.
    pub rate_limit_scheme_slug: Option<Slug>,
    /// The metadata that the SaaS attached to it.
    pub metadata: Metadata,
    /// Its owner, in the SaaS's own ids.
    pub owner: Owner,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it last verified, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked. Revocation is final.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Why it was revoked.
    pub revoked_reason: Option<Reason>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// A count of the changes; a change is conditional on it being the same.
    pub revision: u64,
}

/// A key to create.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// See [`ApiKey::name`].
    pub name: Name,
    /// See [`ApiKey::permissions`]; each within the app's.
    pub permissions: Vec<Permission>,
    /// See [`ApiKey::org_role_permissions`].
    pub org_role_permissions: Vec<Permission>,
    /// See [`ApiKey::workspace_role_permissions`].
    pub workspace_role_permissions: Vec<Permission>,
    /// See [`ApiKey::rate_limit_scheme_slug`].
    pub rate_limit_scheme_slug: Option<Slug>,
    /// See [`ApiKey::metadata`].
    pub metadata: Metadata,
    /// See [`ApiKey::expires_at`]; in the future.
    pub expires_at: Option<Instant>,
    /// See [`ApiKey::owner`]; where it says nothing, the app's.
    pub owner: Owner,
}

/// The reason that a key cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyChangeError {
    /// The key was revoked, which is final.
    #[error("the API key was revoked")]
    Revoked,
}

impl ApiKey {
    /// The key of `app` that a request creates at `now`, with the id and the suffix of `token`.
    ///
    /// # Errors
    /// A past expiry, permissions beyond the app's, or texts that are too long together.
    pub fn create(
        new: NewKey,
        app: &App,
        token: &ApiKeyToken,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidField> {
        let expires_at = new.expires_at.map(Instant::at);
        if expires_at.is_some_and(|at| at <= now) {
            return Err(InvalidField::new("expires_at", "must be in the future"));
        }
        let within = |permission: &&Permission| {
            !app.settings.permissions.admit(|bound| bound.covers(permission.as_str()))
        };
        if let Some(beyond) = new.permissions.iter().filter(within).min() {
            let problem = format!("must be within those of the app: '{beyond}' is not");
            return Err(InvalidField::new("permissions", problem));
        }
        let key = Self {
            id: token.id,
            deployment_id: app.deployment_id,
            app: app.number,
            app_slug: app.app_slug.clone(),
            name: new.name,
            key_prefix: token.prefix.clone(),
            key_suffix: token.suffix(),
            permissions: new.permissions,
            org_role_permissions: new.org_role_permissions,
            workspace_role_permissions: new.workspace_role_permissions,
            rate_limit_scheme_slug: new.rate_limit_scheme_slug,
            metadata: new.metadata,
            owner: Owner {
                owner_user_id: new.owner.owner_user_id.or_else(|| app.user_id.clone()),
                organization_id: new.owner.organization_id.or_else(|| app.settings.organization_id.clone()),
                workspace_id: new.owner.workspace_id.or_else(|| app.settings.workspace_id.clone()),
                ..new.owner
            },
            expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_reason: None,
            created_at: now,
            updated_at: now,
            revision: 1,
        };
        key.within_size_limit()
    }

    /// The key with the secret of another token, from `now` on.
    ///
    /// # Errors
    /// [`KeyChangeError::Revoked`].
    pub fn rotate(&self, token: &ApiKeyToken, now: DateTime<Utc>) -> Result<Self, KeyChangeError> {
        if !self.is_active() {
            return Err(KeyChangeError::Revoked);
        }
        let key_suffix = token.suffix();
        Ok(Self { key_suffix, updated_at: now, revision: self.revision + 1, ..self.clone() })
    }

    /// The key, revoked at `now` for good.
    ///
    /// # Errors
    /// [`KeyChangeError::Revoked`]: it is so already.
    pub fn revoke(&self, reason: Option<Reason>, now: DateTime<Utc>) -> Result<Self, KeyChangeError> {
        if !self.is_active() {
            return Err(KeyChangeError::Revoked);
        }
        Ok(Self {
            revoked_at: Some(now),
            revoked_reason: reason,
            updated_at: now,
            revision: self.revision + 1,
            ..self.clone()
        })
    }

    /// The scheme that limits it: its own, or else its app's.
    pub fn rate_limit_scheme<'a>(&'a self, app: &'a App) -> Option<&'a Slug> {
        self.rate_limit_scheme_slug.as_ref().or(app.settings.rate_limit_scheme_slug.as_ref())
    }

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

    fn within_size_limit(self) -> Result<Self, InvalidField> {
        let owner = &self.owner;
        let owners = [
            &owner.owner_user_id,
            &owner.organization_id,
            &owner.workspace_id,
            &owner.organization_membership_id,
            &owner.workspace_membership_id,
        ];
        let metadata = self.metadata.to_string();
        let texts = [self.name.as_str(), self.app_slug.as_str(), self.key_prefix.as_str(), metadata.as_str()]
            .into_iter()
            .chain(self.granted().map(Permission::as_str))
            .chain(self.rate_limit_scheme_slug.as_ref().map(Slug::as_str))
            .chain(owners.into_iter().flatten().map(OwnerId::as_str));
        check_total("the key's name, permissions, metadata and owner ids", MAX_BYTES, texts)?;
        Ok(self)
    }
}

/// The SaaS's own ids of whom a key belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::app::AppSettings;
    use crate::bounds::Bounds;
    use crate::examples::{self, NOW};
    use crate::token::Secret;

    fn permissions(texts: &[&str]) -> Vec<Permission> {
        texts.iter().map(|text| Permission::parse("permissions", text).unwrap()).collect()
    }

    fn new() -> NewKey {
        NewKey {
            name: Name::parse("name", "Key").unwrap(),
            permissions: vec![],
            org_role_permissions: vec![],
            workspace_role_permissions: vec![],
            rate_limit_scheme_slug: None,
            metadata: Metadata::default(),
            expires_at: None,
            owner: Owner::default(),
        }
    }

    fn create(new: NewKey, app: &App) -> Result<ApiKey, String> {
        ApiKey::create(new, app, &examples::token(), NOW).map_err(|error| error.to_string())
    }

    fn owner(text: &str) -> Option<OwnerId> {
        Some(OwnerId::parse("owner", text).unwrap())
    }

    fn other_token() -> ApiKeyToken {
        ApiKeyToken { secret: Secret::from_random(&[6; 32]), ..examples::token() }
    }

    #[test]
    fn a_new_key_is_of_its_token_and_its_app() {
        let key = create(new(), &examples::app()).unwrap();
        assert_eq!(key, ApiKey { key_suffix: examples::token().suffix(), ..examples::key() });
    }

    #[test]
    fn a_new_key_expires_later_than_now_or_never() {
        let expiring = |at| create(NewKey { expires_at: Some(Instant::from(at)), ..new() }, &examples::app());
        let soon = NOW + TimeDelta::milliseconds(1);
        assert_eq!(expiring(soon).unwrap().expires_at, Some(soon));
        for at in [NOW, NOW - TimeDelta::days(1)] {
            assert_eq!(expiring(at).unwrap_err(), "expires_at must be in the future");
        }
        let key = expiring(soon).unwrap();
        assert!(
            !key.is_expired(NOW)
                && key.is_expired(soon)
                && !create(new(), &examples::app()).unwrap().is_expired(soon)
        );
    }

    #[test]
    fn a_new_key_has_no_permission_beyond_its_app() {
        let bounded = |entries: &[&str]| {
            let settings =
                AppSettings { permissions: Bounds::Within(permissions(entries)), ..examples::app().settings };
            App { settings, ..examples::app() }
        };
        let granted =
            |app: &App, texts: &[&str]| create(NewKey { permissions: permissions(texts), ..new() }, app);
        assert!(granted(&examples::app(), &["z", "a"]).is_ok());
        assert!(granted(&bounded(&["users:*"]), &["users:read"]).is_ok());
        assert_eq!(
            granted(&bounded(&["users:*"]), &["users:read", "z", "orgs:read"]).unwrap_err(),
            "permissions must be within those of the app: 'orgs:read' is not"
        );
        assert!(granted(&bounded(&[]), &["a"]).is_err() && granted(&bounded(&[]), &[]).is_ok());
        // What a role grants is cut to the bounds of the app when the key is used.
        let by_role = NewKey { org_role_permissions: permissions(&["z"]), ..new() };
        assert!(create(by_role, &bounded(&["a"])).is_ok());
    }

    #[test]
    fn a_new_key_belongs_to_whom_its_app_does_unless_it_says_otherwise() {
        let settings =
            AppSettings { organization_id: owner("o"), workspace_id: owner("w"), ..examples::app().settings };
        let app = App { user_id: owner("u"), settings, ..examples::app() };
        let of_app = create(new(), &app).unwrap().owner;
        assert_eq!((of_app.owner_user_id, of_app.organization_id), (owner("u"), owner("o")));
        assert_eq!((of_app.workspace_id, of_app.organization_membership_id), (owner("w"), None));
        let said = Owner {
            owner_user_id: owner("u2"),
            organization_id: owner("o2"),
            workspace_id: owner("w2"),
            organization_membership_id: owner("om"),
            workspace_membership_id: owner("wm"),
        };
        assert_eq!(create(NewKey { owner: said.clone(), ..new() }, &app).unwrap().owner, said);
    }

    #[test]
    fn the_texts_of_a_key_are_bounded_together() {
        let long = |length: usize| {
            let entries = vec![Permission::parse("permissions", &"a".repeat(length)).unwrap(); 20];
            create(NewKey { workspace_role_permissions: entries, ..new() }, &examples::app())
        };
        assert!(long(123).is_ok());
        let refused = long(126).unwrap_err();
        assert!(
            refused.starts_with("the key's name, permissions, metadata and owner ids total 2"),
            "{refused}"
        );
    }

    #[test]
    fn a_rotation_keeps_all_but_the_secret() {
        let (key, later) = (examples::key(), NOW + TimeDelta::seconds(1));
        let rotated = key.rotate(&other_token(), later).unwrap();
        let key_suffix = other_token().suffix();
        assert_ne!(key_suffix, examples::token().suffix());
        assert_eq!(rotated, ApiKey { key_suffix, updated_at: later, revision: 2, ..key });
    }

    #[test]
    fn a_revocation_is_final() {
        let (key, later) = (examples::key(), NOW + TimeDelta::seconds(1));
        let reason = Some(Reason::parse("reason", "leaked").unwrap());
        let revoked = key.revoke(reason.clone(), later).unwrap();
        let changed = ApiKey {
            revoked_at: Some(later),
            revoked_reason: reason,
            updated_at: later,
            revision: 2,
            ..key.clone()
        };
        assert_eq!(revoked, changed);
        assert!(key.is_active() && !revoked.is_active());
        assert_eq!(revoked.revoke(None, later), Err(KeyChangeError::Revoked));
        assert_eq!(revoked.rotate(&other_token(), later), Err(KeyChangeError::Revoked));
        assert_eq!(key.revoke(None, later).unwrap().revoked_reason, None);
    }

    #[test]
    fn a_key_is_limited_by_its_own_scheme_before_that_of_its_app() {
        let slug = |text: &str| Some(Slug::parse("slug", text).unwrap());
        let settings = AppSettings { rate_limit_scheme_slug: slug("app"), ..examples::app().settings };
        let app = App { settings, ..examples::app() };
        let own = ApiKey { rate_limit_scheme_slug: slug("own"), ..examples::key() };
        assert_eq!(own.rate_limit_scheme(&app), slug("own").as_ref());
        assert_eq!(examples::key().rate_limit_scheme(&app), slug("app").as_ref());
        assert_eq!(examples::key().rate_limit_scheme(&examples::app()), None);
    }
}
