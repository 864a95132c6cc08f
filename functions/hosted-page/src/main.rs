//! The Lambda function `hosted-page`.

fn main() -> Result<(), lambda_http::Error> {
    keyward_http::run(hosted_page::routes)
}
