//! Checks: whether a request that came with an API key may go through; and the same of several at once.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod check;
mod response;

keyward_http::routes! {
    Backend { check::{check, check_batch} }
}
