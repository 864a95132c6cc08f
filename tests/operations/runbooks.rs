//! The commands of `docs/operations`, run as they stand: each block of commands of a runbook, in its order, so that none can
//! be added or changed that does not work; in a folder that has nothing in it or, where something is built, in a clean clone.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyward_core::id::RootKeyId;
use keyward_core::token::{ApiKeyToken, RootKey, Token};
use keyward_tests::process::workspace;
use keyward_tests::{Backend, check_body, scenario, text};
use serde_json::json;
use tempfile::TempDir;

use crate::permissions::User;
use crate::{STACK, alone, output, run, run_in};

/// The commands of a page, each block of them a script.
pub(crate) fn scripts(page: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join("docs/operations").join(page)).expect("a page");
    let mut scripts: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line == "```" {
            inside = !inside;
            if inside {
                scripts.push(String::new());
            }
        } else if let Some(script) = scripts.last_mut().filter(|_| inside) {
            *script += line;
            *script += "\n";
        }
    }
    assert!(!scripts.is_empty(), "{page} has no commands");
    scripts
}

/// A script as an operator of the emulator's stack types it, who has the values at hand for which it has names.
pub(crate) fn typed(script: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(script.replace("NAME", STACK), |typed, (name, value)| typed.replace(name, value))
}

/// A folder that has nothing in it.
fn nothing() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A clone of what is here, as whoever begins has it: nothing in it is built. Files keep their times, by which cargo
/// sees in its target folder what it has compiled of them before.
fn clone() -> TempDir {
    let folder = nothing();
    let path = folder.path().display();
    run(&format!(
        "git clone --quiet --no-checkout . {path} && git ls-files -z | xargs -0 cp --parents --preserve=all -t {path} && git -C {path} reset --quiet"
    ));
    assert!(!folder.path().join(".aws-sam").exists(), "nothing is built");
    folder
}

/// Sets a parameter of the stack as the documentation says.
#[track_caller]
pub(crate) fn change_parameter(name: &str, value: &str) {
    let change = scripts("README.md").into_iter().find(|script| script.contains("update-stack"));
    let change = change.expect("how a parameter is changed").replace("LogRetentionDays", name);
    run_in(nothing().path(), &typed(&change, &[("ParameterValue=30", &format!("ParameterValue={value}"))]));
}

pub(crate) fn backend() -> Backend {
    let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    Backend::new(&given("KEYWARD_URL"), &given("KEYWARD_ROOT_KEY"), reqwest::Client::new())
}

/// Makes what is built differ from what is deployed, in nothing that matters.
fn change_build(clone: &Path, release: &str) {
    for folder in fs::read_dir(clone.join(".aws-sam/build")).expect("a build").flatten() {
        if folder.path().is_dir() {
            fs::write(folder.path().join("release"), release).expect("a file");
        }
    }
}

