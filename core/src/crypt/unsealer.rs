//! What opens the files of one snapshot: its policy, the key that this names and, where contents are OpenPGP messages, what opens
//! those.
//!
//! In: a snapshot's tree, and the keys that are known for its repository. Out: whether a file is encrypted and how, its
//! plaintext, and the keyed checksums that the snapshot's metadata has. Without the key there is an error that names it, and
//! without what opens messages one that names their recipients: no ciphertext is ever taken for a file. A host that only
//! writes has the key, and so the metadata, but no content.

use std::fmt::Write;
use std::sync::Arc;

use git2::{Odb, Oid};

use super::gitcrypt::{self, wrapped};
use super::keyed::ChecksumKey;
use super::keyring::{Key, Keyring};
use super::opener::{self, Opener};
use super::places;
use super::policy::{Cipher, KeyId, Policy};
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::progress::Progress;

/// Recipients that a message names.
const NAMED: usize = 5;

/// How a file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seal {
    /// As git-crypt does, with the key of the snapshot.
    GitCrypt,
    /// As an OpenPGP message.
    OpenPgp,
}

/// What opens the files of one snapshot.
#[derive(Debug)]
pub struct Unsealer {
    policy: Policy,
    key: Arc<Key>,
    opener: Opener,
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
            Some(key) => {
                let opener = known.as_ref().map(|known| known.opener().clone()).unwrap_or_default();
                Ok(Some(Arc::new(Self::new(policy, key.clone(), opener))))
            }
            None => Err(is_missing(&policy.key, known.as_deref(), &objects, tree)),
        }
    }

    /// With a key that is known to be the policy's.
    pub(crate) fn new(policy: Policy, key: Arc<Key>, opener: Opener) -> Self {
        Self { policy, key, opener }
    }

    /// How the file at a path of the repository is encrypted, if it is. Symbolic links never are.
    pub fn seal_of(&self, path: &[u8]) -> Option<Seal> {
        self.policy.cipher_of(path).map(|cipher| match cipher {
            Cipher::GitCrypt => Seal::GitCrypt,
            Cipher::OpenPgp { .. } => Seal::OpenPgp,
        })
    }

    /// Whether there is something that opens contents. With git-crypt that is the key, which is always there.
    pub fn reads_contents(&self) -> bool {
        self.must_read_contents().is_ok()
    }

    /// Makes sure that there is something that opens contents, as far as that can be told before the first of them.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] that names for whom they are, and what to do.
    pub fn must_read_contents(&self) -> Result<()> {
        let Cipher::OpenPgp { recipients } = &self.policy.cipher else { return Ok(()) };
        // Which keys gpg has is seen when it is asked.
        if self.opener.asks_gpg() || self.has_key_for(recipients) {
            return Ok(());
        }
        let keys = self.opener.private();
        let mut text =
            format!("the contents of the snapshot are encrypted with OpenPGP for {}, ", named(recipients));
        if keys.is_empty() {
            text.push_str("and there is no private key here that opens them");
        } else {
            let ours: Vec<&str> = keys.iter().map(|key| key.fingerprint()).take(NAMED).collect();
            let _ = write!(
                text,
                "and the private key {} is none of these (an older state, with --at, may have been for others)",
                ours.join(", ")
            );
        }
        text.push_str(
            ": name its file with --key-file, decrypt with gpg and its agent with --gpg, or say in the configuration where \
             it is (encryption: {method: gpg, private_key: FILE}, or gpg_agent: true)",
        );
        Err(Error::new(Kind::EncryptionKey, text))
    }

    /// As [`Unsealer::must_read_contents`], where no file of the snapshot can be read without.
    ///
    /// # Errors
    /// As [`Unsealer::must_read_contents`].
    pub fn must_read_any_content(&self) -> Result<()> {
        if self.policy.paths.is_everything() { self.must_read_contents() } else { Ok(()) }
    }

    /// What opens contents that are OpenPGP messages.
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// The name of the key that the snapshot is encrypted with.
    pub(crate) fn key(&self) -> &KeyId {
        &self.policy.key
    }

    /// Whether `gpg` is all that opens contents.
    pub(crate) fn needs_gpg(&self) -> bool {
        let Cipher::OpenPgp { recipients } = &self.policy.cipher else { return false };
        self.opener.asks_gpg() && !self.has_key_for(recipients)
    }

    fn has_key_for(&self, recipients: &[String]) -> bool {
        let is_one = |fingerprint: &str| recipients.iter().any(|it| it.eq_ignore_ascii_case(fingerprint));
        self.opener.private().iter().any(|key| is_one(key.fingerprint()))
    }

    /// What the checksums of all files of the snapshot are keyed with.
    pub fn checksums(&self) -> &ChecksumKey {
        self.key.checksums()
    }

    /// Decrypts one file. What is an OpenPGP message gives at most `limit` bytes.
    ///
    /// # Errors
    /// None that the key did not tell when it was read.
    pub fn decryptor(&self, seal: Seal, limit: u64, progress: &Progress) -> Result<Decryptor<'_>> {
        Ok(match seal {
            Seal::GitCrypt => Decryptor::GitCrypt(gitcrypt::Decryptor::new(self.key.version()?), false),
            Seal::OpenPgp => Decryptor::OpenPgp(opener::Decryptor::new(&self.opener, limit, progress)),
        })
    }
}

