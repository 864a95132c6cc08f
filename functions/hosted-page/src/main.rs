//! The Lambda function `hosted-page`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(hosted_page::routes).await
}
