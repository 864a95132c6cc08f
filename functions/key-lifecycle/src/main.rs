//! The Lambda function `key-lifecycle`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(key_lifecycle::routes)
}
