//! Revoked access stays revoked: the short form of the soak in `tests/bench`.

use std::sync::atomic::Ordering;

use keyward_runtime::Services;
use keyward_tests::{Keyward, Soak};
use keyward_verifier::Verifier;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_check_that_starts_after_a_revocation_was_answered_is_allowed() {
    let keyward = Keyward::start().await;
    let Services { store, recorder, public, .. } = keyward.authorizer.clone();
    let verifier = Verifier::new(store, recorder, public.deployment_id());
    let soak = Soak::prepare(keyward.backend(), verifier, 5_000).await;
    soak.run().await;
    for changes in [&soak.revocations, &soak.rotations, &soak.disablings] {
        assert!(changes.load(Ordering::SeqCst) > 10);
    }
}
