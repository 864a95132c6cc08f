//! The page on which a customer manages the keys of one app, reached by a one-time ticket; and what the
//! API says of itself.
//!
//! It is static: all that it shows, its script asks of the browsers' routes. It has neither inline script nor inline
//! style, so that its content security policy can forbid both.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod errors;
mod openapi;
mod page;

keyward_http::routes! {
    Public { page::{show, script, style}, openapi::{document}, errors::{explain} }
}
