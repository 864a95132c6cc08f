//! The paths of requests, brought into one form before anything compares them, so that no spelling of a path escapes a limit,
//! a bound or a permission.
//!
//! Servers differ in how they read a target. Paths that they all treat as the same have one form; if they read different
//! paths from one target, it has a form for each, and all of them are compared: a guard applies to any reading, and a bound
//! must hold for every one. Targets that cannot be read in this way are invalid.

mod pattern;
#[cfg(test)]
mod readers;

pub use pattern::PathPattern;

use crate::bounds::Bounds;
use crate::text::InvalidField;

/// The longest path, in bytes, before it is normalised.
const MAX_LENGTH: usize = 2_048;
/// In how many ways a path may be read.
const MAX_READINGS: usize = 32;

/// A path, in its one form or in one for each way in which servers read it: `/`, or segments that each follow a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath {
    /// Without empty segments.
    readings: Vec<String>,
    /// The same with the empty segments that they have.
    spelled: Vec<String>,
}

impl NormalPath {
    /// Normalises the path of the target in the request's field `field`: a path, with or without a slash before it, or an
    /// `http` or `https` URL (absolute-form, RFC 9112, 3.2.2). What follows a `?` is not part of it.
    ///
    /// # Errors
    /// It is blank, longer than 2,048 bytes or another form of a target; it has control characters, `.` or `..` as a
    /// segment, or what is encoded otherwise than as UTF-8, however these are spelled; or it can be read in more than 32
    /// ways.
    pub fn parse(field: &str, target: &str) -> Result<Self, InvalidField> {
        Self::read(target).map_err(|problem| InvalidField::new(field, problem))
    }

    fn read(target: &str) -> Result<Self, &'static str> {
        let path = path_of(target).ok_or("must be a path, or an http or https URL")?;
        if path.len() > MAX_LENGTH {
            return Err("must be at most 2048 bytes");
        }
        let slash = if path.starts_with(['/', '\\']) { "" } else { "/" };
        let encoded = closure(vec![format!("{slash}{path}")], &STEPS)?;
        let mut texts = Vec::new();
        for text in &encoded {
            add(&mut texts, decoded(text));
        }
        let texts = closure(texts, &[&STEPS, [decoded as Step].as_slice()].concat())?;
        let (mut readings, mut spelled) = (Vec::new(), Vec::new());
        for text in &texts {
            check(text)?;
            let text = folded(text);
            let merged = merged(&text);
            if text.ends_with('/') {
                add(&mut spelled, format!("{merged}/"));
            }
            add(&mut readings, merged);
            add(&mut spelled, text);
        }
        Ok(Self { readings, spelled })
    }

    /// As most servers read it.
    pub fn as_str(&self) -> &str {
        self.readings.first().map_or("/", String::as_str)
    }

    /// Whether it lies within these bounds, however it is read.
    pub fn is_within(&self, bounds: &Bounds<PathPattern>) -> bool {
        self.readings.iter().all(|reading| bounds.admit(|bound| bound.matches(reading)))
    }

    /// Whether it can be read as one of these.
    pub fn may_be(&self, pattern: &PathPattern) -> bool {
        self.readings.iter().chain(&self.spelled).any(|reading| pattern.matches(reading))
    }
}

/// Steps that some servers take with a path, and others do not.
type Step = fn(&str) -> String;

/// Beside decoding.
const STEPS: [Step; 5] = [without_query, without_parameters, without_host, with_slashes, without_ends];

/// These texts, with all that the steps make of them, in any order.
fn closure(mut texts: Vec<String>, steps: &[Step]) -> Result<Vec<String>, &'static str> {
    let mut next = 0;
    while let Some(text) = texts.get(next).cloned() {
        for step in steps {
            add(&mut texts, step(&text));
        }
        if texts.len() > MAX_READINGS {
            return Err("must not be so ambiguous that servers can read it in more than 32 ways");
        }
        next += 1;
    }
    Ok(texts)
}

fn add(texts: &mut Vec<String>, text: String) {
    if !texts.contains(&text) {
        texts.push(text);
    }
}

