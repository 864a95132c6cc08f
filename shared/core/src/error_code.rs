//! The codes of errors, for programs: one list for all APIs, with the status and the challenge of each.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! error_codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal, $status:literal;)*) => {
        /// The code of an error. It never changes; the sentence next to it may.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $meaning])+ $name,)*
        }

        impl ErrorCode {
            /// All of them, sorted by what programs read.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as programs read it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The HTTP status that it usually has (RFC 9110, 15).
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }

            /// The meaning and, where that is not plain, the remedy: a sentence or two in Markdown.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)*
                }
            }
        }
    };
}

error_codes! {
    /// The key's or the session's app was deleted. Its keys do not come back.
    AppDeleted = "app_deleted", 403;
    /// The key's app is disabled. `PATCH` it with `is_active: true`.
    AppDisabled = "app_disabled", 403;
    /// The body is longer than 256 KiB.
    BodyTooLarge = "body_too_large", 413;
    /// It exists already, or was changed at the same time. Read it again, and try again if that still makes sense.
    Conflict = "conflict", 409;
    /// The credential is valid, but does not permit this: a scope or a capability is missing, or the app is disabled.
    Forbidden = "forbidden", 403;
    /// Local runs only: the request names another host than this machine.
    HostNotAllowed = "host_not_allowed", 421;
    /// An app or a key uses the rate-limit scheme. Remove it from the app first.
    InUse = "in_use", 400;
    /// Something went wrong; the log of the function says what.
    InternalError = "internal_error", 500;
    /// Not a key, an unknown key or a wrong secret: always the same.
    InvalidApiKey = "invalid_api_key", 401;
    /// The body is JSON with another shape: the message names the member and what it must be.
    InvalidBody = "invalid_body", 422;
    /// The credential is no longer valid.
    InvalidCredential = "invalid_credential", 401;
    /// The cursor does not come from a page of this list.
    InvalidCursor = "invalid_cursor", 400;
    /// A value is not valid: the message names the field and what it may contain.
    InvalidField = "invalid_field", 400;
    /// The id of a key is a positive 64-bit number.
    InvalidKeyId = "invalid_key_id", 400;
    /// A query parameter has the wrong type: the message names it and what it must be.
    InvalidQuery = "invalid_query", 400;
    /// The root key is mistyped or not valid.
    InvalidRootKey = "invalid_root_key", 401;
    /// The filter is not one of `active`, `revoked`, `expired`, `all`.
    InvalidStatus = "invalid_status", 400;
    /// The ticket is unknown, used or expired: always the same. Ask your backend for a new one.
    InvalidTicket = "invalid_ticket", 401;
    /// The type of a ticket must be `api_auth_access`.
    InvalidTicketType = "invalid_ticket_type", 400;
    /// The key has expired.
    KeyExpired = "key_expired", 401;
    /// The key was revoked. Revocation is final.
    KeyRevoked = "key_revoked", 403;
    /// The body is not JSON: the message says where it goes wrong.
    MalformedJson = "malformed_json", 400;
    /// The path does not support this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// Only from the authorizer and services in Rust: the request has no API key.
    MissingApiKey = "missing_api_key", 401;
    /// The route takes `Authorization: Bearer <root key>`, or the root key in `X-Keyward-Root-Key`.
    MissingRootKey = "missing_root_key", 401;
    /// There is no session, or it has ended. Ask your backend for a ticket.
    NoSession = "no_session", 401;
    /// Another kind of credential was sent where a root key is required.
    NotARootKey = "not_a_root_key", 401;
    /// It does not exist in this deployment.
    NotFound = "not_found", 404;
    /// The function could not start yet. Try again after `Retry-After` seconds. Never an "allowed".
    NotReady = "not_ready", 503;
    /// The page's origin is not one of the deployment's allowed origins.
    OriginNotAllowed = "origin_not_allowed", 403;
    /// The key does not permit the request.
    PermissionDenied = "permission_denied", 403;
    /// A rate limit is exhausted.
    RateLimited = "rate_limited", 429;
    /// The path has extra slashes at its beginning or end. Use the one in `Location`.
    Redirected = "redirected", 308;
    /// The request could not be read.
    RequestFailed = "request_failed", 400;
    /// Local runs only: the request did not arrive in time.
    RequestTimeout = "request_timeout", 408;
    /// There is no such path.
    RouteNotFound = "route_not_found", 404;
    /// Only a script may send this request, not a navigation, a prefetch or an embedded resource.
    ScriptRequired = "script_required", 403;
    /// The browser has a different session from the page.
    SessionChanged = "session_changed", 409;
    /// The table cannot be reached or is too slow. Try again after `Retry-After` seconds. Never an "allowed".
    StoreUnavailable = "store_unavailable", 503;
    /// The exchange requires the parameter `ticket`.
    TicketRequired = "ticket_required", 400;
    /// The body was cut off.
    UnreadableBody = "unreadable_body", 400;
    /// The body must be sent without compression.
    UnsupportedContentEncoding = "unsupported_content_encoding", 415;
    /// The body must be sent with the content type that the message names.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// Only principals of the type `api_key` are supported.
    UnsupportedPrincipal = "unsupported_principal", 401;
    /// Tickets of this type are not issued here.
    UnsupportedTicketType = "unsupported_ticket_type", 400;
}

