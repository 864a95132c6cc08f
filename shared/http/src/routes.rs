//! Routes, each declared once: at its handler, by [`utoipa::path`].
//!
//! The declaration has the method, the path, the request and response, and the scope or the capability that it needs.
//! [`routes!`](crate::routes!) turns it into both the route of a function and its description in the OpenAPI document. The
//! code of the description is only called to write that document: functions neither run nor contain it.

use axum::Router;
use axum::routing::MethodFilter;
use keyward_runtime::Services;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::{RefOr, Schema};

use crate::{backend, frontend};

/// For whom a route is, which decides how values and errors look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Servers with a root key.
    Backend,
    /// Pages, most of them with a session.
    Browser,
    /// Anybody, without a credential.
    Public,
}

impl Audience {
    /// Makes routes part of the API that is for these callers.
    pub fn serve(self, routes: Router<Services>, services: &Services) -> Router<Services> {
        match self {
            Self::Backend | Self::Public => backend(routes),
            Self::Browser => frontend(routes, services.clone()),
        }
    }
}

/// A route as its handler declares it.
#[derive(Clone)]
pub struct Route {
    /// For whom it is.
    pub audience: Audience,
    /// Its method.
    pub method: HttpMethod,
    /// Its path, with parameters in braces.
    pub path: String,
    /// The names of the groups that it is in.
    pub tags: Vec<&'static str>,
    /// Its parameters, body and responses. The extension `x-errors` has the codes of the errors that are its own, each
    /// alone or after a status that it does not usually have.
    pub operation: Operation,
    /// The schemas that the operation refers to, by their names.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

/// The routes of a method that a handler declares.
pub fn filter(methods: &[HttpMethod]) -> MethodFilter {
    let all = methods.iter().map(|method| match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    });
    all.reduce(MethodFilter::or).unwrap_or(MethodFilter::GET)
}

/// The routes of a function: the modules of its handlers, by [`Audience`].
///
/// ```text
/// keyward_http::routes! {
///     Backend { apps::{list, create}, keys::{rotate} }
///     Browser { session_keys::{list} }
/// }
/// ```
#[macro_export]
macro_rules! routes {
    ($($audience:ident { $($module:ident::{$($handler:ident),+ $(,)?}),+ $(,)? })+) => {
        /// The routes of this function.
        pub fn routes(services: &$crate::keyward_runtime::Services) -> $crate::axum::Router<$crate::keyward_runtime::Services> {
            use $crate::utoipa::Path;
            let all = $crate::axum::Router::new();
            $(
                let routes = $crate::axum::Router::new();
                $($(
                    let routes = $crate::pastey::paste! {{
                        let methods = $crate::filter(&$module::[<__path_ $handler>]::methods());
                        let path = $module::[<__path_ $handler>]::path();
                        routes.route(&path, $crate::axum::routing::on(methods, $module::$handler))
                    }};
                )+)+
                let all = all.merge($crate::Audience::$audience.serve(routes, services));
            )+
            all
        }

        /// The same routes as their handlers declare them.
        pub fn declared_routes() -> Vec<$crate::Route> {
            use $crate::utoipa::Path;
            use $crate::utoipa::__dev::{SchemaReferences, Tags};
            let mut all = Vec::new();
            $($($(
                $crate::pastey::paste! {
                    let mut schemas = Vec::new();
                    $module::[<__path_ $handler>]::schemas(&mut schemas);
                    for method in $module::[<__path_ $handler>]::methods() {
                        all.push($crate::Route {
                            audience: $crate::Audience::$audience,
                            method,
                            path: $module::[<__path_ $handler>]::path(),
                            tags: $module::[<__path_ $handler>]::tags(),
                            operation: $module::[<__path_ $handler>]::operation(),
                            schemas: schemas.clone(),
                        });
                    }
                }
            )+)+)+
            all
        }
    };
}
