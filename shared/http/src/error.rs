//! Errors as the callers of the API read them.
//!
//! Each has a stable `code` for programs, a sentence for people that says what to do, and possibly details that only
//! the log gets to see. How it is written depends on the route's plane, so a response carries the error along and the
//! plane renders it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keyward_core::InvalidField;
use keyward_core::cursor::InvalidCursor;
use keyward_core::metric::Metric;
use keyward_store::Error;
use serde_json::{Map, Value, json};

use crate::RequestId;

/// A request that was not carried out.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status: 4xx or 5xx, or 308 of a path that another function has in another form.
    pub status: StatusCode,
    /// What programs can rely on.
    pub code: &'static str,
    /// What people read.
    pub message: String,
    /// Further members of the body, on the backend plane.
    pub members: Map<String, Value>,
    detail: Option<String>,
    metric: Option<Metric>,
}

impl ApiError {
    /// An error of this status and code, with a sentence that the caller may read.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), members: Map::new(), detail: None, metric: None }
    }

    /// 400: a value is not acceptable.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: there is no credential, or it is not valid.
    pub fn unauthorized(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403: the credential does not extend to this.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// As backends read it: `{code, message, errors: [{code, message}], request_id}`, where the inner `code` is the status,
    /// with its further members. `request_id` is the request's own, unless a member names another.
    pub fn into_body(self, request_id: Option<RequestId>) -> Map<String, Value> {
        let mut body = self.members;
        if let Some(RequestId(id)) = request_id {
            body.entry("request_id").or_insert_with(|| id.to_string().into());
        }
        body.insert("code".to_owned(), self.code.into());
        body.insert("errors".to_owned(), json!([{"code": self.status.as_u16(), "message": self.message}]));
        body.insert("message".to_owned(), self.message.into());
        body
    }

    fn with_detail(self, detail: String, metric: Option<Metric>) -> Self {
        Self { detail: Some(detail), metric, ..self }
    }

    /// Writes the details that callers do not see to the log.
    pub(crate) fn log(&self) {
        let Some(detail) = &self.detail else { return };
        let (status, metric) = (self.status.as_u16(), self.metric.map(Metric::name));
        tracing::error!(metric, status, code = self.code, %detail, "a request failed");
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::bad_request("invalid_field", error.to_string())
    }
}

impl From<InvalidCursor> for ApiError {
    fn from(error: InvalidCursor) -> Self {
        Self::bad_request("invalid_cursor", error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let metric = error.metric();
        match error {
            Error::Unauthenticated => Self::unauthorized("invalid_credential", "Authentication failed"),
            Error::Forbidden(message) => Self::forbidden("forbidden", message),
            Error::InUse(message) => Self::bad_request("in_use", message),
            Error::NotFound(message) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            Error::Conflict(message) => Self::new(StatusCode::CONFLICT, "conflict", message),
            Error::Invalid(field) => field.into(),
            Error::Unavailable(_) | Error::KeyUnavailable(_) | Error::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The store cannot be reached right now; try again",
            )
            .with_detail(error.to_string(), metric),
            Error::Internal(detail) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong")
                    .with_detail(detail, metric)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
