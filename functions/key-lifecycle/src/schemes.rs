//! `/api-auth/rate-limit-schemes`: rate-limit schemes, for backends.

use axum::extract::State;
use axum::http::StatusCode;
use keyward_core::rate_limit::{NewScheme, Rule, Rules, SchemeChanges};
use keyward_core::text::{Description, Name, Slug};
use keyward_http::{ApiError, Data, Json, Path, Root, Services};
use keyward_store::Error;
use serde::{Deserialize, Serialize};

use crate::body::SchemeBody;

fn slug(text: &str) -> Result<Slug, ApiError> {
    Slug::parse("slug", text).map_err(|_| Error::NotFound("Rate limit scheme not found").into())
}

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
#[derive(Debug, Serialize)]
pub(crate) struct SchemeList {
    schemes: Vec<SchemeBody>,
    total: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateRequest {
    slug: String,
    name: String,
    description: Option<String>,
    rules: Vec<Rule>,
}

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

pub(crate) async fn get(
    State(services): State<Services>,
    Root(access): Root,
    Path(scheme): Path<String>,
) -> Result<Data<SchemeBody>, ApiError> {
    Ok(Data(SchemeBody::new(services.store.scheme(&access, &slug(&scheme)?).await?)))
}

/// A member that is null is left as it is: clients send all of them.
#[derive(Debug, Deserialize)]
pub(crate) struct UpdateRequest {
    name: Option<String>,
    description: Option<String>,
    rules: Option<Vec<Rule>>,
}

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

pub(crate) async fn delete(
    State(services): State<Services>,
    Root(access): Root,
    Path(scheme): Path<String>,
) -> Result<StatusCode, ApiError> {
    services.store.delete_scheme(&access, &slug(&scheme)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
