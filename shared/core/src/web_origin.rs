//! The origins of pages and the URL of an installation, so that both can be compared.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The origin of a page (RFC 6454, 4): scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: Scheme,
    host: String,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// The URL at which an installation is reached, without a slash at its end: `https://keys.example.com`, or with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    origin: WebOrigin,
}

/// A text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an origin, such as https://app.example.com, without a path")]
pub struct InvalidOrigin;

/// A text is no URL of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a URL, such as https://keys.example.com, without a query")]
pub struct InvalidPublicUrl;

impl FromStr for WebOrigin {
    type Err = InvalidOrigin;

    /// Parses an origin as browsers send it, also one whose capitals or default port they leave out.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        match with_path(text) {
            Some((origin, "")) => Ok(origin),
            _ => Err(InvalidOrigin),
        }
    }
}

impl fmt::Display for WebOrigin {
    /// As browsers write it (RFC 6454, 6.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = match self.scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl PublicUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The origin of its pages.
    pub fn origin(&self) -> &WebOrigin {
        &self.origin
    }
}

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPublicUrl> {
        let text = text.trim_end_matches('/');
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte));
        match with_path(text).filter(|_| printable) {
            Some((origin, _)) => Ok(Self { text: text.to_owned(), origin }),
            None => Err(InvalidPublicUrl),
        }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The origin of an `http` or `https` URL without credentials, and what follows it.
fn with_path(url: &str) -> Option<(WebOrigin, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        scheme if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return None,
    };
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets is the address's.
        Some((host, port)) if !port.ends_with(']') => {
            (host, Some(port).filter(|port| !port.starts_with('+'))?.parse().ok()?)
        }
        _ if scheme == Scheme::Http => (authority, 80),
        _ => (authority, 443),
    };
    Some((WebOrigin { scheme, host: host_of(host)?, port }, path))
}

fn host_of(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (!text.is_empty() && text.bytes().all(of_host)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> WebOrigin {
        text.parse().unwrap()
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        for (one, same) in [
            ("https://app.example.com", "HTTPS://App.Example.com:443"),
            ("http://app.example.com", "http://app.example.com:80"),
            ("http://[::1]:3000", "http://[0:0::1]:3000"),
            ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ] {
            assert_eq!(origin(one), origin(same), "{one}");
            assert_eq!(origin(same).to_string(), one);
        }
        for (one, other) in [
            ("https://app.example.com", "http://app.example.com"),
            ("https://app.example.com", "https://app.example.com:80"),
            ("http://app.example.com", "http://app.example.com:443"),
            ("https://app.example.com", "https://example.com"),
            ("http://[::1]", "http://[::2]"),
        ] {
            assert_ne!(origin(one), origin(other), "{one}");
        }
    }

    #[test]
    fn invalid_origins() {
        for text in [
            "",
            "*",
            "null",
            "app.example.com",
            "//app.example.com",
            "https://",
            "https://:443",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?x",
            "https://a.example#x",
            "https://a.example:",
            "https://a.example:x",
            "https://a.example:+1",
            "https://a.example:65536",
            "https://user@a.example",
            "https://a.example, https://b.example",
            "https://a.example https://b.example",
            "https://[::1",
            "https://[::1]x",
            "https://[x]",
            "https://::1",
            "ftp://a.example",
        ] {
            assert!(text.parse::<WebOrigin>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_may_have_a_path_and_its_origin_has_none() {
        let url: PublicUrl = "https://Example.com/keys/".parse().unwrap();
        assert_eq!((url.as_str(), url.to_string().as_str()), ("https://Example.com/keys", url.as_str()));
        assert_eq!(url.origin(), &origin("https://example.com"));
        let alone: PublicUrl = "http://127.0.0.1:8787".parse().unwrap();
        assert_eq!(alone.origin(), &origin(alone.as_str()));
        for text in [
            "",
            "/",
            "example.com",
            "https:///keys",
            "https://e.com/?a",
            "https://e.com/a b",
            "https://e.com/#",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
