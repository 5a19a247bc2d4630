//! Hashing and counting what passes: the proof that bytes are those of the blob that was asked for.
//!
//! In: a blob's name and size, and bytes in pieces, which are delivered. Out: a [`Proof`], or the [`Trouble`].

use git2::Oid;

use super::Found;
use super::delivery::{Delivery, Proof, Trouble};
use crate::error::{Error, Kind};
use crate::git::pack::{ObjectHasher, ObjectKind, PlainObjectHasher};

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
    delivery: Delivery<'s>,
}

impl<'s> Checked<'s> {
    /// Looks for attacks on SHA-1, too.
    pub(super) fn new(found: &Found, delivery: Delivery<'s>) -> Self {
        Self::with(found, Name::Guarded(ObjectHasher::new(ObjectKind::Blob, found.stored)), delivery)
    }

    /// For bytes that are proven otherwise, too.
    pub(super) fn by_plain_name(found: &Found, delivery: Delivery<'s>) -> Self {
        Self::with(found, Name::Plain(PlainObjectHasher::new(ObjectKind::Blob, found.stored)), delivery)
    }

    fn with(found: &Found, git: Name, delivery: Delivery<'s>) -> Self {
        Self { id: found.id, size: found.stored, left: found.stored, git, delivery }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        let length = piece.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            let text = format!("the content {} is longer than its {} bytes", self.id, self.size);
            Trouble::Object(Error::new(Kind::Git, text))
        })?;
        match &mut self.git {
            Name::Guarded(name) => name.update(piece).map_err(Trouble::Object)?,
            Name::Plain(name) => name.update(piece),
        }
        self.delivery.take(piece)
    }

    pub(super) fn finish(self) -> Result<Proof, Trouble> {
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
        // What is withheld of a plaintext goes out when all that was stored is proven.
        self.delivery.finish()
    }
}
