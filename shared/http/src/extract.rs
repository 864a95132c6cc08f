//! Bodies and queries, parsed into types or refused with a sentence that says why.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use keyward_core::InvalidField;
use keyward_core::id::KeyId;
use keyward_core::text::Slug;
use keyward_store::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::ApiError;

/// The longest body that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// How much of a body that is too long is still received, in bytes.
const MAX_DRAINED: usize = 16 * 1024 * 1024;

/// A JSON body. Members that `T` does not know are ignored.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let body = read(request).await?;
        match kind {
            Kind::Json => json(&body).map(Self),
            _ => Err(unsupported("application/json")),
        }
    }
}

/// A JSON body, beside the bytes of it, from which a member can be taken as it was written.
#[derive(Debug)]
pub struct JsonAsWritten<T>(pub T, pub Bytes);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonAsWritten<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let body = read(request).await?;
        match kind {
            Kind::Json => Ok(Self(json(&body)?, body)),
            _ => Err(unsupported("application/json")),
        }
    }
}

/// A JSON body, or none at all, of whatever content type.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let body = read(request).await?;
        match kind {
            _ if body.is_empty() => Ok(Self(T::default())),
            Kind::Json => json(&body).map(Self),
            _ => Err(unsupported("application/json")),
        }
    }
}

/// A form or a JSON body, or none at all.
#[derive(Debug)]
pub struct FormOrJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for FormOrJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let body = read(request).await?;
        match kind {
            _ if body.is_empty() => Ok(Self(T::default())),
            Kind::Json => json(&body).map(Self),
            Kind::Form => form(&body).map(Self),
            Kind::Other => Err(unsupported("application/x-www-form-urlencoded or application/json")),
        }
    }
}

/// The parameters of the path, decoded. What cannot be decoded is no path of ours.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| ApiError::new(StatusCode::NOT_FOUND, "not_found", "Resource does not exist"))
    }
}

/// The parameters of the query. Those that `T` does not know are ignored.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        serde_urlencoded::from_str(parts.uri.query().unwrap_or_default()).map(Self).map_err(|error| {
            ApiError::bad_request("invalid_query", format!("The query is not valid: {error}"))
        })
    }
}

/// An id of the SaaS's own in a body: a string, or a number, which is read as its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseId(pub String);

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an id must be a string or a whole number")]
        enum Form {
            Text(String),
            Number(i64),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        }))
    }
}

/// The most items that a page holds where its size is asked for.
const LONGEST_PAGE: u32 = 1_000;

/// Parses the `limit` of a list.
///
/// # Errors
/// 400 for anything but 1 to 1,000.
pub fn page_limit(limit: Option<u32>) -> Result<Option<usize>, InvalidField> {
    match limit {
        Some(limit) if !(1..=LONGEST_PAGE).contains(&limit) => {
            Err(InvalidField::new("limit", format!("must be 1 to {LONGEST_PAGE}")))
        }
        limit => Ok(limit.map(|limit| limit as usize)),
    }
}

/// Parses the slug of an app in a path. What is no slug names no app.
///
/// # Errors
/// 404.
pub fn app_slug(text: &str) -> Result<Slug, ApiError> {
    Slug::parse("app_slug", text).map_err(|_| Error::NotFound("API key app not found").into())
}

/// Parses the id of a key in a path.
///
/// # Errors
/// 400 for anything but a positive 64-bit number.
pub fn key_id(text: &str) -> Result<KeyId, ApiError> {
    text.parse().map_err(|error| ApiError::bad_request("invalid_key_id", format!("invalid key id: {error}")))
}

enum Kind {
    Json,
    Form,
    Other,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            other if other.starts_with("application/") && other.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    if request.extensions().get::<TooLarge>().is_some() {
        let message = format!("The body is longer than {MAX_BODY} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
    }
    let body = to_bytes(request.into_body(), MAX_BODY).await;
    body.map_err(|_| ApiError::bad_request("unreadable_body", "The body could not be read to its end"))
}

/// The body was longer than [`MAX_BODY`] and has been dropped.
#[derive(Debug, Clone, Copy)]
struct TooLarge;

/// Receives the body before the request is answered: a client that is still sending when it gets an answer may lose
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

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() { mismatch(&path, &cause.to_string()) } else { malformed(&cause) }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn form<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_urlencoded::from_bytes(body).map_err(|error| mismatch(".", &error.to_string()))
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let message =
        format!("The body is not JSON: it breaks off or goes wrong at line {line}, column {column}");
    ApiError::bad_request("malformed_json", message)
}

/// A body of another shape. What was sent may be a secret in the wrong place, so it is not repeated: of
/// `invalid type: string "…", expected a number at line 1 column 2` only what was expected is told, and where.
fn mismatch(path: &str, cause: &str) -> ApiError {
    let cause = cause.split(" at line ").next().unwrap_or(cause);
    let wanted = cause.rsplit_once(", expected ").map(|(_, wanted)| format!("expected {wanted}"));
    let wanted = wanted.as_deref().unwrap_or(cause);
    let place = if path == "." { String::new() } else { format!("{path}: ") };
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_body",
        format!("The body is not as it should be: {place}{wanted}"),
    )
}

fn unsupported(wanted: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("The body must be sent as {wanted}"),
    )
}
