//! Sessions: `SESSION#<id>` / `SESSION`, with a tag. One strongly consistent read authenticates a browser; that it is
//! in use is written at most once a minute.

use keyward_core::audit::Origin;
use keyward_core::hashing::Tag;
use keyward_core::id::SessionId;
use keyward_core::session::Session;
use keyward_core::token::{self, Token};

use crate::item::{Expression, Item, Key, instant, number, purged_at};
use crate::record::{self, tag_of, with_tag};
use crate::{Error, SessionAccess, Store};

fn key(id: SessionId) -> Key {
    Key::new(format!("SESSION#{}", id.base62()), "SESSION")
}

pub(crate) fn row(session: &Session, tag: &Tag) -> Result<Item, Error> {
    let item = record::item(&key(session.id), session)?;
    Ok(with_tag(purged_at(item, session.expires_at()), tag))
}

impl Store {
    /// Recognises a session, and writes nothing.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown one, a wrong secret and one that has ended, all alike.
    pub async fn authenticate_session(
        &self,
        token: &Token<token::Session>,
        origin: Origin,
    ) -> Result<SessionAccess, Error> {
        let Some(row) = self.table.get(&key(token.id)).await? else {
            self.peppers.ring().verify_missing(&token.secret);
            return Err(Error::Unauthenticated);
        };
        let tag = tag_of(&row)?;
        let session: Session = record::entity(row)?;
        if !self.peppers.of([&tag]).await?.matches_token(session.deployment_id, token, &tag)?
            || session.id != token.id
        {
            return Err(Error::Unauthenticated);
        }
        if session.expires_at() <= self.clock().now() {
            return Err(Error::Unauthenticated);
        }
        Ok(SessionAccess { session, origin })
    }

    /// Keeps a session alive, as it is in use.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if it is gone by now.
    pub async fn extend_session(&self, mut access: SessionAccess) -> Result<SessionAccess, Error> {
        let now = self.clock().now();
        if access.session.is_due_for_touch(now) {
            access.session.updated_at = now;
            self.touch_session(&access.session).await?;
        }
        Ok(access)
    }

    async fn touch_session(&self, session: &Session) -> Result<(), Error> {
        let seen = Expression::condition("attribute_exists(pk)")
            .set("updated_at", instant(session.updated_at)?)
            .set("purge_at", number(session.expires_at().timestamp()));
        if self.table.update(&key(session.id), seen).await? { Ok(()) } else { Err(Error::Unauthenticated) }
    }
}
