//! The Lambda function `ticket-exchange`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(ticket_exchange::routes).await
}
