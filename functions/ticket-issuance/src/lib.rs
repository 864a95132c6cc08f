//! Tickets, which a backend gives to the browser of a user that it has authorized.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod tickets;

keyward_http::routes! {
    Backend { tickets::{issue} }
}
