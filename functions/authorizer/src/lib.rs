//! The Lambda authorizer of an API Gateway: whether a request that came with an API key may go through.
//!
//! Takes the events of HTTP APIs, payload format 2.0 (a simple response) and 1.0, and of REST APIs, types `REQUEST` and
//! `TOKEN` (an IAM policy). API Gateway responds to a denied request with 403; with 401, if the event needs a policy and there
//! is no valid key; with 500, if the authorizer fails because the store does, or because the apps of the API are not configured.

mod context;
mod event;
mod guarded;
mod response;
mod settings;

use keyward_core::ErrorCode;
use keyward_core::audit::EventId;
use keyward_core::id::KeyId;
use keyward_core::metric::Metric;
use keyward_core::token::ApiKeyToken;
use keyward_http::RequestId;
use keyward_runtime::Services;
use keyward_verifier::{Check, CheckError, Decision, Denial, Verifier};
use tracing::{Span, field};

use crate::context::Context;
use crate::event::Form;
pub use crate::event::{Event, UnknownEvent};
pub use crate::guarded::{Guarded, GuardedError};
pub use crate::response::{PolicyResponse, Response};
pub use crate::settings::Settings;

/// The error to which API Gateway responds with 401.
const UNAUTHORIZED: &str = "Unauthorized";

/// Decides on a request by its key, and records the decision.
///
/// # Errors
/// `Unauthorized`: there is no valid key, and the response would be a policy. Another: it is not said whose keys are accepted
/// ([`GuardedError`]), or the store could not tell.
pub async fn authorize(
    services: &Services,
    settings: &Settings,
    event: Event,
) -> Result<Response, lambda_http::Error> {
    let RequestId(id) = RequestId::mint(services.store.clock(), services.store.entropy());
    Span::current().record("request_id", field::display(id));
    let decided = decide(services, settings, &event, id).await?;
    let (allowed, code) = match &decided {
        Ok(decision) => (decision.allowed(), decision.denied.as_ref().map(Denial::code)),
        Err(rejection) => (false, Some(rejection.code)),
    };
    tracing::info!(target: "keyward::request", allowed, code = code.map(ErrorCode::as_str));
    match decided {
        Ok(decision) => {
            let mut context = context::of(&decision);
            if let Some(denial) = &decision.denied {
                let denied = Rejection::forbidden(denial.code(), format!("Denied: {denial}"));
                context.extend(denied.context());
            }
            Ok(Response::new(&event, decision.allowed(), Some(decision.key.id), context))
        }
        Err(rejection) if rejection.is_without_key && event.form != Form::Simple => Err(UNAUTHORIZED.into()),
        Err(rejection) => {
            let mut context = rejection.context();
            context.insert("request_id".to_owned(), id.to_string());
            Ok(Response::new(&event, false, rejection.key, context))
        }
    }
}

async fn decide(
    services: &Services,
    settings: &Settings,
    event: &Event,
    id: EventId,
) -> Result<Result<Decision, Rejection>, lambda_http::Error> {
    let accepted = settings.guarded.accepted(event);
    let accepted = accepted.inspect_err(|error| tracing::error!(%error, "a request could not be decided"))?;
    let presented = match event.presented(settings) {
        Ok(Some(presented)) => presented,
        Ok(None) => {
            return Ok(Err(Rejection::unauthorized(ErrorCode::MissingApiKey, "The request has no API key")));
        }
        Err(wrong) => return Ok(Err(Rejection::forbidden(ErrorCode::InvalidField, wrong.to_string()))),
    };
    let target = match event.target() {
        Ok(target) => target,
        Err(wrong) => return Ok(Err(Rejection::forbidden(ErrorCode::InvalidField, wrong.to_string()))),
    };
    let check = Check {
        presented,
        accepted: &accepted,
        target: &target,
        required_permissions: &[],
        client_ip: event.client_ip(&services.settings.trusted_proxies),
        user_agent: event.user_agent(),
        request_id: Some(id),
    };
    let verifier =
        Verifier::new(services.store.clone(), services.recorder.clone(), services.public.deployment_id());
    match verifier.check(&check, None).await {
        Ok(decision) => Ok(Ok(decision)),
        Err(error @ CheckError::InvalidKey) => {
            Ok(Err(Rejection::unauthorized(error.code(), error.to_string())))
        }
        Err(CheckError::Refused { refusal, .. }) => Ok(Err(Rejection {
            key: ApiKeyToken::parse(presented).ok().map(|token| token.id),
            ..Rejection::forbidden(refusal.code(), format!("Refused: {refusal}"))
        })),
        Err(CheckError::Store(error)) => {
            tracing::error!(metric = error.metric().map(Metric::name), %error, "a request could not be decided");
            Err(error.into())
        }
    }
}

/// The reason that a request is rejected before its permissions are decided.
struct Rejection {
    is_without_key: bool,
    code: ErrorCode,
    message: String,
    key: Option<KeyId>,
}

impl Rejection {
    /// There is no valid key.
    fn unauthorized(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { is_without_key: true, code, message: message.into(), key: None }
    }

    fn forbidden(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { is_without_key: false, ..Self::unauthorized(code, message) }
    }

    /// The context for the caller.
    fn context(&self) -> Context {
        let members = [
            ("code", Some(self.code.to_string())),
            ("message", Some(self.message.clone())),
            ("key_id", self.key.map(|id| id.to_string())),
        ];
        members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect()
    }
}
