//! Errors of the data layer. The sentences for callers are where they are answered.

use std::any::type_name;
use std::fmt;
use std::panic::Location;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use chrono::{DateTime, Utc};
use keyward_core::hashing::{PepperVersion, UnknownPepper};
use keyward_core::metric::Metric;
use keyward_core::root_key::Scope;
use keyward_core::session::Capability;
use keyward_core::{InvalidField, NoEntropy};
use keyward_pepper::PepperError;

use crate::item::Key;

/// A request to the store that was not carried out. Nothing was changed.
///
/// `Display` is for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The credential is unknown, wrong, used up or expired: always the same, so that nobody learns which.
    #[error("the credential is not valid")]
    Unauthenticated,
    /// The credential is valid, but does not permit this.
    #[error("{0}")]
    Forbidden(Forbidden),
    /// It does not exist in the caller's deployment.
    #[error("there is no such {0}")]
    NotFound(Resource),
    /// It cannot be deleted while something of this kind refers to it.
    #[error("a {0} uses it")]
    InUse(Resource),
    /// It is not in the state that the request needs.
    #[error("{0}")]
    Conflict(Conflict),
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The store could not be reached, is throttled or too slow. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(Failure),
    /// The KMS key that encrypts the table or wraps the peppers cannot be used: it is disabled or going to be deleted, its
    /// policy leaves DynamoDB or the function out, or KMS fails. Trying again helps once that is fixed.
    #[error("the KMS key cannot be used: {0}")]
    KeyUnavailable(Failure),
    /// The counters of a rate limit take no more requests at the moment, for too many came. Trying again may help.
    #[error("the counters of a rate limit are too busy")]
    Busy,
    /// The store rejected a valid request, or an item is corrupt.
    #[error("internal error: {0}")]
    Internal(Failure),
}

/// Something that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// An app.
    App,
    /// An API key.
    ApiKey,
    /// An API key that was not revoked.
    ActiveApiKey,
    /// A rate-limit scheme.
    RateLimitScheme,
    /// A deployment.
    Deployment,
    /// A root key.
    RootKey,
    /// A version of the pepper that is not retired.
    PepperVersion,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::App => "app",
            Self::ApiKey => "API key",
            Self::ActiveApiKey => "active API key",
            Self::RateLimitScheme => "rate-limit scheme",
            Self::Deployment => "deployment",
            Self::RootKey => "root key",
            Self::PepperVersion => "version of the pepper, or it is retired",
        })
    }
}

/// The right that a valid credential lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The root key lacks this scope.
    #[error("the root key lacks the scope '{}'", .0.as_str())]
    Scope(Scope),
    /// The credential lacks this capability.
    #[error("the credential lacks the capability '{}'", .0.as_str())]
    Capability(Capability),
    /// The app is disabled.
    #[error("the app is disabled")]
    AppDisabled,
}

/// Why a change does not fit what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// There is one with this slug already.
    #[error("there is a {0} '{1}' already")]
    Exists(Resource, String),
    /// There is a first deployment already.
    #[error("there is a deployment already")]
    Initialised,
    /// It was changed at the same time.
    #[error("the {0} was changed at the same time")]
    Changed(Resource),
    /// The id that was drawn for it is taken.
    #[error("the id of the new {0} was taken")]
    IdTaken(Resource),
    /// The id that was drawn for a credential is taken.
    #[error("the new id was taken")]
    CredentialIdTaken,
    /// New tags are made with this version of the pepper.
    #[error("version {0} makes new tags")]
    PepperActive(PepperVersion),
    /// Rows may still be created with a version of the pepper, as `current` was activated only recently.
    #[error(
        "version {current} was activated so recently that rows can still be created with version {version}"
    )]
    PepperRecent {
        /// The version.
        version: PepperVersion,
        /// The one after it.
        current: PepperVersion,
        /// When none can be made any more.
        settled: DateTime<Utc>,
    },
    /// Rows need a version of the pepper.
    #[error("version {version} is needed by rows: {rows} directly, {layered} under another version")]
    PepperNeeded {
        /// The version.
        version: PepperVersion,
        /// The number of rows that were tagged with it alone.
        rows: u64,
        /// The number of rows in which it is under a later version.
        layered: u64,
    },
}

/// A failure, for whoever fixes it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The call that failed, such as `GetItem`; none where it was no call.
    pub operation: Option<&'static str>,
    /// The kind of partition that it was about, such as `APP#*#KEYS#ACTIVE`, where that is known.
    pub partition: Option<String>,
    /// The place in the code.
    pub place: &'static Location<'static>,
    /// The problem, with its causes.
    pub detail: String,
}

impl Failure {
    #[track_caller]
    fn new(detail: impl Into<String>) -> Self {
        Self { operation: None, partition: None, place: Location::caller(), detail: detail.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.detail)?;
        if let Some(partition) = &self.partition {
            write!(f, " ({partition})")?;
        }
        Ok(())
    }
}

