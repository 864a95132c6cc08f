//! Where a request comes from, for the audit log.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use keyward_core::audit::Origin;
use lambda_http::request::RequestContext;

/// The origin of a request: the address of the peer, as the connection or API Gateway names it, and what it asked for
/// without the query, in which tickets and session tokens travel.
pub fn origin(parts: &Parts) -> Origin {
    let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let path = format!("{} {}", parts.method, parts.uri.path());
    Origin::new(&client_ip(parts), &path, user_agent)
}

fn client_ip(parts: &Parts) -> String {
    if let Some(ConnectInfo(address)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        return address.ip().to_string();
    }
    match parts.extensions.get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.clone(),
        Some(RequestContext::ApiGatewayV1(context)) => context.identity.source_ip.clone(),
        _ => None,
    }
    .unwrap_or_default()
}
