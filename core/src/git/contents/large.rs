//! Large contents: outside Git, by a pointer.
//!
//! In: a pointer and somebody who has large contents. Out: the bytes, proven by SHA-256 and size, as a [`Proof`] like any
//! other.

use std::fmt::Debug;
use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::delivery::{Delivery, Proof, Trouble};
use crate::error::{Error, Kind, Result};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

/// How much is read between two writes.
const PIECE_BYTES: usize = 256 * 1024;
/// The shortest text that is a pointer: of the oldest version, to one digit of bytes.
const SHORTEST_POINTER: u64 = 110;

/// Who has large contents, or can get them. Several threads ask at once.
pub trait LargeContents: Debug + Send + Sync {
    /// Opens a content for reading. Its bytes are believed of nothing.
    ///
    /// # Errors
    /// When it is not here and cannot be had; the text says what to do.
    fn open(&self, pointer: &Pointer, progress: &Progress) -> Result<File>;

    /// Whether it is here, or there is somebody to ask for it.
    ///
    /// # Errors
    /// When that cannot be seen.
    fn can_be_had(&self, pointer: &Pointer) -> Result<bool>;

    /// Whether it was taken away from here on purpose, because remotes have it, and is not to be read for a check of what
    /// is here.
    ///
    /// # Errors
    /// When that cannot be seen.
    fn is_elsewhere(&self, pointer: &Pointer) -> Result<bool> {
        let _ = pointer;
        Ok(false)
    }
}

impl LargeContents for Objects {
    fn open(&self, pointer: &Pointer, _: &Progress) -> Result<File> {
        Objects::open(self, &pointer.id)?.ok_or_else(|| is_absent(pointer))
    }

    fn can_be_had(&self, pointer: &Pointer) -> Result<bool> {
        self.has(pointer)
    }
}

/// The error of a content that nobody has.
pub fn is_absent(pointer: &Pointer) -> Error {
    let text = format!(
        "its content is the large object {} of {} bytes, which is not here; `git lfs fetch` in a clone of the remote gets it",
        pointer.id, pointer.size
    );
    Error::new(Kind::Git, text)
}

/// Whether a blob of this size may be a pointer.
pub fn may_point(size: u64) -> bool {
    (SHORTEST_POINTER..crate::lfs::pointer::LARGEST as u64).contains(&size)
}

/// Has the content's bytes delivered.
pub(super) fn stream(
    large: &dyn LargeContents,
    pointer: &Pointer,
    progress: &Progress,
    mut delivery: Delivery<'_>,
) -> std::result::Result<Proof, Trouble> {
    let damaged = |what: String| {
        let text = format!("the large object {} of {} bytes {what}", pointer.id, pointer.size);
        Trouble::Object(Error::new(Kind::Git, text))
    };
    let mut file = large.open(pointer, progress).map_err(|error| match error.kind() {
        Kind::Cancelled | Kind::DiskFull | Kind::Limit => Trouble::Elsewhere(error),
        _ => Trouble::Object(error),
    })?;
    let (mut sha256, mut size) = (Sha256::new(), 0u64);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        progress.check().map_err(Trouble::Elsewhere)?;
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(format!("cannot be read: {error}"))),
        };
        size += length as u64;
        if size > pointer.size {
            return Err(damaged("is longer than that".to_owned()));
        }
        let bytes = &piece[..length];
        sha256.update(bytes);
        delivery.take(bytes)?;
    }
    if size != pointer.size {
        return Err(damaged(format!("has only {size} here")));
    }
    if sha256.finalize().as_slice() != pointer.id.0.as_slice() {
        return Err(damaged("is damaged here: its bytes have another SHA-256".to_owned()));
    }
    delivery.finish()
}
