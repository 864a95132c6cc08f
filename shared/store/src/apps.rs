//! Apps: `APP#<number>` / `APP`, found by slug through `DEPLOYMENT#<id>#SLUG#<slug>` / `APP`, and listed through
//! `DEPLOYMENT#<id>#APPS#ACTIVE|INACTIVE` / `<created ms>#<number>`, an entry in exactly one of the two.

use crate::access::{about_app, capabilities};
use crate::change::Change;
use crate::item::{Expression, Item, Key, entry};
use crate::record::{self, AppBySlug, readable};
use crate::scheme_uses::{User, count_use};
use crate::{AppAccess, Conflict, Error, Resource, RootAccess, SessionAccess, Store};
use keyward_core::App;
use keyward_core::app::{AppSettings, NewApp};
use keyward_core::audit::Action;
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::rate_limit::Rules;
use keyward_core::root_key::Scope;
use keyward_core::session::Capability;
use keyward_core::text::Slug;

/// Which apps to list.
#[derive(Debug, Clone, Default)]
pub struct ListApps {
    /// Disabled ones too.
    pub include_inactive: bool,
    /// Only the one with this slug.
    pub search: Option<Slug>,
    /// The maximum number; all by default.
    pub limit: Option<usize>,
    /// The number to skip at the beginning.
    pub offset: usize,
}

/// A page of apps, newest first.
#[derive(Debug, Clone)]
pub struct AppPage {
    /// The apps, each with the rules of its scheme.
    pub apps: Vec<(App, Option<Rules>)>,
    /// The total number on all pages.
    pub total: usize,
    /// Whether there are more after these.
    pub has_more: bool,
}

const UNKNOWN: Error = Error::NotFound(Resource::App);

pub(crate) fn key(number: AppNumber) -> Key {
    Key::new(format!("APP#{}", number.base62()), "APP")
}

fn slug_key(deployment: DeploymentId, slug: &Slug) -> Key {
    Key::new(format!("DEPLOYMENT#{deployment}#SLUG#{slug}"), "APP")
}

fn list(deployment: DeploymentId, is_active: bool) -> String {
    let state = if is_active { "ACTIVE" } else { "INACTIVE" };
    format!("DEPLOYMENT#{deployment}#APPS#{state}")
}

fn list_key(app: &App) -> Key {
    let created = app.created_at.timestamp_millis();
    Key::new(
        list(app.deployment_id, app.settings.is_active),
        format!("{created:015}#{}", app.number.base62()),
    )
}

impl Store {
    /// Creates an app.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the slug is taken, also by a deleted app; [`Error::Invalid`] if the scheme does not
    /// exist or the texts are too long together.
    pub async fn create_app(&self, access: &RootAccess, new: NewApp) -> Result<(App, Option<Rules>), Error> {
        access.require(Scope::Manage)?;
        let number = AppNumber::mint(u64::from_be_bytes(self.entropy().bytes()?));
        let app = App::create(new, number, access.deployment_id, self.clock().now())?;
        let rules = self.rules_of(&app).await?;
        let slug = slug_key(app.deployment_id, &app.app_slug);
        let exists = Error::Conflict(Conflict::Exists(Resource::App, app.app_slug.to_string()));
        let number_taken = Error::Conflict(Conflict::IdTaken(Resource::App));
        let mut change = Change::new(self, &about_app(access.event(self, Action::AppCreated)?, &app))?
            .create(record::item(&slug, &AppBySlug { number: app.number })?, exists)?
            .create(record::item(&key(app.number), &app)?, number_taken)?
            .put(entry(&list_key(&app)))?;
        if let Some(scheme) = &app.settings.rate_limit_scheme_slug {
            change = count_use(change, app.deployment_id, scheme, User::App, 1)?;
        }
        change.commit().await?;
        Ok((app, rules))
    }

