//! Sessions.

use chrono::{DateTime, Utc};
use keyward_core::id::{AppNumber, DeploymentId, SessionId};
use keyward_core::session::{Capability, Session};
use keyward_core::text::OwnerId;
use serde::{Deserialize, Serialize};

use super::{Entity, fill_with_null, nullable};
use crate::item::Item;

/// A session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    id: SessionId,
    deployment_id: DeploymentId,
    app: AppNumber,
    #[serde(deserialize_with = "nullable")]
    actor: Option<OwnerId>,
    capabilities: Vec<Capability>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Entity for Session {
    const TYPE: &'static str = "session";
    type Record = SessionRecord;

    fn to_record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            app: self.app,
            actor: self.actor.clone(),
            capabilities: self.capabilities.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    fn from_record(record: SessionRecord) -> Result<Self, String> {
        let SessionRecord { id, deployment_id, app, actor, capabilities, created_at, updated_at } = record;
        Ok(Self { id, deployment_id, app, actor, capabilities, created_at, updated_at })
    }

    /// Schema 0 left out an actor that there was not.
    fn upgrade(item: &mut Item, _from: u32) {
        fill_with_null(item, &["actor"]);
    }
}
