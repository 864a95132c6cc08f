//! Each thing that `keyward doctor` knows, broken; found, in one sentence; and mended by what the sentence says.

use serde_json::Value;

use crate::{STACK, alone, output, physical, run, shell};

/// The faults that `keyward doctor` reports, called for the emulator.
#[track_caller]
fn faults(environment: &str, arguments: &str) -> Vec<String> {
    let examined = shell(&format!("{environment} keyward doctor {arguments}"));
    let printed = String::from_utf8(examined.stdout).expect("text");
    let wrong = printed.lines().filter_map(|line| line.strip_prefix("WRONG  "));
    let faults: Vec<String> = wrong.map(str::to_owned).collect();
    assert_eq!(examined.status.code(), Some(i32::from(!faults.is_empty())), "{printed}");
    assert!(
        printed.lines().all(|line| line.starts_with("ok     ") || line.starts_with("WRONG  ")),
        "{printed}"
    );
    faults
}

#[track_caller]
fn of_stack() -> Vec<String> {
    faults("", &format!("--stack {STACK}"))
}

/// Requires that nothing is wrong any more.
#[track_caller]
fn is_well() {
    assert_eq!(of_stack(), Vec::<String>::new());
}

/// The commands that a sentence quotes.
fn commands(fault: &str) -> Vec<&str> {
    fault
        .split('\'')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.starts_with("aws ") || quoted.starts_with("keyward "))
        .collect()
}

/// Breaks something, and mends it as the sentence about this subject says, which must be the only one about it.
#[track_caller]
fn breaks(how: &str, subject: &str, saying: &str) {
    run(how);
    let faults = of_stack();
    let about: Vec<&String> =
        faults.iter().filter(|fault| fault.starts_with(&format!("{subject}: "))).collect();
    let [fault] = about.as_slice() else { panic!("{how}: {faults:#?}") };
    assert!(fault.contains(saying), "{fault}");
    let commands = commands(fault);
    assert!(!commands.is_empty(), "{fault}");
    for command in commands {
        run(command);
    }
    is_well();
}

#[tokio::test]
async fn the_table() {
    let _alone = alone().await;
    is_well();
    let table = output("TableName");
    let of_table =
        |command: &str, setting: &str| format!("aws dynamodb {command} --table-name {table} {setting}");
    breaks(
        &of_table("update-time-to-live", "--time-to-live-specification Enabled=false,AttributeName=purge_at"),
        "table",
        "do not expire",
    );
    breaks(
        &of_table(
            "update-continuous-backups",
            "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=false",
        ),
        "table",
        "no point-in-time recovery",
    );
    breaks(
        &of_table("update-table", "--no-deletion-protection-enabled"),
        "table",
        "not protected from deletion",
    );
    breaks(&of_table("update-table", "--stream-specification StreamEnabled=false"), "table", "no stream");
}

#[tokio::test]
async fn the_key() {
    let _alone = alone().await;
    is_well();
    let key = output("KeyArn");
    let of_key = |command: &str| format!("aws kms {command} --key-id {key}");
    breaks(&of_key("disable-key"), "key", "is Disabled");
    breaks(&of_key("disable-key-rotation"), "key", "is not rotated");
    breaks(&of_key("schedule-key-deletion --pending-window-in-days 7"), "key", "is scheduled for deletion");
}

