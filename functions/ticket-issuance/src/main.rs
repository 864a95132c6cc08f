//! The Lambda function `ticket-issuance`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(ticket_issuance::routes).await
}
