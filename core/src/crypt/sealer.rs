//! What encrypts the next snapshot: the key, which contents, and what the repository says of both.
//!
//! In: what the configuration wants. Out: ciphertexts, checksums of plaintexts, the policy and the attributes that stand in the
//! tree. It is read anew for each snapshot and fails if the key cannot be read: nothing is stored in clear text instead.

use std::sync::Arc;

use super::gitcrypt::cipher;
use super::key_files;
use super::keyring::{Key, Keyring};
use super::openpgp::{self, Recipient};
use super::patterns::Patterns;
use super::policy::{Cipher, Policy};
use super::recipients;
use crate::clock;
use crate::config::{Encryption, EncryptionMethod};
use crate::error::{Error, Kind, Result};

/// What encrypts the next snapshot.
#[derive(Debug)]
pub struct Sealer {
    key: Arc<Key>,
    policy: Policy,
    /// For whom the key is put into the tree, and with OpenPGP the contents are.
    recipients: Vec<Recipient>,
}

impl Sealer {
    /// What the configuration wants; nothing if it wants clear text.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] if the key or a recipient's certificate cannot be read, or is not in force any more.
    pub fn read(encryption: Option<&Encryption>) -> Result<Option<Self>> {
        let Some(encryption) = encryption.filter(|encryption| encryption.encrypts()) else { return Ok(None) };
        let now = clock::now_ms().div_euclid(1000).unsigned_abs();
        let recipients = recipients::read(encryption.method.recipients(), now)?;
        let cipher = match &encryption.method {
            EncryptionMethod::Gpg(gpg) => {
                key_files::make_if_ours(gpg)?;
                let mut names: Vec<_> = recipients.iter().map(|it| it.fingerprint().to_owned()).collect();
                names.sort_unstable();
                if names.is_empty() {
                    let text =
                        "no certificate is in what encryption.recipients names: nobody could read a backup";
                    return Err(Error::new(Kind::EncryptionKey, text));
                }
                Cipher::OpenPgp { recipients: names }
            }
            _ => Cipher::GitCrypt,
        };
        let keys = Keyring::read(&encryption.method)?;
        let Some(key) = keys.current() else {
            return Err(Error::new(Kind::EncryptionKey, "there is no key to encrypt with"));
        };
        let paths =
            Patterns::parse(&encryption.paths).map_err(|problem| Error::new(Kind::Config, problem))?;
        let policy = Policy { key: key.id().clone(), cipher, paths };
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

    /// Whether the same content gives other bytes each time.
    pub fn is_open_pgp(&self) -> bool {
        self.policy.cipher.is_open_pgp()
    }

    /// Encrypts a small content.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] for one that git-crypt cannot hold.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        match self.policy.cipher {
            Cipher::GitCrypt => cipher::encrypt_whole(self.key.version()?, plaintext),
            Cipher::OpenPgp { .. } => openpgp::encrypt_whole(plaintext, &self.recipients),
        }
    }
}
