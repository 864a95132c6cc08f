//! The table as such: where it is, and how a local one is made.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveSpecification,
};
use keyward_core::Clock;
use serde::Deserialize;

use crate::Error;

/// A DynamoDB table, not yet the peppers that make it a [`crate::Store`].
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    name: String,
    clock: Clock,
}

impl Table {
    /// The table of this name behind this client.
    pub fn new(client: Client, name: impl Into<String>, clock: Clock) -> Self {
        Self { client, name: name.into(), clock }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Creates the table in this shape unless it is there. Without its stream: nothing reads one locally, and an emulator
    /// may keep what nobody reads for ever.
    ///
    /// # Errors
    /// The store refuses, or a value of `shape` is not one of DynamoDB's.
    pub async fn create(&self, shape: &TableShape) -> Result<(), Error> {
        let tables = self.client.list_tables().send().await?;
        if tables.table_names().contains(&self.name) {
            return Ok(());
        }
        let mut request = self
            .client
            .create_table()
            .table_name(&self.name)
            .billing_mode(BillingMode::from(shape.billing_mode.as_str()));
        for attribute in &shape.attributes {
            request = request.attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name(&attribute.name)
                    .attribute_type(ScalarAttributeType::from(attribute.kind.as_str()))
                    .build()?,
            );
        }
        for element in &shape.key {
            request = request.key_schema(
                KeySchemaElement::builder()
                    .attribute_name(&element.name)
                    .key_type(KeyType::from(element.kind.as_str()))
                    .build()?,
            );
        }
        if let Err(error) = request.send().await {
            return Err(Error::Internal(DisplayErrorContext(error).to_string()));
        }
        self.client
            .update_time_to_live()
            .table_name(&self.name)
            .time_to_live_specification(
                TimeToLiveSpecification::builder()
                    .enabled(shape.ttl.enabled)
                    .attribute_name(&shape.ttl.attribute)
                    .build()?,
            )
            .send()
            .await?;
        Ok(())
    }
}

/// The shape of the table, as the properties of an `AWS::DynamoDB::Table` in CloudFormation give it.
#[derive(Debug, Clone, Deserialize)]
pub struct TableShape {
    #[serde(rename = "BillingMode")]
    billing_mode: String,
    #[serde(rename = "AttributeDefinitions")]
    attributes: Vec<Attribute>,
    #[serde(rename = "KeySchema")]
    key: Vec<KeyElement>,
    #[serde(rename = "TimeToLiveSpecification")]
    ttl: TimeToLive,
    #[serde(rename = "StreamSpecification")]
    stream: Stream,
}

impl TableShape {
    /// Whether these are its keys.
    pub(crate) fn has_keys(&self, key: &[KeySchemaElement], attributes: &[AttributeDefinition]) -> bool {
        key.len() == self.key.len()
            && self.key.iter().all(|wanted| {
                key.iter()
                    .any(|one| one.attribute_name() == wanted.name && one.key_type().as_str() == wanted.kind)
            })
            && self.attributes.iter().all(|wanted| {
                attributes.iter().any(|one| {
                    one.attribute_name() == wanted.name && one.attribute_type().as_str() == wanted.kind
                })
            })
    }

    /// The attribute that says when an item expires.
    pub(crate) fn ttl_attribute(&self) -> &str {
        &self.ttl.attribute
    }

    /// What its stream holds.
    pub(crate) fn stream(&self) -> &str {
        &self.stream.view_type
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Stream {
    #[serde(rename = "StreamViewType")]
    view_type: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Attribute {
    #[serde(rename = "AttributeName")]
    name: String,
    #[serde(rename = "AttributeType")]
    kind: String,
}

#[derive(Debug, Clone, Deserialize)]
struct KeyElement {
    #[serde(rename = "AttributeName")]
    name: String,
    #[serde(rename = "KeyType")]
    kind: String,
}

#[derive(Debug, Clone, Deserialize)]
struct TimeToLive {
    #[serde(rename = "AttributeName")]
    attribute: String,
    #[serde(rename = "Enabled")]
    enabled: bool,
}
