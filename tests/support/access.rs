//! The actions of functions on the table, and their grants in `docs/data-model.md`, in the terms of IAM.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::Call;

/// All functions, in the table of grants.
const EVERY: &str = "every function";

/// One action on one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    pub function: &'static str,
    /// Such as `GetItem`.
    pub action: String,
    /// A value of `pk`: what the condition key `dynamodb:LeadingKeys` holds.
    pub partition: String,
}

/// A permission: one action on the partitions that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// A function, or every one.
    pub function: String,
    /// Such as `GetItem`.
    pub action: String,
    /// A pattern as IAM's `StringLike` takes it.
    pub partitions: String,
}

/// The grants of `docs/data-model.md`.
pub static GRANTS: LazyLock<BTreeSet<Grant>> = LazyLock::new(|| {
    let row = Regex::new(r"(?m)^\| `?([a-z -]+?)`? \| `dynamodb:(\w+)` \| (`[^|]+`) \|").expect("a pattern");
    let quoted = Regex::new("`([^`]+)`").expect("a pattern");
    let page = include_str!("../../docs/data-model.md");
    let mut grants = BTreeSet::new();
    for row in row.captures_iter(page) {
        for partitions in quoted.captures_iter(&row[3]) {
            grants.insert(Grant {
                function: row[1].to_owned(),
                action: row[2].to_owned(),
                partitions: partitions[1].to_owned(),
            });
        }
    }
    grants
});

impl Grant {
    /// Whether it permits this.
    pub fn permits(&self, access: &Access) -> bool {
        (self.function == EVERY || self.function == access.function)
            && self.action == access.action
            && like(&self.partitions, &access.partition)
    }
}

/// IAM's `StringLike`: `*` is any text, `?` any one character.
fn like(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    let Some(first) = pattern.next() else { return text.is_empty() };
    let pattern = pattern.as_str();
    if first == '*' {
        return (0..=text.len()).any(|at| text.get(at..).is_some_and(|rest| like(pattern, rest)));
    }
    let mut text = text.chars();
    text.next().is_some_and(|next| (first == '?' || first == next) && like(pattern, text.as_str()))
}

impl Access {
    /// The actions that IAM sees in a call: one for each item of a transaction.
    pub fn of(call: &Call) -> Vec<Self> {
        let access = |action: &str, partition: &Value| Self {
            function: call.function,
            action: action.to_owned(),
            partition: partition.as_str().unwrap_or_else(|| panic!("no partition: {call:?}")).to_owned(),
        };
        let sent = &call.sent;
        let operation = call.operation.as_str();
        match operation {
            "GetItem" | "UpdateItem" | "DeleteItem" => vec![access(operation, &sent["Key"]["pk"]["S"])],
            "PutItem" => vec![access(operation, &sent["Item"]["pk"]["S"])],
            "Query" => {
                let values = sent["ExpressionAttributeValues"].as_object().expect("values");
                vec![access(operation, &values[":pk"]["S"])]
            }
            "BatchGetItem" => {
                let tables = sent["RequestItems"].as_object().expect("tables").values();
                let keys = tables.flat_map(|table| table["Keys"].as_array().expect("keys"));
                keys.map(|key| access(operation, &key["pk"]["S"])).collect()
            }
            "TransactWriteItems" => {
                let writes = sent["TransactItems"].as_array().expect("writes").iter();
                let writes = writes.flat_map(|write| write.as_object().expect("a write"));
                let single = writes.map(|(kind, write)| match kind.as_str() {
                    "Put" => access("PutItem", &write["Item"]["pk"]["S"]),
                    "ConditionCheck" => access("ConditionCheckItem", &write["Key"]["pk"]["S"]),
                    kind => access(&format!("{kind}Item"), &write["Key"]["pk"]["S"]),
                });
                single.collect()
            }
            _ => panic!("not a call that a function makes: {operation}"),
        }
    }

    /// Whether `docs/data-model.md` grants it.
    pub fn is_granted(&self) -> bool {
        GRANTS.iter().any(|grant| grant.permits(self))
    }
}
