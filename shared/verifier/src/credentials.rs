//! Where requests have their key.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use keyward_core::InvalidField;
use keyward_core::authorization::{Authorization, bearer, single_value};

/// The key that a request with these headers presents: in `Authorization: Bearer` (RFC 6750, 2.1) or, where there are
/// no credentials of that scheme, in `x-api-key`.
///
/// # Errors
/// One of the headers was sent more than once, or is no text.
pub fn presented(headers: &HeaderMap) -> Result<Option<&str>, InvalidField> {
    match Authorization::parse(values(headers, AUTHORIZATION.as_str()))? {
        Some(Authorization::Bearer(token)) => Ok(Some(token)),
        Some(Authorization::Other) | None => single_value("x-api-key", values(headers, "x-api-key")),
    }
}

/// The key that a request presents in the header of this name, with or without the scheme `Bearer`.
///
/// # Errors
/// As [`presented`].
pub fn presented_in<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, InvalidField> {
    let value = single_value(name, values(headers, name))?;
    Ok(value.map(|value| bearer(value).unwrap_or(value)))
}

fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}