impl Key {
    /// Its partition key with `*` for each id, number and slug in it.
    fn partition_kind(&self) -> String {
        let is_word = |part: &str| part.bytes().all(|byte| byte.is_ascii_uppercase());
        let parts: Vec<&str> =
            self.pk.split('#').map(|part| if is_word(part) { part } else { "*" }).collect();
        parts.join("#")
    }
}

impl Error {
    /// An error that only the operator or a developer of the store can fix.
    #[track_caller]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::Internal(Failure::new(detail))
    }

    /// An error that trying again may fix.
    #[track_caller]
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable(Failure::new(detail))
    }

    /// The failure behind it, if it was not the request that was wrong.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Unavailable(failure) | Self::KeyUnavailable(failure) | Self::Internal(failure) => {
                Some(failure)
            }
            _ => None,
        }
    }

    /// The error of a call about the item with this key.
    pub(crate) fn about(mut self, key: &Key) -> Self {
        if let Self::Unavailable(failure) | Self::KeyUnavailable(failure) | Self::Internal(failure) =
            &mut self
        {
            failure.partition = Some(key.partition_kind());
        }
        self
    }

    /// Whether a caller is to try again later.
    pub fn is_unavailable(&self) -> bool {
        self.is_failure() || matches!(self, Self::Busy)
    }

    /// Whether it is the store that fails, and not the caller who asks too much of it.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::KeyUnavailable(_))
    }

    /// The metric that counts it; none where the request was wrong.
    pub fn metric(&self) -> Option<Metric> {
        match self {
            Self::Unavailable(_) => Some(Metric::StoreFailures),
            Self::KeyUnavailable(_) => Some(Metric::KmsFailures),
            Self::Internal(_) => Some(Metric::InternalErrors),
            _ => None,
        }
    }
}

/// Whether DynamoDB was denied the table's key, and not the caller the table. DynamoDB passes on what KMS answered it, as an
/// `AccessDeniedException` that names KMS ("KMS key access denied error: …"); IAM names the action that it denies.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html>
fn is_key_denial(code: Option<&str>, message: Option<&str>) -> bool {
    let message = message.unwrap_or_default().to_ascii_lowercase();
    code == Some("AccessDeniedException")
        && message.contains("kms")
        && !message.contains("to perform: dynamodb:")
}

impl<E, R> From<SdkError<E, R>> for Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug,
{
    #[track_caller]
    fn from(error: SdkError<E, R>) -> Self {
        let permanent = matches!(
            error.code(),
            Some("ValidationException" | "AccessDeniedException" | "ResourceNotFoundException")
        );
        // The SDK names an error's type by its operation: `GetItemError`.
        let operation = type_name::<E>().rsplit("::").next().and_then(|name| name.strip_suffix("Error"));
        let failure = Failure { operation, ..Failure::new(DisplayErrorContext(&error).to_string()) };
        if is_key_denial(error.code(), error.message()) {
            return Self::KeyUnavailable(failure);
        }
        if permanent { Self::Internal(failure) } else { Self::Unavailable(failure) }
    }
}

impl From<aws_sdk_dynamodb::error::BuildError> for Error {
    #[track_caller]
    fn from(error: aws_sdk_dynamodb::error::BuildError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<serde_dynamo::Error> for Error {
    #[track_caller]
    fn from(error: serde_dynamo::Error) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<NoEntropy> for Error {
    #[track_caller]
    fn from(error: NoEntropy) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<UnknownPepper> for Error {
    #[track_caller]
    fn from(error: UnknownPepper) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<PepperError> for Error {
    #[track_caller]
    fn from(error: PepperError) -> Self {
        match error {
            PepperError::Kms(_) => Self::KeyUnavailable(Failure::new(error.to_string())),
            _ => Self::internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_by_kms_is_told_from_one_by_iam() {
        let denied = |message| is_key_denial(Some("AccessDeniedException"), Some(message));
        for of_kms in [
            "KMS key access denied error: com.amazonaws.services.kms.model.AWSKMSException: The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException)",
            "User: arn:aws:sts::111122223333:assumed-role/keyward-VerifyRole/keyward-verify is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext because no resource-based policy allows the kms:Decrypt action",
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd is disabled. (Service: AWSKMS; Status Code: 400; Error Code: DisabledException)",
        ] {
            assert!(denied(of_kms), "{of_kms}");
        }
        for of_iam in [
            "User: arn:aws:sts::111122223333:assumed-role/kms-VerifyRole/kms-verify is not authorized to perform: dynamodb:GetItem on resource: arn:aws:dynamodb:eu-central-1:111122223333:table/kms-Table because no identity-based policy allows the dynamodb:GetItem action",
            "not permitted",
            "",
        ] {
            assert!(!denied(of_iam), "{of_iam}");
        }
        let validation = "One or more parameter values were invalid: KMS";
        assert!(!is_key_denial(Some("ValidationException"), Some(validation)));
        assert!(!is_key_denial(Some("AccessDeniedException"), None));
    }
}
