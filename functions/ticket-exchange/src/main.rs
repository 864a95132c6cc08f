//! The Lambda function `ticket-exchange`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(ticket_exchange::routes)
}
