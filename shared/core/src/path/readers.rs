//! Models of how servers read the target of a request, each by its own rules and none by ours. A reader takes a target and
//! returns the path that it routes by, or none if it rejects the target.

use url::Url;

/// A reader, and whether it decodes what it tells.
pub(super) struct Reader {
    /// The server that it is a model of.
    pub(super) name: &'static str,
    /// The path that it reads in a target.
    pub(super) read: fn(&str) -> Option<String>,
    /// Whether percent-encodings are resolved in that.
    pub(super) decodes: bool,
}

/// The models.
pub(super) const READERS: [Reader; 10] = [
    Reader { name: "nginx", read: |target| nginx(target, true), decodes: true },
    Reader { name: "nginx with merge_slashes off", read: |target| nginx(target, false), decodes: true },
    Reader { name: "Node, req.url", read: node, decodes: false },
    Reader {
        name: "Node, req.url, decoded by segment",
        read: |target| by_segment(&node(target)?),
        decodes: true,
    },
    Reader { name: "Node, url.parse", read: |target| by_segment(&node_legacy(target)?), decodes: true },
    Reader { name: "Node, new URL", read: whatwg, decodes: false },
    Reader { name: "Node, new URL, decoded", read: |target| by_segment(&whatwg(target)?), decodes: true },
    Reader { name: "servlet", read: |target| servlet(target, false), decodes: true },
    Reader { name: "servlet, decoding first", read: |target| servlet(target, true), decodes: true },
    Reader { name: "WSGI", read: wsgi, decodes: true },
];

/// The path and query of a target: of one in absolute-form (RFC 9112, 3.2.2), what follows the host.
fn origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") || rest.starts_with(['/', '?', '#'])
    {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(if rest[end..].starts_with('/') { &rest[end..] } else { "/" })
}

fn digits(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Percent-decoding, once. None for a `%` that encodes nothing, where that is refused.
fn unquoted(text: &str, strict: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        match (next, digits(&rest[next.len_utf8()..])) {
            ('%', Some(byte)) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            ('%', None) if strict => return None,
            _ => {
                bytes.extend(next.to_string().bytes());
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    Some(bytes)
}

/// `.` and `..` segments resolved. None for what leads above the root.
fn resolved(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(segment) = parts.next() {
        let last = parts.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop()?;
                }
                if last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

fn merged(path: &str) -> String {
    let mut merged = String::new();
    for character in path.chars() {
        if !(character == '/' && merged.ends_with('/')) {
            merged.push(character);
        }
    }
    merged
}

/// nginx, by what `location` says: "The matching is performed against a normalized URI, after decoding the text encoded in the
/// “%XX” form, resolving references to relative path components “.” and “..”, and possible compression of two or more
/// adjacent slashes into a single slash" (<https://nginx.org/en/docs/http/ngx_http_core_module.html#location>, and
/// `merge_slashes` there). `ngx_http_parse_complex_uri` refuses a `%` that encodes nothing and an encoded NUL, and ends the
/// path at a `#` too.
fn nginx(target: &str, merge_slashes: bool) -> Option<String> {
    let path = origin_form(target)?.split(['?', '#']).next()?;
    let bytes = unquoted(path, true)?;
    if bytes.contains(&0) {
        return None;
    }
    let path = String::from_utf8_lossy(&bytes).into_owned();
    resolved(&if merge_slashes { merged(&path) } else { path })
}

/// Express and others that route by `req.url` as it is: up to the query (<https://expressjs.com/en/api.html#req.path>); of an
/// absolute-form, what `url.parse` takes for the path.
fn node(target: &str) -> Option<String> {
    origin_form(target)?.split('?').next().map(str::to_owned)
}

/// `url.parse`, to which Express turns where a target has white space or a `#`: a backslash is a slash before a query
/// (<https://nodejs.org/api/url.html#urlparseurlstring-parsequerystring-slashesdenotehost>).
fn node_legacy(target: &str) -> Option<String> {
    let path = origin_form(target)?.split(['?', '#']).next()?;
    Some(path.replace('\\', "/"))
}

/// The URL Standard (<https://url.spec.whatwg.org/>), as many servers use it: `new URL(req.url, "http://localhost").pathname`.
fn whatwg(target: &str) -> Option<String> {
    let url = Url::parse("http://localhost").ok()?.join(target).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.path().to_owned())
}

/// `decodeURIComponent` of each segment, which throws at what is not encoded UTF-8 (ECMA-262, 19.2.6.2).
fn by_segment(path: &str) -> Option<String> {
    String::from_utf8(unquoted(path, true)?).ok()
}

/// A servlet container: path parameters are cut off each segment, what is left is decoded, empty segments go and dot segments are
/// resolved (Jakarta Servlet 6.0, 3.5.2, "URI Path Canonicalization"; Tomcat's `CoyoteAdapter`). Encoded slashes are slashes
/// and backslashes are too, where the container is told to take them
/// (<https://tomcat.apache.org/tomcat-10.1-doc/config/http.html>: `encodedSolidusHandling`, `ALLOW_BACKSLASH`).
fn servlet(target: &str, decoding_first: bool) -> Option<String> {
    let without_parameters = |path: &str| {
        let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        segments.collect::<Vec<_>>().join("/")
    };
    let decoded = |path: &str| Some(String::from_utf8_lossy(&unquoted(path, true)?).into_owned());
    let path = origin_form(target)?.split(['?', '#']).next()?;
    let path = if decoding_first {
        without_parameters(&decoded(path)?)
    } else {
        decoded(&without_parameters(path))?
    };
    if path.contains('\0') {
        return None;
    }
    resolved(&merged(&path.replace('\\', "/")))
}

/// Python's WSGI: `PATH_INFO` is the path up to the query, decoded once, each byte a character of Latin-1 (PEP 3333, "Unicode
/// Issues"), which frameworks encode again and read as UTF-8.
fn wsgi(target: &str) -> Option<String> {
    let path = origin_form(target)?.split('?').next()?;
    let path_info: String = unquoted(path, false)?.into_iter().map(char::from).collect();
    let bytes: Vec<u8> = path_info.chars().filter_map(|character| u8::try_from(character).ok()).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
