//! The `keyward` command: running an installation locally.

pub mod dev;
pub mod embedded;
mod files;
mod template;

use axum::Router;
use keyward_http::Services;

/// All functions' routes together, as a local run serves them.
pub fn routes(services: &Services) -> Router<Services> {
    ticket_issuance::routes(services)
        .merge(ticket_exchange::routes(services))
        .merge(key_lifecycle::routes(services))
        .merge(verify::routes(services))
        .merge(audit_query::routes(services))
        .merge(hosted_page::routes(services))
}
