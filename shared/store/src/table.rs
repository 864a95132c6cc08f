//! The table as such: where it is, and how a local one is made.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use keyward_core::{Clock, Entropy};
use serde::Deserialize;

use crate::{Error, OperatorAccess};

/// A DynamoDB table, not yet the peppers that make it a [`crate::Store`].
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    name: String,
    clock: Clock,
    entropy: Entropy,
}

impl Table {
    /// The table of this name behind this client.
    pub fn new(client: Client, name: impl Into<String>, clock: Clock, entropy: Entropy) -> Self {
        Self { client, name: name.into(), clock, entropy }
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

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Creates the table in this shape, or what of it is not there yet: an attempt whose response was lost, or that was
    /// interrupted, is made up for. Without its stream: nothing reads one locally, and an emulator may keep what nobody reads
    /// forever.
    ///
    /// # Errors
    /// The store refuses, or a value of `shape` is not one of DynamoDB's.
    pub async fn create(&self, _operator: &OperatorAccess, shape: &TableShape) -> Result<(), Error> {
        let tables = self.client.list_tables().send().await?;
        if !tables.table_names().contains(&self.name) {
            self.create_keys(shape).await?;
        }
        self.enable_ttl(&shape.ttl).await
    }

    async fn create_keys(&self, shape: &TableShape) -> Result<(), Error> {
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
        match request.send().await {
            Err(error) if !is_there_already(&error) => {
                Err(Error::internal(DisplayErrorContext(error).to_string()))
            }
            _ => Ok(()),
        }
    }

    async fn enable_ttl(&self, ttl: &TimeToLive) -> Result<(), Error> {
        if !ttl.enabled || self.expires_by(&ttl.attribute).await? {
            return Ok(());
        }
        let wanted =
            TimeToLiveSpecification::builder().enabled(true).attribute_name(&ttl.attribute).build()?;
        let request = self.client.update_time_to_live().table_name(&self.name);
        match request.time_to_live_specification(wanted).send().await {
            // DynamoDB refuses to enable it twice, as a second attempt asks for.
            Err(_) if self.expires_by(&ttl.attribute).await? => Ok(()),
            enabled => enabled.map(drop).map_err(Error::from),
        }
    }

    /// Whether items are deleted at the time that this attribute of theirs names.
    pub(crate) async fn expires_by(&self, attribute: &str) -> Result<bool, Error> {
        let described = self.client.describe_time_to_live().table_name(&self.name).send().await?;
        Ok(described.time_to_live_description().is_some_and(|ttl| {
            ttl.attribute_name() == Some(attribute)
                && matches!(
                    ttl.time_to_live_status(),
                    Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
                )
        }))
    }
}

/// Whether a table of this name is there, as when an attempt before this one made it.
fn is_there_already(error: &SdkError<CreateTableError>) -> bool {
    error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception)
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

    /// The images that its stream holds.
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
