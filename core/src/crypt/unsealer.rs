//! What opens the files of one snapshot: its policy, and the key that this names.
//!
//! In: a snapshot's tree, and the keys that are known for its repository. Out: whether a file is encrypted, its plaintext, and
//! the keyed checksums that the snapshot's metadata has. Without the key there is an error that names it: no ciphertext
//! is ever taken for a file.

use std::fmt::Write;
use std::sync::Arc;

use git2::{Odb, Oid};

use super::gitcrypt::{Decryptor, wrapped};
use super::keyed::ChecksumKey;
use super::keyring::{Key, Keyring};
use super::places;
use super::policy::{KeyId, Policy};
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;

/// Recipients that a message names.
const NAMED: usize = 5;

/// What opens the files of one snapshot.
#[derive(Debug)]
pub struct Unsealer {
    policy: Policy,
    key: Arc<Key>,
}

impl Unsealer {
    /// What opens the files of the snapshot with this tree; nothing if it is clear text.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] if its key is not known for the repository or cannot be read; [`Kind::Git`] if the snapshot's
    /// policy is damaged.
    pub fn of(repository: &Repository, tree: Oid) -> Result<Option<Arc<Self>>> {
        let objects = repository.objects()?;
        let Some(policy) = Policy::of_tree(&objects, tree)? else { return Ok(None) };
        let known = places::known_of(repository.path()).map_err(|error| {
            let text =
                format!("the snapshot is encrypted with the key {}, and the keys cannot be read", policy.key);
            Error::with_source(Kind::EncryptionKey, text, error.to_string())
        })?;
        match known.as_ref().and_then(|known| known.find(&policy.key)) {
            Some(key) => Ok(Some(Arc::new(Self::new(policy, key.clone())))),
            None => Err(is_missing(&policy.key, known.as_deref(), &objects, tree)),
        }
    }

    /// With a key that is known to be the policy's.
    pub(crate) fn new(policy: Policy, key: Arc<Key>) -> Self {
        Self { policy, key }
    }

    /// Whether the file at a path of the repository is encrypted. Symbolic links never are.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.policy.covers(path)
    }

    /// What the checksums of all files of the snapshot are keyed with.
    pub fn checksums(&self) -> &ChecksumKey {
        self.key.checksums()
    }

    /// Decrypts one file.
    ///
    /// # Errors
    /// None that the key did not tell when it was read.
    pub fn decryptor(&self) -> Result<Decryptor<'_>> {
        self.key.version().map(Decryptor::new)
    }
}

fn is_missing(key: &KeyId, known: Option<&Keyring>, objects: &Odb<'_>, tree: Oid) -> Error {
    let mut text = format!("the snapshot is encrypted with the key {key}, which is not known here");
    let others: Vec<&str> =
        known.into_iter().flat_map(Keyring::keys).map(|key| key.id().as_str()).take(NAMED).collect();
    if !others.is_empty() {
        let _ = write!(text, " (known are {})", others.join(", "));
    }
    text.push_str(
        ": name its file with --key-file, or in the \
         configuration (encryption: {method: git-crypt, key_file: F}; a key that was rotated belongs into old_keys)",
    );
    // A kindness: what cannot be listed is not named.
    let recipients = wrapped::recipients(objects, tree).unwrap_or_default();
    if !recipients.is_empty() {
        let names: Vec<&str> = recipients.iter().map(|it| it.fingerprint.as_str()).take(NAMED).collect();
        let more = if recipients.len() > NAMED { ", and others" } else { "" };
        let _ = write!(
            text,
            "; or name with --key-file an OpenPGP private key for which it is in the repository: {}{more}",
            names.join(", ")
        );
    }
    Error::new(Kind::EncryptionKey, text)
}
