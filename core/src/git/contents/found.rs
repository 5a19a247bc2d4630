//! A blob that was looked up: where its bytes are, how many, and what comes out of them.

use std::sync::Arc;

use git2::Oid;

use crate::crypt::gitcrypt::cipher::OVERHEAD;
use crate::crypt::gitcrypt::is_clear_text;
use crate::error::Result;
use crate::git::pack::{PackReader, RawEntry};
use crate::lfs::Pointer;

/// Where a blob is, and how large.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub id: Oid,
    /// Bytes that come out of it.
    pub size: u64,
    /// Bytes that are stored.
    pub(super) stored: u64,
    pub(super) place: Place,
    /// What is stored is a ciphertext, and what comes out of it the plaintext.
    pub(super) is_sealed: bool,
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
        Self { id, size, stored: size, place, is_sealed: false }
    }

    /// Whether it is what a file holds, because a pointer or the encryption led to it, whatever it looks like.
    pub fn is_led_to(&self) -> bool {
        self.is_sealed || matches!(self.place, Place::Large(_))
    }

    /// Whether what is stored is a ciphertext, and what comes out of it the plaintext.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Whether it is not here, and was taken for what was said of it.
    pub fn is_believed(&self) -> bool {
        matches!(self.place, Place::Believed)
    }

    /// Its plaintext.
    pub(super) fn opened(self) -> Result<Self> {
        let size = match self.stored {
            // One version of git-crypt leaves an empty file empty.
            0 => 0,
            stored => stored.checked_sub(OVERHEAD).ok_or_else(is_clear_text)?,
        };
        Ok(Self { size, is_sealed: true, ..self })
    }

    /// What is to be proven by SHA-256, because it is outside Git.
    pub fn pointer(&self) -> Option<&Pointer> {
        match &self.place {
            Place::Large(pointer) => Some(pointer),
            _ => None,
        }
    }
}
