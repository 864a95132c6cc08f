//! The four credentials as text.
//!
//! An API key is `<key_prefix>_<app: 6><id: 11><secret: 43><checksum: 6>`; root keys, tickets and sessions leave the
//! app out and have prefixes of their own. All digits are base 62. The checksum is the CRC-32 (ISO-HDLC) of
//! everything before it, so a mistyped or cut text is recognised without a lookup. Parsing runs from the
//! right, because prefixes may contain `_`.
//!
//! A secret is never printed: `Debug` shows only the public parts, and only [`ApiKeyToken::reveal`] and
//! [`Token::reveal`] return the whole text.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use secrecy::{ExposeSecret, SecretString};

use crate::base62;
use crate::credential::{Domain, ROOT_KEY_PREFIX, SESSION_PREFIX, TICKET_PREFIX};
use crate::id::{AppNumber, KeyId, RootKeyId, SessionId, TicketId};
use crate::text::KeyPrefix;

const APP: usize = 6;
const ID: usize = 11;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
/// The number of characters of the checksum that lists show, so that people can tell keys apart.
const SUFFIX: usize = 4;

/// Finds API keys in text; the checksum then tells a real one from a lookalike.
pub const API_KEY_REGEX: &str = r"\b[a-z][a-z0-9_]{0,31}_[0-9A-Za-z]{66}\b";

/// Why a text is not the credential asked for. None of these needed any I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too short, too long, or with characters that the grammar has no place for.
    #[error("not a Keyward credential")]
    Malformed,
    /// The prefix is not one that this kind of credential can have.
    #[error("another kind of credential is required")]
    Prefix,
    /// The checksum does not match: mistyped, cut or made up.
    #[error("the checksum does not match")]
    Checksum,
}

/// The 256 random bits that make a credential one, as their 43 base-62 digits. There is one of it: it cannot be copied.
pub struct Secret(SecretString);

impl Secret {
    /// The secret made of these random bytes.
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(base62::encode_256(bytes).into())
    }

    fn parse(digits: &str) -> Self {
        Self(digits.to_owned().into())
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// For a hasher with a key of its own, such as [`std::hash::RandomState`], whose hashes tell nothing of the secret.
impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// An API key as its holder has it.
#[derive(Debug)]
pub struct ApiKeyToken {
    /// The prefix of the app's keys.
    pub prefix: KeyPrefix,
    /// The app.
    pub app: AppNumber,
    /// The key.
    pub id: KeyId,
    /// The secret part.
    pub secret: Secret,
}

impl ApiKeyToken {
    /// Parses a presented key. White space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`], without any I/O.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let parts = Parts::split(text.trim(), APP)?;
        let prefix = KeyPrefix::parse("key_prefix", parts.prefix).map_err(|_| TokenError::Prefix)?;
        Ok(Self {
            prefix,
            app: AppNumber::from_base62(parts.app).map_err(|_| TokenError::Malformed)?,
            id: KeyId::from_base62(parts.id).map_err(|_| TokenError::Malformed)?,
            secret: Secret::parse(parts.secret),
        })
    }

    /// The whole key. The one place where the secret leaves this type: for the response that shows it once.
    pub fn reveal(&self) -> SecretString {
        let unsealed =
            format!("{}_{}{}{}", self.prefix, self.app.base62(), self.id.base62(), self.secret.expose());
        seal(unsealed)
    }

    /// The end of the checksum, which lists may show.
    pub fn suffix(&self) -> String {
        let whole = self.reveal();
        let text = whole.expose_secret();
        text.get(text.len() - SUFFIX..).unwrap_or_default().to_owned()
    }
}

/// One of Keyward's own kinds of credential.
pub trait Kind: fmt::Debug + Clone + Copy {
    /// The id in it.
    type Id: fmt::Debug + Clone + Copy + Into<i64>;
    /// The prefix of the text, before `_`.
    const PREFIX: &'static str;
    /// The kind of credential, to which its tag is bound.
    const DOMAIN: Domain;
    /// Eleven base-62 digits of the id.
    fn id_text(id: Self::Id) -> String;
    /// Reads [`Kind::id_text`].
    fn parse_id(text: &str) -> Option<Self::Id>;
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $id:ty, $prefix:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Kind for $name {
            type Id = $id;
            const PREFIX: &'static str = $prefix;
            const DOMAIN: Domain = Domain::$name;

            fn id_text(id: $id) -> String {
                id.base62()
            }

            fn parse_id(text: &str) -> Option<$id> {
                <$id>::from_base62(text).ok()
            }
        }

        impl From<$id> for i64 {
            fn from(id: $id) -> i64 {
                id.get()
            }
        }
    };
}

kind!(
    /// The credential that a SaaS backend authenticates with.
    RootKey,
    RootKeyId,
    ROOT_KEY_PREFIX
);
kind!(
    /// The credential that a backend hands to a browser, to be exchanged once.
    Ticket,
    TicketId,
    TICKET_PREFIX
);
kind!(
    /// The credential that a browser holds after the exchange.
    Session,
    SessionId,
    SESSION_PREFIX
);

/// A root key, a ticket or a session as its holder has it.
pub struct Token<K: Kind> {
    /// Which one.
    pub id: K::Id,
    /// The secret part.
    pub secret: Secret,
    kind: PhantomData<K>,
}

