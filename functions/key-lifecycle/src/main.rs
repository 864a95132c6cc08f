//! The Lambda function `key-lifecycle`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(key_lifecycle::routes).await
}
