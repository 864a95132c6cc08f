//! The Lambda function `ticket-issuance`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(ticket_issuance::routes)
}
