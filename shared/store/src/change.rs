//! The one way to change what an installation holds, and to say so in its audit log.
//!
//! A change is one transaction: the event that tells of it, what it writes, and the conditions under which it is made, each
//! with the error that it means if it does not hold. So no change is made without its event, none halfway, and none from a
//! state other than the one that was read. What is to go with every change belongs here.
//!
//! Beside changes there are single items that concern no audit log: counters, last uses, tags, the peppers.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{ConditionCheck, Delete, Put, TransactWriteItem, Update};
use keyward_core::audit::Event;

use crate::events::{event_item, event_item_of_deployment};
use crate::item::{ATTEMPTS, Expression, Item, Key};
use crate::{Conflict, Error, Store, Table};

/// The reasons for which DynamoDB cancels a transaction that can be sent again: it meets others in an item, or comes when an
/// item has taken all that it can take.
pub(crate) const RETRYABLE: [&str; 3] =
    ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];

/// A change that is not committed yet.
#[must_use = "it is made by `commit`"]
pub(crate) struct Change<'t> {
    table: &'t Table,
    writes: Vec<Write>,
}

/// A part of a change.
struct Write {
    item: TransactWriteItem,
    /// That its condition does not hold, if it has one.
    refused: Option<Error>,
}

impl<'t> Change<'t> {
    /// A change that this event tells of. It may be all of it, as where something was refused.
    pub(crate) fn new(store: &'t Store, event: &Event) -> Result<Self, Error> {
        let change = Self { table: store.table(), writes: vec![] }.put(event_item(event)?)?;
        match event_item_of_deployment(event)? {
            Some(copy) => change.put(copy),
            None => Ok(change),
        }
    }

    /// An item is written whose key must be free.
    pub(crate) fn create(self, item: Item, taken: Error) -> Result<Self, Error> {
        self.put_if(item, Expression::condition("attribute_not_exists(pk)"), Some(taken))
    }

    /// An item is written in any case.
    pub(crate) fn put(self, item: Item) -> Result<Self, Error> {
        self.put_if(item, Expression::default(), None)
    }

    fn put_if(mut self, item: Item, on: Expression, refused: Option<Error>) -> Result<Self, Error> {
        let put = Put::builder()
            .table_name(self.table.name())
            .set_item(Some(item))
            .set_expression_attribute_names(on.names())
            .set_expression_attribute_values(on.values())
            .set_condition_expression(on.condition)
            .build()?;
        self.writes.push(Write { item: TransactWriteItem::builder().put(put).build(), refused });
        Ok(self)
    }

    /// An item is updated, on the condition of the expression.
    pub(crate) fn update(mut self, key: &Key, on: Expression, refused: Error) -> Result<Self, Error> {
        let update = Update::builder()
            .table_name(self.table.name())
            .set_key(Some(key.attributes()))
            .set_update_expression(on.update())
            .set_expression_attribute_names(on.names())
            .set_expression_attribute_values(on.values())
            .set_condition_expression(on.condition)
            .build()?;
        let item = TransactWriteItem::builder().update(update).build();
        self.writes.push(Write { item, refused: Some(refused) });
        Ok(self)
    }

    /// An item is deleted, on the condition of the expression.
    pub(crate) fn delete_if(mut self, key: &Key, on: Expression, refused: Error) -> Result<Self, Error> {
        let delete = Delete::builder()
            .table_name(self.table.name())
            .set_key(Some(key.attributes()))
            .set_expression_attribute_names(on.names())
            .set_expression_attribute_values(on.values())
            .set_condition_expression(on.condition)
            .build()?;
        let item = TransactWriteItem::builder().delete(delete).build();
        self.writes.push(Write { item, refused: Some(refused) });
        Ok(self)
    }

    /// An item is deleted, if it is there.
    pub(crate) fn delete(mut self, key: &Key) -> Result<Self, Error> {
        let delete =
            Delete::builder().table_name(self.table.name()).set_key(Some(key.attributes())).build()?;
        self.writes.push(Write { item: TransactWriteItem::builder().delete(delete).build(), refused: None });
        Ok(self)
    }

    /// Another item must be as this condition says.
    pub(crate) fn require(mut self, key: &Key, on: Expression, refused: Error) -> Result<Self, Error> {
        let check = ConditionCheck::builder()
            .table_name(self.table.name())
            .set_key(Some(key.attributes()))
            .set_expression_attribute_names(on.names())
            .set_expression_attribute_values(on.values())
            .set_condition_expression(on.condition)
            .build()?;
        let item = TransactWriteItem::builder().condition_check(check).build();
        self.writes.push(Write { item, refused: Some(refused) });
        Ok(self)
    }

    /// Commits the change, trying again while others hold the same items.
    ///
    /// # Errors
    /// That of the first condition that does not hold, in the order in which they were named; the store fails. Nothing was
    /// changed.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let items: Vec<TransactWriteItem> = self.writes.iter().map(|write| write.item.clone()).collect();
        let mut idempotency = self.table.request_token()?;
        for attempt in 0..ATTEMPTS {
            let sent = self
                .table
                .client()
                .transact_write_items()
                .client_request_token(&idempotency)
                .set_transact_items(Some(items.clone()))
                .send()
                .await;
            let Err(error) = sent else { return Ok(()) };
            match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    let reasons = cancelled.cancellation_reasons();
                    let mut refused = reasons
                        .iter()
                        .zip(&self.writes)
                        .filter(|(reason, _)| reason.code() == Some("ConditionalCheckFailed"));
                    if let Some((_, write)) = refused.next() {
                        return Err(write.refused.clone().unwrap_or_else(|| error.into()));
                    }
                    if !reasons.iter().any(|r| r.code().is_some_and(|code| RETRYABLE.contains(&code))) {
                        return Err(error.into());
                    }
                    idempotency = self.table.request_token()?;
                }
                // An earlier attempt whose response was lost is still being made: asked again by the same token, it is
                // told how that one ended.
                Some(service) if service.code() == Some("TransactionInProgressException") => {}
                _ => return Err(error.into()),
            }
            self.table.pause(attempt).await?;
        }
        Err(Error::unavailable("a transaction kept colliding with others"))
    }
}

/// That a random id was taken, which a second attempt with another one will not find.
pub(crate) fn id_taken() -> Error {
    Error::Conflict(Conflict::CredentialIdTaken)
}