/// A file that is being decrypted.
#[expect(
    clippy::large_enum_variant,
    reason = "one a file, on the stack: a box would be an allocation for each"
)]
pub enum Decryptor<'k> {
    /// By the key; and whether its end came.
    GitCrypt(gitcrypt::Decryptor<'k>, bool),
    /// By what opens messages.
    OpenPgp(opener::Decryptor),
}

impl Decryptor<'_> {
    /// Takes as much from the beginning of `ciphertext` as it can, and gives what came of it, which may be nothing.
    ///
    /// # Errors
    /// For what is no ciphertext. After an error nothing more is decrypted.
    pub fn take(&mut self, ciphertext: &mut &[u8]) -> Result<&[u8]> {
        match self {
            Self::GitCrypt(decryptor, _) => decryptor.take(ciphertext),
            Self::OpenPgp(decryptor) => decryptor.take(ciphertext),
        }
    }

    /// The ciphertext ended: gives what is left of the plaintext, piece by piece, and nothing when that was all. The last
    /// piece proves the whole.
    ///
    /// # Errors
    /// If it is damaged, or for another key.
    pub fn end(&mut self) -> Result<Option<&[u8]>> {
        match self {
            Self::GitCrypt(_, true) => Ok(None),
            Self::GitCrypt(decryptor, is_over) => {
                *is_over = true;
                decryptor.finish().map(Some)
            }
            Self::OpenPgp(decryptor) => decryptor.end(),
        }
    }
}

fn named(fingerprints: &[String]) -> String {
    let names: Vec<&str> = fingerprints.iter().map(String::as_str).take(NAMED).collect();
    let more = if fingerprints.len() > NAMED { ", and others" } else { "" };
    format!("{}{more}", names.join(", "))
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
         configuration (encryption: {method: git-crypt, key_file: F}, the same with method: gpg; a key that was rotated \
         belongs into old_keys)",
    );
    // A kindness: what cannot be listed is not named.
    let recipients = wrapped::recipients(objects, tree).unwrap_or_default();
    if !recipients.is_empty() {
        let names: Vec<String> = recipients.into_iter().map(|it| it.fingerprint).collect();
        let _ = write!(
            text,
            "; or name with --key-file an OpenPGP private key for which it is in the repository, or say --gpg if gpg has it: {}",
            named(&names)
        );
    }
    Error::new(Kind::EncryptionKey, text)
}
