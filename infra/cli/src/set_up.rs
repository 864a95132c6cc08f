//! What a table needs before functions can start on it: a pepper, a deployment and a root key.

use chrono::Utc;
use keyward_core::Deployment;
use keyward_core::deployment::Mode;
use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::text::{InvalidField, Name};
use keyward_core::token::{RootKey, Token};
use keyward_pepper::{KeyProvider, PepperError, unlock};
use keyward_store::{Error, Store, Table};

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

/// The table's peppers, unwrapped. The first is made if there is none.
///
/// # Errors
/// [`SetUpError`].
pub(crate) async fn keyring<P: KeyProvider>(table: &Table, provider: &P) -> Result<Keyring, SetUpError> {
    let mut peppers = table.peppers().await?;
    if peppers.is_empty() {
        // Another process may add its own first: what counts is what the table then holds.
        table.add_pepper(&provider.generate(PepperVersion(1), Utc::now()).await?).await?;
        peppers = table.peppers().await?;
    }
    Ok(unlock(provider, &peppers).await?)
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
    if let Some(first) = store.first_deployment().await? {
        return Ok((first, None));
    }
    let root_key = Name::parse("name", "First root key")?;
    if let Some((made, token)) = store.create_first_deployment(name, mode, root_key).await? {
        return Ok((made, Some(token)));
    }
    let first = store.first_deployment().await?;
    let first = first.ok_or_else(|| Error::Internal("the first deployment is missing".into()))?;
    Ok((first, None))
}
