//! The Lambda function `verify`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(verify::routes).await
}
