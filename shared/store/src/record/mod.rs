//! Records: the items of the table as they are stored, with a module for each type.
//!
//! An item names its `type` and, by a number, the `schema` of its attributes. The releases that use a table at the same time,
//! as during an upgrade or after a rollback, keep to this:
//! - A row fails closed. Each attribute that decides must be there, as NULL if it has no value: without it the row cannot be
//!   read, and is never less bounded. Those that only describe are left out where they have no value ([`Entity::OPTIONAL`]):
//!   every check reads them. Each module says which others may be absent, and why that opens nothing.
//! - A release reads the schemas up to its own and refuses a later one. So the number of a type is raised where an earlier
//!   release would take a row for less bound than it is; an attribute that binds nothing needs no new number.
//! - A change updates the attributes that it means ([`update`]), so that those survive that only a later release knows. What
//!   lies in a list or a map is written whole: there an unknown member makes the row unreadable.
//! - A schema that was released stays as it is. The next one gets its number, a step of [`Entity::upgrade`] from the one
//!   before, and rows of the one before in `fixtures/`.

mod app;
mod deployment;
mod event;
mod key;
mod pepper;
mod repepper;
mod root_key;
mod scheme;
mod session;
mod tag;
#[cfg(test)]
mod tests;
mod ticket;

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use keyward_core::audit::{MemberChange, MemberChanges};
use keyward_core::metric::Metric;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Error;
use crate::item::{Expression, Item, Key, key_of, number, string};

pub(crate) use app::AppBySlug;
pub(crate) use deployment::FirstDeployment;
pub(crate) use event::{event_json, event_of_json};
pub(crate) use pepper::RowCountRecord;
pub(crate) use repepper::{RepepperJob, Segment};
pub(crate) use tag::{set_tag, tag_of, tag_value, with_tag};

const TYPE: &str = "type";
const SCHEMA: &str = "schema";

/// Something that items of one type hold.
pub(crate) trait Entity: Sized {
    /// The type, as items name it.
    const TYPE: &'static str;
    /// The schema that this release writes; 0 is written as no number.
    const SCHEMA: u32 = 1;
    /// The attributes that only describe: one that is absent says nothing, and bounds nothing less.
    const OPTIONAL: &'static [&'static str] = &[];
    /// The attributes.
    type Record: Serialize + DeserializeOwned;

    /// The attributes that hold it.
    fn to_record(&self) -> Self::Record;

    /// The attributes.
    ///
    /// # Errors
    /// Why they cannot be what this release or an earlier one wrote.
    fn from_record(record: Self::Record) -> Result<Self, String>;

    /// The attributes that an event shows of a change, with those that say what is the default.
    fn shown(&self) -> Self::Record {
        self.to_record()
    }

    /// Makes the attributes of an item of the schema `from` those of the next one.
    fn upgrade(_item: &mut Item, _from: u32) {}
}

/// A row that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0} is not of the type '{1}'")]
    Type(String, &'static str),
    #[error(
        "{0} is of schema {1}, which a later release wrote; this one reads up to {2}: upgrade to that release"
    )]
    Schema(String, u32, u32),
    #[error("{0} is corrupt: {1}")]
    Attributes(String, String),
}

impl From<Unreadable> for Error {
    #[track_caller]
    fn from(error: Unreadable) -> Self {
        Self::internal(error.to_string())
    }
}

/// The item with this key that holds an entity.
pub(crate) fn item<E: Entity>(key: &Key, entity: &E) -> Result<Item, Error> {
    let mut item: Item = serde_dynamo::to_item(entity.to_record())?;
    item.extend(key.attributes());
    item.insert(TYPE.to_owned(), string(E::TYPE));
    if E::SCHEMA > 0 {
        item.insert(SCHEMA.to_owned(), number(E::SCHEMA));
    }
    Ok(item)
}

