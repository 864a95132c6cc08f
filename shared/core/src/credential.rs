//! The four kinds of credential: their prefixes, and what their tags are bound to.

/// The beginning of a root key.
pub const ROOT_KEY_PREFIX: &str = "kw_root";
/// The beginning of a ticket.
pub const TICKET_PREFIX: &str = "kw_ticket";
/// The beginning of a session.
pub const SESSION_PREFIX: &str = "kw_session";
/// The prefixes of Keyward's own credentials, which no app may take.
pub const RESERVED_PREFIXES: [&str; 3] = [ROOT_KEY_PREFIX, TICKET_PREFIX, SESSION_PREFIX];

/// The kind of credential that a tag is of, so that a tag of one kind of row is worthless in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// An API key.
    ApiKey,
    /// A root key.
    RootKey,
    /// A ticket.
    Ticket,
    /// A session.
    Session,
}

impl Domain {
    /// The label that is hashed. It is in every stored tag: it must never change.
    pub(crate) fn label(self) -> &'static [u8] {
        match self {
            Self::ApiKey => b"keyward/api-key/1",
            Self::RootKey => b"keyward/root-key/1",
            Self::Ticket => b"keyward/ticket/1",
            Self::Session => b"keyward/session/1",
        }
    }
}
