//! The Lambda function `audit-query`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(audit_query::routes).await
}
