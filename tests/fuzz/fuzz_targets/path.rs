//! Whatever is sent as a path has one form, which is its own, or is refused; and a pattern that is that form matches it.
#![no_main]

use keyward_core::path::{NormalPath, PathPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = NormalPath::parse("resource", text) else { return };
    let form = path.as_str();
    assert!(form.starts_with('/') && !form.contains("//") && !form.contains('\\'));
    assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
    if let Ok(again) = NormalPath::parse("resource", &form.replace('?', "%3f").replace('#', "%23")) {
        assert_eq!(again, path);
    }
    if let Ok(pattern) = PathPattern::parse("endpoints", form) {
        assert!(pattern.matches(&path), "{form}");
    }
    let everything = PathPattern::parse("endpoints", "*").expect("a pattern");
    assert!(everything.matches(&path));
});
