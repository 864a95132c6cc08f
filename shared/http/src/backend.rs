//! The backend API: bare values, and the rendering of values and errors of either API.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use keyward_core::ErrorCode;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{ApiError, ErrorContext};
use keyward_runtime::Services;

/// A value for the caller; the API that the route is part of decides what surrounds it.
#[derive(Debug)]
pub struct Data<T>(pub T);

#[derive(Clone)]
pub(crate) struct Payload(pub(crate) Box<RawValue>);

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        let mut response = StatusCode::OK.into_response();
        match to_raw_value(&self.0) {
            Ok(value) => {
                response.extensions_mut().insert(Payload(value));
                response
            }
            Err(error) => ApiError::from(keyward_store::Error::internal(error.to_string())).into_response(),
        }
    }
}

/// Makes routes part of the backend API: bare values, and errors as [`ApiError::into_body`] gives them.
pub fn backend(routes: Router<Services>) -> Router<Services> {
    routes.layer(from_fn(async |request: Request, next: Next| {
        let context = ErrorContext::of(request.extensions());
        render(next.run(request).await, &context)
    }))
}

pub(crate) fn render(mut response: Response, context: &ErrorContext) -> Response {
    if let Some(Payload(value)) = response.extensions_mut().remove() {
        return json_response(response, value.get().to_owned());
    }
    match error_of(&mut response) {
        Some(error) => match serde_json::to_string(&error.into_body(context)) {
            Ok(json) => json_response(response, json),
            Err(error) => {
                tracing::error!(%error, "an error could not be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        },
        None => response,
    }
}

/// The error that a response stands for, logged, with its headers set.
pub(crate) fn error_of(response: &mut Response) -> Option<ApiError> {
    let status = response.status();
    let bare = response.headers().get(header::CONTENT_TYPE).is_none();
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        // What the router itself answers carries no error of ours.
        None if bare && status == StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            ErrorCode::MethodNotAllowed,
            "This path does not support this method: see the Allow header",
        ),
        None if bare && (status.is_client_error() || status.is_server_error()) => {
            let message = status.canonical_reason().unwrap_or("Request failed");
            ApiError::new(ErrorCode::RequestFailed, message).with_status(status)
        }
        None => return None,
    };
    error.log();
    let headers = response.headers_mut();
    if let Some(challenge) = error.code.challenge("keyward").and_then(|text| HeaderValue::try_from(text).ok())
    {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if error.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if error.code == ErrorCode::UnsupportedContentEncoding {
        // RFC 9110, 12.5.3: what is taken.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    Some(error)
}

/// The response with this JSON as its body, which no cache may keep.
pub(crate) fn json_response(response: Response, json: String) -> Response {
    let (mut parts, _) = response.into_parts();
    let kind = HeaderValue::from_static("application/json");
    let private = HeaderValue::from_static("no-store");
    parts.headers.insert(header::CONTENT_TYPE, kind);
    parts.headers.insert(header::CACHE_CONTROL, private);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, json.into())
}
