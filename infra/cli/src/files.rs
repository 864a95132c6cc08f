//! The data folder: the database, the key file, a lock, and what a local run tells other programs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dev::DevError;

/// `dev.json`: what a program needs to use a local run.
#[derive(Clone, Serialize, Deserialize)]
pub struct DevJson {
    /// Where requests are answered.
    pub url: String,
    /// A root key with all scopes.
    pub root_key: String,
    /// What pages are given to find the installation.
    pub publishable_key: String,
    /// The deployment that the root key belongs to.
    pub deployment_id: String,
    /// An app to try things with.
    pub app_slug: String,
    /// The customers' page of that app, with a ticket that leads to it once.
    pub hosted_page_url: String,
}

impl fmt::Debug for DevJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevJson").field("url", &self.url).finish_non_exhaustive()
    }
}

const DEV_JSON: &str = "dev.json";

/// What the run whose data is in this folder tells other programs, if that can be read.
pub(crate) fn read_dev_json(folder: &Path) -> Option<DevJson> {
    let text = fs::read(folder.join(DEV_JSON)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The environment of the functions on the run whose data is in this folder.
pub(crate) fn functions_env(folder: &Path) -> PathBuf {
    folder.join("functions.env")
}

/// A folder that this process alone uses.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub(crate) fn open(path: &Path) -> Result<Self, DevError> {
        let failed = |error| DevError::Folder(path.to_owned(), error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(DevError::InUse(path.to_owned())),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("dynamodb.sqlite")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join("pepper.key")
    }

    pub(crate) fn functions_env(&self) -> PathBuf {
        functions_env(&self.path)
    }

    fn dev_json(&self) -> PathBuf {
        self.path.join(DEV_JSON)
    }

    /// What the last run wrote, if that can be read.
    pub(crate) fn read_dev_json(&self) -> Option<DevJson> {
        read_dev_json(&self.path)
    }

    pub(crate) fn write_dev_json(&self, dev: &DevJson) -> Result<(), DevError> {
        let mut text = serde_json::to_vec_pretty(dev).map_err(|error| self.failed(error.into()))?;
        text.push(b'\n');
        self.write_private(&self.dev_json(), &text)
    }

    pub(crate) fn remove_dev_json(&self) {
        if let Err(error) = fs::remove_file(self.dev_json())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "dev.json was not removed");
        }
    }

    /// Replaces a file that only its owner may read, at once: readers find the old one or the new one.
    pub(crate) fn write_private(&self, path: &Path, text: &[u8]) -> Result<(), DevError> {
        let new = path.with_extension("new");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> DevError {
        DevError::Folder(self.path.clone(), error)
    }
}
