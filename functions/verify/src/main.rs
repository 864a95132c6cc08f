//! The Lambda function `verify`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(verify::routes)
}
