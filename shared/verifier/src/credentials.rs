//! Where requests have their key.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// What a request with these headers presents as its key: in `Authorization: Bearer` (RFC 6750, 2.1) or, where there is
/// none, in `x-api-key`. Of several values the first.
pub fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text(AUTHORIZATION.as_str()).and_then(bearer).or_else(|| text("x-api-key"))
}

/// The token of credentials of the scheme `Bearer` (RFC 6750, 2.1), whose name is not case-sensitive (RFC 9110, 11.1).
pub fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bEARER  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
        assert_eq!(bearer("Bearer"), None);
    }
}
