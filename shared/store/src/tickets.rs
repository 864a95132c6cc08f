//! Tickets: `TICKET#<id>` / `TICKET`, with a tag. A ticket is consumed by the one conditional write that makes its
//! session: of any number of exchanges at the same time one wins.

use std::sync::Arc;

use chrono::TimeDelta;
use keyward_core::audit::{Action, Actor, BlockedBy, Origin, Outcome};
use keyward_core::id::{SessionId, TicketId};
use keyward_core::rate_limit::Rules;
use keyward_core::root_key::Scope;
use keyward_core::session::{Capability, Session, Ticket};
use keyward_core::text::{OwnerId, Slug};
use keyward_core::token::{self, Secret, Token};
use keyward_core::{App, Deployment, ErrorCode};

use crate::access::about_app;
use crate::change::{Change, id_taken};
use crate::item::{Expression, Key, purged_at, string};
use crate::record::{self, tag_of, with_tag};
use crate::{Error, Forbidden, RootAccess, SessionAccess, Store, sessions};

/// A ticket to issue.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// The app it leads to.
    pub app_slug: Slug,
    /// On whose behalf.
    pub actor: Option<OwnerId>,
    /// The capabilities of the session.
    pub capabilities: Vec<Capability>,
    /// The time for which it can be exchanged.
    pub lifetime: TimeDelta,
}

/// A ticket that was recognised, with all that the response to its exchange needs.
#[derive(Debug)]
pub struct AuthenticatedTicket {
    ticket: Ticket,
    deployment: Arc<Deployment>,
    app: App,
    rules: Option<Rules>,
}

impl AuthenticatedTicket {
    /// The deployment whose session it leads to.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }
}

/// The result of an exchange.
#[derive(Debug)]
pub struct Exchange {
    /// The session.
    pub session: Session,
    /// Its deployment.
    pub deployment: Arc<Deployment>,
    /// The app whose keys it leads to.
    pub app: App,
    /// The rules that limit the app's keys.
    pub rules: Option<Rules>,
    /// The session's token for the browser; `None` where it holds it already, having won this exchange before.
    pub token: Option<Token<token::Session>>,
}

fn key(id: TicketId) -> Key {
    Key::new(format!("TICKET#{}", id.base62()), "TICKET")
}

impl Store {
    /// Issues a ticket. The issue is an event of the log, and so is a refusal.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such app in the caller's deployment, [`Error::Forbidden`] if it is disabled.
    pub async fn issue_ticket(
        &self,
        access: &RootAccess,
        new: NewTicket,
    ) -> Result<(Ticket, Token<token::Ticket>), Error> {
        let app = self.app_by_slug(access.deployment_id, &new.app_slug).await;
        if let Err(refusal) = access.require(Scope::Tickets) {
            return self
                .refuse_ticket(access, &new.app_slug, app.ok().as_ref(), ErrorCode::Forbidden.into(), refusal)
                .await;
        }
        let app = match app {
            Ok(app) if app.settings.is_active => app,
            Ok(app) => {
                let refusal = Error::Forbidden(Forbidden::AppDisabled);
                return self
                    .refuse_ticket(access, &new.app_slug, Some(&app), ErrorCode::AppDisabled.into(), refusal)
                    .await;
            }
            Err(unknown @ Error::NotFound(_)) => {
                return self
                    .refuse_ticket(access, &new.app_slug, None, BlockedBy::AppNotFound, unknown)
                    .await;
            }
            Err(error) => return Err(error),
        };
        let now = self.clock().now();
        let id = TicketId::mint(now, u32::from_be_bytes(self.entropy().bytes()?));
        let token = Token::new(id, Secret::from_random(&self.entropy().bytes()?));
        let ticket = Ticket {
            id,
            deployment_id: access.deployment_id,
            app: app.number,
            actor: new.actor,
            capabilities: new.capabilities,
            created_at: now,
            expires_at: now + new.lifetime,
            session: None,
        };
        let tag = self.peppers.current().await?.tag_token(ticket.deployment_id, &token)?;
        let row = purged_at(record::item(&key(id), &ticket)?, ticket.expires_at);
        let event = about_app(access.event(self, Action::TicketIssued)?, &app);
        Change::new(self, &event)?.create(with_tag(row, &tag), id_taken())?.commit().await?;
        Ok((ticket, token))
    }

