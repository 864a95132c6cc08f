//! What every function needs around its routes: credentials, bodies, errors, the two envelopes and the Lambda runtime.
//!
//! A handler takes typed arguments (an authenticated [`Root`] or [`ActiveSession`], a parsed [`Json`]) and gives back a
//! value or an [`ApiError`]. How either looks on the wire is decided by the plane that the route is on: [`backend`] for
//! servers with a root key, [`frontend`] for browsers with a session. [`application`] turns routes into a service.

mod body;
mod credentials;
mod edge;
mod error;
mod extract;
mod frontend;
mod initiator;
mod input;
mod lambda;
mod log;
mod metrics;
mod origin;
mod plane;
mod proxies;
mod routes;
mod services;

#[doc(hidden)]
pub use {axum, pastey, utoipa};

pub use body::MAX_BODY;
pub use credentials::{ActiveSession, Root, invalid_root_key, root_key};
pub use edge::{ErrorContext, REQUEST_ID, RequestId, application};
pub use error::{ApiError, ErrorBody, Undecided};
pub use extract::{
    FormOrJson, Item, Json, JsonAsWritten, LooseId, OptionalJson, PageLimit, Path, Query, app_slug,
    invalid_body, key_id,
};
pub use frontend::{Browser, EnvelopeSession, ErrorEnvelope, NewSession, frontend};
pub use initiator::Initiator;
pub use lambda::{Starting, answer, function, run, start_log};
pub use log::log_filter;
pub use origin::origin;
pub use plane::{Data, backend};
pub use proxies::TrustedProxies;
pub use routes::{Audience, Route, filter};
pub use services::{Services, Settings, SettingsError, VerifyAuth, publishable_key, sdk_config};
