//! A blob that was looked up: where its bytes are, how many, and what comes out of them.

use std::sync::Arc;

use git2::Oid;

use crate::crypt::gitcrypt::cipher::OVERHEAD;
use crate::crypt::gitcrypt::is_clear_text;
use crate::crypt::unsealer::Seal;
use crate::error::Result;
use crate::git::pack::{PackReader, RawEntry};
use crate::lfs::Pointer;
use crate::metadata::Record;

/// Where a blob is, and how large.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub id: Oid,
    /// Bytes that come out of it; of an OpenPGP message what is recorded of them, or an estimate that is too high where nothing
    /// is ([`Found::exact_size`]).
    pub size: u64,
    /// Bytes that are stored.
    pub(super) stored: u64,
    pub(super) place: Place,
    /// What is stored is a ciphertext, and what comes out of it the plaintext.
    pub(super) seal: Option<Seal>,
}

/// What a file's record says of its content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recorded {
    /// Its bytes.
    pub size: Option<u64>,
    /// Their BLAKE3.
    pub blake3: Option<[u8; 32]>,
}

impl Recorded {
    /// What this record says.
    pub fn by(record: Option<&Record>) -> Self {
        Self { size: record.and_then(|record| record.size), blake3: record.and_then(|record| record.blake3) }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a pack, as a whole.
    Packed(Arc<PackReader>, RawEntry),
    /// In a file of its own.
    Loose,
    /// Where libgit2 finds it, if anybody does.
    Elsewhere,
    /// Not here.
    Believed,
    /// Outside Git, as this pointer says.
    Large(Pointer),
}

impl Found {
    pub(super) fn new(id: Oid, size: u64, place: Place) -> Self {
        Self { id, size, stored: size, place, seal: None }
    }

    /// Whether it is what a file holds, because a pointer or the encryption led to it, whatever it looks like.
    pub fn is_led_to(&self) -> bool {
        self.seal.is_some() || matches!(self.place, Place::Large(_))
    }

    /// Whether what is stored is a ciphertext, and what comes out of it the plaintext.
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Bytes that come out of it, if that is certain: of an OpenPGP message only its end tells.
    pub fn exact_size(&self) -> Option<u64> {
        (self.seal != Some(Seal::OpenPgp)).then_some(self.size)
    }

    /// Bytes that come out of it at most. An OpenPGP message is larger than its text, unless somebody else compressed it: then
    /// what is recorded counts.
    pub fn most(&self) -> u64 {
        if self.seal == Some(Seal::OpenPgp) { self.size.max(self.stored) } else { self.size }
    }

    /// Whether it is not here, and was taken for what was said of it.
    pub fn is_believed(&self) -> bool {
        matches!(self.place, Place::Believed)
    }

    /// Its plaintext.
    pub(super) fn opened(self, seal: Seal, recorded: Option<u64>) -> Result<Self> {
        let size = match (seal, self.stored) {
            // One version of git-crypt leaves an empty file empty.
            (Seal::GitCrypt, 0) => 0,
            (Seal::GitCrypt, stored) => stored.checked_sub(OVERHEAD).ok_or_else(is_clear_text)?,
            (Seal::OpenPgp, 0) => return Err(is_clear_text()),
            (Seal::OpenPgp, stored) => recorded.unwrap_or(stored),
        };
        Ok(Self { size, seal: Some(seal), ..self })
    }

    /// What is to be proven by SHA-256, because it is outside Git.
    pub fn pointer(&self) -> Option<&Pointer> {
        match &self.place {
            Place::Large(pointer) => Some(pointer),
            _ => None,
        }
    }
}
