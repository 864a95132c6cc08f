//! The permissions that `docs/operations/permissions.md` lists, each list as the policy of a user: what it is listed for works
//! with it, nothing in it goes unused, and nothing works with one action less.
//!
//! The emulator must enforce policies (`infra/local/deploy --auth`), and tells in its log what it permitted to a user.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{env, fs};

use keyward_tests::process::workspace;
use keyward_tests::{check_body, scenario, text};
use serde_json::{Value, json};

use crate::runbooks::{backend, scripts, typed};
use crate::{STACK, alone, output_of, physical, run, shell};

/// The policy below a heading of the page, of an operator of this stack.
fn policy(heading: &str, stack: &str) -> Value {
    let page = fs::read_to_string(workspace().join("docs/operations/permissions.md")).expect("a page");
    let section = page.split(&format!("\n## {heading}\n")).nth(1);
    let listed = section.and_then(|section| section.split("```json\n").nth(1)?.split("\n```").next());
    let listed = listed.unwrap_or_else(|| panic!("no policy below {heading}"));
    let account = run("aws sts get-caller-identity --query Account --output text");
    let deployed =
        shell(&format!("aws cloudformation describe-stacks --stack-name {stack}")).status.success();
    let mut values =
        vec![("ACCOUNT", account), ("REGION", run("echo $AWS_REGION")), ("NAME", stack.to_owned())];
    if deployed {
        let key = output_of(stack, "KeyArn").rsplit('/').next().map(str::to_owned);
        values.extend([("TABLE", output_of(stack, "TableName")), ("KEY", key.expect("a key's id"))]);
    }
    let listed = values.iter().fold(listed.to_owned(), |listed, (name, value)| listed.replace(name, value));
    serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{heading}: {error}: {listed}"))
}

/// The actions that a policy permits.
fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().expect("statements").iter();
    let listed = statements.flat_map(|statement| statement["Action"].as_array().expect("actions"));
    listed.map(|action| action.as_str().expect("an action").to_owned()).collect()
}

/// A policy without this action.
fn without(policy: &Value, action: &str) -> Value {
    let mut less = policy.clone();
    for statement in less["Statement"].as_array_mut().expect("statements") {
        let actions = statement["Action"].as_array_mut().expect("actions");
        actions.retain(|of| of != action);
        if actions.is_empty() {
            // A statement must permit something: this is in the list anyway.
            actions.push(json!("sts:GetCallerIdentity"));
        }
    }
    less
}

/// A user of the account, until this is dropped.
pub(crate) struct User {
    name: String,
    access_key: String,
    credentials: String,
}

impl User {
    /// A user with the permissions that are listed under this heading, for the deployed stack.
    pub(crate) fn of(heading: &str) -> Self {
        Self::with(&policy(heading, STACK))
    }

    fn with(policy: &Value) -> Self {
        let name = scenario::unique("operator");
        run(&format!("aws iam create-user --user-name {name}"));
        let created = run(&format!(
            "aws iam create-access-key --user-name {name} --query 'AccessKey.[AccessKeyId,SecretAccessKey]' --output text"
        ));
        let (access_key, secret) = created.split_once('\t').expect("an access key and its secret");
        let credentials =
            format!("export AWS_ACCESS_KEY_ID='{access_key}' AWS_SECRET_ACCESS_KEY='{secret}'\n");
        let user = Self { access_key: access_key.to_owned(), credentials, name };
        user.permit(policy);
        user
    }

    /// Permits what this policy does, and nothing else.
    fn permit(&self, policy: &Value) {
        run(&format!(
            "aws iam put-user-policy --user-name {} --policy-name listed --policy-document '{policy}'",
            self.name
        ));
    }

    /// The output of a script that this user runs, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        run(&format!("{}{script}", self.credentials))
    }

    /// Requires that a script fails for lack of any of these actions.
    #[track_caller]
    fn is_refused_without(&self, listed: &Value, needed: &[&str], script: &str, before_each: &str) {
        for action in needed {
            assert!(actions(listed).contains(*action), "{action} is not listed");
            run(before_each);
            self.permit(&without(listed, action));
            let refused = shell(&format!("{}{script}", self.credentials));
            assert!(!refused.status.success(), "{script} works without {action}");
        }
        self.permit(listed);
    }

    /// The actions that this user was permitted so far.
    fn used(&self) -> BTreeSet<String> {
        let log = env::var("EMULATOR_LOG").expect("EMULATOR_LOG, which infra/local/deploy sets");
        let log = fs::read_to_string(log).expect("the emulator's log");
        let permitted = format!("permitted {} ", self.access_key);
        log.lines().filter_map(|line| line.strip_prefix(&permitted)).map(str::to_owned).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let Self { name, access_key, .. } = self;
        shell(&format!(
            "aws iam delete-access-key --user-name {name} --access-key-id {access_key} && aws iam delete-user-policy --user-name {name} --policy-name listed && aws iam delete-user --user-name {name}"
        ));
    }
}

/// Runs a script with what is listed for it, of which nothing may go unused; and with each of these actions less.
fn needs_what_is_listed(heading: &str, stack: &str, script: &str, before_each: &str, needed: &[&str]) {
    let listed = policy(heading, stack);
    run(before_each);
    let user = User::with(&listed);
    user.run(script);
    assert_eq!(user.used(), actions(&listed), "what {heading} uses is what is listed");
    user.is_refused_without(&listed, needed, script, before_each);
}

