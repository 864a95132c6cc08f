//! The requests that a rule applies to.

use crate::method::Method;
use crate::path::PathPattern;
use crate::target::Target;
use crate::text::InvalidField;

/// A pattern of paths, after a method where the rule holds for that method alone: `*`, `/v1/users/*`, `POST /v1/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    method: Option<Method>,
    path: PathPattern,
}

impl Endpoint {
    /// Parses an entry of the field `field`.
    ///
    /// # Errors
    /// Says which field is wrong: an unknown method, or a path that [`PathPattern::parse`] rejects.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let text = text.trim();
        let (method, path) = match text.split_once(char::is_whitespace) {
            Some((method, path)) => (Some(Method::parse(field, method)?), path.trim_start()),
            None if Method::parse(field, text).is_ok() => {
                return Err(InvalidField::new(field, "must have a path after the method"));
            }
            None => (None, text),
        };
        Ok(Self { method, path: PathPattern::parse(field, path)? })
    }

    /// Whether it stands for every request.
    pub(super) fn is_all(&self) -> bool {
        self.method.is_none() && self.path.normal() == "/*"
    }

    /// The one spelling of what it stands for: `POST /v1/*`, and `* /v1/*` for any method.
    pub(super) fn canonical(&self) -> String {
        format!("{} {}", self.method.map_or("*", Method::as_str), self.path.normal())
    }

    /// Whether it stands for this request.
    pub fn matches(&self, target: &Target) -> bool {
        self.method.is_none_or(|method| method.covers(target.method())) && target.path().may_be(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_optional_and_a_path_is_compared_in_its_one_form() {
        let matches = |endpoint: &str, method: &str, path: &str| {
            let endpoint = Endpoint::parse("endpoints", endpoint).unwrap();
            endpoint.matches(&Target::parse(method, path).unwrap())
        };
        assert!(matches("*", "GET", "/") && matches("/v1/users", "PUT", "/V1//users/?x"));
        assert!(matches("/v1/users/*", "GET", "/v1/users/1") && !matches("/v1/users/*", "GET", "/v1/users"));
        assert!(matches("post /v1/*", "POST", "/v1/%61") && !matches("POST /v1/*", "GET", "/v1/a"));
        assert!(matches(" DELETE   v1/* ", "delete", "/v1/a"));
        assert!(matches("GET /v1/*", "HEAD", "/v1/a") && !matches("HEAD /v1/*", "GET", "/v1/a"));
    }

    #[test]
    fn invalid_endpoints() {
        for text in ["", " ", "FETCH /v1", "GET", "GET /a b", "/a?b", "GET\t"] {
            assert!(Endpoint::parse("endpoints", text).is_err(), "{text:?}");
        }
    }
}
