//! Deployments, and which one was the first.

use chrono::{DateTime, Utc};
use keyward_core::Deployment;
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::id::DeploymentId;
use keyward_core::text::Name;
use serde::{Deserialize, Serialize};

use super::Entity;

/// A deployment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeploymentRecord {
    id: DeploymentId,
    name: Name,
    mode: Mode,
    allowed_origins: Vec<String>,
    public_key: PublicKeyRecord,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyRecord {
    x: String,
    y: String,
}

impl Entity for Deployment {
    const TYPE: &'static str = "deployment";
    type Record = DeploymentRecord;

    fn to_record(&self) -> DeploymentRecord {
        let PublicKey { x, y } = self.public_key.clone();
        DeploymentRecord {
            id: self.id,
            name: self.name.clone(),
            mode: self.mode,
            allowed_origins: self.allowed_origins.clone(),
            public_key: PublicKeyRecord { x, y },
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    fn from_record(record: DeploymentRecord) -> Result<Self, String> {
        let PublicKeyRecord { x, y } = record.public_key;
        Ok(Self {
            id: record.id,
            name: record.name,
            mode: record.mode,
            allowed_origins: record.allowed_origins,
            public_key: PublicKey { x, y },
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }
}

/// Which deployment of an installation was the first.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstDeployment {
    pub(crate) deployment_id: DeploymentId,
}

impl Entity for FirstDeployment {
    const TYPE: &'static str = "installation";
    type Record = Self;

    fn to_record(&self) -> Self {
        Self { deployment_id: self.deployment_id }
    }

    fn from_record(record: Self) -> Result<Self, String> {
        Ok(record)
    }
}
