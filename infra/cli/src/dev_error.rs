//! The reasons that a local run cannot start.

use std::io;
use std::path::PathBuf;

use keyward_core::InvalidField;
use keyward_pepper::PepperError;
use keyward_runtime::SettingsError;
use keyward_store::Error;

use crate::set_up::SetUpError;

/// Why a local run cannot start: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Something else listens there.
    #[error(
        "port {0} cannot be used ({1}): stop what listens there, or choose another with --port (0 picks a free one)"
    )]
    Port(u16, io::Error),
    /// The data folder cannot be created or written.
    #[error("the folder {} cannot be written ({error}): choose another with --data-dir", .0.display(), error = .1)]
    Folder(PathBuf, io::Error),
    /// Another process uses the data folder.
    #[error("the folder {} is in use by another keyward dev: stop that, or choose another with --data-dir", .0.display())]
    InUse(PathBuf),
    /// The data file cannot be read.
    #[error("the data file {} is damaged ({cause}): restore it from a copy, or move it away to start over", .0.display(), cause = .1)]
    Damaged(PathBuf, String),
    /// `--ephemeral` was asked for in a folder that holds kept data.
    #[error("the folder {} holds saved data: omit --ephemeral, or choose another with --data-dir", .0.display())]
    HoldsData(PathBuf),
    /// The peppers in the table were not wrapped by the key in the file.
    #[error("the key file {} does not open the peppers of the data beside it ({error}): restore the key file", .0.display(), error = .1)]
    KeyFile(PathBuf, PepperError),
    /// Anything else that should not happen.
    #[error("the installation cannot start: {0}")]
    Start(String),
}

impl From<Error> for DevError {
    fn from(error: Error) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<InvalidField> for DevError {
    fn from(error: InvalidField) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<SetUpError> for DevError {
    fn from(error: SetUpError) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<SettingsError> for DevError {
    fn from(error: SettingsError) -> Self {
        Self::Start(error.to_string())
    }
}
