//! The verification of API keys: from a presented text to a decision.
//!
//! Parse and checksum (no I/O) → one strongly consistent batch read of key and app (two read units) → tag → state of
//! key and app → expiry → permissions → event. Nothing that decides is cached: a revocation holds for the next check
//! that starts after it was answered. An unknown key and a wrong secret cost one HMAC each and look the same.

use std::fmt;

use keyward_audit::Recorder;
use keyward_core::ApiKey;
use keyward_core::audit::{Action, Event, EventId, Origin, Outcome};
use keyward_core::decision::{self, Refusal, Target};
use keyward_core::permission::Permission;
use keyward_core::requirement::Requirement;
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_store::{Error, KeyToCheck, Store, random};

/// A request that came with an API key.
pub struct Check<'a> {
    /// What was presented as the key.
    pub presented: &'a str,
    /// What it asks for.
    pub target: &'a Target,
    /// What it needs: all of it must hold.
    pub required_permissions: &'a [Requirement],
    /// The client's address, if it is known.
    pub client_ip: &'a str,
    /// The client's `User-Agent`, if it is known.
    pub user_agent: Option<&'a str>,
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What was decided for a key that works.
#[derive(Debug)]
pub struct Decision {
    /// The id of the decision, which is that of its event in the audit log.
    pub request_id: EventId,
    /// Whether the request may go through; if not, a permission was missing.
    pub allowed: bool,
    /// The key.
    pub key: ApiKey,
    /// All that the key may do, sorted.
    pub permissions: Vec<Permission>,
}

/// Why there is no decision on a request.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Not a key, a key that does not exist, or a wrong secret: always the same.
    #[error("the API key is not valid")]
    InvalidKey,
    /// The key is genuine and refused whatever it asks for.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// The id of the refusal, which is that of its event in the audit log.
        request_id: EventId,
    },
    /// The store could not tell.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Verifies API keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Store,
    recorder: Recorder,
}

impl Verifier {
    /// A verifier that reads from `store` and reports to `recorder`.
    pub fn new(store: Store, recorder: Recorder) -> Self {
        Self { store, recorder }
    }

    /// Decides on a request, and records the decision if the key's secret matched. `caller` is the root key of whoever
    /// asks, where the installation wants one: only keys of its deployment are accepted.
    ///
    /// # Errors
    /// [`CheckError`]; never an "allowed" when the store fails.
    pub async fn check(
        &self,
        check: &Check<'_>,
        caller: Option<&Token<RootKey>>,
    ) -> Result<Decision, CheckError> {
        let token = ApiKeyToken::parse(check.presented).map_err(|_| CheckError::InvalidKey)?;
        let found = self.store.find_key(&token, caller).await?;
        self.decide(&token, found, check).await
    }

    /// Decides on each of these requests as [`Self::check`] does, in their order. What several of them need is read once.
    ///
    /// # Errors
    /// The store could not tell, or the root key is not valid: then nothing was decided.
    pub async fn check_all(
        &self,
        checks: &[Check<'_>],
        caller: Option<&Token<RootKey>>,
    ) -> Result<Vec<Result<Decision, CheckError>>, Error> {
        let tokens: Vec<Option<ApiKeyToken>> =
            checks.iter().map(|check| ApiKeyToken::parse(check.presented).ok()).collect();
        let parsed: Vec<&ApiKeyToken> = tokens.iter().flatten().collect();
        if parsed.is_empty() {
            return Ok(checks.iter().map(|_| Err(CheckError::InvalidKey)).collect());
        }
        let mut found = self.store.find_keys(&parsed, caller).await?.into_iter();
        let mut decided = Vec::with_capacity(checks.len());
        for (check, token) in checks.iter().zip(&tokens) {
            decided.push(match token {
                None => Err(CheckError::InvalidKey),
                Some(token) => match self.decide(token, found.next().flatten(), check).await {
                    Err(CheckError::Store(error)) => return Err(error),
                    decided => decided,
                },
            });
        }
        Ok(decided)
    }

    async fn decide(
        &self,
        token: &ApiKeyToken,
        found: Option<KeyToCheck>,
        check: &Check<'_>,
    ) -> Result<Decision, CheckError> {
        if !self.store.secret_matches(token, found.as_ref())? {
            return Err(CheckError::InvalidKey);
        }
        let KeyToCheck { key, app, .. } = found.ok_or(CheckError::InvalidKey)?;
        let now = self.store.clock().now();
        let request_id = EventId::mint(now, u128::from_be_bytes(random()?));
        let verdict = decision::decide(&app, &key, check.target, check.required_permissions, now);
        let blocked_by_rule = match &verdict {
            Ok(verdict) if verdict.allowed => None,
            Ok(_) => Some("permission_denied"),
            Err(refusal) => Some(refusal.code()),
        };
        let event = Event {
            id: request_id,
            deployment_id: key.deployment_id,
            app: Some(key.app),
            app_slug: Some(key.app_slug.clone()),
            action: Action::Verification,
            outcome: if blocked_by_rule.is_none() { Outcome::Allowed } else { Outcome::Blocked },
            blocked_by_rule: blocked_by_rule.map(str::to_owned),
            key_id: Some(key.id),
            key_name: Some(key.name.clone()),
            actor: None,
            reason: None,
            origin: Origin::new(check.client_ip, &check.target.to_string(), check.user_agent),
        };
        self.recorder.record(event, key.last_used_at).await;
        match verdict {
            Ok(verdict) => {
                Ok(Decision { request_id, allowed: verdict.allowed, key, permissions: verdict.permissions })
            }
            Err(refusal) => Err(CheckError::Refused { refusal, request_id }),
        }
    }
}
