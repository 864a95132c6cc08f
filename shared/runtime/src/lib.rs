//! The cold start of a function: its settings, its log and metrics, and the assembly of the store, the peppers and the
//! recorder.
//!
//! The process of a function begins with a [`ColdStart`] of its [`Services`], whatever calls it: `keyward_http` serves routes
//! with them, and the handler of any other event waits until they are ready. The command and the verifier use the same parts
//! through an [`Assembly`].

mod assembly;
mod cold_start;
#[cfg(feature = "lambda")]
mod lambda;
mod log;
mod metrics;
mod proxies;
mod services;
mod settings;

pub use assembly::{Assembly, AssemblyError};
pub use cold_start::{ColdStart, NotReady};
#[cfg(feature = "lambda")]
pub use lambda::block_on;
pub use log::log_filter;
pub use proxies::TrustedProxies;
pub use services::{Services, sdk_config};
pub use settings::{Settings, SettingsError, VerifyAuth, publishable_key};
