//! The `keyward` command: running an installation locally, and operating a deployed one.

pub mod dev;
mod dev_error;
pub mod doctor;
pub mod embedded;
mod files;
pub mod operator;
pub mod peppers;
mod server;
pub mod set_up;
pub mod stack;
mod template;

use axum::Router;
use keyward_http::Services;
pub use template::table_shape;

/// Makes the routes of a function.
pub type Routes = fn(&Services) -> Router<Services>;

/// The functions that have routes, by name.
pub const FUNCTIONS: [(&str, Routes); 6] = [
    ("ticket-issuance", ticket_issuance::routes),
    ("ticket-exchange", ticket_exchange::routes),
    ("key-lifecycle", key_lifecycle::routes),
    ("verify", verify::routes),
    ("audit-query", audit_query::routes),
    ("hosted-page", hosted_page::routes),
];

/// All functions' routes together, as a local run serves them.
pub fn routes(services: &Services) -> Router<Services> {
    FUNCTIONS.iter().fold(Router::new(), |all, (_, routes)| all.merge(routes(services)))
}
