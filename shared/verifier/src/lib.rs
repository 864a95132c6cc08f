//! Verifies Keyward's API keys in your own process: from what a request presents as its key to a decision.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use axum::routing::get;
//! use axum::{Extension, Router};
//! use keyward_verifier::{ApiKeyLayer, Decision, Verifier};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
//! let verifier = Verifier::builder(&config)
//!     .installation("keyward")
//!     .table("keyward-Table-1ABCDEFGHIJKL")
//!     .kms_key("arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555")
//!     .build()
//!     .await?;
//!
//! let whose = async |Extension(decision): Extension<Arc<Decision>>| decision.key.name.to_string();
//! let users = get(whose).route_layer(ApiKeyLayer::new(verifier.clone()).require("users:read")?);
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:3000").await?;
//! axum::serve(listener, Router::new().route("/v1/users", users)).await?;
//! verifier.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Without axum, ask [`Verifier::check`]. The crate is not on crates.io: depend on it by `git` or `path`. A graceful stop and
//! the client's address are in `examples/saas.rs`.
//!
//! # What happens
//!
//! Parse and checksum (no I/O) → one strongly consistent batch read of the key, its app and the rules that limit it → tag
//! → state of key and app → expiry → permissions → rate limits → event.
//!
//! # What it costs
//!
//! | a check | round trips to DynamoDB | read units | write units |
//! |---|---|---|---|
//! | of what is no key, or is mistyped | none | 0 | 0 |
//! | of a key that no rule limits | 1 | 2 | 0 |
//! | of one that rules of one mode limit | 2 | 3 | 1 |
//! | of one that rules of several modes limit | 3 | 3, and 1 for each mode | 2 for each mode |
//!
//! The first check of a limited app in a process reads twice, since it does not know yet which rules those are. After the
//! answer come a write unit for the event in the audit log, another a minute for the last use of a key, and one after a
//! rotation of the pepper for each key that is used; and twice a minute a read unit for the versions of the pepper. KMS is
//! asked once for each version, when a verifier is built or when a new one is found, and never for a check.
//!
//! # What it guarantees
//!
//! - Nothing that decides is cached: a revocation holds for the next check that starts after it was answered.
//! - A limit lets through as many requests as it says, however many processes check at the same time, and a request that is
//!   refused is counted by no rule. An attempt that DynamoDB did not answer in 900 ms is made again, and may then be counted
//!   twice: fewer pass, never more.
//! - A check ends within 1.8 s, or within the operation timeout of the [`SdkConfig`].
//! - When the store fails, a check is an error and never an "allowed", unless the app's `on_store_error` is `allow` and only
//!   the counting failed.
//! - An unknown key and a wrong secret cost as many HMACs, one for each live version of the pepper, and look the same.
//! - What was decided is written before [`Verifier::close`] returns, or logged under the target `keyward::audit`.
//!
//! # What it may do
//!
//! The role of the process needs these, on the table and the KMS key:
//!
//! | action | where |
//! |---|---|
//! | `dynamodb:Query` | `PEPPERS` |
//! | `dynamodb:BatchGetItem` | `KEY#*`, `APP#??????`, `DEPLOYMENT#*#SCHEMES`, `LIMIT#*` |
//! | `dynamodb:PutItem` | `AUDIT#??????#??????#V?` |
//! | `dynamodb:UpdateItem` | `LIMIT#*`; `KEY#*`, of which only the attributes `last_used_at`, `tag`, `pepper` and `peppers_beneath` |
//! | `kms:Decrypt` | the key, with the encryption context `keyward:installation`, the installation's name |
//!
//! `where` is what `dynamodb:LeadingKeys` is like: the policy of the function `authorizer` in `template.yaml` has it in full.

mod builder;
mod credentials;
mod decision;
mod layer;

use std::collections::HashMap;
use std::fmt;

use aws_config::SdkConfig;
use futures::stream::{self, StreamExt};
use keyward_audit::Recorder;
use keyward_core::app::OnStoreError;
use keyward_core::audit::{Action, Event, EventId, Origin, Outcome};
use keyward_core::decision::decide;
use keyward_core::id::KeyId;
use keyward_core::metric::Metric;
use keyward_core::permission::Permission;
use keyward_core::rate_limit::{Admission, Rules};
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_core::{ApiKey, App};
use keyward_store::{Deadline, Error, KeyToCheck, Requester, Store, random};

pub use builder::{BuildError, Builder};
pub use credentials::{bearer, presented};
pub use decision::{CheckError, Decision, PRINCIPAL_TYPE};
pub use keyward_core::decision::{Denial, Refusal, Target};
pub use keyward_core::requirement::Requirement;
pub use keyward_core::{ClientAddress, InvalidField};
pub use layer::{ApiKeyLayer, ApiKeyService};

/// How many keys of a batch are decided on at the same time.
const AT_ONCE: usize = 16;

/// A request that came with an API key.
pub struct Check<'a> {
    /// What was presented as the key.
    pub presented: &'a str,
    /// What it asks for.
    pub target: &'a Target,
    /// What it needs: all of it must hold.
    pub required_permissions: &'a [Requirement],
    /// The client's address, if it is known.
    pub client_ip: Option<ClientAddress>,
    /// The client's `User-Agent`, if it is known.
    pub user_agent: Option<&'a str>,
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Verifies API keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Store,
    recorder: Recorder,
}

/// A key whose secret matched, and what its permissions make of the request.
struct Verified {
    key: ApiKey,
    app: App,
    rules: Option<Rules>,
    request_id: EventId,
    verdict: Result<(bool, Vec<Permission>), Refusal>,
}

