//! The surroundings of every function's routes: credentials, bodies, errors, the two envelopes and the Lambda runtime.
//!
//! A handler takes typed arguments (an authenticated [`Root`] or [`ActiveSession`], a parsed [`Json`]) and returns a
//! value or an [`ApiError`]. The API that the route is part of decides how either looks on the wire: [`backend`] for
//! servers with a root key, [`frontend`] for browsers with a session. [`application`] turns routes into a service.

mod backend;
mod body;
mod credentials;
mod edge;
mod error;
mod extract;
mod frontend;
mod initiator;
mod input;
mod lambda;
mod origin;
mod routes;

#[doc(hidden)]
pub use {axum, keyward_runtime, pastey, utoipa};

pub use backend::{Data, backend};
pub use body::MAX_BODY;
pub use credentials::{ActiveSession, Root, invalid_root_key, root_key};
pub use edge::{ErrorContext, REQUEST_ID, RequestId, application};
pub use error::{ApiError, ErrorBody, Undecided};
pub use extract::{
    FormOrJson, Item, Json, LooseId, OptionalJson, PageLimit, Path, Query, RawJson, app_slug, invalid_body,
    key_id,
};
pub use frontend::{Browser, EnvelopeSession, ErrorEnvelope, NewSession, frontend, require_intent};
pub use initiator::Initiator;
pub use lambda::{Application, function, respond, run};
pub use origin::origin;
pub use routes::{Audience, Route, filter};
