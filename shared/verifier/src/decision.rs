//! The decision on a request, and the headers that tell a service behind the check of it.

use std::collections::BTreeMap;

use keyward_core::audit::EventId;
use keyward_core::decision::{Denial, Refusal};
use keyward_core::permission::Permission;
use keyward_core::rate_limit::{Status, window_name};
use keyward_core::{ApiKey, ErrorCode};
use keyward_store::Error;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The member of a key's metadata from which clients take what kind of principal it is.
pub const PRINCIPAL_TYPE: &str = "principal_type";

/// The decision for a key that works.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The id of the decision, which is that of its event in the audit log.
    pub request_id: EventId,
    /// The key.
    pub key: ApiKey,
    /// All that the key may do, sorted.
    pub permissions: Vec<Permission>,
    /// How the rate limits stand that hold for the request, in the order of their priority. None where a permission is
    /// missing, since such a request is not counted.
    pub limits: Vec<Status>,
    /// Why the request may not go through, if it may not.
    pub denied: Option<Denial>,
}

impl Decision {
    /// Whether the request may go through.
    pub fn allowed(&self) -> bool {
        self.denied.is_none()
    }

    /// In how many seconds the rate limit that stopped the request will let one through.
    pub fn retry_after(&self) -> Option<u32> {
        match &self.denied {
            Some(Denial::RateLimited(blocked)) => Some(blocked.retry_after),
            _ => None,
        }
    }

    /// Headers that tell the service behind the check whose request it is.
    pub fn headers(&self) -> BTreeMap<String, String> {
        let key = &self.key;
        let mut headers = self.limit_headers();
        let mut header = |name: &str, value: String| headers.insert(name.to_owned(), value);
        header("x-wacht-key-id", key.id.to_string());
        header("x-wacht-deployment-id", key.deployment_id.to_string());
        header("x-wacht-app-slug", key.app_slug.to_string());
        header("x-wacht-key-name", encoded(key.name.as_str(), NAME));
        let owner = &key.owner;
        for (name, id) in [
            ("x-wacht-organization-id", &owner.organization_id),
            ("x-wacht-workspace-id", &owner.workspace_id),
            ("x-wacht-organization-membership-id", &owner.organization_membership_id),
            ("x-wacht-workspace-membership-id", &owner.workspace_membership_id),
        ] {
            if let Some(id) = id {
                header(name, encoded(id.as_str(), ID));
            }
        }
        let permissions: Vec<&str> = self.permissions.iter().map(Permission::as_str).collect();
        for (name, text) in
            [("x-wacht-permissions", permissions.join(",")), ("x-wacht-metadata", flat_metadata(key))]
        {
            if !text.is_empty() {
                header(name, text);
            }
        }
        if let Some(Denial::PermissionDenied) = self.denied {
            header("x-wacht-permission-denied", "true".to_owned());
        }
        headers
    }

    /// Headers that tell the client how its rate limits stand: `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers-10), `x-ratelimit-<window>-limit` and `-remaining`; and, where a limit stopped the
    /// request, `x-ratelimit-<window>-reset` and `Retry-After` (RFC 9110, 10.2.3), in seconds.
    pub fn limit_headers(&self) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        if self.limits.is_empty() {
            return headers;
        }
        let blocked = match &self.denied {
            Some(Denial::RateLimited(blocked)) => Some(blocked),
            _ => None,
        };
        // Of rules with the same window the one with the least left, which is written last.
        let mut limits: Vec<(usize, &Status)> = self.limits.iter().enumerate().collect();
        limits.sort_by_key(|(_, status)| std::cmp::Reverse(status.remaining));
        for (index, status) in limits {
            let window = window_name(status.window_ms);
            headers.insert(format!("x-ratelimit-{window}-limit"), status.limit.to_string());
            headers.insert(format!("x-ratelimit-{window}-remaining"), status.remaining.to_string());
            if let Some(blocked) = blocked.filter(|blocked| blocked.index == index) {
                headers.insert(format!("x-ratelimit-{window}-reset"), blocked.retry_after.to_string());
            }
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert("retry-after".to_owned(), seconds.to_string());
        }
        let list = |item: fn(&Status) -> String| self.limits.iter().map(item).collect::<Vec<_>>().join(", ");
        headers.insert(
            "ratelimit".to_owned(),
            list(|status| format!("\"{}\";r={};t={}", status.rule, status.remaining, status.resets_in)),
        );
        headers.insert(
            "ratelimit-policy".to_owned(),
            list(|status| {
                let window = match status.window_ms % 1_000 {
                    0 => format!(";w={}", status.window_ms / 1_000),
                    _ => String::new(),
                };
                format!("\"{}\";q={}{window}", status.rule, status.limit)
            }),
        );
        headers
    }
}

/// The characters that are percent-encoded in the header of a name, beside all that is not ASCII. White space around
/// names is dropped, so none of it is at an end of the header, where it would be lost.
const NAME: &AsciiSet = &CONTROLS.add(b'%');
/// … in the header of an id.
const ID: &AsciiSet = &NAME.add(b' ');
/// … in the parts of the header of metadata, which are joined by `=` and `,`.
const PART: &AsciiSet = &ID.add(b'=').add(b',');

/// A text in the one form that it has in a header: percent-encoded UTF-8 (RFC 3986, 2.1).
fn encoded(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// The metadata's texts as `name=text`, separated by commas, but for what could pass for the principal's type.
fn flat_metadata(key: &ApiKey) -> String {
    let texts = key.metadata.texts().filter(|(name, _)| *name != PRINCIPAL_TYPE);
    let pairs = texts.map(|(name, text)| format!("{}={}", encoded(name, PART), encoded(&text, PART)));
    pairs.collect::<Vec<_>>().join(",")
}

/// Why there is no decision on a request.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Not a key, a key that does not exist, or a wrong secret: always the same.
    #[error("The API key is not valid")]
    InvalidKey,
    /// The key is genuine and refused whatever it asks for.
    #[error("Refused: {refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// The id of the refusal, which is that of its event in the audit log.
        request_id: EventId,
    },
    /// The store could not tell.
    #[error(transparent)]
    Store(#[from] Error),
}

impl CheckError {
    /// The stable code. Its status is 401 where another key may help, 403 where only a change of this one or of its app does.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidKey => ErrorCode::InvalidApiKey,
            Self::Refused { refusal, .. } => refusal.code(),
            Self::Store(Error::Unauthenticated) => ErrorCode::InvalidRootKey,
            Self::Store(error) if error.is_unavailable() => ErrorCode::StoreUnavailable,
            Self::Store(_) => ErrorCode::InternalError,
        }
    }
}
