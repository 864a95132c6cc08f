//! The cost of making a tag and of comparing one, next to a bare HMAC-SHA-256 of as many bytes. See README.md.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::id::{AppNumber, DeploymentId, KeyId};
use keyward_core::text::KeyPrefix;
use keyward_core::token::{ApiKeyToken, Secret};
use ring::hmac;

fn hmacs(criterion: &mut Criterion) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    // As many as a tag's: the domain, a zero, two numbers, the secret's digits.
    let message = [b'x'; 17 + 1 + 16 + 43];
    criterion.bench_function("a bare HMAC-SHA-256 of 77 bytes", |bencher| {
        bencher.iter(|| hmac::sign(&key, black_box(&message)));
    });

    let deployment = DeploymentId::new(1).expect("an id");
    let token = ApiKeyToken {
        prefix: KeyPrefix::parse("key_prefix", "sk").expect("a prefix"),
        app: AppNumber::mint(1),
        id: KeyId::new(2).expect("an id"),
        secret: Secret::from_random(&[5; 32]),
    };
    let peppers = [1, 2, 3].map(|n| (PepperVersion(n), [n as u8; 32]));
    let ring = |versions: usize| {
        let held = peppers.iter().take(versions).map(|(version, pepper)| (*version, pepper));
        Keyring::new(PepperVersion(versions as u32), held).expect("a ring")
    };
    let one = ring(1);
    criterion.bench_function("a tag is made", |bencher| {
        bencher.iter(|| one.tag_api_key(deployment, black_box(&token)));
    });
    let tag = one.tag_api_key(deployment, &token).expect("a tag");
    for versions in [1, 2, 3] {
        let ring = ring(versions);
        let tag = ring.retag(&tag).expect("a tag");
        criterion.bench_function(&format!("a tag is compared, {versions} live versions"), |bencher| {
            bencher.iter(|| ring.verify(deployment, black_box(&token), &tag).is_ok());
        });
    }
}

criterion_group!(benches, hmacs);
criterion_main!(benches);
