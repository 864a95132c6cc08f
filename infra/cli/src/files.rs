//! The data folder: the database, the key file, a lock, and the files of a local run for other programs. Only their
//! owner can read the folder and the files in it.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dev_error::DevError;

/// `dev.json`: what a program needs to use a local run.
#[derive(Clone, Serialize, Deserialize)]
pub struct DevJson {
    /// The URL of the run.
    pub url: String,
    /// A root key with all scopes.
    pub root_key: String,
    /// The publishable key, by which pages find the installation.
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

/// The `dev.json` of the run whose data is in this folder, if it can be read.
pub(crate) fn read_dev_json(folder: &Path) -> Option<DevJson> {
    let text = fs::read(folder.join(DEV_JSON)).ok()?;
    serde_json::from_slice(&text).ok()
}

const FUNCTIONS_ENV: &str = "functions.env";
const LOCK: &str = "lock";
const DATABASE: &str = "dynamodb.sqlite";
const KEY_FILE: &str = "pepper.key";
/// All files that a run makes, with those that SQLite keeps beside the database and those of a write that was broken off.
const FILES: [&str; 10] = [
    LOCK,
    DATABASE,
    "dynamodb.sqlite-wal",
    "dynamodb.sqlite-shm",
    "dynamodb.sqlite-journal",
    KEY_FILE,
    DEV_JSON,
    "dev.new",
    FUNCTIONS_ENV,
    "functions.new",
];

/// The environment of the functions on the run whose data is in this folder, if that can be read.
pub(crate) fn read_functions_env(folder: &Path) -> Option<HashMap<String, String>> {
    let text = fs::read_to_string(folder.join(FUNCTIONS_ENV)).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once('='));
    Some(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Makes a folder that its owner alone may enter, or takes it from others if it was ours or is empty; the files that are
/// ours in any case. Folders with other things in them are left as they are: they are not ours to close.
fn make_private(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if folder.join(LOCK).exists() || fs::read_dir(folder)?.next().is_none() {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    for name in FILES {
        match fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Opens a file for writing, made for its owner alone if it is not there.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
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
        make_private(path).map_err(failed)?;
        let lock = private_file(&path.join(LOCK)).map_err(failed)?;
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
        self.path.join(DATABASE)
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join(KEY_FILE)
    }

    pub(crate) fn functions_env(&self) -> PathBuf {
        self.path.join(FUNCTIONS_ENV)
    }

    fn dev_json(&self) -> PathBuf {
        self.path.join(DEV_JSON)
    }

    /// Makes the database's file, unless it is there, so that SQLite makes it and what it keeps beside it with no wider
    /// mode.
    pub(crate) fn make_database(&self) -> Result<(), DevError> {
        private_file(&self.database()).map(drop).map_err(|error| self.failed(error))
    }

    /// The environment of the functions that the last run wrote, if that can be read.
    pub(crate) fn read_functions_env(&self) -> Option<HashMap<String, String>> {
        read_functions_env(&self.path)
    }

    /// The `dev.json` of the last run, if it can be read.
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

    fn failed(&self, error: io::Error) -> DevError {
        DevError::Folder(self.path.clone(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_closed_to_others_unless_it_holds_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/new");
        drop(DataDir::open(&new).unwrap());
        assert_eq!((mode(&new), mode(&new.join(LOCK))), (0o700, 0o600));

        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        fs::set_permissions(&empty, Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(&empty).unwrap());
        assert_eq!(mode(&empty), 0o700);

        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        for name in ["notes.txt", DEV_JSON] {
            fs::write(shared.join(name), "x").unwrap();
            fs::set_permissions(shared.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(&shared).unwrap());
        assert_eq!(mode(&shared), 0o755);
        assert_eq!((mode(&shared.join("notes.txt")), mode(&shared.join(DEV_JSON))), (0o644, 0o600));
    }
}
