//! The decision on a request whose key was found and whose secret matched.

use chrono::{DateTime, Utc};

use crate::audit::BlockedBy;
use crate::error_code::ErrorCode;
use crate::permission::{self, Permission};
use crate::rate_limit::Blocked;
use crate::requirement::Requirement;
use crate::route::RoutePermission;
use crate::target::Target;
use crate::verified::VerifiedKey;

/// The reason that a key whose secret matched is refused, whatever the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key was revoked.
    #[error("this API key was revoked")]
    KeyRevoked,
    /// The app is disabled.
    #[error("the app of this API key is disabled")]
    AppDisabled,
    /// The app was deleted.
    #[error("the app of this API key was deleted")]
    AppDeleted,
    /// The key has expired.
    #[error("this API key has expired")]
    KeyExpired,
}

impl Refusal {
    /// The stable code, in responses and in the audit log.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::KeyRevoked => ErrorCode::KeyRevoked,
            Self::AppDisabled => ErrorCode::AppDisabled,
            Self::AppDeleted => ErrorCode::AppDeleted,
            Self::KeyExpired => ErrorCode::KeyExpired,
        }
    }
}

/// Why a request whose key works may not go through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The key lacks a permission, or its app is not for this path.
    #[error("the API key has no permission for this request")]
    PermissionDenied,
    /// A rate limit is exhausted.
    #[error("the rate limit {} is reached; try again in {} s", .0.rule, .0.retry_after)]
    RateLimited(Blocked),
}

impl Denial {
    /// The stable code: the `reason` in responses.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::PermissionDenied => ErrorCode::PermissionDenied,
            Self::RateLimited(_) => ErrorCode::RateLimited,
        }
    }

    /// The rule or the code that blocked the request.
    pub fn blocked_by(&self) -> BlockedBy {
        match self {
            Self::PermissionDenied => self.code().into(),
            Self::RateLimited(blocked) => BlockedBy::RateLimit(blocked.rule.clone()),
        }
    }
}

/// The verdict on a request whose key works, before its rate limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the key has the permissions that the request needs.
    pub permitted: bool,
    /// All effective permissions of the key, sorted.
    pub permissions: Vec<Permission>,
}

