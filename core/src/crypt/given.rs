//! Keys that somebody names for a restore or a look, on a machine that may know nothing else of the repository.
//!
//! In: files, each a key of git-crypt or an OpenPGP private key, whether `gpg` is asked, and perhaps a repository whose keys
//! count as well. Out: the keys of a snapshot, those included that are in its tree for one of the private keys, and what opens
//! contents that are OpenPGP messages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{Odb, Oid};

use super::gitcrypt::{KeyFile, wrapped};
use super::keyring::{Key, Keyring};
use super::opener::Opener;
use super::openpgp::PrivateKey;
use super::places::{self, Lent};
use super::policy::{KeyId, Policy};
use super::unsealer::Unsealer;
use crate::config::SecretSource;
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::path::lossy;
use crate::progress::Progress;
use crate::secret::{self, Secret};

/// How a key file of git-crypt begins, also one that is no good.
const KEY_FILE: &[u8] = b"\0GITCRYPTKEY";

/// Keys that were named.
#[derive(Debug, Default)]
pub struct Given {
    keys: Vec<Arc<Key>>,
    opener: Opener,
    /// The repository whose keys count as well.
    beside: Option<PathBuf>,
}

impl Given {
    /// Reads the files. `passphrase` unlocks private keys.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] for the first that cannot be used, with what to do.
    pub fn read(files: &[PathBuf], passphrase: Option<&Path>) -> Result<Self> {
        let (mut given, mut private) = (Self::default(), Vec::new());
        let passphrase = passphrase.map(|path| read_secret(path, "passphrase of the OpenPGP key", false));
        let passphrase = passphrase.transpose()?;
        for path in files {
            let place = lossy(path.as_os_str().as_encoded_bytes());
            let secret = read_secret(path, "key", true)?;
            if secret.bytes().starts_with(KEY_FILE) || !is_private_key(secret.bytes()) {
                given.keys.push(Arc::new(Key::new(KeyFile::parse(secret.bytes(), &place)?, path)?));
            } else {
                private.push(Arc::new(PrivateKey::parse(secret.bytes(), &place, passphrase.as_ref())?));
            }
        }
        given.opener = Opener::new(private, false);
        Ok(given)
    }

    /// Has `gpg` and its agent decrypt what none of the private keys opens, if `asks` says so.
    pub fn and_gpg(mut self, asks: bool) -> Self {
        self.opener = self.opener.joined(&Opener::new(Vec::new(), asks));
        self
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

    /// The same for who is going to read contents: makes sure that they can be opened, too. Where `gpg` is to do that, it is
    /// tried with the key that is in the snapshot for one of its own, so that it asks what it has to ask now.
    ///
    /// # Errors
    /// As [`Given::unlock`]; [`Kind::EncryptionKey`] that names for whom the contents are.
    pub fn unlock_contents(&self, repository: &Repository, trees: &[Oid]) -> Result<Option<Lent>> {
        let lent = self.unlock(repository, trees)?;
        let objects = repository.objects()?;
        for tree in trees {
            let Some(unsealer) = Unsealer::of(repository, *tree)? else { continue };
            unsealer.must_read_any_content()?;
            if unsealer.needs_gpg() && !wrapped::recipients(&objects, *tree)?.is_empty() {
                unwrapped(&objects, *tree, unsealer.opener(), unsealer.key())?;
            }
        }
        Ok(lent)
    }

    fn lend(&self, repository: &Repository, objects: &Odb<'_>, trees: &[Oid]) -> Result<Option<Lent>> {
        let has_something = !self.keys.is_empty() || self.opener.is_able();
        let beside = match &self.beside {
            // They are known there without us, and read when they are used.
            Some(own) if own == repository.path() && !has_something => return Ok(None),
            Some(own) => match places::known_of(own) {
                // What was given may be all that is needed.
                Err(_) if has_something => None,
                known => known?,
            },
            None => None,
        };
        let mut keys = self.keys.clone();
        for tree in trees {
            keys.extend(self.wrapped_in(objects, *tree, &keys, beside.as_deref())?);
        }
        if !has_something && beside.is_none() {
            return Ok(None);
        }
        let ring = Keyring::joined(keys, beside.as_deref()).with_opener(&self.opener);
        Ok(Some(Lent::to(repository.path(), Arc::new(ring))))
    }

    /// The key in a tree that one of the private keys opens, where that is needed. Where nothing else was given, one has to.
    fn wrapped_in(
        &self,
        objects: &Odb<'_>,
        tree: Oid,
        keys: &[Arc<Key>],
        beside: Option<&Keyring>,
    ) -> Result<Option<Arc<Key>>> {
        let Some(policy) = Policy::of_tree(objects, tree)?.filter(|_| self.opener.is_able()) else {
            return Ok(None);
        };
        let is_known = keys.iter().any(|key| *key.id() == policy.key);
        if is_known || beside.is_some_and(|beside| beside.find(&policy.key).is_some()) {
            return Ok(None);
        }
        match unwrapped(objects, tree, &self.opener, &policy.key) {
            Ok(key) => Ok(Some(key)),
            // Another key may be all that is needed; which one, its absence tells.
            Err(_) if beside.is_some() || !self.keys.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The key of this name that is in a tree for somebody whose private key is at hand.
fn unwrapped(objects: &Odb<'_>, tree: Oid, opener: &Opener, wanted: &KeyId) -> Result<Arc<Key>> {
    let mut why: Option<Error> = None;
    for found in wrapped::recipients(objects, tree)? {
        let place = wrapped::path_of_default(&found.fingerprint);
        let key = wrapped::read(objects, &found)
            .and_then(|message| wrapped::open(&message, &place, opener, &Progress::new()))
            .and_then(|file| Key::new(file, Path::new(&place)));
        let error = match key {
            Ok(key) if key.id() == wanted => return Ok(Arc::new(key)),
            Ok(key) => {
                let text =
                    format!("{place} is another key, {}, than that of the snapshot, {wanted}", key.id());
                Error::new(Kind::Git, text)
            }
            Err(error) => error,
        };
        // That it is for somebody else is the least of the reasons, and that gpg was declined a passphrase comes after it.
        let is_worse = error.kind() != Kind::EncryptionKey
            || why.as_ref().is_none_or(|why| why.kind() == Kind::EncryptionKey);
        if is_worse {
            why = Some(error);
        }
    }
    let ours: Vec<&str> = opener.private().iter().map(|key| key.fingerprint()).collect();
    let who = match (ours.is_empty(), opener.asks_gpg()) {
        (false, false) => format!("the OpenPGP private key {} opens", ours.join(", ")),
        (false, true) => format!("the OpenPGP private key {} or gpg opens", ours.join(", ")),
        (true, _) => "gpg opens".to_owned(),
    };
    let text = format!("the snapshot has no key that {who}");
    Err(match why {
        Some(why) => Error::with_source(Kind::EncryptionKey, text, why.to_string()),
        None => Error::new(Kind::EncryptionKey, format!("{text}: it was wrapped for nobody")),
    })
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
