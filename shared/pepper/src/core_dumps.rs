//! The memory of a process that holds peppers.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps the memory of this process, in which the peppers are, out of core dumps: it writes none, and on Linux it cannot be
/// attached to by other processes of the same user either (`PR_SET_DUMPABLE`).
///
/// # Errors
/// The operating system refuses.
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
