//! HTTP methods (RFC 9110, 9), as far as requests that come with a key use them.

use std::fmt;

use crate::text::InvalidField;

const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(&'static str);

impl Method {
    /// Parses the value of the request's field `field`, in small or capital letters.
    ///
    /// # Errors
    /// It is not one of GET, POST, PUT, PATCH, DELETE, HEAD and OPTIONS.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        let known = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(text.trim()));
        known
            .map(Self)
            .ok_or_else(|| InvalidField::new(field, format!("must be one of {}", KNOWN.join(", "))))
    }

    /// Whether what is said of this method is said of `asked`: a `HEAD` asks for the same as a `GET` (RFC 9110, 9.3.2), and
    /// is often served by the same code.
    pub fn covers(self, asked: Self) -> bool {
        self == asked || (self.0 == "GET" && asked.0 == "HEAD")
    }

    /// The method in capital letters.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
