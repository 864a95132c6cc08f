//! API keys: `KEY#<id>` / `KEY`, with a tag, and listed through `APP#<number>#KEYS#ACTIVE|REVOKED` / `<id>`, an entry
//! in exactly one of the two.

mod lifecycle;
mod lists;
mod verification;

use keyward_core::ApiKey;
use keyward_core::id::{AppNumber, DeploymentId, KeyId};

pub use self::lists::{KeyPage, KeyStatus};
pub use self::verification::{Candidate, FoundKeys, KeyToCheck};
use crate::item::Key;
use crate::record;
use crate::{Conflict, Error, Resource, Store};

pub(crate) fn key(id: KeyId) -> Key {
    Key::new(format!("KEY#{}", id.base62()), "KEY")
}

fn list(app: AppNumber, active: bool) -> String {
    let state = if active { "ACTIVE" } else { "REVOKED" };
    format!("APP#{}#KEYS#{state}", app.base62())
}

fn list_key(key: &ApiKey) -> Key {
    Key::new(list(key.app, key.is_active()), key.id.base62())
}

fn unknown() -> Error {
    Error::NotFound(Resource::ApiKey)
}

fn changed_meanwhile() -> Error {
    Error::Conflict(Conflict::Changed(Resource::ApiKey))
}

impl Store {
    /// The app of a key of this deployment.
    pub(crate) async fn app_of_key(
        &self,
        deployment: DeploymentId,
        id: KeyId,
    ) -> Result<Option<AppNumber>, Error> {
        let found: Option<ApiKey> = self.table.get(&key(id)).await?.map(record::entity).transpose()?;
        Ok(found.filter(|key| key.deployment_id == deployment).map(|key| key.app))
    }
}
