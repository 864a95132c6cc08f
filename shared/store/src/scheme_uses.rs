//! Where rate-limit schemes and the lists of their users are, and the counts of who uses one: for schemes, and for the apps and
//! keys that use them.

use keyward_core::InvalidField;
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::text::Slug;

use crate::Error;
use crate::change::Change;
use crate::item::{Expression, Key};

pub(crate) fn partition(deployment: DeploymentId) -> String {
    format!("DEPLOYMENT#{deployment}#SCHEMES")
}

pub(crate) fn key(deployment: DeploymentId, slug: &Slug) -> Key {
    Key::new(partition(deployment), slug.as_str())
}

/// The list of the keys that have a scheme for their own.
pub(crate) fn users(deployment: DeploymentId, slug: &Slug) -> String {
    format!("{}#{slug}", partition(deployment))
}

pub(crate) fn user_key(deployment: DeploymentId, slug: &Slug, id: KeyId) -> Key {
    Key::new(users(deployment, slug), id.base62())
}

/// A user of a scheme.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User {
    App,
    Key,
}

/// Counts an app or a key in or out of a scheme, which must exist.
pub(crate) fn count_use<'t>(
    change: Change<'t>,
    deployment: DeploymentId,
    slug: &Slug,
    user: User,
    by: i8,
) -> Result<Change<'t>, Error> {
    let count = match user {
        User::App => "apps",
        User::Key => "api_keys",
    };
    let counted = Expression::condition("attribute_exists(pk)").add(count, by);
    change.update(&key(deployment, slug), counted, unknown_scheme())
}

fn unknown_scheme() -> Error {
    InvalidField::new("rate_limit_scheme_slug", "names no rate limit scheme of this deployment").into()
}