#[tokio::test]
async fn a_permission_less_or_more() {
    let _alone = alone().await;
    is_well();
    let role = physical("VerifyRole");
    let document = run(&format!(
        "aws iam get-role-policy --role-name {role} --policy-name verify --query PolicyDocument --output json"
    ));
    let whole: Value = serde_json::from_str(&document).expect("a policy");
    let put = |policy: &Value| {
        run(&format!(
            "aws iam put-role-policy --role-name {role} --policy-name verify --policy-document '{policy}'"
        ));
    };
    let statement = |action: &str| {
        let statements = whole["Statement"].as_array().expect("statements");
        statements.iter().position(|of| of["Action"] == action).expect("a statement")
    };

    let mut less = whole.clone();
    less["Statement"].as_array_mut().expect("statements").remove(statement("dynamodb:PutItem"));
    put(&less);
    let lacking = format!(
        "permissions: the role {role} lacks dynamodb:PutItem of AUDIT#??????#??????#V?: restore the permissions that VerifyRole has in template.yaml"
    );
    assert_eq!(of_stack(), [lacking]);

    let mut fewer = whole.clone();
    let read = &mut fewer["Statement"][statement("dynamodb:BatchGetItem")];
    read["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
        .as_array_mut()
        .expect("patterns")
        .retain(|pattern| pattern != "APP#??????");
    put(&fewer);
    let [fault] = of_stack().try_into().expect("one fault");
    assert!(fault.contains("lacks dynamodb:BatchGetItem of APP#??????: "), "{fault}");

    let mut denied = whole.clone();
    let deny = serde_json::json!({"Effect": "Deny", "Action": "kms:*", "Resource": "*"});
    denied["Statement"].as_array_mut().expect("statements").push(deny);
    put(&denied);
    let [fault] = of_stack().try_into().expect("one fault");
    assert!(
        fault.starts_with(&format!("permissions: a policy denies kms:Decrypt to the role {role}")),
        "{fault}"
    );

    let mut more = whole.clone();
    let write = &mut more["Statement"][statement("dynamodb:PutItem")];
    write["Action"] = serde_json::json!(["dynamodb:PutItem", "dynamodb:BatchWriteItem"]);
    write["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] = "*".into();
    put(&more);
    let [fault] = of_stack().try_into().expect("one fault");
    assert!(fault.contains("permits dynamodb:BatchWriteItem, which its function does not need"), "{fault}");

    put(&whole);
    is_well();
}

#[tokio::test]
async fn a_parameter_changed_by_hand() {
    let _alone = alone().await;
    is_well();
    let name = format!("{STACK}-verify");
    let variables = run(&format!(
        "aws lambda get-function-configuration --function-name {name} --query Environment.Variables --output json"
    ));
    let set = |variables: &Value| {
        run(&format!(
            "aws lambda update-function-configuration --function-name {name} --environment '{{\"Variables\": {variables}}}'"
        ));
    };
    let mut changed: Value = serde_json::from_str(&variables).expect("variables");
    let whole = changed.clone();
    changed["KEYWARD_TABLE"] = "another".into();
    set(&changed);
    let faults = of_stack();
    let table = output("TableName");
    assert_eq!(
        faults[0],
        format!(
            "template: Environment.Variables.KEYWARD_TABLE of Verify was changed by hand to another: set it back to {table}"
        )
    );
    let [_, starts] = faults.as_slice() else { panic!("{faults:#?}") };
    assert!(starts.starts_with("verify: verify responds with 50"), "{starts}");
    assert!(starts.ends_with("find the reason in 'aws logs tail /aws/lambda/keyward-verify'"), "{starts}");

    changed.as_object_mut().expect("variables").remove("KEYWARD_TABLE");
    set(&changed);
    assert_eq!(
        of_stack()[0],
        format!(
            "template: Environment.Variables.KEYWARD_TABLE of Verify was removed by hand: set it back to {table}"
        )
    );
    set(&whole);
    is_well();
}

#[tokio::test]
async fn code_that_cannot_start() {
    let _alone = alone().await;
    is_well();
    let name = format!("{STACK}-audit-query");
    let folder = tempfile::tempdir().expect("a folder");
    let (built, sources) = (folder.path().join("built.zip"), folder.path().join("sources.zip"));
    let (built, sources) = (built.display(), sources.display());
    let location =
        run(&format!("aws lambda get-function --function-name {name} --query Code.Location --output text"));
    run(&format!("curl -sf -o {built} '{location}'"));
    run(&format!("python3 -m zipfile -c {sources} README.md"));
    let architecture = run(&format!(
        "aws lambda get-function-configuration --function-name {name} --query 'Architectures[0]' --output text"
    ));
    let other = if architecture == "arm64" { "x86_64" } else { "arm64" };
    let update = |package: &dyn std::fmt::Display, architecture: &str| {
        run(&format!(
            "aws lambda update-function-code --function-name {name} --zip-file fileb://{package} --architectures {architecture}"
        ));
    };
    let findings = || {
        let faults = of_stack();
        faults.into_iter().filter(|fault| fault.starts_with("code: ")).collect::<Vec<_>>()
    };

    update(&built, other);
    assert_eq!(
        findings(),
        [format!(
            "code: audit-query runs on {other}, and its code was built for {architecture}: build it with 'sam build --parameter-overrides Architecture={other}', or give it the Architecture {architecture}, and deploy it"
        )]
    );
    update(&sources, &architecture);
    assert_eq!(
        findings(),
        [
            "code: the code of audit-query contains no program 'bootstrap': run 'sam build' before 'sam deploy', or deploy the template of a release"
        ]
    );
    update(&built, &architecture);
    is_well();
}

#[tokio::test]
async fn wrong_parameters_of_the_stack() {
    let _alone = alone().await;
    is_well();
    let update = |parameter: &str| {
        run(&format!(
            "sam deploy --stack-name {STACK} --resolve-s3 --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --no-confirm-changeset --parameter-overrides {parameter}"
        ));
    };
    update("RestoredTable=another PublicUrl=http://127.0.0.1:9");
    let findings = faults("KEYWARD_URL=", &format!("--stack {STACK} --url http://127.0.0.1:9"));
    let find = |subject: &str| {
        let about = findings.iter().find(|fault| fault.starts_with(&format!("{subject}: ")));
        about.unwrap_or_else(|| panic!("nothing about {subject}: {findings:#?}")).clone()
    };
    assert_eq!(
        find("table"),
        "table: there is no table another: correct the parameter RestoredTable, or restore the table as docs/operations/restore.md says"
    );
    assert!(
        find("url").starts_with("url: http://127.0.0.1:9 does not respond (Connection refused"),
        "{findings:#?}"
    );
    assert!(find("url").contains("correct the parameter PublicUrl"), "{findings:#?}");
    assert!(!findings.iter().any(|fault| fault.starts_with("deployment: ")), "{findings:#?}");
    update("'RestoredTable=\"\" PublicUrl=\"\"'");
    is_well();
}

#[tokio::test]
async fn a_stack_that_was_never_initialised() {
    let _alone = alone().await;
    run(
        "sam deploy --stack-name fresh --resolve-s3 --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --no-confirm-changeset --parameter-overrides Architecture=$(uname -m | sed s/aarch64/arm64/)",
    );
    let url = run("echo $KEYWARD_URL | sed s,/execute-api/.*,/execute-api/,")
        + &run(
            "aws cloudformation describe-stacks --stack-name fresh --query \"Stacks[0].Outputs[?OutputKey=='ApiId'].OutputValue\" --output text",
        )
        + "/\\$default";
    let arguments = format!("--stack fresh --url \"{url}\"");
    let findings = faults("env -u KEYWARD_ROOT_KEY", &arguments);
    assert_eq!(
        findings[0],
        "deployment: the table holds no pepper, so no function can start: run 'keyward init --stack fresh'"
    );
    assert!(
        findings.len() > 5 && findings[1..].iter().all(|fault| fault.contains(" responds with 50")),
        "{findings:#?}"
    );

    // Only init makes what is missing.
    let listed = shell("keyward root-key list --stack fresh");
    assert_eq!(
        String::from_utf8_lossy(&listed.stderr),
        "keyward: the stack 'fresh' holds no deployment yet: run 'keyward init --stack fresh'\n"
    );
    assert_eq!(faults("env -u KEYWARD_ROOT_KEY", &arguments)[0], findings[0]);

    let first = run(commands(&findings[0])[0]);
    let root_key = first.lines().find_map(|line| line.strip_prefix("root key")).expect("a root key").trim();
    assert_eq!(faults(&format!("KEYWARD_ROOT_KEY={root_key}"), &arguments), Vec::<String>::new());
    let again = run("keyward init --stack fresh");
    assert!(again.contains("(created before;") && !again.contains(root_key), "{again}");
    let foreign = faults("", &arguments);
    let [foreign] = foreign.as_slice() else { panic!("{foreign:#?}") };
    assert!(
        foreign.starts_with("root key: this root key does not belong to the installation: create another"),
        "{foreign}"
    );
    run(
        "aws cloudformation delete-stack --stack-name fresh && aws cloudformation wait stack-delete-complete --stack-name fresh",
    );
}

#[tokio::test]
async fn no_stack_and_no_response() {
    let _alone = alone().await;
    assert_eq!(
        faults("", "--stack nowhere"),
        [
            "stack: there is no stack 'nowhere' here: deploy it with 'sam build && sam deploy --guided', or name another with --stack"
        ]
    );
    let [silent] = faults("AWS_ENDPOINT_URL=http://127.0.0.1:9", &format!("--stack {STACK}"))
        .try_into()
        .expect("one fault");
    assert!(silent.starts_with("stack: CloudFormation cannot describe the stack 'keyward' ("), "{silent}");
    assert!(silent.ends_with("): set the credentials and the region of its account"), "{silent}");
    let [foreign] = faults("", &format!("--stack {STACK} --url $AWS_ENDPOINT_URL/_ministack"))
        .try_into()
        .expect("one fault");
    assert!(foreign.starts_with("url: the server at http://127.0.0.1:"), "{foreign}");
}
