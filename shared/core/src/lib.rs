//! The pure part of Keyward: identifiers, tokens, hashing, permissions, rate-limit rules and the decision.
//!
//! Nothing here does I/O, reads a clock or draws randomness: instants and random bytes are arguments. Every
//! value parsed into a type of this crate is valid for as long as it exists, so the other crates never check twice.

pub mod accepted;
pub mod address;
pub mod app;
pub mod audit;
pub mod audit_settings;
pub mod authorization;
pub mod base62;
pub mod bounds;
pub mod clock;
pub mod credential;
pub mod cursor;
pub mod decision;
pub mod deployment;
pub mod entropy;
pub mod error_code;
pub mod hashing;
pub mod id;
pub mod instant;
pub mod key;
pub mod metadata;
pub mod method;
pub mod metric;
pub mod path;
pub mod pepper;
pub mod permission;
pub mod rate_limit;
pub mod requirement;
pub mod root_key;
pub mod route;
pub mod session;
pub mod target;
pub mod text;
pub mod token;
pub mod verified;
pub mod web_origin;

#[cfg(test)]
mod examples;

pub use address::ClientAddress;
pub use app::App;
pub use bounds::Bounds;
pub use clock::Clock;
pub use deployment::Deployment;
pub use entropy::{Entropy, NoEntropy};
pub use error_code::ErrorCode;
pub use key::ApiKey;
pub use text::InvalidField;
pub use verified::VerifiedKey;
pub use web_origin::{PublicUrl, WebOrigin};
