//! The tag of a credential, which the items of all four kinds have beside their own attributes.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use keyward_core::hashing::{PepperVersion, Tag};

use crate::Error;
use crate::item::{Expression, Item, number};

pub(crate) fn with_tag(mut item: Item, tag: &Tag) -> Item {
    item.insert("tag".to_owned(), tag_value(tag));
    item.insert("pepper".to_owned(), number(tag.version));
    item.extend(layers_value(tag).map(|layers| ("peppers_beneath".to_owned(), layers)));
    item
}

pub(crate) fn tag_value(tag: &Tag) -> AttributeValue {
    AttributeValue::B(Blob::new(tag.bytes.clone()))
}

/// The update with which an item gets another tag.
pub(crate) fn set_tag(update: Expression, tag: &Tag) -> Expression {
    let update = update.set("tag", tag_value(tag)).set("pepper", number(tag.version));
    match layers_value(tag) {
        Some(layers) => update.set("peppers_beneath", layers),
        None => update.remove("peppers_beneath"),
    }
}

/// The attribute `peppers_beneath`, for the tag of a tag.
fn layers_value(tag: &Tag) -> Option<AttributeValue> {
    let layers = || AttributeValue::L(tag.layers.iter().map(number).collect());
    (!tag.layers.is_empty()).then(layers)
}

pub(crate) fn tag_of(item: &Item) -> Result<Tag, Error> {
    let bytes = item.get("tag").and_then(|value| value.as_b().ok());
    let version = item.get("pepper").and_then(version_of);
    let layers = match item.get("peppers_beneath") {
        None => Some(vec![]),
        Some(list) => list.as_l().ok().and_then(|list| list.iter().map(version_of).collect()),
    };
    match (bytes, version, layers) {
        (Some(bytes), Some(version), Some(layers)) => {
            Ok(Tag { version, layers, bytes: bytes.as_ref().to_vec() })
        }
        _ => Err(Error::internal("a credential's item has no tag")),
    }
}

fn version_of(value: &AttributeValue) -> Option<PepperVersion> {
    value.as_n().ok()?.parse().ok().map(PepperVersion)
}
