//! `keyward init` and `keyward root-key`: the commands of the operator of a deployed installation. They need rights of
//! AWS credentials on the stack's table and key, not a root key.

use std::sync::Arc;

use keyward_core::Deployment;
use keyward_core::InvalidField;
use keyward_core::deployment::Mode;
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::root_key::RootKey;
use keyward_core::root_key::Scope;
use keyward_core::text::Name;
use keyward_pepper::PepperError;
use keyward_runtime::publishable_key;
use keyward_store::{Error, OpenError, OperatorAccess, Store};
use secrecy::SecretString;

use crate::set_up::{self, SetUpError};
use crate::stack::{Stack, StackError};

/// Why an operator's command failed: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The stack cannot be used.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The table or its peppers cannot be used.
    #[error("the table of the stack '{0}' cannot be used: {1}")]
    Table(String, SetUpError),
    /// There is no deployment in the table yet.
    #[error("the stack '{0}' holds no deployment yet: run 'keyward init --stack {0}'")]
    NotInitialised(String),
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// It was not done.
    #[error("{0}")]
    Refused(Error),
}

/// An installation that is ready.
#[derive(Debug)]
pub struct Initialised {
    /// Its first deployment.
    pub deployment: Arc<Deployment>,
    /// The publishable key, by which pages find it.
    pub publishable_key: String,
    /// The first root key, if this created it: it is returned only here.
    pub root_key: Option<SecretString>,
}

/// Makes what is missing of the first pepper, the first deployment and its root key. Running it again changes nothing.
///
/// # Errors
/// [`OperatorError`].
pub async fn init(stack: &Stack, name: Name, mode: Mode) -> Result<Initialised, OperatorError> {
    let failed = |error| OperatorError::Table(stack.name.clone(), error);
    let (table, provider) = (stack.table(), stack.key_provider());
    let operator = OperatorAccess::assume();
    set_up::first_pepper(&operator, &table, &*provider).await.map_err(failed)?;
    let store = Store::open(table, provider).await.map_err(|error| failed(error.into()))?;
    let (deployment, token) =
        set_up::first_deployment(&operator, &store, name, mode).await.map_err(failed)?;
    Ok(Initialised {
        publishable_key: publishable_key(&stack.url, deployment.mode),
        deployment,
        root_key: token.map(|token| token.reveal()),
    })
}

/// Creates a root key of the first deployment.
///
/// # Errors
/// [`OperatorError`].
pub async fn create_root_key(
    stack: &Stack,
    name: Name,
    scopes: &[Scope],
) -> Result<SecretString, OperatorError> {
    let (store, deployment) = open(stack).await?;
    let created = store.create_root_key(&OperatorAccess::assume(), deployment, name, scopes).await;
    Ok(created.map_err(OperatorError::Refused)?.reveal())
}

/// The root keys of the first deployment, newest first.
///
/// # Errors
/// [`OperatorError`].
pub async fn root_keys(stack: &Stack) -> Result<Vec<RootKey>, OperatorError> {
    let (store, deployment) = open(stack).await?;
    store.root_keys(&OperatorAccess::assume(), deployment).await.map_err(OperatorError::Refused)
}

/// Revokes a root key of the first deployment: it is refused from the next request on.
///
/// # Errors
/// [`OperatorError`].
pub async fn revoke_root_key(stack: &Stack, id: RootKeyId) -> Result<(), OperatorError> {
    let (store, deployment) = open(stack).await?;
    store.revoke_root_key(&OperatorAccess::assume(), deployment, id).await.map_err(OperatorError::Refused)
}

/// The store, and the first deployment.
async fn open(stack: &Stack) -> Result<(Store, DeploymentId), OperatorError> {
    let failed = |error| OperatorError::Table(stack.name.clone(), error);
    let store = Store::open(stack.table(), stack.key_provider()).await.map_err(|error| match error {
        OpenError::Pepper(PepperError::Missing) => OperatorError::NotInitialised(stack.name.clone()),
        error => failed(error.into()),
    })?;
    let public = store.table().public_access().await.map_err(|error| failed(error.into()))?;
    let public = public.ok_or_else(|| OperatorError::NotInitialised(stack.name.clone()))?;
    Ok((store, public.deployment_id()))
}
