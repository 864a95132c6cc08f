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
//! let keys = ApiKeyLayer::app(verifier.clone(), "acme")?;
//! let users = get(whose).route_layer(keys.require("users:read")?);
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
//! Parse and checksum (no I/O) → one strongly consistent batch read of the key and its app → tag → whether keys of the app
//! are accepted here ([`Accepted`]) → state of key and app → expiry → permissions → the rules that limit the key → rate limits
//! → event. The rules are in the first read, where the process has recognised the same secret, or another key of the app,
//! before.
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
//! The first check of a limited app in a process, or of a key with rules of its own, makes a round trip more and reads no more
//! units, since it does not know yet which rules those are. After the
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
//! - An unknown key, a wrong secret and a key of an app that is not accepted look the same and cost as many HMACs, one for each
//!   live version of the pepper; the first two also the same reads, whatever the process has seen.
//! - What does not decide is not asked for: a key that is refused whatever it asks for needs no rules. Of several checks made
//!   together ([`Verifier::check_all`]) each fails alone.
//! - A response does not wait for the event, unless the app's `audit_durability` is `before_answer`: then what was decided is in
//!   the audit log first, or the check is an error.
//! - What was decided is written before [`Verifier::close`] returns, or logged under the target `keyward::audit`, from where
//!   `keyward audit replay` restores it if the log is JSON. A process that is killed may lose its last events.
//!
//! # What it may do
//!
//! The role of the process needs these, on the table and the KMS key:
//!
//! | action | where |
//! |---|---|
//! | `dynamodb:Query` | `PEPPERS` |
//! | `dynamodb:GetItem` | `INSTALLATION` |
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
use std::{fmt, slice};

use aws_config::SdkConfig;
use futures::future::join;
use futures::stream::{self, StreamExt};
use keyward_audit::Recorder;
use keyward_core::app::OnStoreError;
use keyward_core::audit::{EventId, Origin};
use keyward_core::decision::decide;
use keyward_core::id::KeyId;
use keyward_core::metric::Metric;
use keyward_core::permission::Permission;
use keyward_core::rate_limit::{Admission, Rules};
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_core::verified::Verification;
use keyward_store::{Candidate, Deadline, Error, FoundKeys, KeyToCheck, Store};

pub use builder::{BuildError, Builder};
pub use credentials::{presented, presented_in};
pub use decision::{CheckError, Decision, PRINCIPAL_TYPE};
pub use keyward_core::accepted::{Accepted, AcceptedApps, AcceptedDeployment};
pub use keyward_core::decision::{Denial, Refusal};
pub use keyward_core::id::DeploymentId;
pub use keyward_core::requirement::Requirement;
pub use keyward_core::target::Target;
pub use keyward_core::{ClientAddress, InvalidField};
pub use layer::{ApiKeyLayer, ApiKeyService};

/// The number of keys of a batch that are decided on at the same time.
const CONCURRENCY: usize = 16;

/// A request that came with an API key.
pub struct Check<'a> {
    /// The text that was presented as the key.
    pub presented: &'a str,
    /// Of which apps keys are accepted.
    pub accepted: &'a Accepted,
    /// The target that it asks for.
    pub target: &'a Target,
    /// The requirements, all of which must hold.
    pub required_permissions: &'a [Requirement],
    /// The client's address, if it is known.
    pub client_ip: Option<ClientAddress>,
    /// The client's `User-Agent`, if it is known.
    pub user_agent: Option<&'a str>,
    /// The id that the request has already, of its own alone, for the decision to have too. Without one the decision gets
    /// a new one.
    pub request_id: Option<EventId>,
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
    /// The first deployment of the installation.
    first: DeploymentId,
}

/// A key whose secret matched, and what its permissions make of the request.
struct Verified {
    found: KeyToCheck,
    request_id: EventId,
    verdict: Result<(bool, Vec<Permission>), Refusal>,
}

/// One of the requests of a key, and what limits it.
struct Limited {
    place: usize,
    verified: Verified,
    rules: Result<Option<Rules>, Error>,
}

