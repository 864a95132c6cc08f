//! `keyward doctor`: what is missing or wrong in an installation, each in a sentence that says how to fix it. It
//! changes nothing.

mod code;
mod drift;
mod functions;
mod permissions;

use std::path::Path;
use std::sync::Arc;

use aws_sdk_cloudformation::types::StackStatus;
use keyward_pepper::{KeyFault, KeyProvider, PepperError};
use keyward_store::{OpenError, OperatorAccess, Store, Table, TableFault};

use crate::files;
use crate::stack::{Stack, StackError};
use crate::template;

/// A finding about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The thing that was looked at: `table`, `key`, the name of a function.
    pub subject: &'static str,
    /// The state, if it is well, or the fault and how to fix it.
    pub outcome: Result<String, String>,
}

/// Reports findings as they are made.
pub struct Examination<'a> {
    report: &'a mut dyn FnMut(&Finding),
    faults: usize,
}

impl<'a> Examination<'a> {
    /// An examination that passes its findings to `report`.
    pub fn new(report: &'a mut dyn FnMut(&Finding)) -> Self {
        Self { report, faults: 0 }
    }

    /// The number of faults.
    pub fn faults(&self) -> usize {
        self.faults
    }

    fn find(&mut self, subject: &'static str, outcome: Result<String, String>) {
        self.faults += usize::from(outcome.is_err());
        (self.report)(&Finding { subject, outcome });
    }

    /// Reports each fault, or that there is none.
    fn record_all<F: ToString>(
        &mut self,
        subject: &'static str,
        faults: Result<Vec<F>, String>,
        well: impl FnOnce() -> String,
    ) {
        match faults {
            Ok(faults) if faults.is_empty() => self.find(subject, Ok(well())),
            Ok(faults) => faults.iter().for_each(|fault| self.find(subject, Err(fault.to_string()))),
            Err(unknown) => self.find(subject, Err(unknown)),
        }
    }

    /// Examines the local run that has its data in this folder.
    pub async fn local(&mut self, folder: &Path) {
        let Some(dev) = files::read_dev_json(folder) else {
            let missing = format!(
                "there is no dev.json in {}: start an installation with 'keyward dev', name its folder with --data-dir, or name a stack with --stack",
                folder.display()
            );
            return self.find("dev.json", Err(missing));
        };
        self.find("dev.json", Ok(format!("names {}", dev.url)));
        let reached = functions::Endpoint {
            url: &dev.url,
            root_key: Some(&dev.root_key),
            fix: "restart it with 'keyward dev'".to_owned(),
            log: functions::Log::OfTheProcess,
            sample: false,
        };
        self.functions(&reached).await;
    }

    /// Examines the installation of this stack, in the account and region of the environment. `url` is where it is
    /// reached, if that is not what the stack says.
    pub async fn stack(&mut self, name: &str, url: Option<&str>, root_key: Option<&str>) {
        let stack = match Stack::find(name).await {
            Ok(stack) => stack,
            Err(error) => return self.find("stack", Err(error.to_string())),
        };
        self.status(&stack);
        let resources = match stack.resources().await {
            Ok(resources) => resources,
            Err(error) => return self.find("stack", Err(error.to_string())),
        };
        let drift = drift::faults(&stack).await;
        self.record_all("template", drift, || "nothing was changed by hand".to_owned());
        let permissions = permissions::faults(&stack, &resources).await;
        self.record_all("permissions", permissions, || {
            "the roles permit what their functions need, and no more".to_owned()
        });
        let code = code::faults(&stack).await;
        self.record_all("code", code, || "each function's code matches its processor".to_owned());
        let (table, key) = (self.table(&stack).await, self.key(&stack).await);
        if table && key {
            let first = first_deployment(stack.table(), stack.key_provider(), name).await;
            self.find("deployment", first);
        }
        let reached = functions::Endpoint {
            url: url.unwrap_or(&stack.url),
            root_key,
            fix: "point the DNS of DomainName at the output DomainTarget, correct the parameter PublicUrl, or pass the URL that reaches it from here with --url".to_owned(),
            log: functions::Log::OfStack(name),
            sample: resources.contains_key("SampleRouteToSample"),
        };
        self.functions(&reached).await;
    }

