//! Root keys.

use chrono::{DateTime, Utc};
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::text::Name;
use serde::{Deserialize, Serialize};

use super::Entity;
use crate::{RootKeyRecord, Scope};

/// A root key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    id: RootKeyId,
    deployment_id: DeploymentId,
    name: Name,
    scopes: Vec<Scope>,
    created_at: DateTime<Utc>,
}

impl Entity for RootKeyRecord {
    const TYPE: &'static str = "root_key";
    type Record = Record;

    fn to_record(&self) -> Record {
        Record {
            id: self.id,
            deployment_id: self.deployment_id,
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            created_at: self.created_at,
        }
    }

    fn from_record(record: Record) -> Result<Self, String> {
        let Record { id, deployment_id, name, scopes, created_at } = record;
        Ok(Self { id, deployment_id, name, scopes, created_at })
    }
}
