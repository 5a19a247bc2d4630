//! Hashing and counting what passes: the proof that bytes are those of the blob that was asked for.
//!
//! In: a blob's name and size, and bytes in pieces, which go on to a sink. Out: a [`Proof`], or the [`Trouble`].

use git2::Oid;

use super::Found;
use crate::error::{Error, Kind, Result};
use crate::git::pack::{ObjectHasher, ObjectKind, PlainObjectHasher};

/// So many bytes from the beginning are kept.
pub const BEGINNING_BYTES: usize = 1024;

/// What the bytes that came turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// BLAKE3 of them.
    pub blake3: [u8; 32],
    /// How many there were.
    pub size: u64,
    /// The first of them, [`BEGINNING_BYTES`] or all.
    pub beginning: Vec<u8>,
}

/// Why bytes did not come.
#[derive(Debug)]
pub enum Trouble {
    /// The object is missing, damaged or not what its name says; nothing else is affected.
    Object(Error),
    /// They could not be written, or a stop was asked for.
    Elsewhere(Error),
}

#[expect(
    clippy::large_enum_variant,
    reason = "one a file, on the stack: a box would be an allocation for each"
)]
enum Name {
    Guarded(ObjectHasher),
    Plain(PlainObjectHasher),
}

/// Hashes what passes, and stops more than there should be.
pub(super) struct Checked<'s> {
    id: Oid,
    size: u64,
    left: u64,
    git: Name,
    blake3: blake3::Hasher,
    beginning: Vec<u8>,
    sink: &'s mut dyn FnMut(&[u8]) -> Result<()>,
}

impl<'s> Checked<'s> {
    /// Looks for attacks on SHA-1, too.
    pub(super) fn new(found: &Found, sink: &'s mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        Self::with(found, Name::Guarded(ObjectHasher::new(ObjectKind::Blob, found.size)), sink)
    }

    /// For bytes that are proven otherwise, too.
    pub(super) fn by_plain_name(found: &Found, sink: &'s mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        Self::with(found, Name::Plain(PlainObjectHasher::new(ObjectKind::Blob, found.size)), sink)
    }

    fn with(found: &Found, git: Name, sink: &'s mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        Self {
            id: found.id,
            size: found.size,
            left: found.size,
            git,
            blake3: blake3::Hasher::new(),
            beginning: Vec::new(),
            sink,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> std::result::Result<(), Trouble> {
        let length = piece.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            let text = format!("the content {} is longer than its {} bytes", self.id, self.size);
            Trouble::Object(Error::new(Kind::Git, text))
        })?;
        match &mut self.git {
            Name::Guarded(name) => name.update(piece).map_err(Trouble::Object)?,
            Name::Plain(name) => name.update(piece),
        }
        self.blake3.update(piece);
        let wanted = BEGINNING_BYTES.saturating_sub(self.beginning.len()).min(piece.len());
        self.beginning.extend_from_slice(&piece[..wanted]);
        (self.sink)(piece).map_err(Trouble::Elsewhere)
    }

    pub(super) fn finish(self) -> std::result::Result<Proof, Trouble> {
        if self.left > 0 {
            let text = format!("the content {} is {} bytes shorter than it should be", self.id, self.left);
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        let name = match self.git {
            Name::Guarded(name) => name.finish(),
            Name::Plain(name) => name.finish(),
        };
        let name = name.map_err(Trouble::Object)?;
        if name != self.id {
            let text =
                format!("what the repository holds under the name {} is another object, {name}", self.id);
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        Ok(Proof { blake3: *self.blake3.finalize().as_bytes(), size: self.size, beginning: self.beginning })
    }
}