impl<K: Kind> Token<K> {
    /// A credential of this id and secret.
    pub fn new(id: K::Id, secret: Secret) -> Self {
        Self { id, secret, kind: PhantomData }
    }

    /// Parses a presented credential of this kind. White space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`], without any I/O.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let parts = Parts::split(text.trim(), 0)?;
        if parts.prefix != K::PREFIX {
            return Err(TokenError::Prefix);
        }
        let id = K::parse_id(parts.id).ok_or(TokenError::Malformed)?;
        Ok(Self::new(id, Secret::parse(parts.secret)))
    }

    /// The whole text: for the one response that hands it out.
    pub fn reveal(&self) -> SecretString {
        seal(format!("{}_{}{}", K::PREFIX, K::id_text(self.id), self.secret.expose()))
    }
}

impl<K: Kind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(K::PREFIX).field(&self.id).finish()
    }
}

struct Parts<'a> {
    prefix: &'a str,
    app: &'a str,
    id: &'a str,
    secret: &'a str,
}

impl<'a> Parts<'a> {
    /// Cuts the text from the right and checks the alphabet and the checksum. `app` is the width of the app's number.
    fn split(text: &'a str, app: usize) -> Result<Self, TokenError> {
        let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        // The longest prefix is 32 characters: nothing longer is looked at.
        if text.len() > 32 + 1 + app + ID + SECRET + CHECKSUM || !text.bytes().all(alphabet) {
            return Err(TokenError::Malformed);
        }
        let (rest, checksum) = cut(text, CHECKSUM)?;
        if base62::encode(u64::from(crc32fast::hash(rest.as_bytes())), CHECKSUM) != checksum {
            return Err(TokenError::Checksum);
        }
        let (rest, secret) = cut(rest, SECRET)?;
        let (rest, id) = cut(rest, ID)?;
        let (rest, app) = cut(rest, app)?;
        let prefix = rest.strip_suffix('_').ok_or(TokenError::Prefix)?;
        if secret.contains('_') {
            return Err(TokenError::Malformed);
        }
        Ok(Self { prefix, app, id, secret })
    }
}

fn cut(text: &str, width: usize) -> Result<(&str, &str), TokenError> {
    text.len().checked_sub(width).and_then(|at| text.split_at_checked(at)).ok_or(TokenError::Malformed)
}

fn seal(mut text: String) -> SecretString {
    let checksum = base62::encode(u64::from(crc32fast::hash(text.as_bytes())), CHECKSUM);
    text.push_str(&checksum);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::RESERVED_PREFIXES;
    use proptest::prelude::*;

    fn key(prefix: &str, app: u64, id: i64, secret: [u8; 32]) -> ApiKeyToken {
        ApiKeyToken {
            prefix: KeyPrefix::parse("key_prefix", prefix).unwrap(),
            app: AppNumber::mint(app),
            id: KeyId::new(id).unwrap(),
            secret: Secret::from_random(&secret),
        }
    }

    #[test]
    fn a_token_of_one_kind_is_not_one_of_another() {
        let root = Token::<RootKey>::new(RootKeyId::new(1).unwrap(), Secret::from_random(&[1; 32]));
        let text = root.reveal();
        assert!(Token::<RootKey>::parse(text.expose_secret()).is_ok());
        assert_eq!(Token::<Ticket>::parse(text.expose_secret()).unwrap_err(), TokenError::Prefix);
        assert!(ApiKeyToken::parse(text.expose_secret()).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = key("sk", 1, 2, [9; 32]);
        let session = Token::<Session>::new(SessionId::new(5).unwrap(), Secret::from_random(&[9; 32]));
        for shown in [format!("{token:?}"), format!("{session:?}")] {
            assert!(!shown.contains(token.secret.expose()), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn revealed_tokens_parse_back(
            prefix in "[a-z][a-z0-9_]{0,30}[a-z0-9]",
            app: u64,
            id in 1..=i64::MAX,
            secret: [u8; 32],
        ) {
            prop_assume!(!RESERVED_PREFIXES.contains(&prefix.as_str()));
            let token = key(&prefix, app, id, secret);
            let parsed = ApiKeyToken::parse(token.reveal().expose_secret()).unwrap();
            prop_assert_eq!(parsed.prefix, token.prefix);
            prop_assert_eq!((parsed.app, parsed.id), (token.app, token.id));
            prop_assert_eq!(parsed.secret.expose(), token.secret.expose());
        }

        #[test]
        fn one_wrong_character_is_caught(at in 0..76_usize, with in "[0-9A-Za-z_]") {
            let text = key("acme_live", 77, 99, [3; 32]).reveal();
            let mut changed = text.expose_secret().to_owned();
            prop_assume!(changed.get(at..=at) != Some(with.as_str()));
            changed.replace_range(at..=at, &with);
            prop_assert!(ApiKeyToken::parse(&changed).is_err());
        }

        #[test]
        fn any_text_is_answered(text: String) {
            prop_assert!(ApiKeyToken::parse(&text).is_err());
            prop_assert!(Token::<Ticket>::parse(&text).is_err());
        }
    }
}