/// A path on which no two servers agree.
fn check(path: &str) -> Result<(), &'static str> {
    if path.contains(char::is_control) {
        return Err("must not contain control characters");
    }
    if path.contains('\u{fffd}') {
        return Err("must be encoded as UTF-8");
    }
    let unicode = |rest: &str| rest.len() >= 4 && rest.bytes().take(4).all(|byte| byte.is_ascii_hexdigit());
    if path.to_ascii_lowercase().split("%u").skip(1).any(unicode) {
        return Err("must not contain characters encoded as %uXXXX");
    }
    let dots =
        |segment: &str| segment.contains('.') && segment.chars().all(|c| c == '.' || c.is_whitespace());
    if path.split('/').any(dots) {
        return Err("must not contain segments of dots, which some servers resolve and others do not");
    }
    Ok(())
}

/// The path of a target, up to its query: of a URL, what follows the host. None if it is another form of a target: that of an
/// authority, or `*` (RFC 9112, 3.2).
pub(crate) fn path_of(target: &str) -> Option<&str> {
    let text = target.trim_ascii().split('?').next().unwrap_or_default();
    if text.starts_with(['/', '\\']) {
        return Some(text);
    }
    let before = |end: usize| text.split_at_checked(end);
    let is_scheme = |scheme: &str| ["http://", "https://"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
    if let Some((_, rest)) = [7, 8].into_iter().filter_map(before).find(|(scheme, _)| is_scheme(scheme)) {
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
        return is_authority(authority).then_some(if path.is_empty() { "/" } else { path });
    }
    let first = text.split(['/', '\\']).next().unwrap_or_default();
    let blank = text.is_empty() || text.starts_with('#');
    (!blank && text != "*" && !first.contains(':')).then_some(text)
}

/// A host and perhaps a port, without credentials.
fn is_authority(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~:[]".contains(&byte))
}

/// Up to a fragment, or to a query whose `?` was encoded.
fn without_query(path: &str) -> String {
    path.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Without the parameters of segments, which servlet containers cut off (Jakarta Servlet 6.0, 3.5.2).
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// Without what URL parsers take for a host: the first segment after two slashes or more (RFC 3986, 4.2; the URL Standard).
fn without_host(path: &str) -> String {
    let rest = path.trim_start_matches(['/', '\\']);
    if path.len() - rest.len() < 2 {
        return path.to_owned();
    }
    rest.find(['/', '\\']).and_then(|slash| rest.get(slash..)).unwrap_or("/").to_owned()
}

/// With slashes for backslashes, as in the URL Standard.
fn with_slashes(path: &str) -> String {
    path.replace('\\', "/")
}

/// Without the white space around segments and the dots at their end, which Windows leaves out of names.
fn without_ends(path: &str) -> String {
    let segments = path
        .split('/')
        .map(|segment| segment.trim_start().trim_end_matches(|c: char| c == '.' || c.is_whitespace()));
    segments.collect::<Vec<_>>().join("/")
}

/// Without percent-encodings (RFC 3986, 2.1), once. What is no UTF-8 is U+FFFD.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let encoded = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (16 * high + low, after))
            }
            _ => None,
        };
        let (byte, after) = encoded.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Without capitals, nor what has some in common with others: each character for itself, so that a pattern and a text that
