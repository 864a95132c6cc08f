//! Calls of DynamoDB: counted, forbidden or made to fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::put_item::PutItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsOutput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use serde_json::Value;

use crate::Access;

/// One request to DynamoDB.
#[derive(Debug, Clone)]
pub struct Call {
    /// The function that made it; empty for the operator.
    pub function: &'static str,
    /// The operation, such as `GetItem`.
    pub operation: String,
    /// The request.
    pub sent: Value,
}

#[derive(Debug, Clone, Default)]
pub struct Calls {
    function: &'static str,
    created: Arc<Mutex<Vec<Call>>>,
    units: Arc<Mutex<Vec<f64>>>,
    put_units: Arc<Mutex<Vec<f64>>>,
    forbidden: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
    colliding: Arc<AtomicUsize>,
}

impl Calls {
    /// The same, for what this function sends: each of its calls must be one that `docs/data-model.md` grants it.
    pub fn of(&self, function: &'static str) -> Self {
        Self { function, ..self.clone() }
    }

    /// The calls since the last time this was asked.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.created.lock().expect("a lock"))
    }

    /// The units of each batch read, each query, and each update and transaction that asked for them, since the last time
    /// this was asked.
    pub fn take_units(&self) -> Vec<f64> {
        std::mem::take(&mut self.units.lock().expect("a lock"))
    }

    /// The units of each item that was put outside a transaction, likewise.
    pub fn take_put_units(&self) -> Vec<f64> {
        std::mem::take(&mut self.put_units.lock().expect("a lock"))
    }

    /// From now on a call panics.
    pub fn forbid(&self) {
        self.forbidden.store(true, Ordering::SeqCst);
    }

    /// The next so many transactions are not made, and answered as if others held the same items.
    pub fn collide(&self, times: usize) {
        self.colliding.store(times, Ordering::SeqCst);
    }

    /// From now on calls fail before they are sent, or do so no more.
    pub fn fail(&self, fail: bool) {
        self.failing.store(fail, Ordering::SeqCst);
    }
}

/// Marks the attempt that [`Calls::collide`] keeps from its table.
#[derive(Debug)]
struct Collides;

impl Storable for Collides {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_after_serialization(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        assert!(!self.forbidden.load(Ordering::SeqCst), "the store was reached");
        if self.failing.load(Ordering::SeqCst) {
            return Err("made to fail by a test".into());
        }
        let request = context.request();
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let call = Call {
            function: self.function,
            operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
            sent: serde_json::from_slice(body).unwrap_or_default(),
        };
        if !self.function.is_empty() {
            for access in Access::of(&call) {
                assert!(access.is_granted(), "docs/data-model.md does not grant {access:?}");
            }
        }
        self.created.lock().expect("a lock").push(call);
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        let transaction =
            headers.get("x-amz-target").is_some_and(|target| target.ends_with("TransactWriteItems"));
        let left = self.colliding.load(Ordering::SeqCst);
        config.interceptor_state().unset::<Collides>();
        if transaction && left > 0 {
            self.colliding.store(left - 1, Ordering::SeqCst);
            headers.insert("x-amz-target", "DynamoDB_20120810.Nothing");
            config.interceptor_state().store_put(Collides);
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if config.load::<Collides>().is_some() {
            let body = r#"{
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled",
                "CancellationReasons": [{"Code": "None"}, {"Code": "TransactionConflict"}]
            }"#;
            // Engines answer a call that there is not in ways of their own.
            let response = context.response_mut();
            *response.status_mut() = StatusCode::try_from(400_u16)?;
            response.headers_mut().remove("x-amzn-errortype");
            *response.body_mut() = body.into();
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Ok(output) = context.output_or_error() else {
            return Ok(());
        };
        if let Some(put) = output.downcast_ref::<PutItemOutput>() {
            let units = put.consumed_capacity().and_then(|table| table.capacity_units());
            self.put_units.lock().expect("a lock").extend(units);
        }
        let units = if let Some(read) = output.downcast_ref::<BatchGetItemOutput>() {
            read.consumed_capacity().iter().map(|table| table.capacity_units()).sum()
        } else if let Some(read) = output.downcast_ref::<QueryOutput>() {
            read.consumed_capacity().and_then(|table| table.capacity_units())
        } else if let Some(write) = output.downcast_ref::<UpdateItemOutput>() {
            write.consumed_capacity().and_then(|table| table.capacity_units())
        } else if let Some(write) = output.downcast_ref::<TransactWriteItemsOutput>() {
            Some(write.consumed_capacity().iter().filter_map(|table| table.capacity_units()).sum())
                .filter(|units| *units > 0.0)
        } else {
            None
        };
        self.units.lock().expect("a lock").extend(units);
        Ok(())
    }
}