    fn status(&mut self, stack: &Stack) {
        let outcome = match &stack.status {
            StackStatus::CreateComplete | StackStatus::UpdateComplete | StackStatus::ImportComplete => {
                Ok(format!("{} is {}", stack.name, stack.status))
            }
            StackStatus::UpdateRollbackComplete => Err(format!(
                "the last update of {0} failed and was rolled back: see why with 'aws cloudformation describe-stack-events --stack-name {0}', and deploy again",
                stack.name
            )),
            StackStatus::UpdateRollbackFailed | StackStatus::UpdateFailed => Err(format!(
                "an update of {0} failed and could not be rolled back ({1}): continue with 'aws cloudformation continue-update-rollback --stack-name {0}', and deploy again",
                stack.name, stack.status
            )),
            status => Err(StackError::Busy(stack.name.clone(), status.clone()).to_string()),
        };
        self.find("stack", outcome);
    }

    /// Whether the table can be read.
    async fn table(&mut self, stack: &Stack) -> bool {
        let faults = match template::table_shape() {
            Ok(shape) => {
                let faults = stack.table().faults(&OperatorAccess::assume(), &shape).await;
                faults.map_err(|error| unknown("the table", "dynamodb:Describe*", &error))
            }
            Err(error) => Err(error.to_string()),
        };
        let other = |fault: &TableFault| matches!(fault, TableFault::Missing(_) | TableFault::Keys(_));
        let readable = faults.as_ref().is_ok_and(|faults| !faults.iter().any(other));
        self.record_all("table", faults, || format!("{} is as this release needs it", stack.table_name));
        readable
    }

    /// Whether the KMS key can be used.
    async fn key(&mut self, stack: &Stack) -> bool {
        let faults = stack.key_provider().faults().await;
        let actions = "kms:DescribeKey and kms:GetKeyRotationStatus";
        let faults = faults.map_err(|error| unknown("the KMS key", actions, &error));
        let of_rotation = |fault: &KeyFault| matches!(fault, KeyFault::NotRotated(_));
        let usable = faults.as_ref().is_ok_and(|faults| faults.iter().all(of_rotation));
        self.record_all("key", faults, || format!("{} is enabled and rotated", stack.key_arn));
        usable
    }

    async fn functions(&mut self, reached: &functions::Endpoint<'_>) {
        for (function, outcome) in functions::probe(reached).await {
            self.find(function, outcome);
        }
    }
}

/// The installation's first deployment, read as the functions read it when they start.
async fn first_deployment(
    table: Table,
    provider: Arc<dyn KeyProvider>,
    stack: &str,
) -> Result<String, String> {
    let no_table = |error| unknown("the table", "dynamodb:Query and dynamodb:GetItem", &error);
    let init = format!("run 'keyward init --stack {stack}'");
    let peppers = table.peppers(&OperatorAccess::assume()).await.map_err(no_table)?;
    Store::open(table.clone(), provider).await.map_err(|error| match error {
        OpenError::Pepper(PepperError::Missing) => {
            format!("the table holds no pepper, so no function can start: {init}")
        }
        OpenError::Pepper(PepperError::Foreign(version)) => format!(
            "pepper {version} was not created for the stack {stack}, so no function can start: let RestoredTable name a table that was restored from this stack's own"
        ),
        OpenError::Pepper(error) => unknown("a pepper", "kms:Decrypt", &error),
        OpenError::Store(error) => no_table(error),
    })?;
    let live = peppers.iter().filter(|pepper| pepper.wrapped.is_some()).count();
    match table.public_access().await.map_err(no_table)? {
        Some(public) => {
            let peppers = if live == 1 { "pepper" } else { "peppers" };
            Ok(format!("{} is ready, with {live} {peppers}", public.deployment_id()))
        }
        None => Err(format!("the table holds no deployment, so no function can start: {init}")),
    }
}

/// That something could not be examined.
fn unknown(what: &str, actions: &str, error: &dyn std::fmt::Display) -> String {
    format!("{what} cannot be checked ({error}): run this with credentials that permit {actions}")
}
