//! Scenarios against any installation: one of the test's own or the one that `KEYWARD_URL` and `KEYWARD_ROOT_KEY` name, a
//! deployment on an emulator or on AWS, in staging mode.

use std::env;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::future::join_all;
use keyward_runtime::VerifyAuth;
use keyward_tests::{ApiResponse, Backend, Browser, Keyward, check_body, scenario, text};
use serde_json::json;

/// The installation to test.
enum Target {
    Own(Box<Keyward>),
    Named(Backend),
}

impl Target {
    async fn get() -> Self {
        match (env::var("KEYWARD_URL"), env::var("KEYWARD_ROOT_KEY")) {
            (Ok(url), Ok(root_key)) => {
                Self::Named(Backend::new(url.trim_end_matches('/'), &root_key, reqwest::Client::new()))
            }
            (Err(_), Err(_)) => Self::Own(Box::new(Keyward::start_with(VerifyAuth::Required).await)),
            _ => panic!("KEYWARD_URL and KEYWARD_ROOT_KEY come together, or not at all"),
        }
    }

    fn backend(&self) -> Backend {
        match self {
            Self::Own(keyward) => keyward.backend(),
            Self::Named(backend) => backend.clone(),
        }
    }

    async fn pause(&self, time: TimeDelta) {
        match self {
            Self::Own(keyward) => keyward.pass(time),
            Self::Named(_) => tokio::time::sleep(time.to_std().expect("a length of time")).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job() {
    scenario::main_job(&Target::get().await.backend()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_access() {
    let target = Target::get().await;
    scenario::every_access(&target.backend(), async |time| target.pause(time).await).await;
}

/// The authorizer, on the sample route of a deployment; a local run has no API Gateway and so no such route.
#[tokio::test(flavor = "multi_thread")]
async fn the_sample_route_opens_with_a_key() {
    let target = Target::get().await;
    let backend = target.backend();
    let sample = async |key: &str| {
        let request = backend.http.get(format!("{}/sample", backend.url)).header("x-api-key", key);
        ApiResponse::of(request.send().await.expect("an answer")).await
    };
    if let Target::Own(_) = target {
        sample("").await.is_error(404, "route_not_found");
        return;
    }
    let slug = scenario::unique("sample");
    backend.create_app(&slug).await;
    let key = backend.create_key(&slug, json!({"permissions": ["read"]})).await;
    let opened = sample(&text(&key["secret"])).await.ok();
    assert_eq!(opened["key_id"], key["id"]);
    assert_eq!(opened["app_slug"], slug.as_str());
    assert_eq!(opened["permissions"], "read");
    backend.revoke(&slug, &text(&key["id"])).await.ok();
    for refused in [text(&key["secret"]), "garbage".to_owned()] {
        let response = sample(&refused).await;
        assert!(matches!(response.status, 401 | 403), "{}", response.body);
    }
    // The event of a request is written after its response.
    let started = Instant::now();
    let log = loop {
        let log = backend.get(&format!("/api-auth/apps/{slug}/audit/logs")).await.ok();
        if log["data"][0]["outcome"] == "blocked" || started.elapsed() > Duration::from_secs(20) {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(log["data"][0]["outcome"], "blocked", "{log}");
    assert_eq!(log["data"][0]["path"], "GET /sample", "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_exchanges_one_wins() {
    let backend = Target::get().await.backend();
    let slug = scenario::unique("race");
    backend.create_app(&slug).await;
    let ticket = backend.ticket(&slug).await;
    let exchanges = join_all((0..20).map(async |_| Browser::new(&backend).exchange(&ticket).await)).await;
    assert_eq!(exchanges.iter().filter(|response| response.status == 200).count(), 1);
    assert!(
        exchanges.iter().all(|response| response.status == 200 || response.body["code"] == "invalid_ticket")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_requests_a_limit_lets_exactly_as_many_through_as_it_says() {
    let backend = Target::get().await.backend();
    let slug = scenario::unique("limited");
    let rules = json!([
        {"unit": "day", "duration": 1, "max_requests": 5},
        {"unit": "calendar_month", "duration": 1, "max_requests": 50},
    ]);
    let scheme = json!({"slug": slug, "name": "Limited", "rules": rules});
    backend.post("/api-auth/rate-limit-schemes", scheme).await.ok();
    let app = json!({"app_slug": slug, "name": "Limited", "rate_limit_scheme_slug": slug});
    backend.post("/api-auth/apps", app).await.ok();
    let key = text(&backend.create_key(&slug, json!({})).await["secret"]);
    let checks = (0..12).map(async |_| backend.post("/v1/authz/check", check_body(&key)).await.ok());
    let responses = join_all(checks).await;
    assert_eq!(responses.iter().filter(|response| response["allowed"] == true).count(), 5);
    for refused in responses.iter().filter(|response| response["allowed"] == false) {
        assert_eq!(refused["blocked_rule"], "5/86400s");
        let left = refused["rate_limits"][1]["remaining"].as_i64().expect("a number");
        assert!((45..50).contains(&left), "a refused request is counted by no rule: {refused}");
    }
}
