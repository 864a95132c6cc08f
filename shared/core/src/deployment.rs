//! Deployments: the tenants of an installation.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::DeploymentId;
use crate::text::Name;
use crate::web_origin::WebOrigin;

/// How browsers carry a deployment's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In a cookie, from allowed origins only.
    Production,
    /// In the `__dev_session__` parameter and the `X-Development-Session` header, from any origin.
    Staging,
}

/// The public half of a deployment's ES256 key (RFC 7518, 6.2.1): the coordinates, base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The x coordinate.
    pub x: String,
    /// The y coordinate.
    pub y: String,
}

/// A tenant: all apps, keys, tickets, sessions and events belong to exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Its name.
    pub name: Name,
    /// How browsers carry its sessions.
    pub mode: Mode,
    /// Origins (RFC 6454, such as `https://app.example.com`) whose pages may use its sessions.
    pub allowed_origins: Vec<String>,
    /// Its public signing key.
    pub public_key: PublicKey,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Deployment {
    /// Whether pages of this origin are among those that may use its sessions.
    pub fn allows_origin(&self, origin: &WebOrigin) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed.parse().as_ref() == Ok(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_however_it_is_spelled_and_no_other_is() {
        let deployment = Deployment {
            id: DeploymentId::new(1).unwrap(),
            name: Name::parse("name", "Local").unwrap(),
            mode: Mode::Production,
            allowed_origins: vec![
                "https://a.example".into(),
                "no origin".into(),
                "https://b.example:443".into(),
            ],
            public_key: PublicKey { x: String::new(), y: String::new() },
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        };
        let allows = |origin: &str| deployment.allows_origin(&origin.parse().unwrap());
        assert!(allows("https://a.example") && allows("https://b.example"));
        assert!(!allows("http://a.example") && !allows("https://c.example"));
    }
}
