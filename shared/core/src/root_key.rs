//! Root keys, with which a SaaS's backend authenticates, and their scopes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, RootKeyId};
use crate::text::Name;

/// A root key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKey {
    /// Its id.
    pub id: RootKeyId,
    /// The deployment that it belongs to.
    pub deployment_id: DeploymentId,
    /// The name that people call it.
    pub name: Name,
    /// The scopes that it extends to.
    pub scopes: Vec<Scope>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// A part of the API that a root key may extend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Manage apps, keys and rate-limit schemes.
    Manage,
    /// Issue tickets.
    Tickets,
    /// Check requests.
    Verify,
    /// Read the audit log.
    Audit,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Manage, Self::Tickets, Self::Verify, Self::Audit];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Tickets => "tickets",
            Self::Verify => "verify",
            Self::Audit => "audit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_name_on_the_wire_and_in_the_table() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::ALL.map(Scope::as_str), ["manage", "tickets", "verify", "audit"]);
    }
}
