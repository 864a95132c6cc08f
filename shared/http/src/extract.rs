//! The arguments of handlers: bodies, queries and paths, parsed into types, or an error with a sentence that says why.

use std::fmt;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use keyward_core::ErrorCode;
use keyward_core::id::KeyId;
use keyward_core::text::Slug;
use keyward_store::{Error, Resource};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::ApiError;
use crate::body::read;
use crate::input::{self, BodyError};

/// A JSON body. Members that `T` does not know are ignored.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let bytes = read(request).await?;
        match kind {
            Kind::Json => body(&bytes).map(Self),
            _ => Err(unsupported("application/json")),
        }
    }
}

/// A JSON body with its bytes, from which a member can be taken as it was written.
#[derive(Debug)]
pub struct RawJson<T>(pub T, pub Bytes);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for RawJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let bytes = read(request).await?;
        match kind {
            Kind::Json => Ok(Self(body(&bytes)?, bytes)),
            _ => Err(unsupported("application/json")),
        }
    }
}

/// An optional JSON body, of any content type.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let kind = Kind::of(request.headers());
        let bytes = read(request).await?;
        match kind {
            _ if bytes.is_empty() => Ok(Self(T::default())),
            Kind::Json => body(&bytes).map(Self),
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
        let bytes = read(request).await?;
        match kind {
            _ if bytes.is_empty() => Ok(Self(T::default())),
            Kind::Json => body(&bytes).map(Self),
            Kind::Form => form(&bytes).map(Self),
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
            .map_err(|_| ApiError::new(ErrorCode::NotFound, "Resource does not exist"))
    }
}

/// The parameters of the query. Those that `T` does not know are ignored.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        input::pairs(query.as_bytes()).map(Self).map_err(|mismatch| {
            ApiError::new(ErrorCode::InvalidQuery, format!("The query parameter {mismatch}"))
        })
    }
}

/// An id of the SaaS's own in a body: a string, or a number, which is read as its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseId(pub String);

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseIdVisitor)
    }
}

impl PartialSchema for LooseId {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(ObjectBuilder::new().schema_type(Type::Integer))
            .description(Some("An id: text, or a whole number, which is read as its digits."))
            .into()
    }
}

impl ToSchema for LooseId {
    fn name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }
}

struct LooseIdVisitor;

impl Visitor<'_> for LooseIdVisitor {
    type Value = LooseId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: text, or a whole number")
    }

    fn visit_i64<E>(self, number: i64) -> Result<LooseId, E> {
        Ok(LooseId(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<LooseId, E> {
        Ok(LooseId(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<LooseId, E> {
        Ok(LooseId(text.to_owned()))
    }
}

/// The `limit` of a list: the number of items on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(minimum = 1, maximum = 1_000)]
pub struct PageLimit(usize);

impl PageLimit {
    const MAX: usize = 1_000;

    /// 1 to 1,000.
    pub fn get(self) -> usize {
        self.0
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = <&str>::deserialize(deserializer)?.parse().ok();
        let limit = limit.filter(|limit| (1..=Self::MAX).contains(limit));
        let wrong = || de::Error::custom(format!("must be a whole number from 1 to {}", Self::MAX));
        limit.map(Self).ok_or_else(wrong)
    }
}

/// One item of a list in a body, of which what is wrong concerns no other.
#[derive(Debug)]
pub struct Item<T>(
    /// The item, or the error that the whole request would have had if it had been this alone: 422.
    pub Result<T, ApiError>,
);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).map_err(|mismatch| invalid_body(&mismatch.to_string()))))
    }
}

/// Parses the slug of an app in a path. What is no slug names no app.
///
/// # Errors
/// 404.
pub fn app_slug(text: &str) -> Result<Slug, ApiError> {
    Slug::parse("app_slug", text).map_err(|_| Error::NotFound(Resource::App).into())
}

/// Parses the id of a key in a path.
///
/// # Errors
/// 400 for anything but a positive 64-bit number.
pub fn key_id(text: &str) -> Result<KeyId, ApiError> {
    text.parse().map_err(|error| ApiError::new(ErrorCode::InvalidKeyId, format!("invalid key id: {error}")))
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

fn body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    input::json(body).map_err(|error| match error {
        BodyError::Malformed { .. } if body.trim_ascii().is_empty() => ApiError::new(
            ErrorCode::MalformedJson,
            "invalid JSON: the body is empty, and must be a JSON object",
        ),
        BodyError::Malformed { line, column } => {
            let problem = "it is cut off, malformed, or has a number beyond 1.7e308";
            let message = format!("invalid JSON at line {line}, column {column}: {problem}");
            ApiError::new(ErrorCode::MalformedJson, message)
        }
        BodyError::Mismatch(mismatch) => invalid_body(&mismatch.to_string()),
    })
}

fn form<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    input::pairs(body).map_err(|mismatch| invalid_body(&mismatch.to_string()))
}

/// 422: the body has another shape.
pub fn invalid_body(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidBody, format!("invalid body: {message}"))
}

fn unsupported(wanted: &str) -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedMediaType,
        format!("The body must be sent with the Content-Type {wanted}"),
    )
}
