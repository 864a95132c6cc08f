//! The `keyward` command as a process: starting, stopping, being killed, and what it leaves behind.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise"
)]

mod dev;
mod doctor;
mod local;
mod offline;
mod pepper;
mod process;
mod secrecy;