    async fn refuse_ticket<T>(
        &self,
        access: &RootAccess,
        slug: &Slug,
        app: Option<&App>,
        blocked_by: BlockedBy,
        refusal: Error,
    ) -> Result<T, Error> {
        let mut event = access.event(self, Action::TicketRefused)?;
        event.outcome = Outcome::Blocked;
        event.blocked_by = Some(blocked_by);
        event.app = app.map(|app| app.number);
        event.app_slug = Some(slug.clone());
        Change::new(self, &event)?.commit().await?;
        Err(refusal)
    }

    /// Recognises a ticket, and leaves it as it is.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown ticket and one of a deleted app, alike.
    pub async fn authenticate_ticket(
        &self,
        token: &Token<token::Ticket>,
    ) -> Result<AuthenticatedTicket, Error> {
        let Some(row) = self.table.get(&key(token.id)).await? else {
            self.peppers.ring().verify_missing(&token.secret);
            return Err(Error::Unauthenticated);
        };
        let tag = tag_of(&row)?;
        let ticket: Ticket = record::entity(row)?;
        if !self.peppers.of([&tag]).await?.matches_token(ticket.deployment_id, token, &tag)?
            || ticket.id != token.id
        {
            return Err(Error::Unauthenticated);
        }
        let app = self.app_by_number(ticket.app).await?;
        let app = app.filter(|app| app.deleted_at.is_none() && app.deployment_id == ticket.deployment_id);
        let app = app.ok_or(Error::Unauthenticated)?;
        let rules = self.rules_of(&app).await?;
        let deployment = self.recent_deployment(ticket.deployment_id).await?;
        Ok(AuthenticatedTicket { ticket, deployment, app, rules })
    }

    /// Exchanges a ticket for a session.
    ///
    /// The browser that exchanged it, known by the session it has from that, is answered with success again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a used or expired ticket.
    pub async fn exchange_ticket(
        &self,
        recognised: AuthenticatedTicket,
        current: Option<&SessionAccess>,
        origin: &Origin,
    ) -> Result<Exchange, Error> {
        let AuthenticatedTicket { ticket, deployment, app, rules } = recognised;
        let (session, token) = match (ticket.session, current.map(SessionAccess::session)) {
            (None, _) if ticket.expires_at > self.clock().now() => {
                let (session, token) = self.consume_ticket(ticket, &app, origin).await?;
                (session, Some(token))
            }
            (Some(used), Some(session)) if session.id == used => (session.clone(), None),
            _ => return Err(Error::Unauthenticated),
        };
        Ok(Exchange { session, deployment, app, rules, token })
    }

    async fn consume_ticket(
        &self,
        ticket: Ticket,
        app: &App,
        origin: &Origin,
    ) -> Result<(Session, Token<token::Session>), Error> {
        let now = self.clock().now();
        let token = Token::new(
            SessionId::mint(now, u32::from_be_bytes(self.entropy().bytes()?)),
            Secret::from_random(&self.entropy().bytes()?),
        );
        let session = Session {
            id: token.id,
            deployment_id: ticket.deployment_id,
            app: ticket.app,
            actor: ticket.actor,
            capabilities: ticket.capabilities,
            created_at: now,
            updated_at: now,
        };
        let actor = Actor::Session { id: session.id, user_id: session.actor.clone() };
        let event = self.event(session.deployment_id, Action::SessionCreated, actor, origin)?;
        let unused = Expression::condition("attribute_exists(pk) AND attribute_not_exists(#session)")
            .set("session", string(session.id));
        let tag = self.peppers.current().await?.tag_token(session.deployment_id, &token)?;
        Change::new(self, &about_app(event, app))?
            .update(&key(ticket.id), unused, Error::Unauthenticated)?
            .create(sessions::row(&session, &tag)?, Error::Unauthenticated)?
            .commit()
            .await?;
        Ok((session, token))
    }
}
