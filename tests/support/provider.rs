//! The contract of every key provider.

use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::{PepperRecord, WrappedPepper};
use keyward_pepper::{KeyProvider, PepperError, unlock};
use secrecy::ExposeSecret;

/// Requires that a provider does what the peppers depend on. `elsewhere` uses the same key for another installation.
pub async fn conforms(provider: &dyn KeyProvider, elsewhere: &dyn KeyProvider) {
    let [one, two] = [PepperVersion(1), PepperVersion(2)];
    let first = provider.generate(one).await.expect("a pepper");
    let second = provider.generate(two).await.expect("a pepper");
    assert_eq!((first.version, second.version), (one, two));

    let unwrap = async |pepper: &WrappedPepper| {
        let plain = provider.unwrap(pepper).await.expect("the pepper");
        assert_eq!(format!("{plain:?}"), "SecretBox<[u8; 32]>([REDACTED])");
        *plain.expose_secret()
    };
    let plain = unwrap(&first).await;
    assert!(unwrap(&first).await == plain, "it stays the same");
    assert!(unwrap(&second).await != plain, "each is its own");
    assert_ne!(provider.generate(one).await.expect("a pepper").wrapped, first.wrapped);
    assert!(!first.wrapped.windows(plain.len()).any(|window| window == plain), "it is wrapped");

    let changed = |at: usize| {
        let mut changed = first.clone();
        changed.wrapped[at] ^= 1;
        changed
    };
    let last = first.wrapped.len() - 1;
    for (what, pepper) in [
        ("another version", WrappedPepper { version: two, ..first.clone() }),
        ("another provider", WrappedPepper { provider: "nobody".into(), ..first.clone() }),
        (
            "the wrapped bytes of another version",
            WrappedPepper { wrapped: second.wrapped.clone(), ..first.clone() },
        ),
        ("cut", WrappedPepper { wrapped: first.wrapped[..5].to_vec(), ..first.clone() }),
        ("nothing", WrappedPepper { wrapped: vec![], ..first.clone() }),
    ] {
        assert!(provider.unwrap(&pepper).await.is_err(), "{what}");
    }
    // Emulators of KMS do not all authenticate what they wrap, as KMS does.
    for at in [last, last / 2] {
        let unwrapped = provider.unwrap(&changed(at)).await;
        assert!(!unwrapped.is_ok_and(|other| *other.expose_secret() == plain), "a changed byte at {at}");
    }
    assert!(elsewhere.unwrap(&first).await.is_err(), "another installation");

    let record = |pepper: &WrappedPepper, active: bool| {
        let created = PepperRecord::new(pepper.clone(), chrono::DateTime::UNIX_EPOCH);
        PepperRecord { activated_at: active.then_some(chrono::DateTime::UNIX_EPOCH), ..created }
    };
    let missing = unlock(provider, &[record(&first, false)], None).await;
    assert!(matches!(missing, Err(PepperError::Missing)), "none is active");
    let both = [record(&second, true), record(&first, true)];
    let ring = unlock(provider, &both, None).await.expect("a ring");
    assert!(ring.current() == two && ring.holds(one) && ring.holds(two));
    let retired = PepperRecord { wrapped: None, ..record(&first, true) };
    let ring = unlock(provider, &[record(&second, true), retired], Some(&ring)).await.expect("a ring");
    assert!(!ring.holds(one) && ring.holds(two));
    assert!(unlock(elsewhere, &both, None).await.is_err());
}