impl Verifier {
    /// Describes a verifier of an installation whose table and key are reached with this configuration. Its region and
    /// credentials are what the process has; an operation timeout in it takes the place of the 1.8 s that a check gives the
    /// store.
    pub fn builder(config: &SdkConfig) -> Builder {
        Builder::new(config)
    }

    /// A verifier that reads from `store` and reports to `recorder`.
    pub fn new(store: Store, recorder: Recorder) -> Self {
        Self { store, recorder }
    }

    /// Decides on a request, and records the decision if the key's secret matched. `caller` is the root key of whoever
    /// asks, where the installation wants one: only keys of its deployment are accepted.
    ///
    /// # Errors
    /// [`CheckError`], within the time that the store is given for one call; never an "allowed" when the store fails,
    /// unless that is what the app wants of requests that cannot be counted ([`OnStoreError`]).
    pub async fn check(
        &self,
        check: &Check<'_>,
        caller: Option<&Token<RootKey>>,
    ) -> Result<Decision, CheckError> {
        let token = ApiKeyToken::parse(check.presented).map_err(|_| CheckError::InvalidKey)?;
        let deadline = self.store.deadline();
        let found = deadline.of(self.store.find_key(&token, caller)).await?;
        let verified = self.verify(&token, found, check, deadline).await?;
        let admission = deadline.of(self.admit(&verified, check)).await;
        self.decide(verified, admission, check).await
    }

    /// Decides on each of these requests as [`Self::check`] does; requests of the same key in their order. What several of
    /// them need is read once.
    ///
    /// # Errors
    /// The keys could not be read, or the root key is not valid: then nothing was decided.
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
        let deadline = self.store.deadline();
        let mut found = deadline.of(self.store.find_keys(&parsed, caller)).await?.into_iter();
        let mut decided: Vec<Result<Decision, CheckError>> =
            checks.iter().map(|_| Err(CheckError::InvalidKey)).collect();
        let mut by_key: HashMap<KeyId, Vec<(usize, Verified)>> = HashMap::new();
        for (place, ((check, token), decided)) in checks.iter().zip(&tokens).zip(&mut decided).enumerate() {
            let Some(token) = token else { continue };
            match self.verify(token, found.next().flatten(), check, deadline).await {
                Ok(verified) => by_key.entry(verified.key.id).or_default().push((place, verified)),
                Err(error) => *decided = Err(error),
            }
        }
        let of_one_key = by_key.into_values().map(|requests| async {
            let mut decided = Vec::with_capacity(requests.len());
            for (place, verified) in requests {
                let Some(check) = checks.get(place) else { continue };
                let admission = deadline.of(self.admit(&verified, check)).await;
                decided.push((place, self.decide(verified, admission, check).await));
            }
            decided
        });
        let of_keys: Vec<_> = stream::iter(of_one_key).buffer_unordered(AT_ONCE).collect().await;
        for (place, decision) in of_keys.into_iter().flatten() {
            if let Some(decided) = decided.get_mut(place) {
                *decided = decision;
            }
        }
        Ok(decided)
    }

    async fn verify(
        &self,
        token: &ApiKeyToken,
        found: Option<KeyToCheck>,
        check: &Check<'_>,
        deadline: Deadline,
    ) -> Result<Verified, CheckError> {
        if !deadline.of(self.store.secret_matches(token, found.as_ref())).await? {
            return Err(CheckError::InvalidKey);
        }
        let KeyToCheck { key, app, rules, .. } = found.ok_or(CheckError::InvalidKey)?;
        let now = self.store.clock().now();
        let verdict = decide(&app, &key, check.target, check.required_permissions, now);
        Ok(Verified {
            request_id: EventId::mint(now, u128::from_be_bytes(random()?)),
            verdict: verdict.map(|verdict| (verdict.permitted, verdict.permissions)),
            key,
            app,
            rules,
        })
    }

    /// Counts the request in the rules that hold for it, if nothing else stands in its way.
    async fn admit(&self, verified: &Verified, check: &Check<'_>) -> Result<Admission, Error> {
        let (Some(rules), Ok((true, _))) = (&verified.rules, &verified.verdict) else {
            return Ok(Admission::default());
        };
        let requester =
            Requester { app: verified.app.number, key: verified.key.id, client_ip: check.client_ip };
        self.store.admit(&requester, rules, &rules.holding(check.target)).await
    }

    async fn decide(
        &self,
        verified: Verified,
        admission: Result<Admission, Error>,
        check: &Check<'_>,
    ) -> Result<Decision, CheckError> {
        let Verified { key, app, request_id, verdict, .. } = verified;
        let admission = match admission {
            Err(cause) if cause.is_unavailable() && app.on_store_error == OnStoreError::Allow => {
                tracing::error!(metric = cause.metric().map(Metric::name), %cause, "a request was not counted");
                Admission::default()
            }
            admission => admission?,
        };
        let decided = verdict.map(|(permitted, permissions)| {
            let denied = match admission.blocked {
                _ if !permitted => Some(Denial::PermissionDenied),
                blocked => blocked.map(Denial::RateLimited),
            };
            (permissions, denied)
        });
        let blocked_by_rule = match &decided {
            Ok((_, None)) => None,
            Ok((_, Some(denial))) => Some(denial.blocked_rule()),
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
            rate_limits: admission.limits.clone(),
            origin: Origin::new(check.client_ip, &check.target.to_string(), check.user_agent),
        };
        self.recorder.record(event, key.last_used_at).await;
        let (permissions, denied) = decided.map_err(|refusal| CheckError::Refused { refusal, request_id })?;
        Ok(Decision { request_id, key, permissions, limits: admission.limits, denied })
    }

    /// Writes what was decided, and records nothing more: for when the process ends, after its last request was answered.
    pub async fn close(&self) {
        self.recorder.close().await;
    }
}
