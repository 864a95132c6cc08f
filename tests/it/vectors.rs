//! The known answers of `tests/vectors/credentials.json`, which was computed by another implementation.

use keyward_core::hashing::{Keyring, PepperVersion};
use keyward_core::id::{DeploymentId, KeyId};
use keyward_core::text::KeyPrefix;
use keyward_core::token::{ApiKeyToken, Kind, RootKey, Secret, Session, Ticket, Token, TokenError};
use secrecy::ExposeSecret;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    tokens: Vec<TokenVector>,
    malformed_api_keys: Vec<Malformed>,
    tags: Vec<TagVector>,
}

#[derive(Deserialize)]
struct TokenVector {
    kind: String,
    prefix: String,
    app: Option<u64>,
    id: String,
    secret: String,
    text: String,
    suffix: String,
    checksum: String,
    crc32: u32,
}

#[derive(Deserialize)]
struct Malformed {
    text: String,
    why: String,
}

#[derive(Deserialize)]
struct TagVector {
    kind: String,
    deployment: String,
    id: String,
    secret: String,
    peppers: Vec<String>,
    tag: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/credentials.json")).unwrap()
}

fn bytes(hex: &str) -> [u8; 32] {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn token<K: Kind>(id: &str, secret: &str) -> Token<K> {
    let id: i64 = id.parse().unwrap();
    let id = K::parse_id(&KeyId::new(id).unwrap().base62()).unwrap();
    Token::new(id, Secret::from_random(&bytes(secret)))
}

#[test]
fn tokens() {
    for vector in vectors().tokens {
        let revealed = match vector.kind.as_str() {
            "api_key" => {
                let parsed = ApiKeyToken::parse(&vector.text).unwrap();
                assert_eq!(parsed.id.to_string(), vector.id);
                assert_eq!(parsed.suffix(), vector.suffix);
                let created = ApiKeyToken {
                    prefix: KeyPrefix::parse("key_prefix", &vector.prefix).unwrap(),
                    app: keyward_core::id::AppNumber::mint(vector.app.unwrap()),
                    id: vector.id.parse().unwrap(),
                    secret: Secret::from_random(&bytes(&vector.secret)),
                };
                assert_eq!(parsed.app, created.app);
                created.reveal()
            }
            "root_key" => token::<RootKey>(&vector.id, &vector.secret).reveal(),
            "ticket" => token::<Ticket>(&vector.id, &vector.secret).reveal(),
            "session" => token::<Session>(&vector.id, &vector.secret).reveal(),
            kind => panic!("{kind}"),
        };
        assert_eq!(revealed.expose_secret(), vector.text);
        let (rest, checksum) = vector.text.split_at(vector.text.len() - 6);
        assert_eq!((checksum, crc32fast::hash(rest.as_bytes())), (vector.checksum.as_str(), vector.crc32));
    }
}

#[test]
fn malformed_api_keys() {
    for vector in vectors().malformed_api_keys {
        let why = match ApiKeyToken::parse(&vector.text).unwrap_err() {
            TokenError::Malformed => "malformed",
            TokenError::Prefix => "prefix",
            TokenError::Checksum => "checksum",
        };
        assert_eq!(why, vector.why, "{}", vector.text);
    }
}

#[test]
fn tags() {
    for vector in vectors().tags {
        let deployment: DeploymentId = vector.deployment.parse().unwrap();
        let peppers: Vec<(PepperVersion, [u8; 32])> =
            (1..).map(PepperVersion).zip(vector.peppers.iter().map(|pepper| bytes(pepper))).collect();
        // One rotation after the other, from the innermost pepper on.
        let ring = |current: usize| {
            let held = peppers.iter().take(current).map(|(version, pepper)| (*version, pepper));
            Keyring::new(peppers[current - 1].0, held).unwrap()
        };
        let api_key = ApiKeyToken {
            prefix: KeyPrefix::parse("key_prefix", "sk").unwrap(),
            app: keyward_core::id::AppNumber::mint(0),
            id: vector.id.parse().unwrap(),
            secret: Secret::from_random(&bytes(&vector.secret)),
        };
        let (id, secret) = (&vector.id, &vector.secret);
        let mut tag = match vector.kind.as_str() {
            "api_key" => ring(1).tag_api_key(deployment, &api_key),
            "root_key" => ring(1).tag_token(deployment, &token::<RootKey>(id, secret)),
            "ticket" => ring(1).tag_token(deployment, &token::<Ticket>(id, secret)),
            "session" => ring(1).tag_token(deployment, &token::<Session>(id, secret)),
            kind => panic!("{kind}"),
        }
        .unwrap();
        for current in 2..=peppers.len() {
            tag = ring(current).retag(&tag).unwrap();
        }
        assert_eq!(tag.bytes, bytes(&vector.tag), "{} {id}", vector.kind);
        let ring = ring(peppers.len());
        let matches = match vector.kind.as_str() {
            "api_key" => ring.verify(deployment, &api_key, &tag).map(|matched| matched.is_some()),
            "root_key" => ring.matches_token(deployment, &token::<RootKey>(id, secret), &tag),
            "ticket" => ring.matches_token(deployment, &token::<Ticket>(id, secret), &tag),
            _ => ring.matches_token(deployment, &token::<Session>(id, secret), &tag),
        };
        assert_eq!(matches, Ok(true));
    }
}
