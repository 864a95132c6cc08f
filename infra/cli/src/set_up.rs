//! Setting up a table for functions to start on: a pepper, a deployment and a root key.

use std::sync::Arc;

use keyward_core::Deployment;
use keyward_core::deployment::Mode;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper;
use keyward_core::text::{InvalidField, Name};
use keyward_core::token::{RootKey, Token};
use keyward_pepper::{KeyProvider, PepperError};
use keyward_store::{Error, OpenError, OperatorAccess, Store, Table};

/// Why a table could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A pepper could not be created or unwrapped.
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

/// Creates the first version of the pepper, unless there is an active one. Returns the version that it created.
///
/// # Errors
/// [`SetUpError`].
pub(crate) async fn first_pepper(
    operator: &OperatorAccess,
    table: &Table,
    provider: &dyn KeyProvider,
) -> Result<Option<PepperVersion>, SetUpError> {
    if pepper::current(&table.peppers(operator).await?).is_some() {
        return Ok(None);
    }
    Ok(Some(table.rotate_pepper(operator, provider).await?))
}

/// The first deployment. If there is none, it is created with a root key, whose token is returned only here.
///
/// # Errors
/// [`SetUpError`].
pub async fn first_deployment(
    operator: &OperatorAccess,
    store: &Store,
    name: Name,
    mode: Mode,
) -> Result<(Arc<Deployment>, Option<Token<RootKey>>), SetUpError> {
    if let Some(public) = store.table().public_access().await? {
        return Ok((store.first_deployment(&public).await?, None));
    }
    let root_key = Name::parse("name", "First root key")?;
    if let Some((created, token)) = store.create_first_deployment(operator, name, mode, root_key).await? {
        return Ok((Arc::new(created), Some(token)));
    }
    let public = store.table().public_access().await?;
    let public = public.ok_or_else(|| Error::internal("the first deployment is missing"))?;
    Ok((store.first_deployment(&public).await?, None))
}
