//! The assembly of a process that uses an installation.

use std::sync::Arc;

use keyward_audit::Recorder;
use keyward_core::metric::Metric;
use keyward_pepper::{KeyProvider, PepperError};
use keyward_store::{Error, OpenError, PublicAccess, Store, Table};

/// The store with its peppers, the access of requests without a credential, and the recorder of decisions.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// The table, with its peppers.
    pub store: Store,
    /// The access of requests without a credential.
    pub public: PublicAccess,
    /// Where decisions are recorded.
    pub recorder: Recorder,
}

/// Why the parts cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The table is new: nobody has made a deployment yet.
    #[error("the table holds no deployment")]
    NoDeployment,
    /// The peppers cannot be had.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

impl AssemblyError {
    /// The metric that counts it.
    pub fn metric(&self) -> Metric {
        match self {
            Self::Pepper(PepperError::Kms(_)) => Metric::KmsFailures,
            Self::Store(error) => error.metric().unwrap_or(Metric::InternalErrors),
            Self::NoDeployment | Self::Pepper(_) => Metric::InternalErrors,
        }
    }
}

impl From<OpenError> for AssemblyError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Pepper(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl Assembly {
    /// Reads the peppers from the table, has them unwrapped and starts the recorder, on the current Tokio runtime. What else
    /// is read is read meanwhile.
    ///
    /// # Errors
    /// The table or the key provider fails: there is no going on without peppers.
    pub async fn open(table: Table, provider: Arc<dyn KeyProvider>) -> Result<Self, AssemblyError> {
        let store = async { Store::open(table.clone(), provider).await.map_err(AssemblyError::from) };
        let public = async { Ok(table.public_access().await?) };
        let (store, public) = tokio::try_join!(store, public)?;
        let public = public.ok_or(AssemblyError::NoDeployment)?;
        let recorder = Recorder::start(store.clone());
        Ok(Self { store, public, recorder })
    }
}