/// The entity that an item holds.
pub(crate) fn entity<E: Entity>(mut item: Item) -> Result<E, Unreadable> {
    // No entity has its key among its attributes, and only what cannot be read is named by it.
    let key = [item.remove("pk"), item.remove("sk")];
    let name = || {
        let text = |part: &Option<AttributeValue>| part.as_ref()?.as_s().ok().cloned();
        let [pk, sk] = key.each_ref().map(|part| text(part).unwrap_or_default());
        format!("{pk} / {sk}")
    };
    if item.get(TYPE).and_then(|kind| kind.as_s().ok()).map(String::as_str) != Some(E::TYPE) {
        return Err(Unreadable::Type(name(), E::TYPE));
    }
    let Some(schema) = schema_of(&item) else {
        return Err(Unreadable::Attributes(name(), "its schema is no number".into()));
    };
    if schema > E::SCHEMA {
        return Err(Unreadable::Schema(name(), schema, E::SCHEMA));
    }
    (schema..E::SCHEMA).for_each(|from| E::upgrade(&mut item, from));
    let record = serde_dynamo::from_item(item).map_err(|error| error.to_string());
    record.and_then(E::from_record).map_err(|problem| Unreadable::Attributes(name(), problem))
}

/// The entities of the items of a list. One that cannot be read is left out, and an operator is told of it.
pub(crate) fn readable<E: Entity>(items: impl IntoIterator<Item = Item>) -> impl Iterator<Item = E> {
    items.into_iter().filter_map(|item| {
        let metric = Metric::InternalErrors.name();
        entity(item).inspect_err(|error| tracing::error!(metric, %error, "a list leaves an item out")).ok()
    })
}

fn schema_of(item: &Item) -> Option<u32> {
    match item.get(SCHEMA) {
        None => Some(0),
        Some(schema) => schema.as_n().ok()?.parse().ok(),
    }
}

/// The update after which a stored item holds this entity: of the attributes that differ, and no other.
pub(crate) fn update<E: Entity>(
    stored: &Item,
    entity: &E,
    condition: Expression,
) -> Result<Expression, Error> {
    let key = key_of(stored).ok_or_else(|| Error::internal("an item without a key was read"))?;
    let wanted = item(&key, entity)?;
    let gone: Vec<&str> = (E::OPTIONAL.iter().copied())
        .filter(|name| !wanted.contains_key(*name) && stored.get(*name).is_some_and(|value| !value.is_null()))
        .collect();
    let mut wanted: Vec<(String, AttributeValue)> = wanted.into_iter().collect();
    wanted.retain(|(name, value)| stored.get(name) != Some(value));
    wanted.sort_by(|(one, _), (other, _)| one.cmp(other));
    let update = wanted.into_iter().fold(condition, |update, (name, value)| update.set(&name, value));
    Ok(gone.into_iter().fold(update, |update, name| update.remove(name)))
}

/// The members of an entity that a change made differ, as an event tells of them.
pub(crate) fn changes<E: Entity>(before: &E, after: &E) -> MemberChanges {
    /// Members that change with each change, or repeat another one.
    const OMITTED: [&str; 4] = ["revision", "updated_at", "any_permission", "any_resource"];
    let members = |entity: &E| {
        let mut members = match serde_json::to_value(entity.shown()) {
            Ok(Value::Object(members)) => members,
            _ => serde_json::Map::new(),
        };
        // The API has these members of an app one by one.
        if let Some(Value::Object(audit)) = members.remove("audit") {
            members.extend(audit.into_iter().map(|(name, value)| (format!("audit_{name}"), value)));
        }
        members
    };
    let (mut before, after) = (members(before), members(after));
    let mut pairs: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for (name, after) in after {
        let before = before.remove(&name).unwrap_or_default();
        pairs.insert(name, (before, after));
    }
    pairs.extend(before.into_iter().map(|(name, before)| (name, (before, Value::Null))));
    let changed = pairs
        .into_iter()
        .filter(|(name, (before, after))| before != after && !OMITTED.contains(&name.as_str()));
    changed.map(|(name, (before, after))| (name, MemberChange { before, after })).collect()
}

/// One attribute of an item.
pub(crate) fn attribute<T: DeserializeOwned>(item: &Item, name: &str) -> Result<T, Error> {
    let value = item.get(name).cloned();
    let value = value.ok_or_else(|| Error::internal(format!("an item has no '{name}'")))?;
    Ok(serde_dynamo::from_attribute_value(value)?)
}

/// Writes what schema 0 left out: NULL.
fn fill_with_null(item: &mut Item, names: &[&str]) {
    for name in names {
        item.entry((*name).to_owned()).or_insert(AttributeValue::Null(true));
    }
}

/// Writes what schema 0 left out: an empty list.
fn fill_with_empty_list(item: &mut Item, names: &[&str]) {
    for name in names {
        item.entry((*name).to_owned()).or_insert_with(|| AttributeValue::L(vec![]));
    }
}

/// An attribute that may be NULL and not be absent.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}
