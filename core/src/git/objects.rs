//! The objects of a repository, with the way to the keys of those that are encrypted.
//!
//! Everything that libgit2's object database does, this does; metadata that is encrypted is opened on the way out.

use std::cell::OnceCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectType, Odb, Oid};

use crate::crypt::gitcrypt::cipher;
use crate::crypt::keyring::Keyring;
use crate::crypt::places;
use crate::error::Result;
use crate::tree::TreeSink;

/// The objects of a repository.
pub struct ObjectDatabase<'r> {
    objects: Odb<'r>,
    repository: PathBuf,
    /// Read when the first ciphertext is met.
    keys: OnceCell<Arc<Keyring>>,
}

impl<'r> ObjectDatabase<'r> {
    /// Those of the repository at `repository`.
    pub fn new(objects: Odb<'r>, repository: &Path) -> Self {
        Self { objects, repository: repository.to_path_buf(), keys: OnceCell::new() }
    }

    /// The bytes of a blob of our own, decrypted if they are a ciphertext. Never for a user's file: one may look like a
    /// ciphertext and be none.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`](crate::error::Kind::EncryptionKey) if there is no key for it, or none of the keys opens it.
    pub fn open_own(&self, stored: Vec<u8>) -> Result<Vec<u8>> {
        if !cipher::has_header(&stored) {
            return Ok(stored);
        }
        let keys = match self.keys.get() {
            Some(keys) => keys,
            None => {
                let keys = places::keys_of(&self.repository)?;
                self.keys.get_or_init(|| keys)
            }
        };
        keys.open_whole(&stored)
    }
}

impl<'r> Deref for ObjectDatabase<'r> {
    type Target = Odb<'r>;

    fn deref(&self) -> &Odb<'r> {
        &self.objects
    }
}

impl TreeSink for ObjectDatabase<'_> {
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid> {
        TreeSink::write(&self.objects, kind, data)
    }
}
