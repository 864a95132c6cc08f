//! The API as `docs/openapi.json` describes it.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;

/// A route as the document describes it.
#[derive(Debug, Clone)]
pub struct Operation {
    pub method: Method,
    pub path: String,
    /// The credential that it takes, if any, and whether it can be asked for without one.
    pub credential: Option<Credential>,
    pub is_open: bool,
    /// The scopes or capabilities that the credential must have.
    pub scopes: Vec<String>,
    /// The content types of its body.
    pub bodies: Vec<String>,
    /// The parameters of its query.
    pub query: Vec<String>,
    /// The names of the members of its body, at any depth.
    pub members: BTreeSet<String>,
    /// The codes of its errors.
    pub errors: BTreeMap<u16, Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    RootKey,
    Session,
}

/// All routes.
pub fn operations() -> Vec<Operation> {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods").iter();
        methods.map(|(method, operation)| read(&document, method, path, operation))
    });
    all.collect()
}

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).expect("a document in JSON")
}

fn read(document: &Value, method: &str, path: &str, operation: &Value) -> Operation {
    let security = list(&operation["security"]).filter_map(Value::as_object);
    let named = security.clone().flatten().next();
    let credential = named.map(|(scheme, _)| match scheme.as_str() {
        "rootKey" => Credential::RootKey,
        "sessionCookie" => Credential::Session,
        other => panic!("{other}"),
    });
    let content = operation["requestBody"]["content"].as_object();
    let mut members = BTreeSet::new();
    for kind in content.into_iter().flat_map(|content| content.values()) {
        names(document, &kind["schema"], &mut members);
    }
    let query = list(&operation["parameters"]).filter(|parameter| parameter["in"] == "query");
    let responses = operation["responses"].as_object().expect("responses").iter();
    let errors = responses.filter_map(|(status, response)| {
        let status: u16 = status.parse().expect("a status");
        let schema = &resolved(document, response)["content"]["application/json"]["schema"];
        let codes = list(&schema["allOf"]).find_map(|part| part["properties"]["code"]["enum"].as_array())?;
        Some((status, codes.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
    });
    Operation {
        method: method.to_uppercase().parse().expect("a method"),
        path: path.to_owned(),
        credential,
        is_open: credential.is_none() || security.clone().any(serde_json::Map::is_empty),
        scopes: named.into_iter().flat_map(|(_, scopes)| list(scopes)).filter_map(owned).collect(),
        bodies: content.into_iter().flat_map(|content| content.keys().cloned()).collect(),
        query: query.filter_map(|parameter| owned(&parameter["name"])).collect(),
        members,
        errors: errors.collect(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> + Clone {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The target of a reference.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("what is referred to"),
        None => value,
    }
}

/// The names of members in a schema, at any depth.
fn names(document: &Value, schema: &Value, all: &mut BTreeSet<String>) {
    let schema = resolved(document, schema);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        all.insert(name.clone());
        names(document, member, all);
    }
    let parts = ["allOf", "oneOf", "anyOf"].into_iter().flat_map(|kind| list(&schema[kind]));
    for part in parts.chain(schema.get("items")) {
        names(document, part, all);
    }
}
