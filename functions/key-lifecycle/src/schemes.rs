//! `/api-auth/rate-limit-schemes`: rate-limit schemes, for backends.

use axum::extract::State;
use axum::http::StatusCode;
use keyward_core::ErrorCode;
use keyward_core::rate_limit::{NewScheme, Rule, Rules, SchemeChanges};
use keyward_core::text::{Description, Name, Slug};
use keyward_http::{ApiError, Data, Json, Path, Root};
use keyward_runtime::Services;
use keyward_store::{Error, Resource};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::SchemeBody;

fn slug(text: &str) -> Result<Slug, ApiError> {
    Slug::parse("slug", text).map_err(|_| Error::NotFound(Resource::RateLimitScheme).into())
}

/// Lists rate-limit schemes, the one that changed last first.
#[utoipa::path(
    get, path = "/api-auth/rate-limit-schemes", operation_id = "listRateLimitSchemes", tag = "Rate limits",
    security(("rootKey" = ["manage"])), responses((status = 200, body = SchemeList)),
)]
pub(crate) async fn list(
    State(services): State<Services>,
    Root(access): Root,
) -> Result<Data<SchemeList>, ApiError> {
    let schemes = services.store.schemes(&access).await?;
    let total = schemes.len();
    let schemes = schemes.into_iter().map(SchemeBody::new).collect();
    Ok(Data(SchemeList { schemes, total }))
}

/// The rate-limit schemes of a deployment, the one that changed last first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitSchemeList)]
pub(crate) struct SchemeList {
    schemes: Vec<SchemeBody>,
    total: usize,
}

/// A new rate-limit scheme.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewRateLimitScheme)]
pub(crate) struct CreateRequest {
    #[schema(value_type = Slug)]
    slug: String,
    #[schema(value_type = Name)]
    name: String,
    #[schema(value_type = Option<Description>)]
    description: Option<String>,
    #[schema(min_items = 1, max_items = 20)]
    rules: Vec<Rule>,
}

/// Creates a rate-limit scheme.
#[utoipa::path(
    post, path = "/api-auth/rate-limit-schemes", operation_id = "createRateLimitScheme", tag = "Rate limits",
    security(("rootKey" = ["manage"])), request_body = CreateRequest, responses((status = 200, body = SchemeBody)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn create(
    State(services): State<Services>,
    Root(access): Root,
    Json(request): Json<CreateRequest>,
) -> Result<Data<SchemeBody>, ApiError> {
    let description = request.description;
    let new = NewScheme {
        slug: Slug::parse("slug", &request.slug)?,
        name: Name::parse("name", &request.name)?,
        description: description.map(|text| Description::parse("description", &text)).transpose()?,
        rules: Rules::try_from(request.rules)?,
    };
    Ok(Data(SchemeBody::new(services.store.create_scheme(&access, new).await?)))
}

/// Gets a rate-limit scheme.
#[utoipa::path(
    get, path = "/api-auth/rate-limit-schemes/{slug}", operation_id = "getRateLimitScheme", tag = "Rate limits",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The scheme's slug.")),
    responses((status = 200, body = SchemeBody)),
)]
pub(crate) async fn get(
    State(services): State<Services>,
    Root(access): Root,
    Path(scheme): Path<String>,
) -> Result<Data<SchemeBody>, ApiError> {
    Ok(Data(SchemeBody::new(services.store.scheme(&access, &slug(&scheme)?).await?)))
}

/// Changes of a rate-limit scheme. Absent and null members stay: clients send all members.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RateLimitSchemeChanges)]
pub(crate) struct UpdateRequest {
    #[schema(value_type = Option<Name>)]
    name: Option<String>,
    #[schema(value_type = Option<Description>)]
    description: Option<String>,
    #[schema(min_items = 1, max_items = 20)]
    rules: Option<Vec<Rule>>,
}

/// Changes a rate-limit scheme; absent and `null` members stay. It applies from the next check.
#[utoipa::path(
    patch, path = "/api-auth/rate-limit-schemes/{slug}", operation_id = "updateRateLimitScheme", tag = "Rate limits",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The scheme's slug.")),
    request_body = UpdateRequest, responses((status = 200, body = SchemeBody)),
    extensions(("x-errors" = json!([ErrorCode::InvalidField, ErrorCode::Conflict]))),
)]
pub(crate) async fn update(
    State(services): State<Services>,
    Root(access): Root,
    Path(scheme): Path<String>,
    Json(request): Json<UpdateRequest>,
) -> Result<Data<SchemeBody>, ApiError> {
    let description = request.description;
    let changes = SchemeChanges {
        name: request.name.map(|text| Name::parse("name", &text)).transpose()?,
        description: description.map(|text| Description::parse("description", &text)).transpose()?,
        rules: request.rules.map(Rules::try_from).transpose()?,
    };
    let updated = services.store.update_scheme(&access, &slug(&scheme)?, changes).await?;
    Ok(Data(SchemeBody::new(updated)))
}

/// Deletes a rate-limit scheme that no app uses, and no key that may work again: neither those that were revoked or have
/// expired nor those of deleted apps keep it.
#[utoipa::path(
    delete, path = "/api-auth/rate-limit-schemes/{slug}", operation_id = "deleteRateLimitScheme", tag = "Rate limits",
    security(("rootKey" = ["manage"])), params(("slug" = Slug, Path, description = "The scheme's slug.")),
    responses((status = 204, description = "It is deleted.")),
    extensions(("x-errors" = json!([ErrorCode::InUse, ErrorCode::Conflict]))),
)]
pub(crate) async fn delete(
    State(services): State<Services>,
    Root(access): Root,
    Path(scheme): Path<String>,
) -> Result<StatusCode, ApiError> {
    services.store.delete_scheme(&access, &slug(&scheme)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