/// Decides in this order: the state of key and app, expiry, the app's resources, permissions: those that are `required`
/// and those that the app asks for on the route.
///
/// # Errors
/// The key is refused, whatever the request.
pub fn decide(
    verified: &VerifiedKey,
    target: &Target,
    required: &[Requirement],
    now: DateTime<Utc>,
) -> Result<Verdict, Refusal> {
    let (key, app) = (verified.key(), verified.app());
    if !key.is_active() {
        return Err(Refusal::KeyRevoked);
    }
    if app.deleted_at.is_some() {
        return Err(Refusal::AppDeleted);
    }
    if !app.settings.is_active {
        return Err(Refusal::AppDisabled);
    }
    if key.is_expired(now) {
        return Err(Refusal::KeyExpired);
    }
    let reaches = target.path().is_within(&app.settings.resources);
    let effective = permission::effective(key.granted(), &app.settings.permissions);
    let routes = app.settings.route_permissions.iter().filter(|route| route.applies_to(target));
    let mut required = required.iter().chain(routes.flat_map(RoutePermission::permissions));
    Ok(Verdict {
        permitted: reaches && required.all(|requirement| requirement.holds(&effective)),
        permissions: effective.into_iter().cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::app::AppSettings;
    use crate::bounds::Bounds;
    use crate::examples::{self, NOW};
    use crate::hashing::{Keyring, PepperVersion};
    use crate::path::PathPattern;
    use crate::route::RawRoute;
    use crate::{ApiKey, App};

    fn permissions(texts: &[&str]) -> Vec<Permission> {
        texts.iter().map(|text| Permission::parse("permissions", text).unwrap()).collect()
    }

    /// The key as whoever presents its secret finds it.
    fn verified(app: &App, key: &ApiKey) -> VerifiedKey {
        let (token, current) = (examples::token(), PepperVersion(1));
        let ring = Keyring::new(current, [(current, &[1; 32])]).unwrap();
        let tag = ring.tag_api_key(key.deployment_id, &token).unwrap();
        let matched = ring.verify(key.deployment_id, &token, &tag).unwrap().unwrap();
        matched.of(key.clone(), app.clone()).unwrap()
    }

    fn decided(app: &App, key: &ApiKey, required: &[&str]) -> Result<bool, &'static str> {
        let target = Target::parse("GET", "/users/1").unwrap();
        let required: Vec<String> = required.iter().copied().map(str::to_owned).collect();
        let required = Requirement::parse_all("required_permissions", &required).unwrap();
        let verdict = decide(&verified(app, key), &target, &required, NOW);
        verdict.map(|verdict| verdict.permitted).map_err(|refusal| refusal.code().as_str())
    }

    #[test]
    fn a_key_is_refused_for_the_first_reason_that_there_is() {
        type Change = fn(&mut App, &mut ApiKey);
        let dead: [(Change, &str); 4] = [
            (|_, key| key.revoked_at = Some(NOW), "key_revoked"),
            (|app, _| app.deleted_at = Some(NOW), "app_deleted"),
            (|app, _| app.settings.is_active = false, "app_disabled"),
            (|_, key| key.expires_at = Some(NOW), "key_expired"),
        ];
        for (n, (change, code)) in dead.iter().enumerate() {
            // With all later reasons too.
            let (mut app, mut key) = (examples::app(), examples::key());
            change(&mut app, &mut key);
            assert_eq!(decided(&app, &key, &[]), Err(*code));
            for (also, _) in &dead[n..] {
                also(&mut app, &mut key);
                assert_eq!(decided(&app, &key, &[]), Err(*code));
            }
        }
        let in_time = ApiKey { expires_at: Some(NOW + TimeDelta::milliseconds(1)), ..examples::key() };
        assert_eq!(decided(&examples::app(), &in_time, &[]), Ok(true));
    }

    #[test]
    fn a_request_is_permitted_by_path_and_by_each_permission_that_it_needs() {
        let reader = ApiKey {
            permissions: permissions(&["read"]),
            org_role_permissions: permissions(&["write"]),
            ..examples::key()
        };
        let within = |bounds: &[&str]| Bounds::Within(permissions(bounds));
        let reaching = |path: &str| Bounds::Within(vec![PathPattern::parse("resources", path).unwrap()]);
        let route =
            RawRoute { method: "GET".into(), path: "/users/*".into(), permissions: vec!["write".into()] };
        let routes = RoutePermission::parse_all("route_permissions", &[route]).unwrap();
        let plain = || examples::app().settings;
        for (settings, required, permitted) in [
            (plain(), &[][..], true),
            (plain(), &["read", "write"], true),
            (plain(), &["read", "admin"], false),
            (AppSettings { permissions: within(&["read"]), ..plain() }, &["read"], true),
            (AppSettings { permissions: within(&["read"]), ..plain() }, &["write"], false),
            (AppSettings { permissions: within(&[]), ..plain() }, &["read"], false),
            (AppSettings { resources: reaching("/users/*"), ..plain() }, &["read"], true),
            (AppSettings { resources: reaching("/other"), ..plain() }, &["read"], false),
            (AppSettings { resources: reaching("/other"), ..plain() }, &[], false),
            (AppSettings { resources: Bounds::Within(vec![]), ..plain() }, &[], false),
            (AppSettings { route_permissions: routes.clone(), ..plain() }, &["read"], true),
            (
                AppSettings { route_permissions: routes, permissions: within(&["read"]), ..plain() },
                &["read"],
                false,
            ),
        ] {
            let app = App { settings, ..examples::app() };
            assert_eq!(decided(&app, &reader, required), Ok(permitted), "{app:?} {required:?}");
        }
        let target = Target::parse("GET", "/").unwrap();
        let verdict = decide(&verified(&examples::app(), &reader), &target, &[], NOW).unwrap();
        let names: Vec<&str> = verdict.permissions.iter().map(Permission::as_str).collect();
        assert_eq!(names, ["read", "write"]);
    }

    #[test]
    fn a_denial_names_its_code_and_what_blocked_the_request() {
        let blocked = Blocked { rule: "2/60s".into(), index: 0, retry_after: 3 };
        for (denial, code, rule) in [
            (Denial::PermissionDenied, ErrorCode::PermissionDenied, "permission_denied"),
            (Denial::RateLimited(blocked), ErrorCode::RateLimited, "2/60s"),
        ] {
            assert_eq!((denial.code(), denial.blocked_by().to_string().as_str()), (code, rule));
        }
    }
}
