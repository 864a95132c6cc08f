//! The documentation against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use chrono::TimeDelta;
use keyward_cli::dev::TABLE;
use keyward_core::ErrorCode;
use keyward_store::Sweep;
use keyward_tests::process::workspace;
use keyward_tests::{Keyward, operator, text};
use regex::Regex;
use serde_json::{Value, json};

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// All sources below a folder.
pub(crate) fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(path).unwrap();
        }
    }
    all
}

fn all_of(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_error_code_has_a_page() {
    let pages = fs::read_dir(workspace().join("docs/errors")).unwrap();
    let pages = pages.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let described: BTreeSet<String> = pages
        .filter_map(|page| page.strip_suffix(".md").filter(|code| *code != "README").map(str::to_owned))
        .collect();
    assert_eq!(described, ErrorCode::ALL.iter().map(ToString::to_string).collect());
    for code in ErrorCode::ALL {
        let page = read(&format!("docs/errors/{code}.md"));
        let begins = page.strip_prefix(&format!("# `{code}`\n\nStatus: "));
        let statuses = begins.and_then(|text| text.split("\n\n").next()).unwrap_or_default();
        let status = if *code == ErrorCode::RequestFailed { "4xx".into() } else { code.status().to_string() };
        assert!(statuses.contains(&status) && page.contains("\n## What to do\n"), "{page}");
        let body = page.split_once("\n```json\n").and_then(|(_, rest)| rest.split_once("\n```\n"));
        let body: Value = serde_json::from_str(body.unwrap_or_else(|| panic!("{page}")).0).unwrap();
        assert_eq!(body["code"], code.as_str());
        assert!(!body["message"].as_str().unwrap_or_default().is_empty(), "{page}");
    }
}

/// An unused code is one that people would handle in vain.
#[test]
fn every_error_code_is_used() {
    let code = ["shared/http/src", "shared/verifier/src", "functions", "infra/cli/src"];
    let code =
        code.map(|folder| sources(&workspace().join(folder))).concat() + &read("shared/core/src/decision.rs");
    let used = all_of(r"ErrorCode::([A-Z]\w+)", &code);
    let known = ErrorCode::ALL.iter().map(|code| format!("{code:?}")).collect();
    assert!(used.is_superset(&known), "{:?}", known.difference(&used));
}

#[test]
fn every_decision_is_listed() {
    let listed = all_of(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", &read("docs/adr/README.md"));
    let files = fs::read_dir(workspace().join("docs/adr")).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(listed, files.filter(|name| name != "README.md").collect());
}

/// Makes at least one item of each type.
async fn use_everything(keyward: &Keyward) {
    let backend = keyward.backend();
    let store = &keyward.services.store;
    store.table().rotate_pepper(&operator(), &*keyward.provider()).await.unwrap();
    // It waits for processes that may still use the first version: until then it keeps how far it got.
    let sweep = Sweep { units_per_second: NonZeroU32::MAX, progress: &|_| {} };
    let waits = tokio::time::timeout(Duration::from_secs(3), store.repepper(&operator(), &sweep)).await;
    assert!(waits.is_err());
    let rule =
        |mode: &str, max: u32| json!({"unit": "second", "duration": 1, "max_requests": max, "mode": mode});
    let rules = json!([
        rule("per_key", 100), rule("per_app", 100), rule("per_key_and_ip", 100), rule("per_app_and_ip", 100),
        {"unit": "millisecond", "duration": 500, "max_requests": 1_000, "mode": "per_key"},
    ]);
    let scheme = json!({"slug": "scheme", "name": "Scheme", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    for slug in ["acme", "inactive"] {
        backend.create_app(slug).await;
    }
    backend.patch("/api-auth/apps/acme", json!({"rate_limit_scheme_slug": "scheme"})).await.ok();
    backend.patch("/api-auth/apps/inactive", json!({"is_active": false})).await.ok();
    let kept = backend.create_key("acme", json!({})).await;
    backend.create_key("acme", json!({"rate_limit_scheme_slug": "scheme"})).await;
    let revoked = backend.create_key("acme", json!({})).await;
    backend.revoke("acme", &text(&revoked["id"])).await.ok();
    backend.browser("acme").await;
    keyward.check(&text(&kept["secret"])).await.ok();
    keyward.pass(TimeDelta::days(31));
    for _ in 0..3 {
        keyward.check(&text(&kept["secret"])).await.ok();
    }
    keyward.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_has_the_key_that_the_data_model_says() {
    let rows = Regex::new(r"(?m)^\| [^|`]+ \| `([^`]+)` \| `([^`]+)` \|").unwrap();
    let shape = |pattern: &str| {
        let quoted = regex::escape(pattern);
        Regex::new("<[^>]+>").unwrap().replace_all(&quoted, "[^#]+").into_owned()
    };
    let page = read("docs/data-model.md");
    let items = page.split("\n## ").next().unwrap();
    let described: Vec<(String, Regex)> = rows
        .captures_iter(items)
        .map(|row| {
            let name = format!("{} / {}", &row[1], &row[2]);
            let both = format!("^{} / {}$", shape(&row[1]), shape(&row[2]));
            (name, Regex::new(&both).unwrap())
        })
        .collect();
    assert!(described.len() > 15);

    let keyward = Keyward::start().await;
    use_everything(&keyward).await;
    let client = Client::new(keyward.sdk_config());
    let scan = client.scan().table_name(TABLE).send().await.unwrap();
    assert!(scan.last_evaluated_key.is_none());
    let mut seen = BTreeSet::new();
    for item in scan.items() {
        let key = format!("{} / {}", item["pk"].as_s().unwrap(), item["sk"].as_s().unwrap());
        // The partition of lifecycle events (`L`) is described apart from the shards.
        let fits = described.iter().filter(|(name, shape)| {
            shape.is_match(&key) && (!name.contains("V<shard>") || !key.contains("#L / "))
        });
        let names: Vec<&str> = fits.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 1, "{key} fits {names:?}");
        seen.insert(names[0].to_owned());
    }
    let names: BTreeSet<String> = described.into_iter().map(|(name, _)| name).collect();
    assert_eq!(seen, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_of_the_guide_to_rate_limits_work() {
    let page = read("docs/rate-limits.md");
    let bodies = Regex::new(r"-d '(\{[^']+\})'").unwrap();
    let bodies: Vec<serde_json::Value> =
        bodies.captures_iter(&page).map(|body| serde_json::from_str(&body[1]).unwrap()).collect();
    let [scheme, app] = &bodies[..] else { panic!("{bodies:?}") };
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    backend.post("/api-auth/rate-limit-schemes", scheme.clone()).await.ok();
    let app = backend.patch("/api-auth/apps/acme", app.clone()).await.ok();
    assert_eq!(app["rate_limits"].as_array().map(Vec::len), Some(3));
    let key = text(&backend.create_key("acme", json!({})).await["secret"]);
    let checked = keyward.check(&key).await.ok();
    let rules: Vec<&str> = checked["rate_limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["rule"].as_str().unwrap())
        .collect();
    assert_eq!(rules, ["100/60s", "50000/2592000s"]);
}

/// The files below a folder that people read or run, by their paths: not those that Git ignores or that are history.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let hidden = name.starts_with('.') && !matches!(name, ".ci" | ".github");
        if hidden || matches!(name, "target" | "documentation.rs" | "CHANGELOG.md") {
            continue;
        }
        if path.is_dir() {
            found.extend(texts(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(workspace()).unwrap().display().to_string(), text));
        }
    }
    found
}

/// The names in this text of tools with their versions, as `pip` and `cargo` have them.
fn versions(text: &str) -> Vec<(String, String)> {
    let version = Regex::new(r"([a-z][a-z0-9-]*)(?:==|@)(\$\{\{ env\.[A-Z_]+ \}\}|[$A-Z_0-9.]+)").unwrap();
    version.captures_iter(text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// A tool that is installed without a version works today and fails tomorrow; one in two versions, here and not there.
#[test]
fn every_tool_is_installed_in_a_version() {
    let install = Regex::new(r#"(?:pip|pipx|cargo)"? install ((?:"[^"\n]*"|[^`"'\n;&#)])*)"#).unwrap();
    let options_with_values = ["--root", "-r"];
    let pinned = read("infra/tools.env");
    let pinned: BTreeMap<String, &str> = pinned
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, version)| (name.to_lowercase().replace('_', "-"), version))
        .collect();
    assert!(pinned.values().all(|version| version.starts_with(|c: char| c.is_ascii_digit())), "{pinned:?}");
    let mut commands = 0;
    let mut named = BTreeSet::new();
    for (path, text) in texts(workspace()) {
        // A command may go on in the next line.
        for found in install.captures_iter(&text.replace("\\\n", " ")) {
            let words: Vec<&str> = found[1].split_whitespace().map(|word| word.trim_matches('"')).collect();
            let value_of = |at: usize| at.checked_sub(1).map(|before| words[before]);
            for (at, word) in words.iter().enumerate() {
                match value_of(at) {
                    Some("-r") => assert!(
                        word.ends_with("requirements.txt"),
                        "{path}: {} names no requirements",
                        &found[0]
                    ),
                    Some(option) if options_with_values.contains(&option) => {}
                    _ => assert!(
                        word.starts_with('-') || word.contains("==") || word.contains('@'),
                        "{path}: {} names no version of {word}",
                        &found[0]
                    ),
                }
            }
            commands += 1;
        }
        for (tool, version) in versions(&text).into_iter().filter(|_| !path.ends_with("requirements.txt")) {
            // A package that is named for the tool in it has its version.
            let Some((name, is)) = pinned.iter().find(|(name, _)| tool.ends_with(name.as_str())) else {
                continue;
            };
            let variable = name.to_uppercase().replace('-', "_");
            let read = [format!("${variable}"), format!("${{{{ env.{variable} }}}}"), (*is).to_owned()];
            assert!(read.contains(&version), "{path}: {tool} {version}, and infra/tools.env has {is}");
            named.insert(name.clone());
        }
    }
    assert!(commands > 8, "{commands} commands that install something");
    assert_eq!(named, pinned.keys().cloned().collect(), "what is pinned is installed");
    let listed = texts(workspace()).into_iter().filter(|(path, _)| path.ends_with("requirements.txt"));
    for (path, text) in listed {
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(line.contains("=="), "{path}: {line}");
        }
    }
}
