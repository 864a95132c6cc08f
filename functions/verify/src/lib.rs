//! Checks: whether a request that came with an API key is allowed, for one request or a batch.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod check;
mod response;

keyward_http::routes! {
    Backend { check::{check, check_batch} }
}
