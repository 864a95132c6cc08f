//! The credentials of a request, recognised before its handler runs.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use keyward_core::authorization::{Authorization, single_value};
use keyward_core::token::{RootKey, Token, TokenError};
use keyward_core::{ErrorCode, InvalidField};
use keyward_store::{RootAccess, SessionAccess};

use crate::frontend::Browser;
use crate::{ApiError, origin};
use keyward_runtime::Services;

/// Where a root key is sent if `Authorization` holds something else, such as a signature of AWS (Signature Version 4).
const ROOT_KEY: HeaderName = HeaderName::from_static("x-keyward-root-key");

/// A backend that sent a valid root key: as `Authorization: Bearer` (RFC 6750, 2.1) or alone in `x-keyward-root-key`.
#[derive(Debug)]
pub struct Root(pub RootAccess);

impl FromRequestParts<Services> for Root {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Self, ApiError> {
        let token = root_key(parts)?;
        match services
            .store
            .authenticate_root_key(token, origin(parts, &services.settings.trusted_proxies))
            .await
        {
            Ok(access) => Ok(Self(access)),
            Err(keyward_store::Error::Unauthenticated) => Err(invalid_root_key()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The root key that a request presents, not yet looked up.
///
/// # Errors
/// 401: there is none, or it is not in the form of one. 400: a header was sent more than once, or the two differ.
pub fn root_key(parts: &Parts) -> Result<Token<RootKey>, ApiError> {
    let values = |name: &HeaderName| parts.headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let bearer = match Authorization::parse(values(&AUTHORIZATION))? {
        Some(Authorization::Bearer(token)) => Some(token),
        Some(Authorization::Other) | None => None,
    };
    let own = single_value(ROOT_KEY.as_str(), values(&ROOT_KEY))?;
    if own.is_some() && bearer.is_some() && own != bearer {
        let problem = "must be the same root key as in Authorization, or be sent alone";
        return Err(InvalidField::new(ROOT_KEY.as_str(), problem).into());
    }
    let text = own.or(bearer).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingRootKey,
            "Authorization header must be Bearer token: send the root key as 'Authorization: Bearer kw_root_...' \
             or in x-keyward-root-key",
        )
    })?;
    Token::parse(text).map_err(|error| match error {
        TokenError::Prefix => ApiError::new(
            ErrorCode::NotARootKey,
            "Authentication failed: this route requires a root key, and another kind of credential was sent",
        ),
        TokenError::Malformed | TokenError::Checksum => invalid_root_key(),
    })
}

/// 401: the root key is not valid.
pub fn invalid_root_key() -> ApiError {
    ApiError::new(ErrorCode::InvalidRootKey, "Authentication failed: the root key is not valid")
}

/// A browser that sent a valid session. Only on routes of the frontend API.
#[derive(Debug)]
pub struct ActiveSession(pub SessionAccess);

impl<S: Send + Sync> FromRequestParts<S> for ActiveSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let session = parts.extensions.get::<Browser>().and_then(|browser| browser.session.clone());
        session.map(Self).ok_or_else(|| ApiError::new(ErrorCode::NoSession, "No active API auth app session"))
    }
}
