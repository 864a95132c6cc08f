//! Root keys.

use chrono::{DateTime, Utc};
use keyward_core::id::{DeploymentId, RootKeyId};
use keyward_core::root_key::{RootKey, Scope};
use keyward_core::text::Name;
use serde::{Deserialize, Serialize};

use super::Entity;

/// A root key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootKeyRecord {
    id: RootKeyId,
    deployment_id: DeploymentId,
    name: Name,
    scopes: Vec<Scope>,
    created_at: DateTime<Utc>,
}

impl Entity for RootKey {
    const TYPE: &'static str = "root_key";
    type Record = RootKeyRecord;

    fn to_record(&self) -> RootKeyRecord {
        RootKeyRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            created_at: self.created_at,
        }
    }

    fn from_record(record: RootKeyRecord) -> Result<Self, String> {
        let RootKeyRecord { id, deployment_id, name, scopes, created_at } = record;
        Ok(Self { id, deployment_id, name, scopes, created_at })
    }
}
