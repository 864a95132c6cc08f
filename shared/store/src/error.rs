//! What can go wrong in the data layer, in the words that the caller of the API reads.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use keyward_core::InvalidField;
use keyward_core::hashing::UnknownPepper;

/// A request to the store that was not carried out. Nothing was changed.
///
/// `Display` is fit for the caller of the API, but for [`Error::Unavailable`] and [`Error::Internal`], whose details
/// belong in the log.
#[derive(Debug, thiserror::Error)]
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
    /// The store refused what it should have taken, or an item is not as it was written.
    #[error("internal error: {0}")]
    Internal(String),
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