    /// The apps of the caller's deployment, newest first. Deleted ones are never listed, and one that cannot be read is
    /// counted in the total alone.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn apps(&self, access: &RootAccess, which: &ListApps) -> Result<AppPage, Error> {
        access.require(Scope::Manage)?;
        if let Some(slug) = &which.search {
            return self.find_app(access, slug, which).await;
        }
        let mut entries = self.table.entries(&list(access.deployment_id, true), None, None).await?;
        if which.include_inactive {
            let inactive = list(access.deployment_id, false);
            entries.extend(self.table.entries(&inactive, None, None).await?);
            entries.sort_by(|a, b| b.cmp(a));
            // An app that is disabled between the two reads is in both lists.
            entries.dedup();
        }
        let total = entries.len();
        let limit = which.limit.unwrap_or(usize::MAX);
        let keys: Vec<Key> = entries
            .iter()
            .skip(which.offset)
            .take(limit)
            .filter_map(|sk| sk.rsplit_once('#'))
            .filter_map(|(_, number)| AppNumber::from_base62(number).ok())
            .map(key)
            .collect();
        let apps: Vec<App> = readable(self.table.get_many(&keys).await?).collect();
        let schemes = apps.iter().filter_map(|app| app.settings.rate_limit_scheme_slug.as_ref());
        let rules = self.rules(access.deployment_id, schemes).await?;
        Ok(AppPage {
            has_more: which.offset.saturating_add(keys.len()) < total && !keys.is_empty(),
            total,
            apps: apps
                .into_iter()
                .map(|app| {
                    let rules = app.settings.rate_limit_scheme_slug.as_ref().and_then(|slug| rules.get(slug));
                    let rules = rules.cloned();
                    (app, rules)
                })
                .collect(),
        })
    }

    async fn find_app(&self, access: &RootAccess, slug: &Slug, which: &ListApps) -> Result<AppPage, Error> {
        let found = match self.app(access, slug).await {
            Ok(found) => Some(found).filter(|(app, _)| app.settings.is_active || which.include_inactive),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let total = usize::from(found.is_some());
        Ok(AppPage { total, has_more: false, apps: found.into_iter().skip(which.offset).collect() })
    }

    /// The app with this slug, with the rules of its scheme.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown, a deleted and another deployment's app alike.
    pub async fn app(&self, access: &RootAccess, slug: &Slug) -> Result<(App, Option<Rules>), Error> {
        access.require(Scope::Manage)?;
        let app = self.app_by_slug(access.deployment_id, slug).await?;
        let rules = self.rules_of(&app).await?;
        Ok((app, rules))
    }

    /// Changes an app. Its keys are held to the change from the next verification on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if it was changed at the same time; [`Error::Invalid`] if the scheme
    /// does not exist or the texts are too long together.
    pub async fn update_app(
        &self,
        access: &RootAccess,
        slug: &Slug,
        change: impl FnOnce(&mut AppSettings),
    ) -> Result<(App, Option<Rules>), Error> {
        access.require(Scope::Manage)?;
        let (before, stored) = self.stored_app(access.deployment_id, slug).await?;
        let mut settings = before.settings.clone();
        change(&mut settings);
        let after = before.change(settings, self.clock().now())?;
        let rules = self.rules_of(&after).await?;
        let mut change = self.change_app(access, &stored, &before, &after, Action::AppUpdated)?;
        if before.settings.is_active != after.settings.is_active {
            change = change.delete(&list_key(&before))?.put(entry(&list_key(&after)))?;
        }
        if before.settings.rate_limit_scheme_slug != after.settings.rate_limit_scheme_slug {
            if let Some(scheme) = &after.settings.rate_limit_scheme_slug {
                change = count_use(change, after.deployment_id, scheme, User::App, 1)?;
            }
            if let Some(scheme) = &before.settings.rate_limit_scheme_slug {
                change = count_use(change, after.deployment_id, scheme, User::App, -1)?;
            }
        }
        change.commit().await?;
        Ok((after, rules))
    }

    /// Deletes an app: its keys stop working, its slug stays taken.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if it was changed at the same time.
    pub async fn delete_app(&self, access: &RootAccess, slug: &Slug) -> Result<(), Error> {
        access.require(Scope::Manage)?;
        let (before, stored) = self.stored_app(access.deployment_id, slug).await?;
        let after = before.delete(self.clock().now());
        let mut change = self
            .change_app(access, &stored, &before, &after, Action::AppDeleted)?
            .delete(&list_key(&before))?;
        if let Some(scheme) = &before.settings.rate_limit_scheme_slug {
            change = count_use(change, before.deployment_id, scheme, User::App, -1)?;
        }
        change.commit().await
    }

    /// Access to the keys and the log of an app, for a backend.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for a root key that may do nothing with them.
    pub async fn app_access(&self, access: &RootAccess, slug: &Slug) -> Result<AppAccess, Error> {
        require_manage(access)?;
        let app = self.app_by_slug(access.deployment_id, slug).await?;
        Ok(grant(access, app))
    }

    /// Access to the log of an app, also of a deleted one, for a backend: it permits nothing else.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for a root key without the scope `audit`.
    pub async fn app_log_access(&self, access: &RootAccess, slug: &Slug) -> Result<AppAccess, Error> {
        access.require(Scope::Audit)?;
        let (app, _) = self.app_ever(access.deployment_id, slug).await?;
        Ok(AppAccess { capabilities: vec![Capability::AuditRead], ..grant(access, app) })
    }

    /// Access to the app of a key, for a backend that knows only the key's id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such key in the caller's deployment, or its app was deleted.
    pub async fn app_access_by_key(&self, access: &RootAccess, id: KeyId) -> Result<AppAccess, Error> {
        require_manage(access)?;
        let unknown = Error::NotFound(Resource::ApiKey);
        match self.app_of_key(access.deployment_id, id).await? {
            Some(number) => match self.app_by_number(number).await? {
                Some(app) if app.deleted_at.is_none() => Ok(grant(access, app)),
                _ => Err(unknown),
            },
            None => Err(unknown),
        }
    }

    /// Access to the keys and the log of a session's app.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the app was deleted.
    pub async fn session_app(&self, access: &SessionAccess) -> Result<AppAccess, Error> {
        match self.app_by_number(access.session.app).await? {
            Some(app) if app.deleted_at.is_none() && app.deployment_id == access.session.deployment_id => {
                Ok(AppAccess {
                    app,
                    actor: access.actor(),
                    capabilities: access.session.capabilities.clone(),
                    origin: access.origin.clone(),
                })
            }
            _ => Err(UNKNOWN),
        }
    }

    /// The rules that limit an app's keys.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn app_rules(&self, access: &AppAccess) -> Result<Option<Rules>, Error> {
        self.rules_of(&access.app).await
    }

    pub(crate) async fn app_by_slug(&self, deployment: DeploymentId, slug: &Slug) -> Result<App, Error> {
        self.stored_app(deployment, slug).await.map(|(app, _)| app)
    }

    /// An app that is not deleted, and its item.
    async fn stored_app(&self, deployment: DeploymentId, slug: &Slug) -> Result<(App, Item), Error> {
        let (app, stored) = self.app_ever(deployment, slug).await?;
        if app.deleted_at.is_none() { Ok((app, stored)) } else { Err(UNKNOWN) }
    }

    /// An app, which may be deleted, and its item.
    async fn app_ever(&self, deployment: DeploymentId, slug: &Slug) -> Result<(App, Item), Error> {
        let found = self.table.get(&slug_key(deployment, slug)).await?.ok_or(UNKNOWN)?;
        let AppBySlug { number } = record::entity(found)?;
        let stored = self.table.get(&key(number)).await?.ok_or(UNKNOWN)?;
        Ok((record::entity(stored.clone())?, stored))
    }

    pub(crate) async fn app_by_number(&self, number: AppNumber) -> Result<Option<App>, Error> {
        Ok(self.table.get(&key(number)).await?.map(record::entity).transpose()?)
    }

    pub(crate) async fn rules_of(&self, app: &App) -> Result<Option<Rules>, Error> {
        let mut rules = self.rules(app.deployment_id, &app.settings.rate_limit_scheme_slug).await?;
        Ok(app.settings.rate_limit_scheme_slug.as_ref().and_then(|slug| rules.remove(slug)))
    }

    fn change_app(
        &self,
        access: &RootAccess,
        stored: &Item,
        before: &App,
        after: &App,
        action: Action,
    ) -> Result<Change<'_>, Error> {
        let update = record::update(stored, after, Expression::unchanged(before.revision))?;
        let mut event = about_app(access.event(self, action)?, after);
        event.changes = record::changes(before, after);
        Change::new(self, &event)?.update(&key(after.number), update, changed_meanwhile())
    }
}

fn require_manage(access: &RootAccess) -> Result<(), Error> {
    access.require(Scope::Manage).or_else(|_| access.require(Scope::Audit))
}

fn grant(access: &RootAccess, app: App) -> AppAccess {
    AppAccess {
        app,
        actor: access.actor(),
        capabilities: capabilities(&access.scopes),
        origin: access.origin.clone(),
    }
}

fn changed_meanwhile() -> Error {
    Error::Conflict(Conflict::Changed(Resource::App))
}
