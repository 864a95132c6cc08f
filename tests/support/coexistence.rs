//! Two releases on one table: what both do, in turns, through an upgrade and a rollback, and what both must say afterwards.
//!
//! The earlier release is either there (`tests/releases`), and then what it sends to the table is recorded; or what was
//! recorded is sent in its place.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::id::KeyId;
use keyward_core::token::ApiKeyToken;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Backend;

/// One of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// The one before this.
    Earlier,
    /// This one.
    This,
}

/// One request to the API and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    pub release: Release,
    pub at: DateTime<Utc>,
    pub method: String,
    pub path: String,
    pub body: Value,
    pub status: u16,
    pub response: Value,
    /// The writes to the table for it, by the earlier release only.
    pub writes: Vec<Write>,
}

/// A request that wrote into the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Write {
    /// Such as `UpdateItem`.
    pub operation: String,
    pub sent: Value,
}

/// All that it takes to do without the earlier release.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recording {
    /// Its commit.
    pub commit: String,
    /// When it began.
    pub at: DateTime<Utc>,
    /// The key that wraps its pepper, in hexadecimal digits.
    pub key: String,
    pub root_key: String,
    /// The table as that release created it.
    pub items: Vec<Value>,
    pub steps: Vec<Step>,
}

impl Recording {
    /// The recording as JSON, a line for each item and each step.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("JSON");
        for (one, lines) in [("\"items\":[", "\"items\":[\n"), ("\"steps\":[", "\n\"steps\":[\n")] {
            text = text.replacen(one, lines, 1);
        }
        text.replace("},{\"release\":", "},\n{\"release\":") + "\n"
    }
}

/// Where the two releases are.
pub trait Stage {
    /// Sends a request to a release.
    fn send(
        &mut self,
        release: Release,
        method: Method,
        path: &str,
        body: Value,
    ) -> impl Future<Output = (u16, Value)>;
}

/// Sends a request to a release by its API.
pub async fn send(backend: &Backend, method: Method, path: &str, body: Value) -> (u16, Value) {
    let response = backend.send(method, path, Some(body).filter(|body| !body.is_null())).await;
    (response.status, response.body)
}

/// The texts of a recorded response that are others now: ids, secrets and times.
#[derive(Debug, Default)]
pub struct Renamed(BTreeMap<(Reverse<usize>, String), String>);

impl Renamed {
    /// Takes note of what is other in a response than in the recorded one and may be: ids, secrets and the time, in all forms in
    /// which the table has them.
    pub fn note(&mut self, recorded: &Value, now: &Value) {
        self.note_member("", recorded, now);
    }

