//! HTTP on this machine only: who may connect, with how many connections and for how long.
//!
//! A page in a browser on the same machine reaches the loopback address too, under the address's own names or, if it has
//! its own name point there ("DNS rebinding"), under that. So a request must name a loopback host.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keyward_core::ErrorCode;
use keyward_http::{ApiError, ErrorContext, REQUEST_ID, RequestId};
use keyward_store::{system_clock, system_entropy};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tower::ServiceExt;

/// Concurrent connections. While there are as many, some are asked to end, for others that wait.
const MAX_CONNECTIONS: usize = 512;
/// The interval at which a further connection is asked to end.
const EVICTION_INTERVAL: Duration = Duration::from_millis(10);
/// The time that a connection may wait for a request, or for the rest of its header.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit of a request, including its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause of the listener after an error of its own.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    idle: Duration,
    timeout: Duration,
}

/// The limits of the servers of a local run.
const LIMITS: Limits = Limits { connections: MAX_CONNECTIONS, idle: IDLE_TIMEOUT, timeout: REQUEST_TIMEOUT };

/// Serves these routes until `stopped`, and then what is being answered.
pub(crate) async fn serve(listener: TcpListener, routes: Router, stopped: impl Future<Output = ()>) {
    serve_within(LIMITS, listener, routes, stopped).await;
}

async fn serve_within(
    Limits { connections, idle, timeout }: Limits,
    listener: TcpListener,
    routes: Router,
    stopped: impl Future<Output = ()>,
) {
    let routes = routes
        .layer(from_fn(move |request: Request, next: Next| async move {
            tokio::time::timeout(timeout, next.run(request)).await.unwrap_or_else(|_| timed_out())
        }))
        .layer(from_fn(guard));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(idle);
    let open = Arc::new(Semaphore::new(connections));
    // Each connection holds a receiver: there is none left when all have ended.
    let (stop, stopping) = watch::channel(());
    // Clients keep connections that they do not use, and could keep all there are. The oldest is asked first.
    let eviction = Arc::new(Notify::new());
    let mut stopped = pin!(stopped);
    loop {
        let next = async {
            let permit = loop {
                match tokio::time::timeout(EVICTION_INTERVAL, open.clone().acquire_owned()).await {
                    Ok(permit) => break permit,
                    Err(_) => eviction.notify_one(),
                }
            };
            loop {
                match listener.accept().await {
                    Ok(accepted) => return (accepted, permit),
                    // The peer is gone, or this process has too many files open.
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        };
        let ((stream, peer), permit) = tokio::select! {
            next = next => next,
            () = &mut stopped => break,
        };
        let routes = routes.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
            routes.clone().oneshot(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let (mut stopping, eviction) = (stopping.clone(), eviction.clone());
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let asked_to_end = async {
                tokio::select! {
                    _ = stopping.changed() => {}
                    () = eviction.notified() => {}
                }
            };
            // How it ends is the peer's doing.
            let _ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = asked_to_end => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop((permit, stopping));
        });
    }
    drop((listener, stopping));
    stop.send_replace(());
    stop.closed().await;
}

/// Lets through what is asked of this machine under a loopback name.
async fn guard(request: Request, next: Next) -> Result<Response, Infallible> {
    Ok(match require_loopback_host(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(error),
    })
}

/// Requires exactly one `Host` (RFC 9112, 3.2) that names the loopback address.
fn require_loopback_host(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let authority = hosts.next().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let (Some(authority), None) = (authority, hosts.next()) else {
        let message = "A request must have exactly one Host header with a host name";
        return Err(ApiError::new(ErrorCode::HostNotAllowed, message).with_status(StatusCode::BAD_REQUEST));
    };
    if ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| authority.host().eq_ignore_ascii_case(own)) {
        return Ok(());
    }
    let message = "This server accepts requests from this machine only: use localhost or 127.0.0.1";
    Err(ApiError::new(ErrorCode::HostNotAllowed, message))
}

fn timed_out() -> Response {
    let message = "The request timed out";
    refusal(ApiError::new(ErrorCode::RequestTimeout, message))
}

fn refusal(error: ApiError) -> Response {
    let id = RequestId::mint(&system_clock(), &system_entropy());
    let headers = [(header::CONNECTION, "close".to_owned()), (REQUEST_ID, id.0.to_string())];
    (error.status, headers, Json(error.into_body(&ErrorContext::new(id)))).into_response()
}

/// Whether a browser sent this: each of its requests that may have an effect has an `Origin`, or says how it came about.
pub(crate) fn is_from_browser(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    headers.contains_key(header::ORIGIN) || headers.contains_key(SITE)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const SHORT: Limits =
        Limits { connections: 32, idle: Duration::from_millis(50), timeout: Duration::from_millis(100) };

    async fn server(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", post(async |body: String| body));
        tokio::spawn(serve_within(limits, listener, routes, pending()));
        address
    }

    /// The bytes of the response to this, until the server ends the connection.
    async fn answer_to(address: SocketAddr, sent: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_or_never_ends_its_request_is_ended() {
        let address = server(SHORT).await;
        assert_eq!(answer_to(address, "").await, "");
        let half = answer_to(address, "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-le").await;
        assert!(half.is_empty() || half.starts_with("HTTP/1.1 408 "), "{half}");
        let body = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf";
        let response = answer_to(address, body).await;
        assert!(
            response.starts_with("HTTP/1.1 408 ") && response.contains("\"request_timeout\""),
            "{response}"
        );
        let whole = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nwhole";
        let response = answer_to(address, whole).await;
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("whole"), "{response}");
    }

    #[tokio::test]
    async fn connections_that_wait_do_not_keep_others_out() {
        let address = server(SHORT).await;
        let mut waiting = vec![];
        for _ in 0..SHORT.connections {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(answer_to(address, asked).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn connections_that_were_used_make_room_for_others() {
        let few = Limits { connections: 32, ..LIMITS };
        let address = server(few).await;
        let mut kept = vec![];
        for _ in 0..few.connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            kept.push(stream);
        }
        let asked = "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let response = tokio::time::timeout(IDLE_TIMEOUT / 3, answer_to(address, asked)).await;
        assert!(response.unwrap().starts_with("HTTP/1.1 200 "));
        let mut open = 0;
        for stream in &mut kept {
            let ended = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
            open += usize::from(ended.is_err());
        }
        assert!(open > few.connections / 2, "no more end than are needed: {open} are open");
    }

    #[tokio::test]
    async fn only_a_loopback_host_is_answered() {
        let address = server(LIMITS).await;
        let ask = async |hosts: &str| {
            let request = format!("POST / HTTP/1.1\r\n{hosts}connection: close\r\ncontent-length: 0\r\n\r\n");
            answer_to(address, &request).await
        };
        for host in ["localhost", "LOCALHOST:8787", "127.0.0.1:8787", "127.0.0.1", "[::1]:8787"] {
            let response = ask(&format!("host: {host}\r\n")).await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{host}: {response}");
        }
        for host in [
            "evil.example",
            "evil.example:8787",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "192.168.0.1",
            "0.0.0.0",
            "localhost.",
        ] {
            let response = ask(&format!("host: {host}\r\n")).await;
            assert!(
                response.starts_with("HTTP/1.1 421 ") && response.contains("\"host_not_allowed\""),
                "{host}: {response}"
            );
        }
        for hosts in [
            "",
            "host: \r\n",
            "host: localhost\r\nhost: evil.example\r\n",
            "host: localhost\r\nhost: localhost\r\n",
        ] {
            assert!(ask(hosts).await.starts_with("HTTP/1.1 400 "), "{hosts:?}");
        }
    }
}
