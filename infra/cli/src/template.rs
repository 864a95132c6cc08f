//! The parts of `template.yaml` that this command reads, so that they are described once: the table's shape, and the
//! functions' permissions.

use std::collections::{BTreeMap, HashMap};

use keyward_store::TableShape;
use serde::Deserialize;
use serde_json::Value;

const TEMPLATE: &str = include_str!("../../../template.yaml");

#[derive(Deserialize)]
struct Template<R> {
    #[serde(rename = "Resources")]
    resources: R,
}

#[derive(Deserialize)]
struct OnlyTable {
    #[serde(rename = "Table")]
    table: Resource<TableShape>,
}

#[derive(Deserialize)]
struct Resource<P> {
    #[serde(rename = "Properties")]
    properties: P,
}

/// The shape that the template gives the table.
///
/// # Errors
/// The template is not YAML, or its table lacks something that a local one needs.
pub fn table_shape() -> Result<TableShape, serde_saphyr::Error> {
    let template: Template<OnlyTable> = serde_saphyr::from_str(TEMPLATE)?;
    Ok(template.resources.table.properties)
}

/// The role of a function, and all that it permits.
#[derive(Debug)]
pub(crate) struct Role {
    /// Its name in the template.
    pub(crate) name: String,
    pub(crate) statements: Vec<Statement>,
}

/// A statement of a policy, with CloudFormation's functions as what they are applied to: `Key.Arn`.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) actions: Vec<String>,
    pub(crate) resource: String,
    pub(crate) context: Vec<Condition>,
}

/// A key of a condition, with values that meet it.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    /// Whether a request can have several of them.
    pub(crate) is_set: bool,
}

/// The properties of roles and of managed policies; of other resources nothing is read.
#[derive(Deserialize)]
struct Policies {
    #[serde(rename = "PolicyDocument")]
    document: Option<Document>,
    #[serde(rename = "ManagedPolicyArns", default)]
    managed: Vec<Value>,
    #[serde(rename = "Policies", default)]
    inline: Vec<Inline>,
}

#[derive(Deserialize)]
struct Inline {
    #[serde(rename = "PolicyDocument")]
    document: Document,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Statement")]
    statements: Vec<RawStatement>,
}

#[derive(Deserialize)]
struct RawStatement {
    #[serde(rename = "Action")]
    actions: OneOrMore,
    #[serde(rename = "Resource")]
    resource: String,
    #[serde(rename = "Condition", default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMore>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

impl From<RawStatement> for Statement {
    fn from(raw: RawStatement) -> Self {
        // A condition on a key's presence is met by any value.
        let conditions = raw.condition.into_iter().filter(|(operator, _)| operator != "Null");
        Self {
            actions: raw.actions.into_vec(),
            resource: raw.resource,
            context: conditions
                .flat_map(|(operator, keys)| {
                    let is_set = operator.starts_with("ForA");
                    keys.into_iter().map(move |(key, values)| Condition {
                        key,
                        values: values.into_vec(),
                        is_set,
                    })
                })
                .collect(),
        }
    }
}

/// The roles that the template gives the functions.
///
/// # Errors
/// The template is not YAML, or a role is not as this reads one.
pub(crate) fn roles() -> Result<Vec<Role>, serde_json::Error> {
    let template: Template<BTreeMap<String, Value>> =
        serde_saphyr::from_str(TEMPLATE).map_err(serde::de::Error::custom)?;
    let mut managed: HashMap<String, Vec<Statement>> = HashMap::new();
    let mut roles = Vec::new();
    for (name, resource) in template.resources {
        let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "AWS::IAM::ManagedPolicy" | "AWS::IAM::Role") {
            continue;
        }
        let Resource { properties } = serde_json::from_value::<Resource<Policies>>(resource)?;
        if let Some(document) = properties.document {
            managed.insert(name, document.statements.into_iter().map(Statement::from).collect());
        } else {
            roles.push((name, properties));
        }
    }
    let with_managed = |(name, properties): (String, Policies)| {
        let attached = properties.managed.iter().filter_map(|policy| managed.get(policy.as_str()?)).flatten();
        let mut statements: Vec<Statement> = attached.cloned().collect();
        let inline = properties.inline.into_iter().flat_map(|policy| policy.document.statements);
        statements.extend(inline.map(Statement::from));
        Role { name, statements }
    };
    Ok(roles.into_iter().map(with_managed).collect())
}
