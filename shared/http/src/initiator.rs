//! The initiator of a request, as far as its headers show: Fetch Metadata (W3C, Fetch Metadata Request Headers, 2), which
//! scripts cannot set, and `Origin` (RFC 6454, 7). Browsers send the first to `https` and loopback addresses only, and
//! Chrome since 80, Firefox since 90, Safari since 16.4 do.

use axum::http::header::{ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, HeaderName};

const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
const PURPOSES: [HeaderName; 3] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-moz"),
];

/// The initiator of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator<'h> {
    /// A script of a page of this origin, by `fetch` or `XMLHttpRequest`.
    Script(&'h str),
    /// A script of a page of the installation's own origin: browsers send no `Origin` with its GET requests.
    OwnScript,
    /// A browser that does not say more: an old one, or one that does not trust the connection.
    SilentBrowser,
    /// A program that is no browser.
    Program,
    /// A navigation, a prefetch or an embedded resource, or what cannot be told, as headers contradict each other.
    Other,
}

impl<'h> Initiator<'h> {
    /// Reads the headers of a request.
    pub fn of(headers: &'h HeaderMap) -> Self {
        Self::from_fetch_metadata(headers).unwrap_or(Self::Other)
    }

    fn from_fetch_metadata(headers: &'h HeaderMap) -> Option<Self> {
        let [mode, site, destination] = [MODE, SITE, DESTINATION].map(|name| single_value(headers, name));
        let (mode, site, destination, origin) = (mode?, site?, destination?, single_value(headers, ORIGIN)?);
        let by_script = mode.is_none_or(|mode| matches!(mode, "cors" | "same-origin"))
            && destination.is_none_or(|d| d == "empty");
        if !by_script || is_prefetch(headers) {
            return None;
        }
        match (origin, site) {
            (Some(origin), _) => Some(Self::Script(origin)),
            (None, Some("same-origin")) => Some(Self::OwnScript),
            (None, Some(_)) => None,
            (None, None) if is_browser(headers) => Some(Self::SilentBrowser),
            (None, None) => Some(Self::Program),
        }
    }
}

/// The value of a header that may be sent once: `None` where it is sent more often or is no text.
pub(crate) fn single_value(headers: &HeaderMap, name: HeaderName) -> Option<Option<&str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(None),
        (Some(value), None) => value.to_str().ok().map(Some),
        (Some(_), Some(_)) => None,
    }
}

/// Whether a browser fetches something ahead, which its user may never ask for (`Sec-Purpose: prefetch;prerender`; the
/// other two in earlier releases).
fn is_prefetch(headers: &HeaderMap) -> bool {
    PURPOSES.iter().flat_map(|name| headers.get_all(name)).any(|value| {
        let value = value.as_bytes().to_ascii_lowercase();
        [b"prefetch".as_slice(), b"preview", b"prerender"].iter().any(|purpose| value.starts_with(purpose))
    })
}

/// Every browser's name has begun so since the nineties (RFC 9110, 10.1.5 has the form alone).
fn is_browser(headers: &HeaderMap) -> bool {
    headers.get_all(USER_AGENT).iter().any(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://app.example.com";
    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0";

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let parsed = all.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in parsed {
            headers.append(name, value);
        }
        headers
    }

    fn sent(mode: &'static str, site: &'static str, destination: &'static str) -> HeaderMap {
        headers(&[
            ("user-agent", BROWSER),
            ("sec-fetch-mode", mode),
            ("sec-fetch-site", site),
            ("sec-fetch-dest", destination),
        ])
    }

    fn with(mut headers: HeaderMap, name: &'static str, value: &'static str) -> HeaderMap {
        headers.append(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn scripts_are_told_by_what_browsers_send_with_a_fetch() {
        let elsewhere = with(sent("cors", "cross-site", "empty"), "origin", PAGE);
        assert_eq!(Initiator::of(&elsewhere), Initiator::Script(PAGE));
        assert_eq!(Initiator::of(&sent("cors", "same-origin", "empty")), Initiator::OwnScript);
        assert_eq!(Initiator::of(&sent("same-origin", "same-origin", "empty")), Initiator::OwnScript);
        let old = headers(&[("user-agent", BROWSER), ("origin", PAGE)]);
        assert_eq!(Initiator::of(&old), Initiator::Script(PAGE));
        assert_eq!(Initiator::of(&headers(&[("user-agent", BROWSER)])), Initiator::SilentBrowser);
        assert_eq!(Initiator::of(&headers(&[("user-agent", "curl/8.14.1")])), Initiator::Program);
        assert_eq!(Initiator::of(&headers(&[])), Initiator::Program);
    }

    #[test]
    fn requests_without_a_script_are_other() {
        for (mode, site, destination) in [
            ("navigate", "cross-site", "document"),
            ("navigate", "same-origin", "document"),
            ("navigate", "none", "document"),
            ("navigate", "cross-site", "iframe"),
            ("no-cors", "cross-site", "image"),
            ("no-cors", "same-origin", "script"),
            ("no-cors", "cross-site", "empty"),
            ("cors", "same-origin", "image"),
            ("cors", "cross-site", "font"),
            ("websocket", "cross-site", "empty"),
            // A script's request to another origin has an `Origin`.
            ("cors", "cross-site", "empty"),
            ("cors", "same-site", "empty"),
            ("cors", "none", "empty"),
        ] {
            assert_eq!(
                Initiator::of(&sent(mode, site, destination)),
                Initiator::Other,
                "{mode} {site} {destination}"
            );
        }
        let form = with(sent("navigate", "same-site", "document"), "origin", PAGE);
        assert_eq!(Initiator::of(&form), Initiator::Other);
    }

    #[test]
    fn a_prefetch_is_something_else_whoever_asks() {
        for (name, value) in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "Prefetch;anonymous-client-ip"),
            ("purpose", "prefetch"),
            ("purpose", "preview"),
            ("x-moz", "prefetch"),
        ] {
            for headers in [headers(&[]), sent("cors", "same-origin", "empty")] {
                assert_eq!(Initiator::of(&with(headers, name, value)), Initiator::Other, "{name}: {value}");
            }
        }
    }

    #[test]
    fn of_two_headers_neither_decides() {
        let twice = with(headers(&[("origin", PAGE)]), "origin", "https://evil.example");
        assert_eq!(Initiator::of(&twice), Initiator::Other);
        let twice = with(headers(&[("origin", PAGE)]), "origin", PAGE);
        assert_eq!(Initiator::of(&twice), Initiator::Other);
        let twice = with(sent("cors", "same-origin", "empty"), "sec-fetch-mode", "navigate");
        assert_eq!(Initiator::of(&twice), Initiator::Other);
    }
}
