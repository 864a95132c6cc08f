//! What a table needs before functions can start on it: a pepper, a deployment and a root key.

use keyward_core::Deployment;
use keyward_core::deployment::Mode;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper;
use keyward_core::text::{InvalidField, Name};
use keyward_core::token::{RootKey, Token};
use keyward_pepper::{KeyProvider, PepperError};
use keyward_store::{Error, OpenError, Store, Table};

/// Why a table could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A pepper could not be made or unwrapped.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The table could not be read or written.
    #[error("{0}")]
    Store(#[from] Error),
    /// A name is not acceptable.
    #[error(transparent)]
    Name(#[from] InvalidField),
}

impl From<OpenError> for SetUpError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Pepper(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

/// Makes the first version of the pepper, unless there is an active one. Says which it made.
///
/// # Errors
/// [`SetUpError`].
pub(crate) async fn first_pepper(
    table: &Table,
    provider: &dyn KeyProvider,
) -> Result<Option<PepperVersion>, SetUpError> {
    if pepper::current(&table.peppers().await?).is_some() {
        return Ok(None);
    }
    Ok(Some(table.rotate_pepper(provider).await?))
}

/// The first deployment. If there is none it is made, with a root key, whose token is given here and nowhere again.
///
/// # Errors
/// [`SetUpError`].
pub async fn first_deployment(
    store: &Store,
    name: Name,
    mode: Mode,
) -> Result<(Deployment, Option<Token<RootKey>>), SetUpError> {
    if let Some(first) = store.table().first_deployment().await? {
        return Ok((first, None));
    }
    let root_key = Name::parse("name", "First root key")?;
    if let Some((made, token)) = store.create_first_deployment(name, mode, root_key).await? {
        return Ok((made, Some(token)));
    }
    let first = store.table().first_deployment().await?;
    let first = first.ok_or_else(|| Error::Internal("the first deployment is missing".into()))?;
    Ok((first, None))
}
