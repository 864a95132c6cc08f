//! Root keys, as the operator makes, lists and revokes them.

use keyward_core::deployment::Mode;
use keyward_core::id::RootKeyId;
use keyward_core::text::Name;
use keyward_store::{Error, Scope};
use keyward_tests::Keyward;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_root_key_is_refused_by_the_next_request() {
    let keyward = Keyward::start().await;
    let store = &keyward.services.store;
    let deployment = keyward.deployment();
    let leaked = keyward.backend_with(deployment, &[Scope::Manage]).await;
    leaked.get("/api-auth/apps").await.ok();
    let listed = store.root_keys(deployment).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["Test", "First root key"], "newest first");
    assert_eq!(listed[0].scopes, [Scope::Manage]);

    let (other, backend) = keyward.other_deployment(Mode::Production, &[]).await;
    let foreign = store.revoke_root_key(other, listed[0].id).await;
    assert!(matches!(foreign, Err(Error::NotFound(_))), "another deployment's");
    leaked.get("/api-auth/apps").await.ok();

    store.revoke_root_key(deployment, listed[0].id).await.unwrap();
    leaked.get("/api-auth/apps").await.is_error(401, "invalid_root_key");
    keyward.backend().get("/api-auth/apps").await.ok();
    backend.get("/api-auth/apps").await.ok();
    assert_eq!(store.root_keys(deployment).await.unwrap().len(), 1);
    for gone in [listed[0].id, "42".parse::<RootKeyId>().unwrap()] {
        let refused = store.revoke_root_key(deployment, gone).await;
        assert!(matches!(refused, Err(Error::NotFound(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_one_first_deployment() {
    let keyward = Keyward::start().await;
    let store = &keyward.services.store;
    let name = |text| Name::parse("name", text).unwrap();
    let again =
        store.create_first_deployment(name("Second"), Mode::Production, name("Second")).await.unwrap();
    assert!(again.is_none());
    assert_eq!(store.table().first_deployment().await.unwrap().unwrap().id, keyward.deployment());
    assert_eq!(store.root_keys(keyward.deployment()).await.unwrap().len(), 1, "and no root key more");
    let nowhere = store.create_root_key("42".parse().unwrap(), name("Lost"), &Scope::ALL).await;
    assert!(matches!(nowhere, Err(Error::NotFound(_))));
}
