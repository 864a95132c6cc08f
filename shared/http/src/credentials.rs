//! The credentials of a request, recognised before its handler runs.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use keyward_core::token::{RootKey, Token, TokenError};
use keyward_store::{RootAccess, SessionAccess};

use crate::frontend::Browser;
use crate::{ApiError, Services, origin};

/// A backend that sent a valid root key as `Authorization: Bearer` (RFC 6750, 2.1).
#[derive(Debug)]
pub struct Root(pub RootAccess);

impl FromRequestParts<Services> for Root {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Self, ApiError> {
        let token = root_key(parts)?;
        match services
            .store
            .authenticate_root_key(&token, origin(parts, &services.settings.trusted_proxies))
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
/// 401: there is none, or it is not in the form of one.
pub fn root_key(parts: &Parts) -> Result<Token<RootKey>, ApiError> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let text = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
        ApiError::unauthorized("missing_root_key", "Authorization header must be Bearer token")
    })?;
    Token::parse(text).map_err(|error| match error {
        TokenError::Prefix => ApiError::unauthorized(
            "not_a_root_key",
            "Authentication failed: this route takes a root key, and another kind of credential was sent",
        ),
        TokenError::Malformed | TokenError::Checksum => invalid_root_key(),
    })
}

/// 401: the root key is not valid.
pub fn invalid_root_key() -> ApiError {
    ApiError::unauthorized("invalid_root_key", "Authentication failed: the root key is not valid")
}

/// A browser that sent a valid session. Only on routes of the [`crate::frontend`] plane.
#[derive(Debug)]
pub struct ActiveSession(pub SessionAccess);

impl<S: Send + Sync> FromRequestParts<S> for ActiveSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let session = parts.extensions.get::<Browser>().and_then(|browser| browser.session.clone());
        session
            .map(Self)
            .ok_or_else(|| ApiError::unauthorized("no_session", "No active API auth app session"))
    }
}
