//! A connector under the AWS SDK that makes requests to DynamoDB and KMS fail, as networks and services do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use keyward_store::dynamodb_client;
use serde_json::{Value, json};

/// The fate of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is refused: nothing is sent.
    Refused,
    /// The connection breaks after the request was carried out, before the response is read.
    ResponseLost,
    /// The response takes so long.
    Slow(Duration),
    /// The service has no capacity left.
    Throttled,
    /// One item is asked for more than it can take.
    Hot,
    /// After so long, the request met another one's transaction.
    Contended(Duration),
    /// The service fails.
    Failed,
    /// The response is not from the service.
    Garbage,
    /// The caller's role does not permit it.
    Denied,
    /// The table's KMS key is disabled.
    KeyDisabled,
    /// A batch of reads is answered but for the last key of it, which is left to be asked for again.
    Unprocessed,
}

impl Fault {
    /// One of each kind that a store can have.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::ResponseLost,
        Self::Slow(Duration::from_secs(10)),
        Self::Throttled,
        Self::Failed,
        Self::Garbage,
        Self::KeyDisabled,
    ];
}

#[derive(Debug, Clone)]
struct Plan {
    operation: &'static str,
    /// The number of attempts that succeed first.
    after: usize,
    fault: Fault,
    left: usize,
}

/// The plan of which attempts fail, and how. Clones share it.
#[derive(Debug, Clone)]
pub struct Faults {
    inner: SharedHttpClient,
    plan: Arc<Mutex<Option<Plan>>>,
    operations: Arc<Mutex<Vec<String>>>,
}

impl Faults {
    /// Faults before this client; none yet.
    pub fn before(inner: SharedHttpClient) -> Self {
        Self { inner, plan: Arc::default(), operations: Arc::default() }
    }

    /// A client of DynamoDB as this configuration has it, with the time limits of production, and the faults before it; none
    /// yet.
    pub fn before_dynamodb(config: &SdkConfig) -> (Self, aws_sdk_dynamodb::Client) {
        let faults = Self::before(config.http_client().expect("an HTTP client"));
        let mut failing = config.to_builder().http_client(faults.clone());
        failing.set_timeout_config(None);
        (faults, dynamodb_client(&failing.build()))
    }

    /// The operations that were asked for since the last time this was asked, one for each attempt.
    pub fn take_operations(&self) -> Vec<String> {
        std::mem::take(&mut self.operations.lock().expect("a lock"))
    }

    /// After so many attempts of this operation, such as `UpdateItem`, or of any if it is empty, so many fail in this way,
    /// and no other.
    pub fn plan(&self, operation: &'static str, after: usize, fault: Fault, times: usize) {
        *self.plan.lock().expect("a lock") = Some(Plan { operation, after, fault, left: times });
    }

    /// Nothing fails any more.
    pub fn clear(&self) {
        *self.plan.lock().expect("a lock") = None;
    }

    fn next(&self, request: &HttpRequest) -> Option<Fault> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        self.operations.lock().expect("a lock").push(operation.to_owned());
        let mut plan = self.plan.lock().expect("a lock");
        let of_plan = |plan: &&mut Plan| plan.left > 0 && ["", operation].contains(&plan.operation);
        let plan = plan.as_mut().filter(of_plan)?;
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        plan.left -= 1;
        Some(plan.fault)
    }
}

impl HttpClient for Faults {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { inner, faults: self.clone() })
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    faults: Faults,
}

/// The response to a batch of reads, but for the last key of the request.
async fn without_the_last(asked: &Value, mut response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let body = ByteStream::new(body).collect().await.expect("a body").to_vec();
    let mut body: Value = serde_json::from_slice(&body).expect("an answer in JSON");
    let (table, request) =
        asked["RequestItems"].as_object().and_then(|tables| tables.iter().next()).expect("a table");
    let last = request["Keys"].as_array().and_then(|keys| keys.last()).expect("a key");
    if let Some(items) = body["Responses"][table].as_array_mut() {
        items.retain(|item| item["pk"] != last["pk"] || item["sk"] != last["sk"]);
    }
    body["UnprocessedKeys"] = json!({table.as_str(): {"Keys": [last], "ConsistentRead": true}});
    *response.body_mut() = SdkBody::from(body.to_string());
    Ok(response)
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Some(fault) = self.faults.next(&request) else { return self.inner.call(request) };
        let broken = || ConnectorError::io("the connection was reset".into());
        let response = |status: u16, body: &'static str| {
            let status = status.try_into().expect("a status");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
        };
        match fault {
            Fault::Refused => HttpConnectorFuture::ready(Err(broken())),
            Fault::Throttled => response(
                400,
                r#"{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "no more"}"#,
            ),
            Fault::Hot => response(
                400,
                r#"{"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "no more",
                    "throttlingReasons": [{"reason": "TableWriteKeyRangeThroughputExceeded", "resource": "arn"}]}"#,
            ),
            Fault::Contended(time) => {
                let conflict = response(
                    400,
                    r#"{"__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException", "message": "met another"}"#,
                );
                HttpConnectorFuture::new(async move {
                    tokio::time::sleep(time).await;
                    conflict.await
                })
            }
            Fault::Failed => response(500, r#"{"__type": "InternalServerError", "message": "it broke"}"#),
            Fault::Denied => {
                response(400, r#"{"__type": "AccessDeniedException", "message": "not permitted"}"#)
            }
            Fault::KeyDisabled => response(
                400,
                r#"{"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "KMS key access denied error: com.amazonaws.services.kms.model.DisabledException: arn:aws:kms:us-east-1:111122223333:key/1234abcd is disabled. (Service: AWSKMS; Status Code: 400; Error Code: DisabledException)"}"#,
            ),
            Fault::Garbage => response(502, "<html>Bad Gateway</html>"),
            Fault::Unprocessed => {
                let asked = serde_json::from_slice(request.body().bytes().unwrap_or_default());
                let asked: Value = asked.expect("a request in JSON");
                let carried_out = self.inner.call(request);
                HttpConnectorFuture::new(async move { without_the_last(&asked, carried_out.await?).await })
            }
            Fault::ResponseLost => {
                let carried_out = self.inner.call(request);
                HttpConnectorFuture::new(async move {
                    let _lost: HttpResponse = carried_out.await?;
                    Err(broken())
                })
            }
            Fault::Slow(time) => {
                let carried_out = self.inner.call(request);
                HttpConnectorFuture::new(async move {
                    let response = carried_out.await;
                    tokio::time::sleep(time).await;
                    response
                })
            }
        }
    }
}
