//! The published Rust SDK against an installation: every method of `api_keys()`, and tickets, unchanged.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use wacht::api::api_keys::{
    CreateApiAuthAppRequest, CreateApiKeyRequest, CreateRateLimitSchemeRequest, GetApiAuditAnalyticsQuery,
    GetApiAuditTimeseriesQuery, ListApiAuditLogsQuery, RateLimit, RateLimitMode, RateLimitUnit,
    RevokeApiKeyRequest, UpdateApiAuthAppRequest, UpdateRateLimitSchemeRequest,
};
use wacht::models::CreateSessionTicketRequest;
use wacht::{Error, WachtClient, WachtConfig};

use keyward_tests::Keyward;

fn client(keyward: &Keyward) -> WachtClient {
    let mut config = WachtConfig::new(&keyward.described.root_key, &keyward.url);
    config.base_url = keyward.url.clone();
    WachtClient::new(config).unwrap()
}

fn app(slug: &str) -> CreateApiAuthAppRequest {
    CreateApiAuthAppRequest {
        user_id: None,
        organization_id: None,
        workspace_id: None,
        app_slug: slug.into(),
        name: "My Integration".into(),
        key_prefix: "sk_live".into(),
        description: Some("Integration with external service".into()),
        rate_limit_scheme_slug: None,
        permissions: None,
        resources: None,
    }
}

fn update() -> UpdateApiAuthAppRequest {
    UpdateApiAuthAppRequest {
        organization_id: None,
        workspace_id: None,
        name: None,
        key_prefix: None,
        description: None,
        is_active: None,
        rate_limit_scheme_slug: None,
        permissions: None,
        resources: None,
    }
}

