//! Whatever is sent as a path has forms of which it is the pattern, or is refused; and no server reads a guarded path in what
//! is not seen to be one.
#![no_main]

#[path = "../../../shared/core/src/path/readers.rs"]
mod readers;

use keyward_core::Bounds;
use keyward_core::path::{NormalPath, PathPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // No request has white space around its target.
    let target = text.trim_ascii();
    let Ok(path) = NormalPath::parse("resource", target) else { return };
    let form = path.as_str();
    assert!(form.starts_with('/') && !form.contains("//"));
    let pattern = |text: &str| PathPattern::parse("path", text).expect("a pattern");
    assert!(path.may_be(&pattern("*")) && path.is_within(&Bounds::Within(vec![pattern("*")])));
    for reader in readers::READERS {
        let Some(found) = (reader.read)(target) else { continue };
        let folded: String =
            found.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
        let seen = !folded.starts_with("/admin/") || path.may_be(&pattern("/admin/*"));
        assert!(seen, "{}: {target:?} is {found:?}", reader.name);
        let mut segments = folded.split('/').filter(|segment| !segment.is_empty());
        let is_below = segments.next() == Some("admin") && segments.next().is_some();
        let stays =
            is_below || !reader.decodes || !path.is_within(&Bounds::Within(vec![pattern("/admin/*")]));
        assert!(stays, "{}: {target:?} is {found:?}", reader.name);
    }
});
