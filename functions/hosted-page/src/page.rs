//! The page itself, with its script and its style.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use keyward_core::WebOrigin;
use keyward_core::deployment::Mode;
use keyward_http::ApiError;
use keyward_runtime::Services;
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("../assets/page.html");
const SCRIPT: &str = include_str!("../assets/page.js");
const STYLE: &str = include_str!("../assets/page.css");

/// The page's content security policy (CSP Level 3), by which nobody but itself frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
/// Pages on a developer's machine, which may frame it too in staging mode.
const LOOPBACK: [&str; 4] =
    ["http://localhost:*", "https://localhost:*", "http://127.0.0.1:*", "https://127.0.0.1:*"];

/// The page is requested each time, because it names the current version of each asset.
pub(crate) const REVALIDATE: &str = "no-cache";
/// An asset never changes under the version that its URL names.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Shows the page on which customers manage an app's keys. `ticket` works once.
#[utoipa::path(
    get, path = "/vanity/api-auth", operation_id = "showPage", tag = "Hosted page",
    params(("ticket" = Option<String>, Query, description = "A ticket, which the page exchanges.")),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(crate) async fn show(State(services): State<Services>) -> Result<Response, ApiError> {
    let deployment = services.first_deployment().await?;
    let own = deployment.allowed_origins.iter().filter_map(|origin| origin.parse().ok());
    let origins = services.settings.allowed_origins.iter().cloned().chain(own);
    Ok(page(policy(deployment.mode, origins)))
}

/// [`POLICY`], and that pages of these origins may frame the page: those that may use the installation's sessions, as the
/// settings and the first deployment name them. Which deployment a ticket is of is not known here.
fn policy(mode: Mode, origins: impl Iterator<Item = WebOrigin>) -> HeaderValue {
    let loopback = LOOPBACK.into_iter().filter(|_| mode == Mode::Staging).map(str::to_owned);
    let origins = origins.map(|origin| origin.to_string());
    let policy = loopback.chain(origins).fold(POLICY.to_owned(), |policy, origin| policy + " " + &origin);
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY))
}

/// The page, which names the current version of each asset.
fn page(policy: HeaderValue) -> Response {
    static WITH_VERSIONS: LazyLock<Bytes> = LazyLock::new(|| {
        PAGE.replace("{script}", &version(SCRIPT)).replace("{style}", &version(STYLE)).into()
    });
    let page = response("text/html; charset=utf-8", REVALIDATE, WITH_VERSIONS.clone());
    ([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

/// A file that the page loads.
struct Asset {
    kind: &'static str,
    file: &'static str,
    /// The query of the URL that names its current version.
    current: LazyLock<String>,
}

static PAGE_SCRIPT: Asset = Asset {
    kind: "text/javascript; charset=utf-8",
    file: SCRIPT,
    current: LazyLock::new(|| format!("v={}", version(SCRIPT))),
};
static PAGE_STYLE: Asset = Asset {
    kind: "text/css; charset=utf-8",
    file: STYLE,
    current: LazyLock::new(|| format!("v={}", version(STYLE))),
};

impl Asset {
    /// While a new release is rolled out, its page may reach an asset of the old one: that must not be kept under the new
    /// version, so only the right one is answered with [`IMMUTABLE`].
    fn serve(&self, asked: Option<&str>) -> Response {
        let caching = if asked == Some(self.current.as_str()) { IMMUTABLE } else { REVALIDATE };
        response(self.kind, caching, Bytes::from_static(self.file.as_bytes())).into_response()
    }
}

/// The page's script.
#[utoipa::path(
    get, path = "/vanity/assets/page.js", operation_id = "getPageScript", tag = "Hosted page",
    params(("v" = Option<String>, Query, description = "The version that the page names: that one may be kept.")),
    responses((status = 200, description = "The script.", body = String, content_type = "text/javascript")),
)]
pub(crate) async fn script(RawQuery(asked): RawQuery) -> Response {
    PAGE_SCRIPT.serve(asked.as_deref())
}

/// The page's style.
#[utoipa::path(
    get, path = "/vanity/assets/page.css", operation_id = "getPageStyle", tag = "Hosted page",
    params(("v" = Option<String>, Query, description = "The version that the page names: that one may be kept.")),
    responses((status = 200, description = "The style.", body = String, content_type = "text/css")),
)]
pub(crate) async fn style(RawQuery(asked): RawQuery) -> Response {
    PAGE_STYLE.serve(asked.as_deref())
}

/// The first 16 hexadecimal digits of the SHA-256 of a file.
fn version(file: &str) -> String {
    let digest = digest(&SHA256, file.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn response(kind: &'static str, caching: &'static str, body: Bytes) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        // The address of the page holds the ticket until the script has exchanged it.
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    async fn read(response: Response) -> (HeaderMap, String) {
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The asset that the page names so.
    async fn asset(name: &str) -> (HeaderMap, String) {
        let (path, query) = name.split_once('?').unwrap();
        let query = RawQuery(Some(query.to_owned()));
        read(match path {
            "assets/page.js" => script(query).await,
            "assets/page.css" => style(query).await,
            _ => panic!("{name}"),
        })
        .await
    }

    #[tokio::test]
    async fn the_page_names_assets_that_may_be_kept() {
        let (headers, page) = read(page(HeaderValue::from_static(POLICY))).await;
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert!(!page.contains("{s"), "an asset's version is missing");
        let assets: Vec<&str> = page.split('"').filter(|text| text.starts_with("assets/")).collect();
        assert_eq!(assets.len(), 2);
        for name in assets {
            let (headers, _) = asset(name).await;
            assert_eq!(headers[header::CACHE_CONTROL], IMMUTABLE, "{name}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{name}");
        }
    }

    #[tokio::test]
    async fn an_asset_of_another_version_is_not_kept() {
        for query in [None, Some(""), Some("v="), Some("v=0123456789abcdef"), Some("v=1&v=2"), Some("%ff")] {
            let (headers, body) = read(script(RawQuery(query.map(str::to_owned))).await).await;
            assert_eq!(headers[header::CACHE_CONTROL], REVALIDATE, "{query:?}");
            assert_eq!(headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
            assert_eq!(body, SCRIPT);
        }
    }

    #[test]
    fn pages_of_allowed_origins_frame_the_page_and_no_others() {
        let ancestors = |mode, origins: &[&str]| {
            let policy = policy(mode, origins.iter().map(|origin| origin.parse().unwrap()));
            let (_, ancestors) = policy.to_str().unwrap().split_once("; frame-ancestors ").unwrap();
            ancestors.to_owned()
        };
        assert_eq!(ancestors(Mode::Production, &[]), "'self'");
        let origins = ["https://App.example.com:443", "http://localhost:3000"];
        assert_eq!(
            ancestors(Mode::Production, &origins),
            "'self' https://app.example.com http://localhost:3000"
        );
        let local = "'self' http://localhost:* https://localhost:* http://127.0.0.1:* https://127.0.0.1:*";
        assert_eq!(ancestors(Mode::Staging, &origins[..1]), format!("{local} https://app.example.com"));
    }

    #[test]
    fn nothing_needs_a_weaker_policy() {
        for inline in ["<style", " style=", " onclick=", " onsubmit=", "<script>"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(sink), "{sink}");
        }
    }
}
