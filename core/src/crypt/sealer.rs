//! What encrypts the next snapshot: the key, which contents, and what the repository says of both.
//!
//! In: what the configuration wants. Out: ciphertexts, checksums of plaintexts, the policy and the attributes that stand in the
//! tree. It is read anew for each snapshot and fails if the key cannot be read: nothing is stored in clear text instead.

use std::sync::Arc;

use super::gitcrypt::cipher;
use super::keyring::{Key, Keyring};
use super::openpgp::Recipient;
use super::patterns::Patterns;
use super::policy::Policy;
use super::recipients;
use crate::clock;
use crate::config::{Encryption, EncryptionMethod};
use crate::error::{Error, Kind, Result};

/// What encrypts the next snapshot.
#[derive(Debug)]
pub struct Sealer {
    key: Arc<Key>,
    policy: Policy,
    /// For whom the key is put into the tree.
    recipients: Vec<Recipient>,
}

impl Sealer {
    /// What the configuration wants; nothing if it wants clear text.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] if the key or a recipient's certificate cannot be read, or is not in force any more.
    pub fn read(encryption: Option<&Encryption>) -> Result<Option<Self>> {
        let Some(encryption) = encryption else { return Ok(None) };
        let EncryptionMethod::GitCrypt { recipients, .. } = &encryption.method else { return Ok(None) };
        let keys = Keyring::read(&encryption.method)?;
        let Some(key) = keys.current() else {
            return Err(Error::new(Kind::EncryptionKey, "there is no key to encrypt with"));
        };
        let paths =
            Patterns::parse(&encryption.paths).map_err(|problem| Error::new(Kind::Config, problem))?;
        let policy = Policy { key: key.id().clone(), paths };
        let now = clock::now_ms().div_euclid(1000).unsigned_abs();
        let recipients = recipients::read(recipients, now)?;
        Ok(Some(Self { key: key.clone(), policy, recipients }))
    }

    /// What the tree says of it.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Who can open the key with a key of his own.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Whether the file at a path of the repository is encrypted.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.policy.covers(path)
    }

    /// Encrypts a small content.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] for one that git-crypt cannot hold.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        cipher::encrypt_whole(self.key.version()?, plaintext)
    }
}
