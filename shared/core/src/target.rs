//! The target of a request: its method and path.

use std::fmt;

use crate::method::Method;
use crate::path::{NormalPath, path_of};
use crate::text::InvalidField;

/// The target of a request: its method and its path, without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    method: Method,
    /// As it was asked for, which people recognise.
    asked: String,
    /// As it is compared.
    path: NormalPath,
}

impl Target {
    /// Parses the `method` and `resource` of a check.
    ///
    /// # Errors
    /// An unknown method; a path that [`NormalPath::parse`] rejects.
    pub fn parse(method: &str, resource: &str) -> Result<Self, InvalidField> {
        let method = Method::parse("method", method)?;
        let path = NormalPath::parse("resource", resource)?;
        let asked = path_of(resource).and_then(|path| path.split('#').next()).unwrap_or_default();
        let slash = if asked.starts_with('/') { "" } else { "/" };
        Ok(Self { method, asked: format!("{slash}{asked}"), path })
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path in the forms in which it is compared.
    pub fn path(&self) -> &NormalPath {
        &self.path
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_method_and_a_path() {
        let target = |method, resource| Target::parse(method, resource).map(|t| t.to_string());
        assert_eq!(target(" get ", " users/1?x=1#y ").unwrap(), "GET /users/1");
        assert_eq!(target("POST", "/a#b?c").unwrap(), "POST /a");
        for (method, resource) in [("TRACE", "/"), ("", "/"), ("GET", " "), ("GET", "?a"), ("GET", "/a\u{0}")]
        {
            assert!(target(method, resource).is_err(), "{method} {resource:?}");
        }
        assert!(Target::parse("GET", &"a".repeat(2_049)).is_err());
        assert_eq!(target("GET", "HTTPS://api.example.com/Users?x").unwrap(), "GET /Users");
        assert_eq!(target("GET", "/Users//%31").unwrap(), "GET /Users//%31", "as it was asked for");
        assert_eq!(Target::parse("GET", "/Users//%31").unwrap().path().as_str(), "/users/1");
    }
}