/// Upgrades and goes back while requests are made: each is answered, and each check is in the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn upgrade_and_rollback_lose_nothing() {
    let _alone = alone().await;
    let backend = backend();
    let slug = scenario::unique("upgrade");
    backend.create_app(&slug).await;
    let key = backend.create_key(&slug, json!({"name": "busy"})).await;
    let secret = text(&key["secret"]);
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..2 {
        let (backend, secret, slug, done) = (backend.clone(), secret.clone(), slug.clone(), done.clone());
        callers.push(tokio::spawn(async move {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(backend.post("/v1/authz/check", check_body(&secret)).await.ok()["allowed"], true);
                backend.get(&format!("/api-auth/apps/{slug}")).await.ok();
                checks += 1;
            }
            checks
        }));
    }
    let upgraded = tokio::task::spawn_blocking(|| {
        let clone = clone();
        for (runbook, release) in [("upgrade.md", "next"), ("rollback.md", "last")] {
            for script in scripts(runbook) {
                run_in(clone.path(), &typed(&script, &[("RELEASE", "HEAD")]));
                if script.contains("sam build") {
                    change_build(clone.path(), release);
                }
            }
        }
    });
    upgraded.await.expect("success");
    done.store(true, Ordering::Relaxed);
    let mut checks = 0;
    for caller in callers {
        checks += caller.await.expect("no request was lost");
    }
    let figures = backend.get(&format!("/api-auth/apps/{slug}/audit/analytics")).await.ok();
    assert_eq!(figures["total_requests"], checks);
    assert!(checks > 50, "{checks} checks are not much of a load");
    println!(
        "{checks} checks and as many reads during two updates: all answered, all checks in the audit log"
    );
    backend.delete(&format!("/api-auth/apps/{slug}")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_that_leaked() {
    let _alone = alone().await;
    let backend = backend();
    let slug = scenario::unique("leak");
    let leaked = run(&format!("keyward root-key create --stack {STACK} --name Leaked"));
    let thief = Backend::new(&backend.url, &leaked, backend.http.clone());
    thief.create_app(&slug).await;
    let listed = run(&format!("keyward root-key list --stack {STACK}"));
    let id = listed.lines().find(|line| line.ends_with("  Leaked")).and_then(|line| line.split(' ').next());
    let id = id.expect("its id").to_owned();
    let mut printed = String::new();
    let mut new_root_key = String::new();
    for script in scripts("root-key-leak.md") {
        let values = [
            (" ID", format!(" {id}")),
            ("SLUG", slug.clone()),
            ("$URL", backend.url.replace('$', "\\$")),
            ("$NEW_ROOT_KEY", new_root_key.clone()),
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        printed = run_in(nothing().path(), &typed(&script, &values));
        if script.contains("root-key create") {
            new_root_key.clone_from(&printed);
        }
    }
    let log: serde_json::Value = serde_json::from_str(&printed).expect("the audit log");
    assert_eq!(log["data"][0]["actor"]["id"], id.as_str(), "{log}");
    thief.get("/api-auth/apps").await.is_error(401, "invalid_root_key");
    let heir = Backend::new(&backend.url, &new_root_key, backend.http.clone());
    heir.delete(&format!("/api-auth/apps/{slug}")).await.ok();
}

/// Restores the table to another, on which keys still open; and goes back to the stack's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_table() {
    let _alone = alone().await;
    let backend = backend();
    let slug = scenario::unique("restore");
    backend.create_app(&slug).await;
    let key = backend.create_key(&slug, json!({"name": "kept"})).await;
    let table = output("TableName");
    for script in scripts("restore.md") {
        run_in(nothing().path(), &typed(&script, &[("TABLE", &table)]));
        if script.contains("ParameterValue=TABLE") {
            assert_eq!(output("TableName"), format!("{table}-restored"));
            assert_eq!(
                backend.post("/v1/authz/check", check_body(&text(&key["secret"]))).await.ok()["allowed"],
                true
            );
        }
    }
    assert_eq!(output("TableName"), table);
    backend.delete(&format!("/api-auth/apps/{slug}")).await.ok();
}

#[tokio::test]
async fn limits() {
    let _alone = alone().await;
    let table = output("TableName");
    for script in scripts("limits.md") {
        run_in(nothing().path(), &typed(&script, &[("TABLE", &table)]));
    }
    assert_eq!(parameter("VerifyReservedConcurrency"), "200");
    assert_eq!(parameter("SampleRoute"), "true", "what is not named stays");
    change_parameter("VerifyReservedConcurrency", "");
}

/// The value of a parameter of the stack.
fn parameter(name: &str) -> String {
    run(&format!(
        "aws cloudformation describe-stacks --stack-name {STACK} --query \"Stacks[0].Parameters[?ParameterKey=='{name}'].ParameterValue\" --output text"
    ))
}

/// The input of a first deployment, with each default except for the processor.
#[tokio::test]
async fn a_first_deployment() {
    let _alone = alone().await;
    let clone = clone();
    let architecture = run("uname -m | sed s/aarch64/arm64/");
    let mut values = [("$URL", String::new()), ("$ROOT_KEY", String::new())];
    for script in scripts("first-deployment.md") {
        let mut borrowed: Vec<(&str, &str)> =
            values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let guided = guided();
        borrowed.extend([("ARCHITECTURE", architecture.as_str()), ("sam deploy --guided", guided.as_str())]);
        let script = typed(&script.replace("NAME", "guided"), &borrowed);
        let printed = run_in(clone.path(), &script);
        if let Some(root_key) = printed.lines().find_map(|line| line.strip_prefix("root key")) {
            values[1].1 = root_key.trim().to_owned();
            let api = run(
                "aws cloudformation describe-stacks --stack-name guided --query \"Stacks[0].Outputs[?OutputKey=='ApiId'].OutputValue\" --output text",
            );
            let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("an endpoint");
            values[0].1 = format!("{endpoint}/_aws/execute-api/{api}/\\$default");
        }
        if script.contains("/api-auth/apps") {
            assert!(printed.contains(r#""apps":[]"#), "{printed}");
        }
    }
    run(
        "aws cloudformation delete-stack --stack-name guided && aws cloudformation wait stack-delete-complete --stack-name guided",
    );
}

/// `sam deploy --guided`, answered: the stack is `guided`, and the rest is left as it is offered.
fn guided() -> String {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("a template");
    let parameters =
        template.split("\nParameters:\n").nth(1).and_then(|rest| rest.split("\nRules:\n").next());
    let parameters = parameters.expect("parameters").lines();
    let parameters = parameters.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).count();
    let mut responses = vec!["guided", ""];
    responses.extend(vec![""; parameters]);
    // Confirm changes, let SAM make roles, keep the rollback; save, where, as which environment; deploy.
    responses.extend(["y", "y", "n", "y", "", "", "y"]);
    let responses: Vec<String> = responses.iter().map(|response| format!("'{response}'")).collect();
    format!("printf '%s\\n' {} | sam deploy --guided", responses.join(" "))
}

/// The version of the pepper by which the row of this credential is tagged.
fn version_of(table: &str, pk: &str, sk: &str) -> String {
    run(&format!(
        r#"aws dynamodb get-item --table-name {table} --key '{{"pk":{{"S":"{pk}"}},"sk":{{"S":"{sk}"}}}}' --query Item.pepper.N --output text"#
    ))
}

/// Rotates, lets the functions move rows as their roles permit, and re-peppers the rest, while requests are answered.
#[tokio::test(flavor = "multi_thread")]
async fn the_pepper_is_rotated_and_every_row_put_under_it() {
    let _alone = alone().await;
    let backend = backend();
    let slug = scenario::unique("pepper");
    backend.create_app(&slug).await;
    let secret = text(&backend.create_key(&slug, json!({"name": "used"})).await["secret"]);
    let unused = text(&backend.create_key(&slug, json!({"name": "unused"})).await["secret"]);
    let mut browser = backend.browser(&slug).await;
    let key = ApiKeyToken::parse(&secret).expect("a key").id.base62();
    let table = output("TableName");
    // Root keys that one function each is shown.
    let heirs: Vec<(Backend, String)> = ["manage", "tickets", "verify", "audit"]
        .map(|scope| {
            let created =
                run(&format!("keyward root-key create --stack {STACK} --name {scope} --scopes {scope}"));
            let id = Token::<RootKey>::parse(&created).expect("a root key").id.base62();
            (Backend::new(&backend.url, &created, backend.http.clone()), id)
        })
        .into();
    let before = version_of(&table, &format!("KEY#{key}"), "KEY");
    let [rotate, status, rotate_and_repepper, status_again] = &scripts("pepper.md")[..] else {
        panic!("other commands")
    };
    let operator = User::of("`keyward pepper`");
    let run = |script: &str| operator.run(&typed(script, &[]));

    run(rotate);
    let mut left: Vec<(String, &str)> =
        heirs.iter().map(|(_, id)| (format!("ROOTKEY#{id}"), "ROOTKEY")).collect();
    left.push((format!("KEY#{key}"), "KEY"));
    let started = Instant::now();
    while !left.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(240), "not moved: {left:?}");
        let [manage, tickets, verify, audit] = &heirs[..] else { panic!() };
        assert_eq!(backend.post("/v1/authz/check", check_body(&secret)).await.ok()["allowed"], true);
        assert_eq!(verify.0.post("/v1/authz/check", check_body(&secret)).await.ok()["allowed"], true);
        manage.0.get(&format!("/api-auth/apps/{slug}")).await.ok();
        tickets.0.ticket(&slug).await;
        audit.0.get(&format!("/api-auth/apps/{slug}/audit/logs")).await.ok();
        left.retain(|(pk, sk)| version_of(&table, pk, sk) == before);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    println!("{}", run(status));

    println!("{}", run(rotate_and_repepper));
    browser.get("/api-auth/session").await.is_error(401, "no_session");
    let counted = run(status_again);
    println!("{counted}");
    let earlier = counted.lines().filter(|line| line.contains("  earlier "));
    for line in earlier {
        assert_eq!(
            line.split_whitespace().nth(4),
            Some("0"),
            "no row is left under an earlier version: {counted}"
        );
    }
    for secret in [&secret, &unused] {
        assert_eq!(backend.post("/v1/authz/check", check_body(secret)).await.ok()["allowed"], true);
    }
    backend.delete(&format!("/api-auth/apps/{slug}")).await.ok();
    for (_, id) in heirs {
        let id = RootKeyId::from_base62(&id).expect("an id");
        crate::run(&format!("keyward root-key revoke --stack {STACK} {id}"));
    }
}
