//! What can go wrong in the data layer, in the words that the caller of the API reads.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use keyward_core::InvalidField;
use keyward_core::hashing::UnknownPepper;
use keyward_core::metric::Metric;
use keyward_pepper::PepperError;

/// A request to the store that was not carried out. Nothing was changed.
///
/// `Display` is fit for the caller of the API, but for [`Error::Unavailable`], [`Error::KeyUnavailable`] and
/// [`Error::Internal`], whose details belong in the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The credential is unknown, wrong, used up or expired: always the same, so that nobody learns which.
    #[error("the credential is not valid")]
    Unauthenticated,
    /// The credential is valid and does not extend to this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing in the caller's deployment.
    #[error("{0}")]
    NotFound(&'static str),
    /// It cannot be deleted while something else refers to it.
    #[error("{0}")]
    InUse(&'static str),
    /// It exists already, or was changed at the same time.
    #[error("{0}")]
    Conflict(String),
    /// A value is not acceptable.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The store could not be reached, is throttled or too slow. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The KMS key that encrypts the table or wraps the peppers cannot be used: it is disabled or going to be deleted, its
    /// policy leaves DynamoDB or the function out, or KMS fails. Trying again helps when that is mended.
    #[error("the KMS key cannot be used: {0}")]
    KeyUnavailable(String),
    /// The counters of a rate limit take no more requests at the moment, for too many came. Trying again may help.
    #[error("the counters of a rate limit are too busy")]
    Busy,
    /// The store refused what it should have taken, or an item is not as it was written.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether a caller is to try again later.
    pub fn is_unavailable(&self) -> bool {
        self.is_failure() || matches!(self, Self::Busy)
    }

    /// Whether it is the store that fails, and not the caller who asks too much of it.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::KeyUnavailable(_))
    }

    /// What an operator is told of it by; nothing where the request was wrong.
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
fn is_about_the_key(code: Option<&str>, message: Option<&str>) -> bool {
    let message = message.unwrap_or_default().to_ascii_lowercase();
    code == Some("AccessDeniedException")
        && message.contains("kms")
        && !message.contains("to perform: dynamodb:")
}

impl<E, R> From<SdkError<E, R>> for Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    fn from(error: SdkError<E, R>) -> Self {
        let permanent = matches!(
            error.code(),
            Some("ValidationException" | "AccessDeniedException" | "ResourceNotFoundException")
        );
        let detail = DisplayErrorContext(&error).to_string();
        if is_about_the_key(error.code(), error.message()) {
            return Self::KeyUnavailable(detail);
        }
        if permanent { Self::Internal(detail) } else { Self::Unavailable(detail) }
    }
}

impl From<aws_sdk_dynamodb::error::BuildError> for Error {
    fn from(error: aws_sdk_dynamodb::error::BuildError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<serde_dynamo::Error> for Error {
    fn from(error: serde_dynamo::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<UnknownPepper> for Error {
    fn from(error: UnknownPepper) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<PepperError> for Error {
    fn from(error: PepperError) -> Self {
        match error {
            PepperError::Kms(_) => Self::KeyUnavailable(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_by_kms_is_told_from_one_by_iam() {
        let denied = |message| is_about_the_key(Some("AccessDeniedException"), Some(message));
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
        assert!(!is_about_the_key(Some("ValidationException"), Some(validation)));
        assert!(!is_about_the_key(Some("AccessDeniedException"), None));
    }
}