    fn note_member(&mut self, name: &str, recorded: &Value, now: &Value) {
        match (recorded, now) {
            (Value::Object(recorded), Value::Object(now)) => {
                for (name, value) in recorded {
                    self.note_member(name, value, now.get(name).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(recorded), Value::Array(now)) => {
                recorded.iter().zip(now).for_each(|(recorded, now)| self.note_member(name, recorded, now));
            }
            (Value::String(recorded), Value::String(now)) if recorded != now => {
                let forms = forms(name, recorded, now).into_iter();
                // The longest first: a secret holds the short forms of its ids.
                self.0.extend(forms.map(|(recorded, now)| ((Reverse(recorded.len()), recorded), now)));
            }
            _ => {}
        }
    }

    /// A recorded value as it is now.
    pub fn apply(&self, recorded: &Value) -> Value {
        let mut text = recorded.to_string();
        for ((_, recorded), now) in &self.0 {
            text = text.replace(recorded, now);
        }
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The forms of a text that may be other in each play, recorded and now; none of one that may not.
fn forms(name: &str, recorded: &str, now: &str) -> Vec<(String, String)> {
    let as_told = (recorded.to_owned(), now.to_owned());
    if name == "key_suffix" {
        return vec![as_told];
    }
    if let (Ok(recorded), Ok(now)) = (ApiKeyToken::parse(recorded), ApiKeyToken::parse(now)) {
        return vec![as_told, (recorded.app.base62(), now.app.base62())];
    }
    if let (Ok(recorded), Ok(now)) = (recorded.parse::<KeyId>(), now.parse::<KeyId>()) {
        return vec![as_told, (recorded.base62(), now.base62())];
    }
    match (recorded.parse::<DateTime<Utc>>(), now.parse::<DateTime<Utc>>()) {
        (Ok(recorded), Ok(now)) if (recorded - now).abs() < TimeDelta::seconds(2) => {
            let milliseconds = |at: DateTime<Utc>| format!("{:015}", at.timestamp_millis());
            vec![as_told, (milliseconds(recorded), milliseconds(now))]
        }
        _ => vec![],
    }
}

/// The result of a check: what an API key may do, and what a caller learns about it.
const REQUESTS: [(&str, &str, &[&str]); 5] = [
    ("GET", "/v1/users/7", &[]),
    ("POST", "/v1/users/7", &[]),
    ("GET", "/elsewhere", &[]),
    ("GET", "/v1/users/7", &["users:read"]),
    ("GET", "/v1/users/7", &["orgs:delete"]),
];

/// Plays the whole of it.
pub async fn play(stage: &mut impl Stage) {
    use Release::{Earlier, This};
    let mut acts = Acts { stage, secrets: vec![] };

    // The earlier release alone.
    acts.scheme(Earlier, "standard", 100).await;
    acts.scheme(Earlier, "small", 3).await;
    acts.app(Earlier, "bounded", bounds()).await;
    acts.app(Earlier, "open", json!({})).await;
    acts.app(Earlier, "limited", json!({"rate_limit_scheme_slug": "small"})).await;
    acts.app(Earlier, "closed", json!({})).await;
    let first = acts.key(Earlier, "bounded", full_key()).await;
    let second = acts.key(Earlier, "bounded", json!({"permissions": ["users:read"]})).await;
    let open = acts.key(Earlier, "open", json!({"permissions": ["users:*"]})).await;
    let limited = acts.new_key(Earlier, "limited", json!({})).await;
    acts.key(Earlier, "closed", json!({})).await;
    acts.checks(Earlier, &limited, [true, true]).await;
    acts.revoke(Earlier, "open", &open).await;
    acts.patch(Earlier, "closed", json!({"is_active": false})).await;
    acts.both_say_the_same().await;

    // The upgrade: the rows of one release are changed and counted on by the other.
    acts.checks(This, &limited, [true, false]).await;
    acts.both_say_the_same().await;
    acts.patch(This, "bounded", json!({"name": "Renamed", "description": "By the later release"})).await;
    acts.patch(This, "open", json!({"permissions": ["users:read"], "resources": ["/v1/*"]})).await;
    acts.patch(This, "closed", json!({"is_active": true})).await;
    acts.rotate(This, "bounded", &second).await;
    acts.scheme_limit(This, "standard", 50).await;
    acts.app(This, "later", bounds()).await;
    acts.app(This, "later-open", json!({"rate_limit_scheme_slug": "standard"})).await;
    let later = acts.key(This, "later", full_key()).await;
    let later_open = acts.key(This, "later-open", json!({"permissions": ["users:*"]})).await;
    let revoked = acts.key(This, "later", json!({})).await;
    acts.revoke(This, "later", &revoked).await;
    acts.both_say_the_same().await;

    // The rollback: the same the other way round.
    acts.checks(Earlier, &limited, [false]).await;
    acts.patch(Earlier, "later", json!({"name": "By the earlier release"})).await;
    acts.patch(Earlier, "later-open", json!({"resources": ["/v1/*"]})).await;
    acts.patch(Earlier, "bounded", json!({"permissions": ["users:read"]})).await;
    acts.patch(Earlier, "open", json!({"permissions": [], "resources": []})).await;
    acts.scheme_limit(Earlier, "standard", 40).await;
    acts.rotate(Earlier, "later", &later).await;
    acts.revoke(Earlier, "later-open", &later_open).await;
    acts.delete(Earlier, "closed").await;
    acts.both_say_the_same().await;

    // And up again.
    acts.patch(This, "later", json!({"workspace_id": "w_9", "rate_limit_scheme_slug": null})).await;
    acts.patch(This, "later-open", json!({"description": "Bounded by the earlier release"})).await;
    acts.patch(This, "open", json!({"description": "Opened by the earlier release"})).await;
    acts.rotate(This, "bounded", &first).await;
    acts.revoke(This, "bounded", &second).await;
    acts.delete(This, "limited").await;
    acts.both_say_the_same().await;
}

/// An app that has all that an app can have.
fn bounds() -> Value {
    json!({
        "permissions": ["users:read", "users:write", "orgs:*"], "resources": ["/v1/users/*"],
        "route_permissions": [{"method": "POST", "path": "/v1/users/*", "permissions": ["users:write"]}],
        "rate_limit_scheme_slug": "standard", "on_store_error": "allow", "description": "Bounded",
        "user_id": "u_1", "organization_id": "o_1", "workspace_id": "w_1",
    })
}

/// A key that has all that a key can have.
fn full_key() -> Value {
    json!({
        "permissions": ["users:read"], "org_role_permissions": ["orgs:*"], "rate_limit_scheme_slug": "standard",
        "workspace_role_permissions": ["admin"], "metadata": {"plan": "pro", "ratio": 1.25},
        "expires_at": "2096-01-01T00:00:00Z", "owner_user_id": "u_2",
    })
}

/// A key, with its first secret.
struct NewKey {
    id: String,
    secret: String,
}

struct Acts<'s, S> {
    stage: &'s mut S,
    /// The secrets of the keys that do not come near a limit, including those that no longer work.
    secrets: Vec<String>,
}

impl<S: Stage> Acts<'_, S> {
    async fn ok(&mut self, release: Release, method: Method, path: &str, body: Value) -> Value {
        let (status, response) = self.stage.send(release, method.clone(), path, body).await;
        assert_eq!(status, 200, "{release:?}: {method} {path}: {response}");
        response
    }

    async fn scheme(&mut self, release: Release, slug: &str, limit: u32) {
        let rules = json!([
            {"unit": "day", "duration": 1, "max_requests": limit, "mode": "per_key"},
            {"unit": "calendar_month", "duration": 1, "max_requests": 1000, "mode": "per_app", "endpoints": ["POST /v1/*"]},
        ]);
        let scheme = json!({"slug": slug, "name": slug, "rules": rules});
        self.ok(release, Method::POST, "/api-auth/rate-limit-schemes", scheme).await;
    }

    async fn scheme_limit(&mut self, release: Release, slug: &str, limit: u32) {
        let rules = json!([{"unit": "day", "duration": 1, "max_requests": limit}]);
        let path = format!("/api-auth/rate-limit-schemes/{slug}");
        self.ok(release, Method::PATCH, &path, json!({"rules": rules, "description": "Changed"})).await;
    }

    async fn app(&mut self, release: Release, slug: &str, mut members: Value) {
        members["app_slug"] = slug.into();
        members["name"] = slug.into();
        members["key_prefix"] = "sk_test".into();
        self.ok(release, Method::POST, "/api-auth/apps", members).await;
    }

    async fn patch(&mut self, release: Release, slug: &str, members: Value) {
        self.ok(release, Method::PATCH, &format!("/api-auth/apps/{slug}"), members).await;
    }

    async fn delete(&mut self, release: Release, slug: &str) {
        self.ok(release, Method::DELETE, &format!("/api-auth/apps/{slug}"), Value::Null).await;
    }

    async fn key(&mut self, release: Release, slug: &str, members: Value) -> NewKey {
        let created = self.new_key(release, slug, members).await;
        self.secrets.push(created.secret.clone());
        created
    }

    async fn new_key(&mut self, release: Release, slug: &str, mut members: Value) -> NewKey {
        members["name"] = format!("Key {}", self.secrets.len()).into();
        let created = self.ok(release, Method::POST, &format!("/api-auth/apps/{slug}/keys"), members).await;
        NewKey { id: crate::text(&created["key"]["id"]), secret: crate::text(&created["secret"]) }
    }

    async fn rotate(&mut self, release: Release, slug: &str, key: &NewKey) {
        let path = format!("/api-auth/apps/{slug}/keys/{}/rotate", key.id);
        let created = self.ok(release, Method::POST, &path, json!({})).await;
        self.secrets.push(crate::text(&created["secret"]));
    }

    async fn revoke(&mut self, release: Release, slug: &str, key: &NewKey) {
        let path = format!("/api-auth/apps/{slug}/keys/{}/revoke", key.id);
        self.ok(release, Method::POST, &path, json!({"reason": format!("By {release:?}")})).await;
    }

    async fn check(&mut self, release: Release, secret: &str, request: (&str, &str, &[&str])) -> Value {
        let (method, path, required) = request;
        let check = json!({
            "principal": {"type": "api_key", "value": secret}, "method": method, "resource": path,
            "required_permissions": required, "client_ip": "203.0.113.7",
        });
        let (status, mut response) = self.stage.send(release, Method::POST, "/v1/authz/check", check).await;
        let message = ["allowed", "reason", "code", "blocked_rule", "identity", "permissions", "metadata"];
        let message: BTreeMap<&str, Value> = message.map(|name| (name, response[name].take())).into();
        json!([status, message])
    }

    /// Checks one request after the other: whether each is to be allowed.
    async fn checks(&mut self, release: Release, key: &NewKey, allowed: impl IntoIterator<Item = bool>) {
        for (count, allowed) in allowed.into_iter().enumerate() {
            let message = self.check(release, &key.secret, REQUESTS[0]).await;
            assert_eq!(message[1]["allowed"], allowed, "{release:?}, {count}: {message}");
        }
    }

    /// Requires that what one release says of all that there is, and decides for every key that there ever was, is what the
    /// other one does.
    async fn both_say_the_same(&mut self) {
        let this = self.all_that(Release::This).await;
        let earlier = self.all_that(Release::Earlier).await;
        for (earlier, this) in earlier.iter().zip(&this) {
            assert_eq!(*earlier, without_additions(this, earlier), "of the earlier release and of this one");
        }
        assert_eq!(earlier.len(), this.len());
    }

    async fn all_that(&mut self, release: Release) -> Vec<Value> {
        let mut message = vec![];
        for path in ["/api-auth/apps?include_inactive=true", "/api-auth/rate-limit-schemes"] {
            message.push(self.ok(release, Method::GET, path, Value::Null).await);
        }
        let apps: Vec<String> = message[0]["apps"]
            .as_array()
            .expect("apps")
            .iter()
            .map(|app| crate::text(&app["app_slug"]))
            .collect();
        for slug in apps {
            let path = format!("/api-auth/apps/{slug}/keys?include_inactive=true");
            let mut keys = self.ok(release, Method::GET, &path, Value::Null).await;
            for list in ["keys", "data"] {
                for key in keys[list].as_array_mut().into_iter().flatten() {
                    key["last_used_at"].take();
                }
            }
            message.push(keys);
        }
        for secret in self.secrets.clone() {
            for request in REQUESTS {
                message.push(self.check(release, &secret, request).await);
            }
        }
        message
    }
}

/// A response of this release, without members that the earlier one does not know.
fn without_additions(this: &Value, earlier: &Value) -> Value {
    match (this, earlier) {
        (Value::Object(this), Value::Object(earlier)) => {
            let known = this.iter().filter_map(|(name, value)| Some((name, value, earlier.get(name)?)));
            known.map(|(name, this, earlier)| (name.clone(), without_additions(this, earlier))).collect()
        }
        (Value::Array(this), Value::Array(earlier)) if this.len() == earlier.len() => {
            this.iter().zip(earlier).map(|(this, earlier)| without_additions(this, earlier)).collect()
        }
        _ => this.clone(),
    }
}
