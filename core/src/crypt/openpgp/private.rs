//! A private key, as `gpg --export-secret-keys` writes it, with the passphrase that unlocks it.
//!
//! It is unlocked once, when it is read: a wrong passphrase is found before a restore begins, and the tenth of a second that
//! gpg makes an unlocking cost is not spent on each file. rPGP wipes it when it goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pgp::composed::{PublicOrSecret, SignedSecretKey};
use pgp::types::{KeyDetails, Password};

use super::certificate::{LARGEST, read_keys};
use crate::config::SecretSource;
use crate::error::{Error, Kind, Result};
use crate::path::lossy;
use crate::secret::{self, Secret};

/// A key that decrypts. It has no readable `Debug`.
pub struct PrivateKey {
    secret: SignedSecretKey,
    fingerprint: String,
}

impl PrivateKey {
    /// Reads the one private key in a file, armored or not. `place` says in messages where it is from.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`], with the place, what is wrong and what to do about it.
    pub fn parse(bytes: &[u8], place: &str, passphrase: Option<&Secret>) -> Result<Self> {
        let wrong =
            |why: &str| Error::new(Kind::EncryptionKey, format!("the OpenPGP private key {place} {why}"));
        let mut found = read_keys(bytes, LARGEST).map_err(|why| wrong(&why))?;
        let secret = match (found.pop(), found.is_empty()) {
            (Some(PublicOrSecret::Secret(secret)), true) => secret,
            (Some(PublicOrSecret::Public(_)), true) => {
                return Err(wrong(
                    "is a public key, which cannot decrypt: give the file that `gpg --export-secret-keys` writes",
                ));
            }
            (Some(_), false) => {
                return Err(wrong("has more than one key in it: export each into a file of its own"));
            }
            (None, _) => {
                return Err(wrong("has no key in it: give the file that `gpg --export-secret-keys` writes"));
            }
        };
        let fingerprint = format!("{:X}", secret.primary_key.fingerprint());
        let given = passphrase.map_or_else(Password::empty, |given| Password::from(given.bytes()));
        let mut key = Self { secret, fingerprint };
        let unlocked = catch_unwind(AssertUnwindSafe(|| key.unlock(&given)));
        match unlocked {
            Ok(Some(true)) => Ok(key),
            Ok(Some(false)) if passphrase.is_none() => {
                Err(wrong("is locked: name its passphrase, or export it without one into a file of mode 600"))
            }
            Ok(Some(false)) => Err(wrong("is not unlocked by the passphrase given")),
            Ok(None) => Err(wrong("has no part that decrypts: export it again with its encryption subkey")),
            Err(_) => Err(wrong("makes its reader fail: export it again")),
        }
    }

    /// Reads it from a file that nobody else may read, as its passphrase.
    ///
    /// # Errors
    /// As [`PrivateKey::parse`]; [`Kind::EncryptionKey`] if a file cannot be read.
    pub fn read(path: &Path, passphrase: Option<&Path>) -> Result<Self> {
        let read = |path: &Path, what: &str, is_whole: bool| -> Result<Secret> {
            let found = secret::read(&SecretSource::File(path.to_path_buf()), what, is_whole);
            let found = found.map_err(|error| {
                let text = "the OpenPGP private key of the configuration cannot be used";
                Error::with_source(Kind::EncryptionKey, text, error.to_string())
            })?;
            Ok(found.secret)
        };
        let passphrase =
            passphrase.map(|path| read(path, "passphrase of the OpenPGP key", false)).transpose()?;
        let key = read(path, "OpenPGP private key", true)?;
        Self::parse(key.bytes(), &lossy(path.as_os_str().as_encoded_bytes()), passphrase.as_ref())
    }

    /// Takes the passphrase off; says whether that worked for a part that decrypts, `None` if there is no such part.
    fn unlock(&mut self, passphrase: &Password) -> Option<bool> {
        let mut works = None;
        let primary = &mut self.secret.primary_key;
        let is_unlocked = primary.remove_password(passphrase).is_ok();
        if primary.algorithm().can_encrypt() {
            works = Some(is_unlocked);
        }
        for subkey in &mut self.secret.secret_subkeys {
            let is_unlocked = subkey.key.remove_password(passphrase).is_ok();
            if subkey.algorithm().can_encrypt() {
                works = Some(works.unwrap_or_default() || is_unlocked);
            }
        }
        works
    }

    /// The fingerprint of the key, in upper-case hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The ids of all its parts, as messages name those that they are for.
    pub fn key_ids(&self) -> impl Iterator<Item = [u8; 8]> {
        let primary = self.secret.primary_key.legacy_key_id();
        let parts = self.secret.secret_subkeys.iter().map(|subkey| subkey.key.legacy_key_id());
        std::iter::once(primary).chain(parts).filter_map(|id| id.as_ref().try_into().ok())
    }

    pub(super) fn secret(&self) -> &SignedSecretKey {
        &self.secret
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}
