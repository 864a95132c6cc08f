//! Errors as the callers of the API read them.
//!
//! Each has a stable `code` for programs, a sentence for people that says what to do, and possibly details that only
//! the log gets to see. How it is written depends on the API that the route is part of, so a response carries the error
//! along to where it is rendered.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keyward_core::audit::EventId;
use keyward_core::cursor::InvalidCursor;
use keyward_core::metric::Metric;
use keyward_core::{ErrorCode, InvalidField};
use keyward_store::{Conflict, Error, Forbidden, Resource};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{ErrorContext, RequestId};

/// A request that was not carried out.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status: 4xx or 5xx, or 308 of a path that another function has in another form.
    pub status: StatusCode,
    /// The code, which programs can rely on.
    pub code: ErrorCode,
    /// The sentence for people.
    pub message: String,
    /// The id of the event that it is about, where that is not the request.
    pub request_id: Option<EventId>,
    /// Whether a check was asked for: its errors have all the members of a response too, in the backend API.
    pub is_undecided: bool,
    /// The failure of the store behind it, which callers do not learn.
    cause: Option<Box<Error>>,
}

impl ApiError {
    /// An error with this code and the status that it usually has, and a sentence that the caller may read.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), request_id: None, is_undecided: false, cause: None }
    }

    /// The error with another status, where the request makes a difference to it.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// As backends read it.
    pub fn into_body(self, context: &ErrorContext) -> ErrorBody {
        ErrorBody {
            code: self.code,
            errors: [ErrorEntry { code: self.status.as_u16(), message: self.message.clone() }],
            message: self.message,
            doc_url: context.doc_url(self.code),
            request_id: self.request_id.or(context.request_id.map(|RequestId(id)| id)),
            undecided: self.is_undecided.then(Undecided::default),
        }
    }

    /// Writes to the log what callers do not see.
    pub(crate) fn log(&self) {
        let Some(error) = &self.cause else { return };
        let failure = error.failure();
        tracing::error!(
            metric = error.metric().map(Metric::name),
            status = self.status.as_u16(),
            code = %self.code,
            operation = failure.and_then(|failure| failure.operation),
            partition = failure.and_then(|failure| failure.partition.as_deref()),
            place = failure.map(|failure| display(failure.place)),
            detail = %error,
            "a request failed"
        );
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
    /// The page about errors with this code.
    #[schema(example = "https://keys.example.com/errors/conflict")]
    doc_url: String,
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

/// The members of the response to a check, blank, for clients that read those first.
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
        let cause = error.is_unavailable() || error.failure().is_some();
        let cause = cause.then(|| Box::new(error.clone()));
        let error = match error {
            Error::Unauthenticated => Self::new(ErrorCode::InvalidCredential, "Authentication failed"),
            Error::Forbidden(lacking) => Self::new(ErrorCode::Forbidden, forbidden(lacking)),
            Error::InUse(by) => Self::new(ErrorCode::InUse, in_use(by)),
            Error::NotFound(resource) => Self::new(ErrorCode::NotFound, not_found(resource)),
            Error::Conflict(conflict) => Self::new(ErrorCode::Conflict, sentence(&conflict)),
            Error::Invalid(field) => field.into(),
            Error::Unavailable(_) | Error::KeyUnavailable(_) | Error::Busy => {
                Self::new(ErrorCode::StoreUnavailable, "The store cannot be reached right now; try again")
            }
            Error::Internal(_) => Self::new(ErrorCode::InternalError, "Something went wrong"),
        };
        Self { cause, ..error }
    }
}

fn forbidden(lacking: Forbidden) -> String {
    match lacking {
        Forbidden::Scope(scope) => format!("this root key lacks the scope '{}'", scope.as_str()),
        Forbidden::Capability(capability) => {
            format!("this credential may not do '{}'", capability.as_str())
        }
        Forbidden::AppDisabled => "the app is disabled".to_owned(),
    }
}

fn in_use(by: Resource) -> &'static str {
    match by {
        Resource::App => "Cannot delete rate limit scheme while it is assigned to API auth apps",
        _ => "Cannot delete rate limit scheme while it is assigned to active API keys",
    }
}

fn not_found(resource: Resource) -> &'static str {
    match resource {
        Resource::App => "API key app not found",
        Resource::ApiKey => "API key not found",
        Resource::ActiveApiKey => "API key not found or inactive",
        Resource::RateLimitScheme => "Rate limit scheme not found",
        Resource::Deployment => "deployment not found",
        Resource::RootKey => "root key not found",
        Resource::PepperVersion => "version of the pepper not found",
    }
}

fn sentence(conflict: &Conflict) -> String {
    match conflict {
        Conflict::Exists(Resource::App, slug) => format!("API auth app '{slug}' already exists"),
        Conflict::Exists(Resource::RateLimitScheme, slug) => {
            format!("Rate limit scheme '{slug}' already exists")
        }
        Conflict::Changed(Resource::ApiKey) => {
            "the API key or its app was changed at the same time; try again".to_owned()
        }
        Conflict::IdTaken(Resource::App) => "the new app's number was taken; try again".to_owned(),
        Conflict::Changed(_) | Conflict::IdTaken(_) | Conflict::CredentialIdTaken => {
            format!("{conflict}; try again")
        }
        Conflict::Exists(..)
        | Conflict::Initialised
        | Conflict::PepperActive(_)
        | Conflict::PepperRecent { .. }
        | Conflict::PepperNeeded { .. } => conflict.to_string(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
