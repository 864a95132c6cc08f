//! The page on which a customer manages the keys of one app, reached by a one-time ticket; and the
//! documentation of the API.
//!
//! It is static: its script gets the data from the frontend API. It has neither inline script nor inline
//! style, so that its content security policy can forbid both.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod errors;
mod openapi;
mod page;

keyward_http::routes! {
    Public { page::{show, script, style}, openapi::{document}, errors::{explain} }
}
