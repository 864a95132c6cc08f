//! A key in a file: for local runs and tests. AES-256-GCM (NIST SP 800-38D), a fresh nonce for each pepper.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use futures::future::{BoxFuture, FutureExt, ready};
use keyward_core::Entropy;
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::WrappedPepper;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{KeyProvider, PepperError, PlainPepper, plain};

const NAME: &str = "local";

/// Wraps peppers with a key of 32 bytes from a file of mode 0600.
pub struct LocalKeyProvider {
    key: LessSafeKey,
    installation: String,
    entropy: Entropy,
}

impl LocalKeyProvider {
    /// Reads the key from this file. `installation` is bound into what is wrapped; peppers are drawn from `entropy`.
    ///
    /// # Errors
    /// The file is missing, of another length, or readable by others than its owner.
    pub fn open(path: &Path, installation: &str, entropy: Entropy) -> Result<Self, PepperError> {
        let name = path.display();
        let failed = |error| PepperError::KeyFile(format!("cannot read the key file {name}: {error}"));
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(PepperError::KeyFile(format!(
                "the key file {name} can be read by others: run chmod 600 {name}"
            )));
        }
        let mut key = Zeroizing::new(Vec::with_capacity(33));
        Read::by_ref(&mut file).take(33).read_to_end(&mut key).map_err(failed)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| {
            PepperError::KeyFile(format!("the key file {name} does not hold exactly 32 bytes"))
        })?;
        Ok(Self { key: LessSafeKey::new(key), installation: installation.to_owned(), entropy })
    }

    /// Creates a key file of mode 0600 if there is none, and reads it.
    ///
    /// # Errors
    /// As [`Self::open`]; the file cannot be written.
    pub fn open_or_create(path: &Path, installation: &str, entropy: Entropy) -> Result<Self, PepperError> {
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let failed =
            |error| PepperError::KeyFile(format!("cannot write the key file {}: {error}", path.display()));
        match created {
            Ok(mut file) => {
                let mut key = Zeroizing::new([0; 32]);
                entropy.fill(key.as_mut_slice()).map_err(|_| no_random())?;
                // Whatever the umask took away or the file system added: exactly the owner may read and write.
                file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
                file.write_all(key.as_slice()).and_then(|()| file.sync_all()).map_err(failed)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        Self::open(path, installation, entropy)
    }

    /// A key that is kept nowhere, for an installation that is not kept either.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn in_memory(installation: &str, entropy: Entropy) -> Result<Self, PepperError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice()).map_err(|_| no_random())?;
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| no_random())?;
        Ok(Self { key: LessSafeKey::new(key), installation: installation.to_owned(), entropy })
    }

    fn context(&self, version: PepperVersion) -> Aad<String> {
        Aad::from(format!("keyward\0{}\0pepper\0{}", self.installation, version.0))
    }

    fn seal(&self, version: PepperVersion) -> Result<Vec<u8>, PepperError> {
        let mut nonce = [0; NONCE_LEN];
        let mut pepper = Zeroizing::new([0; 32]);
        self.entropy.fill(&mut nonce).map_err(|_| no_random())?;
        self.entropy.fill(pepper.as_mut_slice()).map_err(|_| no_random())?;
        let sealed = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                self.context(version),
                pepper.as_mut_slice(),
            )
            .map_err(|_| PepperError::KeyFile("the key cannot wrap a pepper".into()))?;
        Ok([nonce.as_slice(), pepper.as_slice(), sealed.as_ref()].concat())
    }

    fn open_sealed(&self, pepper: &WrappedPepper) -> Option<PlainPepper> {
        let (nonce, sealed) = pepper.wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, self.context(pepper.version), &mut sealed).ok()?;
        (&*opened).try_into().ok().map(plain)
    }
}

impl fmt::Debug for LocalKeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKeyProvider").field("installation", &self.installation).finish_non_exhaustive()
    }
}

impl KeyProvider for LocalKeyProvider {
    fn generate(&self, version: PepperVersion) -> BoxFuture<'_, Result<WrappedPepper, PepperError>> {
        let wrapped = self.seal(version);
        ready(wrapped.map(|wrapped| WrappedPepper { version, provider: NAME.to_owned(), wrapped })).boxed()
    }

    fn unwrap<'a>(&'a self, pepper: &'a WrappedPepper) -> BoxFuture<'a, Result<PlainPepper, PepperError>> {
        let own = (pepper.provider == NAME).then(|| self.open_sealed(pepper)).flatten();
        ready(own.ok_or(PepperError::Foreign(pepper.version))).boxed()
    }
}

fn no_random() -> PepperError {
    PepperError::KeyFile("the operating system gave no random bytes".into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn constant_source() -> Entropy {
        Entropy::new(|bytes| {
            bytes.fill(7);
            Ok(())
        })
    }

    #[tokio::test]
    async fn a_key_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let provider = LocalKeyProvider::open_or_create(&path, "here", constant_source()).unwrap();
        let one = provider.generate(PepperVersion(1)).await.unwrap();
        let again = LocalKeyProvider::open_or_create(&path, "here", constant_source()).unwrap();
        let [again, first] = [again.unwrap(&one).await.unwrap(), provider.unwrap(&one).await.unwrap()];
        assert!(again.expose_secret() == first.expose_secret());
    }

    #[test]
    fn a_key_file_is_private_and_of_the_right_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        LocalKeyProvider::open_or_create(&path, "here", constant_source()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = LocalKeyProvider::open(&path, "here", constant_source()).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");

        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for bytes in [31, 33] {
            std::fs::write(&path, vec![0; bytes]).unwrap();
            assert!(LocalKeyProvider::open(&path, "here", constant_source()).is_err(), "{bytes}");
        }
        assert!(LocalKeyProvider::open(&folder.path().join("none"), "here", constant_source()).is_err());
    }
}
