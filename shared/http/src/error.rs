//! Errors as the callers of the API read them.
//!
//! Each has a stable `code` for programs, a sentence for people that says what to do, and possibly details that only
//! the log gets to see. How it is written depends on the route's plane, so a response carries the error along and the
//! plane renders it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keyward_core::audit::EventId;
use keyward_core::cursor::InvalidCursor;
use keyward_core::metric::Metric;
use keyward_core::{ErrorCode, InvalidField};
use keyward_store::Error;
use serde::Serialize;
use utoipa::ToSchema;

use crate::RequestId;

/// A request that was not carried out.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status: 4xx or 5xx, or 308 of a path that another function has in another form.
    pub status: StatusCode,
    /// What programs can rely on.
    pub code: ErrorCode,
    /// What people read.
    pub message: String,
    /// What it is about in the log, where that is not the request.
    pub request_id: Option<EventId>,
    /// Whether a check was asked for: its errors have all the members of an answer too, on the backend plane.
    pub is_undecided: bool,
    detail: Option<String>,
    metric: Option<Metric>,
}

impl ApiError {
    /// An error with this code and the status that it usually has, and a sentence that the caller may read.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            status,
            code,
            message: message.into(),
            request_id: None,
            is_undecided: false,
            detail: None,
            metric: None,
        }
    }

    /// The error with another status, where the request makes a difference to it.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// As backends read it. `request_id` is the request's own, unless the error is about another.
    pub fn into_body(self, request_id: Option<RequestId>) -> ErrorBody {
        ErrorBody {
            code: self.code,
            errors: [ErrorEntry { code: self.status.as_u16(), message: self.message.clone() }],
            message: self.message,
            request_id: self.request_id.or(request_id.map(|RequestId(id)| id)),
            undecided: self.is_undecided.then(Undecided::default),
        }
    }

    fn with_detail(self, detail: String, metric: Option<Metric>) -> Self {
        Self { detail: Some(detail), metric, ..self }
    }

    /// Writes the details that callers do not see to the log.
    pub(crate) fn log(&self) {
        let Some(detail) = &self.detail else { return };
        let (status, metric) = (self.status.as_u16(), self.metric.map(Metric::name));
        tracing::error!(metric, status, code = %self.code, %detail, "a request failed");
    }
}

/// An error, as backends read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// The code, for programs.
    #[schema(value_type = String, example = "conflict")]
    code: ErrorCode,
    /// The error again, with its status in place of its code, for clients that read a list.
    errors: [ErrorEntry; 1],
    /// A sentence for people, which may change.
    message: String,
    /// The id under which the log has the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<EventId>,
    #[serde(flatten)]
    #[schema(ignore)]
    undecided: Option<Undecided>,
}

/// An error's status and sentence.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorEntry {
    /// The HTTP status.
    code: u16,
    message: String,
}

/// The members of the answer to a check, blank, for clients that read those first.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Undecided {
    /// Always false.
    allowed: bool,
    /// Always null, as are the others that may be.
    #[schema(value_type = Option<String>)]
    reason: (),
    #[schema(value_type = Option<String>)]
    blocked_rule: (),
    #[schema(value_type = Option<Object>)]
    identity: (),
    /// Always empty.
    #[schema(value_type = Vec<String>, max_items = 0)]
    permissions: [(); 0],
    #[schema(value_type = Option<Object>)]
    metadata: (),
    /// Always empty.
    #[schema(value_type = Vec<String>, max_items = 0)]
    rate_limits: [(); 0],
    #[schema(value_type = Option<u32>)]
    retry_after: (),
    /// Always empty.
    #[schema(value_type = Object)]
    headers: BTreeMap<String, String>,
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::new(ErrorCode::InvalidField, error.to_string())
    }
}

impl From<InvalidCursor> for ApiError {
    fn from(error: InvalidCursor) -> Self {
        Self::new(ErrorCode::InvalidCursor, error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let metric = error.metric();
        match error {
            Error::Unauthenticated => Self::new(ErrorCode::InvalidCredential, "Authentication failed"),
            Error::Forbidden(message) => Self::new(ErrorCode::Forbidden, message),
            Error::InUse(message) => Self::new(ErrorCode::InUse, message),
            Error::NotFound(message) => Self::new(ErrorCode::NotFound, message),
            Error::Conflict(message) => Self::new(ErrorCode::Conflict, message),
            Error::Invalid(field) => field.into(),
            Error::Unavailable(_) | Error::KeyUnavailable(_) | Error::Busy => {
                Self::new(ErrorCode::StoreUnavailable, "The store cannot be reached right now; try again")
                    .with_detail(error.to_string(), metric)
            }
            Error::Internal(detail) => {
                Self::new(ErrorCode::InternalError, "Something went wrong").with_detail(detail, metric)
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
