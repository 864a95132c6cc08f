//! `GET /deployment` and the public signing key.

use axum::Extension;
use axum::extract::State;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::id::DeploymentId;
use keyward_core::instant::Instant;
use keyward_core::text::Name;
use keyward_http::{ApiError, Browser, Data};
use keyward_runtime::{Services, publishable_key};
use keyward_store::Error;
use serde::Serialize;
use utoipa::ToSchema;

/// A deployment, as a page sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deployment)]
pub(crate) struct DeploymentBody {
    id: DeploymentId,
    name: Name,
    created_at: Instant,
    updated_at: Instant,
    /// Always null.
    deleted_at: Option<Instant>,
    /// Always false.
    maintenance_mode: bool,
    mode: Mode,
    /// The URL of the installation, as is `frontend_host`.
    backend_host: String,
    frontend_host: String,
    publishable_key: String,
    ui_settings: UiSettings,
}

/// There are none.
#[derive(Debug, Serialize, ToSchema)]
struct UiSettings {}

/// Describes the deployment to a page: `mode`, `publishable_key`, `backend_host`, …
#[utoipa::path(
    get, path = "/deployment", operation_id = "getDeployment", tag = "Installation",
    responses((status = 200, body = DeploymentBody)),
)]
pub(crate) async fn describe(
    State(services): State<Services>,
    Extension(browser): Extension<Browser>,
) -> Data<DeploymentBody> {
    let deployment = browser.deployment;
    let url = services.settings.public_url.as_str();
    Data(DeploymentBody {
        id: deployment.id,
        name: deployment.name.clone(),
        created_at: deployment.created_at.into(),
        updated_at: deployment.updated_at.into(),
        deleted_at: None,
        maintenance_mode: false,
        mode: deployment.mode,
        backend_host: url.to_owned(),
        frontend_host: url.to_owned(),
        publishable_key: publishable_key(url, deployment.mode),
        ui_settings: UiSettings {},
    })
}

/// A set of public keys (RFC 7517, 5).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JsonWebKeySet)]
pub(crate) struct KeySet {
    #[schema(value_type = Vec<JsonWebKey>)]
    keys: [JsonWebKey; 1],
}

/// An ES256 key (RFC 7517, 4; RFC 7518, 6.2.1).
#[derive(Debug, Serialize, ToSchema)]
struct JsonWebKey {
    kty: &'static str,
    kid: DeploymentId,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    crv: &'static str,
    x: String,
    y: String,
}

/// Gets the deployment's public key in a set (RFC 7517, 5).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "getJsonWebKeySet", tag = "Installation",
    responses((status = 200, body = KeySet)),
)]
pub(crate) async fn jwks(State(services): State<Services>) -> Result<Data<KeySet>, ApiError> {
    let deployment = services.first_deployment().await?;
    let PublicKey { x, y } = deployment.public_key.clone();
    let key = JsonWebKey { kty: "EC", kid: deployment.id, usage: "sig", alg: "ES256", crv: "P-256", x, y };
    Ok(Data(KeySet { keys: [key] }))
}

/// The deployment's key in PEM.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PemKey {
    id: DeploymentId,
    created_at: Instant,
    updated_at: Instant,
    /// A number here, unlike everywhere else: the clients read it so.
    deployment_id: i64,
    public_key: String,
}

/// Gets the deployment's public key in PEM.
#[utoipa::path(
    get, path = "/.well-known/jwk", operation_id = "getPemKey", tag = "Installation",
    responses((status = 200, body = PemKey)),
)]
pub(crate) async fn jwk(Extension(browser): Extension<Browser>) -> Result<Data<PemKey>, ApiError> {
    let deployment = &browser.deployment;
    Ok(Data(PemKey {
        id: deployment.id,
        created_at: deployment.created_at.into(),
        updated_at: deployment.updated_at.into(),
        deployment_id: deployment.id.get(),
        public_key: pem(&deployment.public_key)?,
    }))
}

/// A `SubjectPublicKeyInfo` (RFC 5480) of a P-256 key in PEM (RFC 7468).
fn pem(key: &PublicKey) -> Result<String, ApiError> {
    // SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { 4 ‖ x ‖ y } }
    const HEADER: [u8; 27] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let decode = |coordinate: &str| {
        BASE64_URL_SAFE_NO_PAD
            .decode(coordinate)
            .map_err(|error| ApiError::from(Error::internal(error.to_string())))
    };
    let der = [HEADER.as_slice(), &decode(&key.x)?, &decode(&key.y)?].concat();
    let text = BASE64_STANDARD.encode(der);
    let (first, second) = text.split_at_checked(64).unwrap_or((&text, ""));
    Ok(format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n"))
}
