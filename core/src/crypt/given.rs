//! Keys that somebody names for a restore or a look, on a machine that may know nothing else of the repository.
//!
//! In: files, each a key of git-crypt or an OpenPGP private key, and perhaps a repository whose keys count as well. Out:
//! the keys of a snapshot, those included that are in its tree for one of the private keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{Odb, Oid};

use super::gitcrypt::{KeyFile, wrapped};
use super::keyring::{Key, Keyring};
use super::openpgp::PrivateKey;
use super::places::{self, Lent};
use super::policy::Policy;
use super::unsealer::Unsealer;
use crate::config::SecretSource;
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::path::lossy;
use crate::secret::{self, Secret};

/// How a key file of git-crypt begins, also one that is no good.
const KEY_FILE: &[u8] = b"\0GITCRYPTKEY";

/// Keys that were named.
#[derive(Debug, Default)]
pub struct Given {
    keys: Vec<Arc<Key>>,
    private: Vec<PrivateKey>,
    /// The repository whose keys count as well.
    beside: Option<PathBuf>,
}

impl Given {
    /// Reads the files. `passphrase` unlocks private keys.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] for the first that cannot be used, with what to do.
    pub fn read(files: &[PathBuf], passphrase: Option<&Path>) -> Result<Self> {
        let mut given = Self::default();
        let passphrase = passphrase.map(|path| read_secret(path, "passphrase of the OpenPGP key", false));
        let passphrase = passphrase.transpose()?;
        for path in files {
            let place = lossy(path.as_os_str().as_encoded_bytes());
            let secret = read_secret(path, "key", true)?;
            if secret.bytes().starts_with(KEY_FILE) || !is_private_key(secret.bytes()) {
                given.keys.push(Arc::new(Key::new(KeyFile::parse(secret.bytes(), &place)?, path)?));
            } else {
                given.private.push(PrivateKey::parse(secret.bytes(), &place, passphrase.as_ref())?);
            }
        }
        Ok(given)
    }

    /// The keys that are known for the repository at this path, and no others.
    pub fn of_repository(path: &Path) -> Self {
        Self::default().and_those_of(path)
    }

    /// Counts those that are known for the repository at this path, too.
    pub fn and_those_of(mut self, path: &Path) -> Self {
        self.beside = Some(path.to_path_buf());
        self
    }

    /// Gives the repository the keys of these snapshots, and makes sure that they are enough. Nothing is given where no
    /// snapshot is encrypted.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] that names the key which is missing; [`Kind::Git`] if a policy is damaged.
    pub fn unlock(&self, repository: &Repository, trees: &[Oid]) -> Result<Option<Lent>> {
        let objects = repository.objects()?;
        let mut encrypted = Vec::new();
        for tree in trees {
            if Policy::of_tree(&objects, *tree)?.is_some() {
                encrypted.push(*tree);
            }
        }
        if encrypted.is_empty() {
            return Ok(None);
        }
        let lent = self.lend(repository, &objects, &encrypted)?;
        for tree in encrypted {
            Unsealer::of(repository, tree)?;
        }
        Ok(lent)
    }

    fn lend(&self, repository: &Repository, objects: &Odb<'_>, trees: &[Oid]) -> Result<Option<Lent>> {
        let beside = match &self.beside {
            // They are known there without us, and read when they are used.
            Some(own) if own == repository.path() && self.keys.is_empty() && self.private.is_empty() => {
                return Ok(None);
            }
            Some(own) => match places::known_of(own) {
                // What was given may be all that is needed.
                Err(_) if !self.keys.is_empty() || !self.private.is_empty() => None,
                known => known?,
            },
            None => None,
        };
        let mut keys = self.keys.clone();
        for tree in trees {
            let opened = self.unwrapped(objects, *tree);
            // Another key may be all that is needed.
            keys.extend(if beside.is_some() { opened.unwrap_or_default() } else { opened? });
        }
        if keys.is_empty() && beside.is_none() {
            return Ok(None);
        }
        let ring = Arc::new(Keyring::joined(keys, beside.as_deref()));
        Ok(Some(Lent::to(repository.path(), ring)))
    }

    /// The keys in a tree that one of the private keys opens. Where there are private keys, one has to.
    fn unwrapped(&self, objects: &Odb<'_>, tree: Oid) -> Result<Vec<Arc<Key>>> {
        let private: Vec<&PrivateKey> = self.private.iter().collect();
        let mut opened = Vec::new();
        if private.is_empty() {
            return Ok(opened);
        }
        let mut why = None;
        for found in wrapped::recipients(objects, tree)? {
            let place = wrapped::path_of_default(&found.fingerprint);
            let key = wrapped::read(objects, &found)
                .and_then(|message| wrapped::unwrap(&message, &place, &private))
                .and_then(|file| Key::new(file, Path::new(&place)));
            match key {
                Ok(key) => opened.push(Arc::new(key)),
                Err(error) => {
                    // That it is for somebody else is the least of the reasons.
                    let is_worse = error.kind() != Kind::EncryptionKey || why.is_none();
                    if is_worse {
                        why = Some(error);
                    }
                }
            }
        }
        if opened.is_empty() && self.keys.is_empty() {
            let ours: Vec<&str> = self.private.iter().map(PrivateKey::fingerprint).collect();
            let text =
                format!("the snapshot has no key that the OpenPGP private key {} opens", ours.join(", "));
            return Err(match why {
                Some(why) => Error::with_source(Kind::EncryptionKey, text, why.to_string()),
                None => Error::new(Kind::EncryptionKey, format!("{text}: it was wrapped for nobody")),
            });
        }
        Ok(opened)
    }
}

fn read_secret(path: &Path, what: &str, is_whole: bool) -> Result<Secret> {
    let found = secret::read(&SecretSource::File(path.to_path_buf()), what, is_whole);
    let found = found.map_err(|error| {
        Error::with_source(Kind::EncryptionKey, "a key that was named cannot be used", error.to_string())
    })?;
    Ok(found.secret)
}

/// Whether something is an OpenPGP key, armored or not; what is wrong with it its reader will say.
fn is_private_key(bytes: &[u8]) -> bool {
    // A key's packet, secret or public, in the old and the new form of its header.
    let is_packet = matches!(bytes.first(), Some(0x94..=0x97 | 0x98..=0x9b | 0xc5 | 0xc6));
    is_packet || bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP P")
}
