//! Bodies, received before they are read.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use keyward_core::ErrorCode;

use crate::ApiError;

/// The longest body that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// The number of bytes of an oversized body that are still received.
const MAX_DRAINED: usize = 16 * 1024 * 1024;

/// The body of a request.
///
/// # Errors
/// 400, 413 and 415: it broke off, is longer than [`MAX_BODY`], or is encoded.
pub(crate) async fn read(request: Request) -> Result<Bytes, ApiError> {
    if request.extensions().get::<TooLarge>().is_some() {
        let message = format!("The body is longer than {MAX_BODY} bytes");
        return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
    }
    let encoded = is_encoded(request.headers());
    let body = to_bytes(request.into_body(), MAX_BODY).await;
    let body =
        body.map_err(|_| ApiError::new(ErrorCode::UnreadableBody, "The body could not be read completely"))?;
    if encoded && !body.is_empty() {
        return Err(ApiError::new(
            ErrorCode::UnsupportedContentEncoding,
            "The body must not be compressed: the only supported Content-Encoding is 'identity'",
        ));
    }
    Ok(body)
}

/// Whether the body is sent in another form than its own (RFC 9110, 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !codings.all(|coding| matches!(coding.trim_ascii().to_ascii_lowercase().as_slice(), b"" | b"identity"))
}

/// The body was longer than [`MAX_BODY`] and has been dropped.
#[derive(Debug, Clone, Copy)]
struct TooLarge;

/// Receives the body before the request is answered: a client that is still sending when it gets a response may lose
/// that, and the connection with it. What is too large is read and dropped, up to [`MAX_DRAINED`].
pub(crate) async fn receive(request: Request, next: Next) -> Response {
    let (mut parts, mut body) = request.into_parts();
    let mut received = Vec::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            // Whoever reads the body finds it broken too.
            return next.run(Request::from_parts(parts, body)).await;
        };
        if let Ok(data) = frame.into_data() {
            total += data.len();
            if total <= MAX_BODY {
                received.extend_from_slice(&data);
            } else if total > MAX_DRAINED {
                break;
            }
        }
    }
    if total > MAX_BODY {
        received.clear();
        parts.extensions.insert(TooLarge);
    }
    let mut response = next.run(Request::from_parts(parts, received.into())).await;
    if total > MAX_DRAINED {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
