//! Tickets.

use chrono::{DateTime, Utc};
use keyward_core::id::{AppNumber, DeploymentId, SessionId, TicketId};
use keyward_core::session::{Capability, Ticket};
use keyward_core::text::OwnerId;
use serde::{Deserialize, Serialize};

use super::{Entity, fill_with_null, nullable};
use crate::item::Item;

/// A ticket. `session` is absent until it is exchanged, and the exchange is made on the condition that it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TicketRecord {
    id: TicketId,
    deployment_id: DeploymentId,
    app: AppNumber,
    #[serde(deserialize_with = "nullable")]
    actor: Option<OwnerId>,
    capabilities: Vec<Capability>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
}

impl Entity for Ticket {
    const TYPE: &'static str = "ticket";
    type Record = TicketRecord;

    fn to_record(&self) -> TicketRecord {
        TicketRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            app: self.app,
            actor: self.actor.clone(),
            capabilities: self.capabilities.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            session: self.session,
        }
    }

    fn from_record(record: TicketRecord) -> Result<Self, String> {
        let TicketRecord { id, deployment_id, app, actor, capabilities, created_at, expires_at, session } =
            record;
        Ok(Self { id, deployment_id, app, actor, capabilities, created_at, expires_at, session })
    }

    /// Schema 0 left out an actor that there was not.
    fn upgrade(item: &mut Item, _from: u32) {
        fill_with_null(item, &["actor"]);
    }
}