/// A stack is deployed with what is listed for a deployment, set up and examined with what is listed for those.
#[tokio::test]
async fn a_deployment_its_first_root_key_and_its_examination() {
    let _alone = alone().await;
    let stack = "permitted";
    let deploy = format!(
        "sam deploy --stack-name {stack} --resolve-s3 --s3-prefix {stack} --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --no-confirm-changeset --no-fail-on-empty-changeset --parameter-overrides Architecture=$(uname -m | sed s/aarch64/arm64/) VerifyFunctionUrl=iam"
    );
    let listed = policy("A deployment", stack);
    let remove = format!(
        "aws cloudformation delete-stack --stack-name {stack}
        while aws cloudformation describe-stacks --stack-name {stack} >/dev/null 2>&1; do sleep 1; done"
    );
    let deployer = User::with(&listed);
    deployer.is_refused_without(&listed, &["iam:PassRole", "logs:CreateLogDelivery"], &deploy, &remove);
    run(&remove);
    deployer.run(&deploy);
    assert_eq!(deployer.used(), actions(&listed), "what a deployment uses is what is listed");

    let table = output_of(stack, "TableName");
    let empty = format!(
        "aws dynamodb scan --table-name {table} --query 'Items[].{{pk: pk, sk: sk}}' --output json | python3 -c \"import json, sys; print(json.dumps({{'{table}': [{{'DeleteRequest': {{'Key': key}}}} for key in json.load(sys.stdin)]}}))\" >target/rows.json
        grep -q Delete target/rows.json || exit 0
        aws dynamodb batch-write-item --request-items file://target/rows.json"
    );
    let every = actions(&policy("`keyward init`", stack));
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    let init = format!("keyward init --stack {stack}");
    needs_what_is_listed("`keyward init`", stack, &init, &empty, &every);

    run(&init);
    let api = output_of(stack, "ApiId");
    let doctor = format!(
        "env -u KEYWARD_ROOT_KEY keyward doctor --stack {stack} --url \"$AWS_ENDPOINT_URL/_aws/execute-api/{api}/\\$default\""
    );
    let some = [
        "cloudformation:DetectStackDrift",
        "dynamodb:DescribeContinuousBackups",
        "iam:SimulatePrincipalPolicy",
        "kms:Decrypt",
        "lambda:GetFunction",
        "logs:ListTagsForResource",
    ];
    needs_what_is_listed("`keyward doctor`", stack, &doctor, "true", &some);
    run(&remove);
}

#[tokio::test]
async fn root_keys() {
    let _alone = alone().await;
    let script = "keyward root-key create --stack NAME --name Permitted
        id=$(keyward root-key list --stack NAME | grep '  Permitted$' | head -n 1 | cut -d ' ' -f 1)
        keyward root-key revoke --stack NAME $id";
    let every = actions(&policy("`keyward root-key`", STACK));
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    needs_what_is_listed("`keyward root-key`", STACK, &typed(script, &[]), "true", &every);
}

/// The runbook's test covers the rest, which changes the table.
#[tokio::test]
async fn peppers() {
    let _alone = alone().await;
    let listed = policy("`keyward pepper`", STACK);
    let user = User::with(&listed);
    let status = format!("keyward pepper status --stack {STACK}");
    let to_count =
        ["cloudformation:DescribeStacks", "dynamodb:DescribeTable", "dynamodb:Query", "dynamodb:Scan"];
    user.is_refused_without(&listed, &to_count, &status, "true");
    user.is_refused_without(&listed, &["dynamodb:UpdateItem"], &status, "true");
    let rotate = format!("keyward pepper rotate --stack {STACK}");
    // A version that could be made but not unwrapped is there for the next call: that comes last.
    let to_make = ["kms:GenerateDataKeyWithoutPlaintext", "dynamodb:PutItem", "kms:Decrypt"];
    user.is_refused_without(&listed, &to_make, &rotate, "true");
}

/// The role of a function may not write events for a moment: they are in its log, from which the runbook's commands bring
/// them back.
#[tokio::test(flavor = "multi_thread")]
async fn refused_audit_events() {
    let _alone = alone().await;
    let backend = backend();
    let slug = scenario::unique("refused");
    backend.create_app(&slug).await;
    let secret = text(&backend.create_key(&slug, json!({})).await["secret"]);
    let role = physical("VerifyRole");
    let document = run(&format!(
        "aws iam get-role-policy --role-name {role} --policy-name verify --query PolicyDocument --output json"
    ));
    let whole: Value = serde_json::from_str(&document).expect("a policy");
    let mut less = whole.clone();
    less["Statement"].as_array_mut().expect("statements").retain(|of| of["Action"] != "dynamodb:PutItem");
    let put = |policy: &Value| {
        run(&format!(
            "aws iam put-role-policy --role-name {role} --policy-name verify --policy-document '{policy}'"
        ));
    };
    let check = async || {
        assert_eq!(backend.post("/v1/authz/check", check_body(&secret)).await.ok()["allowed"], true);
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    put(&less);
    check().await;
    put(&whole);
    // The emulator passes on what a function has logged when it is next called.
    check().await;
    let logged = async || {
        let log = backend.get(&format!("/api-auth/apps/{slug}/audit/logs")).await.ok();
        let rows = log["data"].as_array().expect("rows").iter();
        rows.filter(|row| row["action"] == "verification").count()
    };
    assert_eq!(logged().await, 1);

    let [restore] = &scripts("refused-writes.md")[..] else { panic!("one block of commands") };
    let script = format!("cd $(mktemp -d)\n{}", typed(restore, &[]));
    let listed = policy("`keyward audit replay`", STACK);
    let user = User::with(&listed);
    println!("{}", user.run(&script));
    assert_eq!(logged().await, 2);
    assert_eq!(user.used(), actions(&listed), "what it uses is what is listed");
    let every: Vec<String> = actions(&listed).into_iter().collect();
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    user.is_refused_without(&listed, &every, &script, "true");
    assert_eq!(logged().await, 2, "once");
}
