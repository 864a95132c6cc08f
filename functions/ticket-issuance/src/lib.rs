//! Tickets: a backend that has authorized its user hands the user's browser one.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod tickets;

keyward_http::routes! {
    Backend { tickets::{issue} }
}