fn key(name: &str) -> CreateApiKeyRequest {
    CreateApiKeyRequest { name: name.into(), permissions: None, expires_at: None, metadata: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn apps() {
    let keyward = Keyward::start().await;
    let wacht = client(&keyward);
    let api = wacht.api_keys();
    assert_eq!(wacht.health().check().send().await.unwrap().status, "healthy");

    let request = CreateApiAuthAppRequest {
        user_id: Some("usr_abc123".into()),
        organization_id: Some("org_abc123".into()),
        workspace_id: Some("42".into()),
        permissions: Some(vec!["users:read".into(), "orgs:read".into()]),
        resources: Some(vec!["users/*".into()]),
        ..app("my-integration")
    };
    let created = api.create_api_auth_app(request).send().await.unwrap();
    assert_eq!(created.deployment_id, keyward.deployment().to_string());
    assert_eq!(created.app_slug, "my-integration");
    assert_eq!(created.key_prefix, "sk_live");
    assert_eq!(created.user_id.as_deref(), Some("usr_abc123"));
    assert_eq!(created.permissions, ["users:read", "orgs:read"]);
    assert_eq!(created.resources, ["users/*"]);
    assert!(created.is_active && created.deleted_at.is_none());
    assert!((Utc::now() - created.created_at).abs() < TimeDelta::minutes(1));

    let got = api.get_api_auth_app("my-integration").send().await.unwrap();
    assert_eq!(got.description.as_deref(), Some("Integration with external service"));

    let request = UpdateApiAuthAppRequest {
        name: Some("Updated Integration Name".into()),
        is_active: Some(false),
        ..update()
    };
    let updated = api.update_api_auth_app("my-integration", request).send().await.unwrap();
    assert_eq!(updated.name, "Updated Integration Name");
    assert!(!updated.is_active);
    assert_eq!(updated.permissions, created.permissions, "what is absent is left");

    let slugs = |apps: Vec<wacht::api::api_keys::ApiAuthApp>| -> Vec<String> {
        apps.into_iter().map(|app| app.app_slug).collect()
    };
    let active = api.list_api_auth_apps().send().await.unwrap();
    assert_eq!(slugs(active), ["demo"]);
    let all = api.list_api_auth_apps().include_inactive(true).send().await.unwrap();
    assert_eq!(slugs(all), ["my-integration", "demo"], "newest first");

    api.delete_api_auth_app("my-integration").send().await.unwrap();
    let gone = api.get_api_auth_app("my-integration").send().await.unwrap_err();
    assert!(matches!(gone, Error::Api { status, .. } if status.as_u16() == 404), "{gone}");
    let all = api.list_api_auth_apps().include_inactive(true).send().await.unwrap();
    assert_eq!(slugs(all), ["demo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys() {
    let keyward = Keyward::start().await;
    let wacht = client(&keyward);
    let api = wacht.api_keys();
    api.create_api_auth_app(app("my-integration")).send().await.unwrap();

    let expires_at = Utc::now() + TimeDelta::days(365);
    let request = CreateApiKeyRequest {
        permissions: Some(vec!["users:read".into(), "orgs:read".into()]),
        expires_at: Some(expires_at),
        metadata: Some(json!({"environment": "production"})),
        ..key("Production Key")
    };
    let created = api.create_api_key("my-integration", request).send().await.unwrap();
    assert!(created.secret.starts_with("sk_live_"));
    assert!(created.secret.ends_with(&created.key.key_suffix));
    assert_eq!(created.key.name, "Production Key");
    assert_eq!(created.key.permissions, ["users:read", "orgs:read"]);
    assert_eq!(created.key.metadata, json!({"environment": "production"}));
    assert_eq!(created.key.expires_at.unwrap().timestamp_millis(), expires_at.timestamp_millis());
    assert_eq!(created.key.deployment_id, keyward.deployment().to_string());

    let id: i64 = created.key.id.parse().unwrap();
    let rotated = api.rotate_api_key("my-integration", id).send().await.unwrap();
    assert_eq!(rotated.key.id, created.key.id);
    assert_ne!(rotated.secret, created.secret);

    let second = api.create_api_key("my-integration", key("Second")).send().await.unwrap();
    let listed = api.list_api_keys("my-integration").send().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["Second", "Production Key"]);
    assert_eq!(listed[1].key_suffix, rotated.key.key_suffix);

    let request = RevokeApiKeyRequest { reason: Some("Key no longer needed".into()) };
    api.revoke_api_key("my-integration", id, request).send().await.unwrap();
    let again = RevokeApiKeyRequest { reason: None };
    let again = api.revoke_api_key("my-integration", id, again).send().await.unwrap_err();
    assert!(matches!(again, Error::Api { status, .. } if status.as_u16() == 404), "{again}");

    let active = api.list_api_keys("my-integration").send().await.unwrap();
    assert_eq!(active.len(), 1);
    assert_eq!(active[0].id, second.key.id);
    let all = api.list_api_keys("my-integration").include_inactive(true).send().await.unwrap();
    assert_eq!(all.len(), 2);
    assert!(!all[1].is_active);
    assert_eq!(all[1].revoked_reason.as_deref(), Some("Key no longer needed"));
    assert!(all[1].revoked_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_schemes() {
    let keyward = Keyward::start().await;
    let wacht = client(&keyward);
    let api = wacht.api_keys();
    let rule = RateLimit {
        unit: RateLimitUnit::Minute,
        duration: 1,
        max_requests: 100,
        mode: Some(RateLimitMode::PerKey),
        endpoints: Some(vec!["/v1/users/*".into()]),
        priority: 3,
    };
    let request = CreateRateLimitSchemeRequest {
        slug: "standard_tier".into(),
        name: "Standard".into(),
        description: None,
        rules: vec![rule],
    };
    let created = api.create_rate_limit_scheme(request).send().await.unwrap();
    assert_eq!(created.slug, "standard_tier");
    assert!(created.id.parse::<i64>().is_ok());

    let got = api.get_rate_limit_scheme("standard_tier").send().await.unwrap();
    assert_eq!(got.rules[0].max_requests, 100);
    assert_eq!(got.rules[0].mode, Some(RateLimitMode::PerKey));
    assert_eq!(got.rules[0].endpoints.as_deref().unwrap(), ["/v1/users/*"]);
    assert_eq!(got.rules[0].priority, 3);

    // This client sends `name: null, description: null, rules: null` for what it leaves.
    let request =
        UpdateRateLimitSchemeRequest { description: Some("For everybody".into()), ..Default::default() };
    let updated = api.update_rate_limit_scheme("standard_tier", request).send().await.unwrap();
    assert_eq!(updated.name, "Standard");
    assert_eq!(updated.description.as_deref(), Some("For everybody"));
    assert_eq!(updated.rules.len(), 1);
    assert_eq!(api.list_rate_limit_schemes().send().await.unwrap().len(), 1);

    let limited = CreateApiAuthAppRequest {
        rate_limit_scheme_slug: Some("standard_tier".into()),
        ..app("my-integration-with-rate-limit")
    };
    let created = api.create_api_auth_app(limited).send().await.unwrap();
    assert_eq!(created.rate_limit_scheme_slug.as_deref(), Some("standard_tier"));
    assert_eq!(created.rate_limits.len(), 1);
    api.create_api_key("my-integration-with-rate-limit", key("Limited")).send().await.unwrap();
    let keys = api.list_api_keys("my-integration-with-rate-limit").send().await.unwrap();
    assert_eq!(keys[0].rate_limits.len(), 1);

    let used = api.delete_rate_limit_scheme("standard_tier").send().await.unwrap_err();
    assert!(matches!(used, Error::Api { status, .. } if status.as_u16() == 400), "{used}");
    api.delete_api_auth_app("my-integration-with-rate-limit").send().await.unwrap();
    api.delete_rate_limit_scheme("standard_tier").send().await.unwrap();
    assert!(api.list_rate_limit_schemes().send().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_and_tickets() {
    let keyward = Keyward::start().await;
    let wacht = client(&keyward);
    let api = wacht.api_keys();
    api.create_api_auth_app(app("my-integration")).send().await.unwrap();
    let created = api.create_api_key("my-integration", key("Production Key")).send().await.unwrap();
    for required in ["", "", "users:write"] {
        let mut body = keyward_tests::check_body(&created.secret);
        body["required_permissions"] = json!([required]);
        keyward.check_with(body).await.ok();
    }
    keyward.settle().await;

    let query =
        ListApiAuditLogsQuery { limit: Some(2), key_id: Some(created.key.id.clone()), ..Default::default() };
    let page = api.get_api_audit_logs("my-integration", query.clone()).send().await.unwrap();
    assert_eq!((page.limit, page.has_more, page.data.len()), (2, true, 2));
    assert_eq!(page.data[0].outcome, "blocked");
    assert_eq!(page.data[0].blocked_by_rule.as_deref(), Some("permission_denied"));
    assert_eq!(page.data[0].key_name, "Production Key");
    assert_eq!(page.data[0].app_slug, "my-integration");
    let query = ListApiAuditLogsQuery { cursor: page.next_cursor, ..query };
    let rest = api.get_api_audit_logs("my-integration", query).send().await.unwrap();
    assert_eq!((rest.has_more, rest.data.len()), (false, 2), "a verification, and the creation");

    let query = GetApiAuditAnalyticsQuery {
        start_date: Some(Utc::now() - TimeDelta::hours(1)),
        include_top_keys: Some(true),
        include_top_paths: Some(true),
        include_blocked_reasons: Some(true),
        include_rate_limits: Some(true),
        ..Default::default()
    };
    let figures = api.get_api_audit_analytics("my-integration", query).send().await.unwrap();
    assert_eq!((figures.total_requests, figures.allowed_requests, figures.blocked_requests), (3, 2, 1));
    assert!((figures.success_rate - 200.0 / 3.0).abs() < 1e-9);
    assert_eq!(figures.keys_used_24h, 1);
    assert_eq!(figures.top_keys.unwrap()[0].total_requests, 3);
    assert_eq!(figures.top_paths.unwrap()[0].path, "GET /v1/users");
    assert_eq!(figures.blocked_reasons.unwrap()[0].blocked_by_rule, "permission_denied");
    assert_eq!(figures.rate_limit_stats.unwrap().total_hits, 0);

    let query = GetApiAuditTimeseriesQuery { interval: Some("month".into()), ..Default::default() };
    let series = api.get_api_audit_timeseries("my-integration", query).send().await.unwrap();
    assert_eq!(series.interval, "month");
    assert_eq!(series.data.iter().map(|point| point.total_requests).sum::<i64>(), 3);

    let request = CreateSessionTicketRequest::api_auth_access("my-integration").expires_in(60);
    let ticket = wacht.session().create(request).send().await.unwrap();
    let left = ticket.expires_at - Utc::now().timestamp();
    assert!((55..=60).contains(&left), "{left}");
    assert_eq!(ticket.url, format!("{}/vanity/api-auth?ticket={}", keyward.url, ticket.ticket));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_keys() {
    let keyward = Keyward::start().await;
    let set = wacht::client::fetch_jwks(&keyward.url).await.unwrap();
    assert_eq!(set.keys.len(), 1);
    assert_eq!(set.keys[0].kty, "EC");
    let pem = wacht::client::fetch_public_key(&keyward.url).await.unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"), "{pem}");
    assert!(pem.lines().all(|line| line.len() <= 64));
}
