//! Guarantees under concurrency, raced for real.

use futures::future::join_all;
use serde_json::json;

use keyward_tests::{Browser, Keyward, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_100_concurrent_exchanges_of_a_ticket_exactly_one_wins() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    for round in 0..10 {
        let ticket = backend.ticket("acme").await;
        let exchanges = (0..100).map(|_| {
            let (mut browser, ticket) = (Browser::new(&backend), ticket.clone());
            tokio::spawn(async move { browser.exchange(&ticket).await })
        });
        let responses = join_all(exchanges).await;
        let won = responses.iter().filter(|response| response.as_ref().unwrap().status == 200).count();
        assert_eq!(won, 1, "round {round}");
        for response in responses.into_iter().map(Result::unwrap).filter(|response| response.status != 200) {
            response.is_error(401, "invalid_ticket");
            assert!(response.header("x-development-session").is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_rotations_leave_exactly_one_live_secret() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    for _ in 0..20 {
        let created = backend.create_key("acme", json!({})).await;
        let (id, first) = (text(&created["id"]), text(&created["secret"]));
        let responses = join_all((0..2).map(|_| backend.rotate("acme", &id))).await;
        let mut secrets = vec![first];
        for response in &responses {
            match response.status {
                200 => secrets.push(text(&response.body["secret"])),
                _ => _ = response.is_error(409, "conflict"),
            }
        }
        let checks = join_all(secrets.iter().map(|secret| keyward.check(secret))).await;
        let live = checks.iter().filter(|response| response.status == 200).count();
        assert_eq!(live, 1, "{} rotations were answered", secrets.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_key_is_refused_by_the_next_check() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    for _ in 0..50 {
        let created = backend.create_key("acme", json!({})).await;
        let secret = text(&created["secret"]);
        // Checks go on throughout; those that start after the response to the revocation must be refused.
        let before = join_all((0..8).map(|_| keyward.check(&secret)));
        let id = text(&created["id"]);
        let revoke = async {
            backend.revoke("acme", &id).await.ok();
            join_all((0..8).map(|_| keyward.check(&secret))).await
        };
        let (before, after) = futures::join!(before, revoke);
        assert!(before.iter().all(|response| [200, 403].contains(&response.status)));
        for response in after {
            response.is_error(403, "key_revoked");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_wins_against_rotations() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    for _ in 0..20 {
        let created = backend.create_key("acme", json!({})).await;
        let id = text(&created["id"]);
        let (rotated, revoked) = futures::join!(backend.rotate("acme", &id), backend.revoke("acme", &id));
        revoked.ok();
        if rotated.status == 200 {
            keyward.check(&text(&rotated.body["secret"])).await.is_error(403, "key_revoked");
        }
        let active = backend.get("/api-auth/apps/acme/keys").await.ok();
        assert_eq!(active["keys"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_creations_of_a_slug_exactly_one_wins() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    let app = json!({"app_slug": "acme", "name": "Acme"});
    let responses = join_all((0..20).map(|_| backend.post("/api-auth/apps", app.clone()))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1);
    for response in responses.iter().filter(|response| response.status != 200) {
        response.is_error(409, "conflict");
    }
    assert_eq!(backend.get("/api-auth/apps").await.ok()["total"], 2, "acme and demo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_hold_each_key_once_while_keys_are_revoked() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let created = join_all((0..40).map(|_| backend.create_key("acme", json!({})))).await;
    let revoke = async {
        for key in &created {
            backend.revoke("acme", &text(&key["id"])).await.ok();
        }
    };
    let list = async {
        for _ in 0..40 {
            let all = backend.get("/api-auth/apps/acme/keys?include_inactive=true").await.ok();
            assert_eq!(all["keys"].as_array().unwrap().len(), 40);
        }
    };
    futures::join!(revoke, list);
}