impl Verified {
    /// Whether nothing but its limits can stand in its way.
    fn is_permitted(&self) -> bool {
        matches!(self.verdict, Ok((true, _)))
    }
}

impl Verifier {
    /// Describes a verifier of an installation whose table and key are reached with this configuration. Its region and
    /// credentials are what the process has; an operation timeout in it takes the place of the 1.8 s that a check gives the
    /// store.
    pub fn builder(config: &SdkConfig) -> Builder {
        Builder::new(config)
    }

    /// A verifier that reads from `store`, in an installation whose first deployment is `first`, and reports to `recorder`.
    pub fn new(store: Store, recorder: Recorder, first: DeploymentId) -> Self {
        Self { store, recorder, first }
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
        caller: Option<Token<RootKey>>,
    ) -> Result<Decision, CheckError> {
        let mut decided = self.check_all(slice::from_ref(check), caller).await?;
        decided.pop().unwrap_or(Err(CheckError::InvalidKey))
    }

    /// Decides on each of these requests as [`Self::check`] does; requests of the same key in their order. What several of
    /// them need is read once. What fails for one of them fails for that one alone.
    ///
    /// # Errors
    /// Nothing could be read, or the root key is not valid: then nothing was decided.
    pub async fn check_all(
        &self,
        checks: &[Check<'_>],
        caller: Option<Token<RootKey>>,
    ) -> Result<Vec<Result<Decision, CheckError>>, Error> {
        let mut decided: Vec<_> = checks.iter().map(|_| Err(CheckError::InvalidKey)).collect();
        let parsed = |(place, check): (usize, &Check<'_>)| {
            ApiKeyToken::parse(check.presented).ok().map(|token| (place, token))
        };
        let (places, tokens): (Vec<usize>, Vec<ApiKeyToken>) =
            checks.iter().enumerate().filter_map(parsed).unzip();
        if tokens.is_empty() {
            return Ok(decided);
        }
        let deadline = self.store.deadline();
        // What cannot be read for some is not to take the time of the others.
        let to_read = if tokens.len() > 1 { deadline.with_reserve() } else { deadline };
        let FoundKeys { caller, candidates } = self.store.find_keys(to_read, tokens, caller).await?;
        let (at_once, later): (Vec<_>, Vec<_>) =
            places.into_iter().zip(candidates).partition(|(_, candidate)| self.store.can_verify(candidate));
        let (at_once, later) = join(
            self.decide_all(checks, at_once, caller, deadline),
            self.decide_all(checks, later, caller, deadline),
        )
        .await;
        for (place, decision) in at_once.into_iter().chain(later) {
            if let Some(decided) = decided.get_mut(place) {
                *decided = decision;
            }
        }
        Ok(decided)
    }

    /// Decides on those of the requests for which there are these candidates.
    async fn decide_all(
        &self,
        checks: &[Check<'_>],
        candidates: Vec<(usize, Candidate)>,
        caller: Option<DeploymentId>,
        deadline: Deadline,
    ) -> Vec<(usize, Result<Decision, CheckError>)> {
        let (places, candidates): (Vec<usize>, Vec<Candidate>) = candidates.into_iter().unzip();
        let found = self.store.verify(deadline, candidates, caller).await;
        let mut decided = Vec::with_capacity(places.len());
        let mut verified = Vec::with_capacity(places.len());
        for (place, found) in places.into_iter().zip(found) {
            let Some(check) = checks.get(place) else { continue };
            match self.verify(found, check, caller) {
                Ok(of_check) => verified.push((place, of_check)),
                Err(error) => decided.push((place, Err(error))),
            }
        }
        let permitted = verified.iter_mut().filter(|(_, verified)| verified.is_permitted());
        let mut limited: Vec<&mut KeyToCheck> = permitted.map(|(_, verified)| &mut verified.found).collect();
        let mut rules = self.store.rules_to_check(deadline, &mut limited).await.into_iter();
        let mut by_key: HashMap<KeyId, Vec<Limited>> = HashMap::new();
        for (place, verified) in verified {
            let rules = if verified.is_permitted() { rules.next().unwrap_or(Ok(None)) } else { Ok(None) };
            by_key.entry(verified.found.verified().key().id).or_default().push(Limited {
                place,
                verified,
                rules,
            });
        }
        let of_one_key = by_key.into_values().map(|requests| async {
            let mut decided = Vec::with_capacity(requests.len());
            for Limited { place, verified, rules } in requests {
                let Some(check) = checks.get(place) else { continue };
                decided.push((place, self.decide(verified, rules, check, deadline).await));
            }
            decided
        });
        let of_keys: Vec<_> = stream::iter(of_one_key).buffer_unordered(CONCURRENCY).collect().await;
        decided.extend(of_keys.into_iter().flatten());
        decided
    }

    fn verify(
        &self,
        found: Result<Option<KeyToCheck>, Error>,
        check: &Check<'_>,
        caller: Option<DeploymentId>,
    ) -> Result<Verified, CheckError> {
        if let (AcceptedDeployment::Id(named), Some(caller)) = (check.accepted.deployment, caller)
            && named != caller
        {
            let wrong = InvalidField::new("deployment_id", "must be the deployment of the root key");
            return Err(Error::from(wrong).into());
        }
        let found = found?.ok_or(CheckError::InvalidKey)?;
        let (key, app) = (found.verified().key(), found.verified().app());
        // The deployment of whoever asks goes before the first one.
        if !check.accepted.includes(app, caller.unwrap_or(self.first)) {
            tracing::info!(key_id = %key.id, app = %app.app_slug, deployment = %app.deployment_id, "a key of an app that is not accepted was refused");
            return Err(CheckError::InvalidKey);
        }
        let now = self.store.clock().now();
        let verdict = decide(found.verified(), check.target, check.required_permissions, now);
        let request_id = match check.request_id {
            Some(id) => id,
            None => {
                EventId::mint(now, u128::from_be_bytes(self.store.entropy().bytes().map_err(Error::from)?))
            }
        };
        Ok(Verified {
            request_id,
            verdict: verdict.map(|verdict| (verdict.permitted, verdict.permissions)),
            found,
        })
    }

    /// Counts the request in the rules that hold for it.
    async fn admit(
        &self,
        verified: &Verified,
        rules: Option<&Rules>,
        check: &Check<'_>,
        deadline: Deadline,
    ) -> Result<Admission, Error> {
        let Some(rules) = rules else { return Ok(Admission::default()) };
        let (key, applicable) = (verified.found.verified(), rules.applicable(check.target));
        self.store.admit(key, check.client_ip, rules, &applicable, deadline).await
    }

    async fn decide(
        &self,
        verified: Verified,
        rules: Result<Option<Rules>, Error>,
        check: &Check<'_>,
        deadline: Deadline,
    ) -> Result<Decision, CheckError> {
        let admission = self.admit(&verified, rules?.as_ref(), check, deadline).await;
        let Verified { found, request_id, verdict } = verified;
        let verified = found.into_verified();
        let admission = match admission {
            Err(cause)
                if cause.is_failure() && verified.app().settings.on_store_error == OnStoreError::Allow =>
            {
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
        let blocked_by = match &decided {
            Ok((_, None)) => None,
            Ok((_, Some(denial))) => Some(denial.blocked_by()),
            Err(refusal) => Some(refusal.code().into()),
        };
        let origin = Origin::new(check.client_ip, &check.target.to_string(), check.user_agent);
        let limits = admission.limits.clone();
        let verification = Verification::new(&verified, request_id, blocked_by, limits, origin);
        let last_used_at = verified.key().last_used_at;
        deadline.of(self.recorder.record(verification, last_used_at)).await?;
        let (permissions, denied) = decided.map_err(|refusal| CheckError::Refused { refusal, request_id })?;
        Ok(Decision { request_id, key: verified.into_key(), permissions, limits: admission.limits, denied })
    }

    /// Writes what was decided, and records nothing more: for when the process ends, after its last request was answered.
    pub async fn close(&self) {
        self.recorder.close().await;
    }
}
