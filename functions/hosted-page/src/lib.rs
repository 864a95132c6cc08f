//! The page on which a customer manages the keys of one app, reached by a one-time ticket.
//!
//! It is static: all that it shows, its script asks of the browsers' routes. It has neither inline script nor inline
//! style, so that its content security policy can forbid both.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use keyward_core::WebOrigin;
use keyward_core::deployment::Mode;
use keyward_http::{ApiError, Services, backend};
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("../assets/page.html");
const SCRIPT: &str = include_str!("../assets/page.js");
const STYLE: &str = include_str!("../assets/page.css");

/// What the page may load and do (CSP Level 3), and that nobody but itself frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
/// Pages on a developer's machine, which may frame it too in staging mode.
const LOOPBACK: [&str; 4] =
    ["http://localhost:*", "https://localhost:*", "http://127.0.0.1:*", "https://127.0.0.1:*"];

/// The page is asked for anew each time, because it names the current version of each asset.
const REVALIDATED: &str = "no-cache";
/// An asset never changes under the version that its URL names.
const KEPT: &str = "public, max-age=31536000, immutable";

/// The routes of this function.
pub fn routes(_services: &Services) -> Router<Services> {
    backend(Router::new().route("/vanity/api-auth", get(serve)).merge(assets()))
}

async fn serve(State(services): State<Services>) -> Result<Response, ApiError> {
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
    let page = answer("text/html; charset=utf-8", REVALIDATED, WITH_VERSIONS.clone());
    ([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/vanity/assets/page.js", asset("text/javascript; charset=utf-8", SCRIPT))
        .route("/vanity/assets/page.css", asset("text/css; charset=utf-8", STYLE))
}

/// While a new release is rolled out, its page may reach an asset of the old one: that must not be kept under the new
/// version, so only the right one is answered with [`KEPT`].
fn asset<S: Clone + Send + Sync + 'static>(kind: &'static str, body: &'static str) -> MethodRouter<S> {
    let current = format!("v={}", version(body));
    get(move |RawQuery(asked): RawQuery| async move {
        let caching = if asked.is_some_and(|asked| asked == current) { KEPT } else { REVALIDATED };
        answer(kind, caching, Bytes::from_static(body.as_bytes()))
    })
}

/// The first 16 hexadecimal digits of the SHA-256 of a file.
fn version(file: &str) -> String {
    let digest = digest(&SHA256, file.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn answer(kind: &'static str, caching: &'static str, body: Bytes) -> impl IntoResponse {
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
    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderMap, Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    async fn fetch(path: &str) -> (HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let site =
            Router::new().route("/vanity/api-auth", get(async || page(HeaderValue::from_static(POLICY))));
        let response = site.merge(assets()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_page_names_assets_that_may_be_kept() {
        let (headers, page) = fetch("/vanity/api-auth?ticket=kw_ticket_x").await;
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert!(!page.contains("{s"), "an asset's version is missing");
        let assets: Vec<&str> = page.split('"').filter(|text| text.starts_with("assets/")).collect();
        assert_eq!(assets.len(), 2);
        for asset in assets {
            let (headers, _) = fetch(&format!("/vanity/{asset}")).await;
            assert_eq!(headers[header::CACHE_CONTROL], KEPT, "{asset}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{asset}");
        }
    }

    #[tokio::test]
    async fn an_asset_of_another_version_is_not_kept() {
        for query in ["", "?v=", "?v=0123456789abcdef", "?v=1&v=2", "?%ff"] {
            let (headers, body) = fetch(&format!("/vanity/assets/page.js{query}")).await;
            assert_eq!(headers[header::CACHE_CONTROL], REVALIDATED, "{query:?}");
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
