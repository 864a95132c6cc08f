//! The Lambda function `audit-query`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(audit_query::routes)
}
