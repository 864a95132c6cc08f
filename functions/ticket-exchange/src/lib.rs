//! The first requests of a browser: the exchange of a ticket, the session, the deployment; and the public keys.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod deployment;
mod health;
mod session;

keyward_http::routes! {
    Browser { session::{exchange, current}, deployment::{describe, jwk} }
    Public { deployment::{jwks}, health::{health} }
}
