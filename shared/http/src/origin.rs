//! Where a request comes from, for the audit log.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use keyward_core::ClientAddress;
use keyward_core::audit::Origin;
use lambda_http::request::RequestContext;

use keyward_runtime::TrustedProxies;

/// The origin of a request: the client, as far as trusted proxies tell, and what it asked for without the query, in which
/// tickets and session tokens travel.
pub fn origin(parts: &Parts, proxies: &TrustedProxies) -> Origin {
    let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let path = format!("{} {}", parts.method, parts.uri.path());
    let client = peer(parts).map(|peer| proxies.client(peer, &parts.headers));
    Origin::new(client, &path, user_agent)
}

/// The peer that is connected to this process or to API Gateway.
fn peer(parts: &Parts) -> Option<ClientAddress> {
    if let Some(ConnectInfo(address)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        return Some(address.ip().into());
    }
    let source_ip = match parts.extensions.get::<RequestContext>()? {
        RequestContext::ApiGatewayV2(context) => &context.http.source_ip,
        RequestContext::ApiGatewayV1(context) => &context.identity.source_ip,
        _ => &None,
    };
    source_ip.as_deref()?.parse().ok()
}
