//! Root keys, as the operator makes, lists and revokes them.

use keyward_core::deployment::Mode;
use keyward_core::id::RootKeyId;
use keyward_core::root_key::Scope;
use keyward_core::text::Name;
use keyward_runtime::VerifyAuth;
use keyward_store::Error;
use keyward_tests::{ApiResponse, Keyward, operator};

use crate::tenancy::routes;

const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261125/us-east-1/lambda/aws4_request, \
                         SignedHeaders=host;x-amz-date, Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe";

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_root_key_is_refused_by_the_next_request() {
    let keyward = Keyward::start().await;
    let store = &keyward.services.store;
    let deployment = keyward.deployment();
    let leaked = keyward.backend_with(deployment, &[Scope::Manage]).await;
    leaked.get("/api-auth/apps").await.ok();
    let listed = store.root_keys(&operator(), deployment).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["Test", "First root key"], "newest first");
    assert_eq!(listed[0].scopes, [Scope::Manage]);

    let (other, backend) = keyward.other_deployment(Mode::Production, &[]).await;
    let foreign = store.revoke_root_key(&operator(), other, listed[0].id).await;
    assert!(matches!(foreign, Err(Error::NotFound(_))), "another deployment's");
    leaked.get("/api-auth/apps").await.ok();

    store.revoke_root_key(&operator(), deployment, listed[0].id).await.unwrap();
    leaked.get("/api-auth/apps").await.is_error(401, "invalid_root_key");
    keyward.backend().get("/api-auth/apps").await.ok();
    backend.get("/api-auth/apps").await.ok();
    assert_eq!(store.root_keys(&operator(), deployment).await.unwrap().len(), 1);
    for gone in [listed[0].id, "42".parse::<RootKeyId>().unwrap()] {
        let refused = store.revoke_root_key(&operator(), deployment, gone).await;
        assert!(matches!(refused, Err(Error::NotFound(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_one_first_deployment() {
    let keyward = Keyward::start().await;
    let store = &keyward.services.store;
    let name = |text| Name::parse("name", text).unwrap();
    let again = store
        .create_first_deployment(&operator(), name("Second"), Mode::Production, name("Second"))
        .await
        .unwrap();
    assert!(again.is_none());
    assert_eq!(store.table().public_access().await.unwrap().unwrap().deployment_id(), keyward.deployment());
    assert_eq!(
        store.root_keys(&operator(), keyward.deployment()).await.unwrap().len(),
        1,
        "and no root key more"
    );
    let nowhere = store.create_root_key(&operator(), "42".parse().unwrap(), name("Lost"), &Scope::ALL).await;
    assert!(matches!(nowhere, Err(Error::NotFound(_))));
}

/// The case of a function URL with `AWS_IAM`, on every route that takes a root key.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_comes_in_a_header_of_its_own_beside_a_signature() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    let backend = keyward.backend();
    let other = keyward.backend_with(keyward.deployment(), &[Scope::Manage]).await;
    let mut tried = 0;
    for route in routes().into_iter().filter(|route| route.function != "hosted-page") {
        let path = route.path.replace("{slug}", "nowhere").replace("{id}", "1");
        let send = async |headers: &[(&str, &str)]| {
            let request = keyward.http.request(route.method.clone(), format!("{}{path}", keyward.url));
            let request = request.header("content-type", "application/json").body("{}");
            let request =
                headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            ApiResponse::of(request.send().await.unwrap()).await
        };
        if send(&[]).await.body["code"] != "missing_root_key" {
            continue;
        }
        tried += 1;
        let signed = ("authorization", SIGNATURE);
        send(&[signed]).await.is_error(401, "missing_root_key");
        let own = ("x-keyward-root-key", backend.root_key.as_str());
        let bearer = format!("Bearer {}", backend.root_key);
        for headers in [[signed, own].as_slice(), &[own], &[("authorization", &bearer), own]] {
            let response = send(headers).await;
            assert!(response.status != 401, "{} {path}: {}", route.method, response.body);
        }
        let others = ("x-keyward-root-key", other.root_key.as_str());
        for headers in [[own, others].as_slice(), &[own, own], &[("authorization", &bearer), others]] {
            send(headers).await.is_error(400, "invalid_field");
        }
        send(&[signed, ("x-keyward-root-key", "nonsense")]).await.is_error(401, "invalid_root_key");
    }
    assert!(tried > 20, "{tried}");
}
