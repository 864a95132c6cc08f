//! Operators and a deployed stack, on an emulator: `keyward doctor` finds faults and says how to fix them, and the
//! commands of the runbooks do what the runbooks say.
//!
//! Needs the environment that `infra/local/deploy` writes, and the AWS and SAM command lines on the PATH.

mod doctor;
mod emulator;
mod permissions;
mod runbooks;

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use keyward_tests::process::{keyward, outside, workspace};
use tokio::sync::{Mutex, MutexGuard};

/// The name of the stack that `infra/local/deploy` deploys.
const STACK: &str = "keyward";

/// There is one stack: one test at a time changes it.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    assert!(
        env::var("AWS_ENDPOINT_URL").is_ok_and(|url| url.starts_with("http://127.0.0.1:")),
        "AWS_ENDPOINT_URL must name an emulator: these tests break what is deployed there"
    );
    ALONE.lock().await
}

/// Runs a line of shell at the top of the workspace.
fn shell(line: &str) -> Output {
    shell_in(workspace(), line)
}

/// Runs a script as an operator does, in this folder, who answers yes to each question.
fn shell_in(folder: &Path, script: &str) -> Output {
    let path =
        format!("{}:{}", keyward().parent().expect("a folder").display(), env::var("PATH").expect("a PATH"));
    let mut bash = outside("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("PATH", path);
    // What was compiled of these sources need not be compiled again in a clone of them.
    bash.env("CARGO_TARGET_DIR", workspace().join("target"));
    let streams = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = streams.spawn().expect("a shell");
    // Whatever asks nothing may end without having read it.
    let _ = running.stdin.take().expect("its input").write_all(&b"y\n".repeat(9));
    running.wait_with_output().expect("an end")
}

/// The output of a line of shell, which must succeed.
#[track_caller]
fn run(line: &str) -> String {
    run_in(workspace(), line)
}

/// The output of a script in this folder, which must succeed.
#[track_caller]
fn run_in(folder: &Path, script: &str) -> String {
    let Output { status, stdout, stderr } = shell_in(folder, script);
    let printed = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{script}: {printed}{}", String::from_utf8_lossy(&stderr));
    printed.trim().to_owned()
}

/// An output of the stack.
#[track_caller]
fn output(key: &str) -> String {
    output_of(STACK, key)
}

/// An output of this stack.
#[track_caller]
fn output_of(stack: &str, key: &str) -> String {
    run(&format!(
        "aws cloudformation describe-stacks --stack-name {stack} --query \"Stacks[0].Outputs[?OutputKey=='{key}'].OutputValue\" --output text"
    ))
}

/// The physical name of this logical resource.
#[track_caller]
fn physical(logical: &str) -> String {
    run(&format!(
        "aws cloudformation describe-stack-resource --stack-name {STACK} --logical-resource-id {logical} --query StackResourceDetail.PhysicalResourceId --output text"
    ))
}
