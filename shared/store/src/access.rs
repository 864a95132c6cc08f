//! The access of callers. Each value except the operator's is created only in this crate, for a credential whose tag
//! matched, so a call that takes one is authorized.

use keyward_core::App;
use keyward_core::audit::{Action, Actor, Event, EventId, MemberChanges, Origin, Outcome};
use keyward_core::audit_settings::AuditSettings;
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::root_key::Scope;
use keyward_core::session::{Capability, Session};
use keyward_core::text::Name;

use crate::{Error, Forbidden, Store};

/// The operator of the installation, with the rights of its AWS account or, for a local run, to its folder.
#[derive(Debug)]
pub struct OperatorAccess(());

impl OperatorAccess {
    /// For the command `keyward` alone, which those rights let do what it does: no server creates one.
    pub fn assume() -> Self {
        Self(())
    }

    /// An event of the operator's.
    pub(crate) fn event(
        &self,
        store: &Store,
        deployment: DeploymentId,
        action: Action,
    ) -> Result<Event, Error> {
        store.event(deployment, action, Actor::Operator, &Origin::default())
    }
}

/// A caller without a credential, whose requests concern the first deployment of the installation.
#[derive(Debug, Clone, Copy)]
pub struct PublicAccess {
    pub(crate) deployment_id: DeploymentId,
}

impl PublicAccess {
    /// The first deployment.
    pub fn deployment_id(&self) -> DeploymentId {
        self.deployment_id
    }
}

/// A backend with a valid root key.
#[derive(Debug, Clone)]
pub struct RootAccess {
    pub(crate) deployment_id: DeploymentId,
    pub(crate) id: RootKeyId,
    pub(crate) name: Name,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) origin: Origin,
}

impl RootAccess {
    /// The deployment that the root key belongs to.
    pub fn deployment_id(&self) -> DeploymentId {
        self.deployment_id
    }

    /// Refuses a root key without this scope.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Error::Forbidden(Forbidden::Scope(scope)))
    }

    /// An event of this backend's; the caller fills in what it is about.
    pub(crate) fn event(&self, store: &Store, action: Action) -> Result<Event, Error> {
        store.event(self.deployment_id, action, self.actor(), &self.origin)
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::RootKey { id: self.id, name: Some(self.name.clone()) }
    }
}

/// A browser with a valid session.
#[derive(Debug, Clone)]
pub struct SessionAccess {
    pub(crate) session: Session,
    pub(crate) origin: Origin,
}

impl SessionAccess {
    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::Session { id: self.session.id, user_id: self.session.actor.clone() }
    }
}

/// Somebody who may do something with the keys and the log of one app; which is not deleted, where more is permitted than to
/// read its log.
#[derive(Debug, Clone)]
pub struct AppAccess {
    pub(crate) app: App,
    pub(crate) actor: Actor,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) origin: Origin,
}

impl AppAccess {
    /// The app, as it was when access was granted.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Whether it is the SaaS's backend that asks, rather than a customer's browser.
    pub fn is_backend(&self) -> bool {
        matches!(self.actor, Actor::RootKey { .. })
    }

    /// An event about the app.
    pub(crate) fn event(&self, store: &Store, action: Action) -> Result<Event, Error> {
        let event = store.event(self.app.deployment_id, action, self.actor.clone(), &self.origin)?;
        Ok(about_app(event, &self.app))
    }

    pub(crate) fn require(&self, capability: Capability) -> Result<(), Error> {
        if self.capabilities.contains(&capability) {
            return Ok(());
        }
        Err(Error::Forbidden(Forbidden::Capability(capability)))
    }
}

/// The capabilities over an app's keys and log that a root key's scopes amount to.
pub(crate) fn capabilities(scopes: &[Scope]) -> Vec<Capability> {
    Capability::ALL
        .into_iter()
        .filter(|capability| match capability {
            Capability::AuditRead => scopes.contains(&Scope::Audit),
            _ => scopes.contains(&Scope::Manage),
        })
        .collect()
}

impl Store {
    /// An event of this moment; the caller fills in what it is about.
    pub(crate) fn event(
        &self,
        deployment_id: DeploymentId,
        action: Action,
        actor: Actor,
        origin: &Origin,
    ) -> Result<Event, Error> {
        let now = self.clock().now();
        Ok(Event {
            id: EventId::mint(now, u128::from_be_bytes(self.entropy().bytes()?)),
            deployment_id,
            app: None,
            app_slug: None,
            action,
            outcome: Outcome::Allowed,
            blocked_by: None,
            key_id: None,
            key_name: None,
            root_key_id: None,
            scheme: None,
            actor: Some(actor),
            reason: None,
            changes: MemberChanges::new(),
            rate_limits: vec![],
            origin: origin.clone(),
            weight: 1,
            purge_at: AuditSettings::default().change_days.after(now),
        })
    }
}

/// The event as one about this app, in whose log it is kept as its settings say.
pub(crate) fn about_app(event: Event, app: &App) -> Event {
    let settings = &app.settings.audit;
    Event {
        app: Some(app.number),
        app_slug: Some(app.app_slug.clone()),
        purge_at: settings.change_days.after(event.id.timestamp()),
        origin: settings.origin(event.origin),
        ..event
    }
}
