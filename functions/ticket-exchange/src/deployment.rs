//! `GET /deployment` and the public signing key.

use axum::Extension;
use axum::extract::State;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use keyward_core::Deployment;
use keyward_core::deployment::PublicKey;
use keyward_core::instant::Instant;
use keyward_http::{ApiError, Browser, Data, Services, publishable_key};
use keyward_store::Error;
use serde_json::{Value, json};

/// Describes the deployment to the page.
pub(crate) async fn describe(
    State(services): State<Services>,
    Extension(browser): Extension<Browser>,
) -> Data<Value> {
    let deployment = browser.deployment;
    let url = &services.settings.public_url;
    Data(json!({
        "id": deployment.id,
        "name": deployment.name,
        "created_at": Instant::from(deployment.created_at),
        "updated_at": Instant::from(deployment.updated_at),
        "deleted_at": null,
        "maintenance_mode": false,
        "mode": deployment.mode,
        "backend_host": url.as_str(),
        "frontend_host": url.as_str(),
        "publishable_key": publishable_key(url.as_str(), deployment.mode),
        "ui_settings": {},
    }))
}

/// The key set (RFC 7517, 5).
pub(crate) async fn jwks(State(services): State<Services>) -> Result<Data<Value>, ApiError> {
    let deployment = services.first_deployment().await?;
    let PublicKey { x, y } = &deployment.public_key;
    Ok(Data(json!({"keys": [{
        "kty": "EC",
        "kid": deployment.id,
        "use": "sig",
        "alg": "ES256",
        "crv": "P-256",
        "x": x,
        "y": y,
    }]})))
}

/// The same key in PEM.
pub(crate) async fn jwk(Extension(browser): Extension<Browser>) -> Result<Data<Value>, ApiError> {
    let Deployment { id, public_key, created_at, updated_at, .. } = &*browser.deployment;
    Ok(Data(json!({
        "id": id,
        "created_at": Instant::from(*created_at),
        "updated_at": Instant::from(*updated_at),
        // A number here, unlike everywhere else: the clients read it so.
        "deployment_id": id.get(),
        "public_key": pem(public_key)?,
    })))
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
            .map_err(|error| ApiError::from(Error::Internal(error.to_string())))
    };
    let der = [HEADER.as_slice(), &decode(&key.x)?, &decode(&key.y)?].concat();
    let text = BASE64_STANDARD.encode(der);
    let (first, second) = text.split_at_checked(64).unwrap_or((&text, ""));
    Ok(format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n"))
}
