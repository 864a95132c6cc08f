//! `GET /errors/{code}`.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};
use keyward_core::ErrorCode;
use keyward_http::ApiError;

use crate::page::{REVALIDATE, response};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/errors");

/// Explains what an error means and what to do. `doc_url` of each error leads there.
#[utoipa::path(
    get, path = "/errors/{code}", operation_id = "explainError", tag = "Installation",
    params(("code" = String, Path, description = "The code of an error.", example = "conflict")),
    responses((status = 200, description = "The page, in Markdown.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn explain(Path(code): Path<String>) -> Result<Response, ApiError> {
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
    let page = known.and_then(|code| PAGES.get_file(format!("{code}.md")));
    let page = page.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "There is no error with this code"))?;
    Ok(response("text/plain; charset=utf-8", REVALIDATE, Bytes::from_static(page.contents())).into_response())
}
