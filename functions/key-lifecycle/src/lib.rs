//! Apps, keys and rate-limit schemes: for backends with a root key, and keys for browsers with a session.

#![allow(unused_qualifications, reason = "the declarations of routes expand to some")]

mod apps;
mod body;
mod keys;
mod schemes;
mod session_keys;

keyward_http::routes! {
    Backend {
        apps::{list, create, get, update, delete},
        keys::{list, create, rotate, revoke, rotate_by_id, revoke_by_id},
        schemes::{list, create, get, update, delete},
    }
    Browser {
        session_keys::{list, create, rotate, revoke},
    }
}
