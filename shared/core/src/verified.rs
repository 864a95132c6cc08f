//! A key whose secret was presented: only for such a key are requests decided and counted.

use crate::audit::{Action, BlockedBy, Event, EventId, MemberChanges, Origin, Outcome};
use crate::audit_settings::AuditDurability;
use crate::id::DeploymentId;
use crate::rate_limit::Status;
use crate::token::ApiKeyToken;
use crate::{ApiKey, App};

/// That the secret of a token is the one that a row was made for. [`crate::hashing::Keyring::verify`] alone gives it.
#[derive(Debug)]
pub struct MatchedSecret<'t> {
    pub(crate) token: &'t ApiKeyToken,
    pub(crate) deployment: DeploymentId,
}

impl MatchedSecret<'_> {
    /// The key and the app that the token names, if they belong together and to the deployment that the secret was compared
    /// for: a row under another key's id is not that key, whatever its tag.
    pub fn of(self, key: ApiKey, app: App) -> Option<VerifiedKey> {
        let Self { token, deployment } = self;
        let together = key.id == token.id
            && key.key_prefix == token.prefix
            && key.deployment_id == deployment
            && key.app == token.app
            && app.number == token.app
            && app.deployment_id == deployment;
        together.then_some(VerifiedKey { key, app })
    }
}

/// A key whose secret was presented, and its app. Either may be in a state in which no request gets through.
#[derive(Debug, Clone)]
pub struct VerifiedKey {
    key: ApiKey,
    app: App,
}

impl VerifiedKey {
    /// The key.
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// Its app.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The key, taken out.
    pub fn into_key(self) -> ApiKey {
        self.key
    }
}

/// A decision on a request of a verified key, as the audit log is to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    event: Event,
    is_logged: bool,
    durability: AuditDurability,
}

impl Verification {
    /// The decision with this id, of which the log gets what the app's settings say.
    pub fn new(
        verified: &VerifiedKey,
        id: EventId,
        blocked_by: Option<BlockedBy>,
        rate_limits: Vec<Status>,
        origin: Origin,
    ) -> Self {
        let key = &verified.key;
        let settings = &verified.app.settings.audit;
        let outcome = if blocked_by.is_none() { Outcome::Allowed } else { Outcome::Blocked };
        let weight = settings.weight(id, outcome);
        let event = Event {
            id,
            deployment_id: key.deployment_id,
            app: Some(key.app),
            app_slug: Some(key.app_slug.clone()),
            action: Action::Verification,
            outcome,
            blocked_by,
            key_id: Some(key.id),
            key_name: Some(key.name.clone()),
            root_key_id: None,
            scheme: None,
            actor: None,
            reason: None,
            changes: MemberChanges::new(),
            rate_limits,
            origin: settings.origin(origin),
            weight: weight.unwrap_or_default(),
            purge_at: settings.request_days.after(id.timestamp()),
        };
        Self { event, is_logged: weight.is_some(), durability: settings.durability }
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Whether the log is to have the event.
    pub fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// When the log is to have it.
    pub fn durability(&self) -> AuditDurability {
        self.durability
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::audit_settings::{AuditLevel, RetentionDays};
    use crate::examples::{self, NOW};
    use crate::id::{AppNumber, KeyId};
    use crate::text::KeyPrefix;

    #[test]
    fn a_key_is_verified_with_its_own_app_and_under_its_own_id_alone() {
        let token = examples::token();
        let verified = |key: ApiKey, app: App| {
            let matched = MatchedSecret { token: &token, deployment: DeploymentId::new(1).unwrap() };
            matched.of(key, app).is_some()
        };
        let (key, app) = (examples::key, examples::app);
        assert!(verified(key(), app()));
        let other_deployment = DeploymentId::new(2).unwrap();
        for wrong in [
            ApiKey { id: KeyId::new(2).unwrap(), ..key() },
            ApiKey { key_prefix: KeyPrefix::parse("key_prefix", "other").unwrap(), ..key() },
            ApiKey { deployment_id: other_deployment, ..key() },
            ApiKey { app: AppNumber::mint(2), ..key() },
        ] {
            assert!(!verified(wrong.clone(), app()), "{wrong:?}");
        }
        for wrong in
            [App { number: AppNumber::mint(2), ..app() }, App { deployment_id: other_deployment, ..app() }]
        {
            assert!(!verified(key(), wrong.clone()), "{wrong:?}");
        }
    }

    #[test]
    fn a_verification_tells_whose_key_it_was_and_what_became_of_the_request() {
        let verified = VerifiedKey { key: examples::key(), app: examples::app() };
        let id = EventId::mint(NOW, 1);
        let of = |rule| Verification::new(&verified, id, rule, vec![], Origin::default()).event().clone();
        let allowed = of(None);
        assert_eq!((allowed.id, allowed.outcome, allowed.blocked_by), (id, Outcome::Allowed, None));
        assert_eq!((allowed.key_id, allowed.app), (Some(verified.key().id), Some(verified.app().number)));
        assert_eq!((allowed.action, allowed.actor), (Action::Verification, None));
        let rule = BlockedBy::RateLimit("100/60s".into());
        let blocked = of(Some(rule.clone()));
        assert_eq!((blocked.outcome, blocked.blocked_by), (Outcome::Blocked, Some(rule)));
        assert_eq!(verified.clone().into_key(), *verified.key());
    }

    #[test]
    fn the_log_gets_what_the_app_says() {
        let mut app = examples::app();
        let of = |app: &App| {
            let verified = VerifiedKey { key: examples::key(), app: app.clone() };
            let origin = Origin::new("203.0.113.7".parse().ok(), "GET /a", Some("curl"));
            Verification::new(&verified, EventId::mint(NOW, 1), None, vec![], origin)
        };
        let plain = of(&app);
        assert!(plain.is_logged() && plain.durability() == AuditDurability::AfterAnswer);
        assert_eq!((plain.event().weight, plain.event().purge_at - NOW), (1, TimeDelta::days(90)));
        app.settings.audit.level = AuditLevel::Blocked;
        app.settings.audit.durability = AuditDurability::BeforeAnswer;
        app.settings.audit.user_agent = false;
        app.settings.audit.request_days = RetentionDays::parse("days", 7).unwrap();
        let other = of(&app);
        assert!(!other.is_logged() && other.durability() == AuditDurability::BeforeAnswer);
        assert_eq!(other.event().origin.user_agent, None);
        assert_eq!(other.event().purge_at - NOW, TimeDelta::days(7));
    }
}
