//! What is sent to DynamoDB: counted, forbidden or made to fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use serde_json::Value;

/// One request to DynamoDB.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation, such as `GetItem`.
    pub operation: String,
    /// What was sent.
    pub sent: Value,
}

#[derive(Debug, Clone, Default)]
pub struct Calls {
    made: Arc<Mutex<Vec<Call>>>,
    units: Arc<Mutex<Vec<f64>>>,
    forbidden: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
}

impl Calls {
    /// The calls since the last time this was asked.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.made.lock().expect("a lock"))
    }

    /// The read units of each batch read and each query since the last time this was asked.
    pub fn take_units(&self) -> Vec<f64> {
        std::mem::take(&mut self.units.lock().expect("a lock"))
    }

    /// From now on a call panics.
    pub fn forbid(&self) {
        self.forbidden.store(true, Ordering::SeqCst);
    }

    /// From now on calls fail before they are sent, or do so no more.
    pub fn fail(&self, fail: bool) {
        self.failing.store(fail, Ordering::SeqCst);
    }
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
            return Err("the store cannot be reached".into());
        }
        let request = context.request();
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        self.made.lock().expect("a lock").push(Call {
            operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
            sent: serde_json::from_slice(body).unwrap_or_default(),
        });
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
        let units = if let Some(read) = output.downcast_ref::<BatchGetItemOutput>() {
            read.consumed_capacity()
                .iter()
                .map(|table| table.capacity_units())
                .sum()
        } else if let Some(read) = output.downcast_ref::<QueryOutput>() {
            read.consumed_capacity().and_then(|table| table.capacity_units())
        } else {
            None
        };
        self.units.lock().expect("a lock").extend(units);
        Ok(())
    }
}