/// it stands for stay alike.
fn folded(path: &str) -> String {
    path.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Without empty segments, and so with one slash before each.
fn merged(path: &str) -> String {
    format!("/{}", path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pattern::tests::wildcard_matches_by_definition;
    use super::readers::READERS;
    use super::*;

    fn read(text: &str) -> Result<NormalPath, &'static str> {
        NormalPath::read(text)
    }

    fn readings(text: &str) -> Vec<String> {
        let mut readings = read(text).unwrap().readings;
        readings.sort();
        readings
    }

    #[test]
    fn equivalent_paths_have_one_form() {
        for (text, form) in [
            ("/v1/users", "/v1/users"),
            (" v1/users?x=/..#y ", "/v1/users"),
            ("/v1//users/", "/v1/users"),
            ("/V1/Users", "/v1/users"),
            ("/v1/%75sers", "/v1/users"),
            ("/v1%2Fusers", "/v1/users"),
            ("/", "/"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/caf%C3%A9", "/café"),
            ("/CAFÉ", "/café"),
            ("/\u{17f}traße/\u{212a}", "/strasse/k"),
            ("/ΑΣ/σς", "/ασ/σσ"),
            ("/a b", "/a b"),
            ("/a.b/.well-known/..c/c..d", "/a.b/.well-known/..c/c..d"),
            ("http://h/v1/users", "/v1/users"),
            ("HTTPS://api.example.com:443/v1?x", "/v1"),
            ("http://[2001:db8::1]:80", "/"),
            ("https://h?x", "/"),
            ("/http://h/x", "/http:/h/x"),
            ("/a:b", "/a:b"),
            ("a/b:c", "/a/b:c"),
            ("/*", "/*"),
        ] {
            assert_eq!(readings(text), [form], "{text}");
            assert_eq!(read(text).unwrap().as_str(), form, "{text}");
        }
    }

    #[test]
    fn where_servers_differ_there_is_a_form_for_each() {
        for (text, forms) in [
            ("/admin;a=b/x", vec!["/admin/x", "/admin;a=b/x"]),
            ("/a%3bb/x", vec!["/a/x", "/a;b/x"]),
            ("/a;b%2fc/x", vec!["/a/c/x", "/a/x", "/a;b/c/x"]),
            ("/%2561dmin", vec!["/%61dmin", "/admin"]),
            ("//h/admin", vec!["/admin", "/h/admin"]),
            ("//h", vec!["/", "/h"]),
            ("/\\h/admin", vec!["/\\h/admin", "/admin", "/h/admin"]),
            ("http://h//i/admin", vec!["/admin", "/i/admin"]),
            ("/v1\\users", vec!["/v1/users", "/v1\\users"]),
            ("/v1%5Cusers", vec!["/v1/users", "/v1\\users"]),
            ("/v1/users ?x", vec!["/v1/users", "/v1/users "]),
            ("/v1/users%20", vec!["/v1/users", "/v1/users "]),
            ("/v1/%20users", vec!["/v1/ users", "/v1/users"]),
            ("/zones/example.com.", vec!["/zones/example.com", "/zones/example.com."]),
            ("/a#b", vec!["/a", "/a#b"]),
            ("/a%3fb/c", vec!["/a", "/a?b/c"]),
        ] {
            assert_eq!(readings(text), forms, "{text}");
        }
        assert_eq!(read("//h/admin").unwrap().as_str(), "/h/admin");
        assert_eq!(read("/%2561dmin").unwrap().as_str(), "/%61dmin");
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        for (problem, targets) in [
            (
                "or an http or https URL",
                vec!["", " ", "?a", "#a", "*", "h:443", "mailto:x", "ftp://h/x", "ws://h/x"],
            ),
            (
                "or an http or https URL",
                vec![
                    "http:/x",
                    "http:x",
                    "http:///x",
                    "http://",
                    "http://u@h/x",
                    "http://h\\x",
                    "http://h;/x",
                    "http://h%2f/x",
                    "http://h#/x",
                    "http:\\\\h\\x",
                ],
            ),
            ("at most 2048 bytes", vec![&"a".repeat(2_049)]),
            (
                "control characters",
                vec!["/a\0", "/a%00", "/a%2500", "/a%0a", "/a\tb", "/a%09", "/%7f", "/%C2%85", "/a;%00/b"],
            ),
            ("encoded as UTF-8", vec!["/%ff", "/%c0%ae/x", "/%c0%af", "/%ed%a0%80", "/a;%ff/b"]),
            ("as %uXXXX", vec!["/%u0061", "/%U0061dmin", "/%25u0061", "/a%u002f"]),
            (
                "segments of dots",
                vec!["/..", "/.", "/a/./b", "/a/../b", "/a/..", "/a/...", "/../a", "../a", "/a//../b"],
            ),
            (
                "segments of dots",
                vec!["/%2e%2e/a", "/%2E./a", "/a/%252e%252e/b", "/a%2f..%2fb", "/a/..%5cb", "/a\\..\\b"],
            ),
            (
                "segments of dots",
                vec!["/a/..;/b", "/a/..;x=y/b", "/x/%2e%2e%3b/admin/y", "/a/.;/b", "/a/%20..%20/b", "/. ./a"],
            ),
            (
                "segments of dots",
                vec!["/a#/../b", "/a%3f/../b", "/a;/../b", "//../a", "http://h/../a", "http://h/.."],
            ),
        ] {
            for target in targets {
                let message = NormalPath::parse("resource", target).unwrap_err().to_string();
                assert!(
                    message.starts_with("resource must") && message.contains(problem),
                    "{target:?}: {message}"
                );
            }
        }
        assert!(read(&"a".repeat(2_048)).is_ok());
        assert!(read("/%u006/%uxyz/u0061/%%u").is_ok());
    }

    #[test]
    fn encodings_of_encodings_are_bounded() {
        let encoded = |times: usize| format!("/%{}41", "25".repeat(times - 1));
        assert_eq!(readings(&encoded(MAX_READINGS)).len(), MAX_READINGS);
        assert!(read(&encoded(MAX_READINGS)).unwrap().readings.contains(&"/a".to_owned()));
        let message = read(&encoded(MAX_READINGS + 1)).unwrap_err();
        assert!(message.ends_with("in more than 32 ways"), "{message}");
        assert!(read("//a;b%3bc\\d%5ce%20/f;g#h%23i%3fj./%252541").is_err());
    }

    #[test]
    fn a_guard_holds_in_any_reading_and_a_bound_in_every_one() {
        let pattern = |text: &str| PathPattern::parse("resources", text).unwrap();
        let path = |text: &str| NormalPath::parse("resource", text).unwrap();
        for target in [
            "/admin;a=b/x",
            "//h/admin/x",
            "http://h/admin/x",
            "/%2561dmin/x",
            "/ADMIN//x",
            "/admin/",
            "/admin\\x",
        ] {
            assert!(path(target).may_be(&pattern("/admin/*")), "{target}");
        }
        assert!(!path("/admin").may_be(&pattern("/admin/*")) && !path("/other").may_be(&pattern("/admin/*")));
        assert!(path("/x//y").may_be(&pattern("/x/*/y")) && path("/x//y").may_be(&pattern("/x/y")));
        let is_within = |target: &str, bounds: &[&str]| {
            path(target).is_within(&Bounds::Within(bounds.iter().copied().map(pattern).collect()))
        };
        for target in ["/admin/x", "/Admin//x/", "/admin/a;b", "/admin/x%2fy", "http://h/admin/x"] {
            assert!(is_within(target, &["/admin/*"]), "{target}");
        }
        for target in ["/admin;a=b/x", "//h/admin/x", "/%2561dmin/x", "/x", "/admin/", "/admin\\x"] {
            assert!(!is_within(target, &["/admin/*"]), "{target}");
        }
        assert!(is_within("/a;b", &["/a", "/a;b"]) && !is_within("/a;b", &["/a;b"]));
        assert!(is_within("/admin/", &["/admin"]) && !is_within("/admin", &[]));
    }

    const GUARDED: [&str; 6] = ["/admin/*", "/admin", "/*/admin", "/x/*/y", "/x/y/*", "*"];

    /// The model that the readings of a target are held to. No request has white space around its target.
    fn no_reader_escapes(target: &str) -> Result<(), TestCaseError> {
        let target = target.trim_ascii();
        let Ok(path) = read(target) else { return Ok(()) };
        for reader in READERS {
            let Some(found) = (reader.read)(target) else { continue };
            let small = found.to_lowercase();
            for guarded in GUARDED {
                if wildcard_matches_by_definition(guarded.as_bytes(), small.as_bytes()) {
                    let guarded = PathPattern::parse("path", guarded).unwrap();
                    prop_assert!(path.may_be(&guarded), "{}: {:?} is {:?}", reader.name, target, found);
                }
            }
            if reader.decodes {
                let reading = merged(&folded(&found));
                prop_assert!(
                    path.readings.contains(&reading),
                    "{}: {:?} is {:?}, not {:?}",
                    reader.name,
                    target,
                    reading,
                    path
                );
            }
        }
        Ok(())
    }

    #[test]
    fn readers_read_what_they_are_known_to() {
        let read = |name: &str, target: &str| {
            let reader = READERS.iter().find(|reader| reader.name == name).unwrap();
            (reader.read)(target)
        };
        for (name, target, path) in [
            ("nginx", "//a/%2e%2e/%61d%6din?x", Some("/admin")),
            ("nginx", "http://h/a%2fb#c", Some("/a/b")),
            ("nginx", "/a%zz", None),
            ("nginx", "/../a", None),
            ("nginx with merge_slashes off", "/a//../b", Some("/a/b")),
            ("Node, req.url", "//a/../b%2f?x", Some("//a/../b%2f")),
            ("Node, req.url, decoded by segment", "/a%2fb%252f", Some("/a/b%2f")),
            ("Node, url.parse", "/a\\b#c", Some("/a/b")),
            ("Node, new URL", "//h/a/%2E%2e/\\b", Some("//b")),
            ("Node, new URL", "/ad\tmin", Some("/admin")),
            ("servlet", "/x/..;a/admin;b=c/y", Some("/admin/y")),
            ("servlet", "/x/%2e%2e%3b/admin", Some("/x/..;/admin")),
            ("servlet, decoding first", "/x/%2e%2e%3b/admin/y", Some("/admin/y")),
            ("WSGI", "/caf%C3%A9/%252f/..", Some("/café/%2f/..")),
            ("WSGI", "*", None),
        ] {
            assert_eq!(read(name, target).as_deref(), path, "{name}: {target}");
        }
    }

    fn target() -> impl Strategy<Value = String> {
        let pieces = [
            "/",
            "/",
            "/",
            "//",
            "\\",
            "%2f",
            "%5c",
            "%252f",
            ".",
            "..",
            "%2e",
            "%252e",
            "...",
            ";",
            "%3b",
            ";a=b",
            "%253b",
            "admin",
            "admin",
            "ADMIN",
            "%61dmin",
            "%2561dmin",
            "x",
            "y",
            "x/y",
            "?",
            "%3f",
            "#",
            "%23",
            "%",
            "%25",
            "25",
            "61",
            " ",
            "%20",
            "*",
            "\u{17f}",
            "é",
            "%c3%a9",
            "%c3",
            "%ff",
            "%c0%ae",
            "%u0061",
            "\t",
            "%09",
            "%00",
            ":",
            "@",
            "[",
            "h:80",
            "http://h",
            "http:",
            "%e2%84%aa",
            "~",
        ];
        let start = prop_oneof![6 => Just("/"), 1 => Just("http://h"), 1 => Just("//"), 1 => Just("")];
        let pieces = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..10);
        (start, pieces).prop_map(|(start, pieces)| format!("{start}{}", pieces.concat()))
    }

    /// A path written otherwise, in a way that `choice` picks for each character.
    fn spelled(path: &str, choices: &[u8]) -> String {
        let mut spelled = String::new();
        for (index, (character, choice)) in path.chars().zip(choices.iter().cycle()).enumerate() {
            match (character, choice % 8) {
                ('/', 0) if index > 0 => spelled.push_str("//"),
                ('/', 3) if index > 0 => spelled.push_str("%2F"),
                (_, 0) => spelled.extend(character.to_uppercase()),
                (_, 1) if character != '/' => spelled.push_str(&format!("%{:02x}", u32::from(character))),
                _ => spelled.push(character),
            }
        }
        spelled
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_server_reads_a_guarded_path_where_none_is_seen(target in target()) {
            no_reader_escapes(&target)?;
        }

        #[test]
        fn nor_in_any_text(target in "/?\\PC{0,24}") {
            no_reader_escapes(&target)?;
        }

        #[test]
        fn no_spelling_escapes(path in "(/[a-z0-9_-]{1,6}){1,4}", choices in prop::collection::vec(any::<u8>(), 1..30), query in "(\\?[a-z/.]{0,5})?") {
            prop_assert_eq!(readings(&(spelled(&path, &choices) + &query)), [path]);
        }
    }
}
