//! What `cargo test` leaves out has nothing to test: each target costs a compile and a link, also without tests.

use std::fs;
use std::path::Path;

use keyward_tests::process::workspace;
use toml::{Table, Value};

use crate::documentation::sources;

/// The folders of the workspace's members.
const MEMBERS: [&str; 4] = ["shared", "functions", "infra", "."];

#[test]
fn a_target_without_tests_has_none() {
    let mut left_out = 0;
    for package in MEMBERS.iter().flat_map(|folder| fs::read_dir(workspace().join(folder)).unwrap()) {
        let package = package.unwrap().path();
        let Ok(manifest) = fs::read_to_string(package.join("Cargo.toml")) else { continue };
        let manifest: Table = manifest.parse().unwrap();
        let lib = manifest.get("lib").map(|lib| (lib, "src/lib.rs"));
        let bins = manifest.get("bin").and_then(Value::as_array).into_iter().flatten();
        for (target, path) in lib.into_iter().chain(bins.map(|bin| (bin, "src/main.rs"))) {
            let path = package.join(target.get("path").and_then(Value::as_str).unwrap_or(path));
            let off = |kind| target.get(kind).and_then(Value::as_bool) == Some(false);
            // A library has the folder to itself, but for the one file of a program beside it.
            let is_lib = path.ends_with("lib.rs");
            let source = if is_lib { sources(path.parent().unwrap()) } else { read(&path) };
            if off("test") {
                left_out += 1;
                for test in ["#[test]", "#[tokio::test", "proptest!"] {
                    assert!(!source.contains(test), "{}: {test}, though test = false", path.display());
                }
            }
            if off("doctest") {
                left_out += 1;
                let mut fences = source.lines().filter_map(|line| {
                    let line = line.trim_start();
                    line.strip_prefix("/// ```").or_else(|| line.strip_prefix("//! ```"))
                });
                // The second of each two ends a block.
                while let (Some(language), _) = (fences.next(), fences.next()) {
                    assert_eq!(language, "text", "{}: an example, though doctest = false", path.display());
                }
            }
        }
    }
    assert!(left_out > 20, "{left_out}");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
