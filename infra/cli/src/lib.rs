//! The `keyward` command: running an installation locally, and operating a deployed one.

pub mod audit;
pub mod dev;
mod dev_error;
pub mod doctor;
pub mod embedded;
mod files;
pub mod local_run;
pub mod operator;
pub mod peppers;
mod server;
pub mod set_up;
pub mod stack;
mod template;

use axum::Router;
use keyward_http::Route;
use keyward_runtime::Services;
pub use template::table_shape;

/// A function that has routes.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Makes its routes.
    pub routes: fn(&Services) -> Router<Services>,
    /// Its routes as their handlers declare them.
    pub declared_routes: fn() -> Vec<Route>,
}

macro_rules! functions {
    ($($function:ident: $name:literal),* $(,)?) => {
        /// The functions that have routes.
        pub const FUNCTIONS: &[Function] = &[$(Function {
            name: $name,
            routes: $function::routes,
            declared_routes: $function::declared_routes,
        }),*];
    };
}

functions! {
    ticket_issuance: "ticket-issuance",
    ticket_exchange: "ticket-exchange",
    key_lifecycle: "key-lifecycle",
    verify: "verify",
    audit_query: "audit-query",
    hosted_page: "hosted-page",
}

/// All functions' routes together, as a local run serves them.
pub fn routes(services: &Services) -> Router<Services> {
    FUNCTIONS.iter().fold(Router::new(), |all, function| all.merge((function.routes)(services)))
}