impl ErrorCode {
    /// The path of the page about it, below the URL of an installation.
    pub fn page(self) -> String {
        format!("/errors/{self}")
    }

    /// The challenge that goes with it in `WWW-Authenticate` (RFC 9110, 11.6.1), in this protection space.
    pub fn challenge(self, realm: &str) -> Option<String> {
        let parameter = match (self, self.status()) {
            (Self::MissingRootKey | Self::NoSession | Self::MissingApiKey, _) => "",
            (_, 401) => ", error=\"invalid_token\"",
            (Self::Forbidden | Self::PermissionDenied, _) => ", error=\"insufficient_scope\"",
            _ => return None,
        };
        Some(format!("Bearer realm=\"{realm}\"{parameter}"))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_sorted_and_named_as_they_are_read() {
        assert!(ErrorCode::ALL.is_sorted_by(|a, b| a.as_str() < b.as_str()));
        for code in ErrorCode::ALL {
            assert_eq!(format!("{code:?}").to_lowercase(), code.as_str().replace('_', ""));
            assert_eq!(serde_json::to_value(code).unwrap(), code.to_string());
            assert_eq!(code.page(), format!("/errors/{}", code.as_str()));
            assert!(code.meaning().ends_with(['.', '"']) && code.meaning().len() > 10, "{code}");
        }
    }

    /// RFC 6750, 3.1: a request without a credential is told no error, one with a bad credential `invalid_token`.
    #[test]
    fn a_challenge_says_what_a_credential_lacks() {
        for (code, expected) in [
            (ErrorCode::MissingRootKey, Some("Bearer realm=\"api\"")),
            (ErrorCode::NoSession, Some("Bearer realm=\"api\"")),
            (ErrorCode::MissingApiKey, Some("Bearer realm=\"api\"")),
            (ErrorCode::KeyExpired, Some("Bearer realm=\"api\", error=\"invalid_token\"")),
            (ErrorCode::Forbidden, Some("Bearer realm=\"api\", error=\"insufficient_scope\"")),
            (ErrorCode::PermissionDenied, Some("Bearer realm=\"api\", error=\"insufficient_scope\"")),
            (ErrorCode::KeyRevoked, None),
            (ErrorCode::Conflict, None),
        ] {
            assert_eq!(code.challenge("api").as_deref(), expected, "{code}");
        }
        for code in ErrorCode::ALL {
            assert!(code.status() != 401 || code.challenge("api").is_some(), "{code}");
        }
    }
}
