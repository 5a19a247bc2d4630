//! A file's bytes, from the repository to wherever they go, and the proof that they are the right ones.
//!
//! In: the name of a blob. Out: its bytes in pieces, each hashed as Git names objects and by BLAKE3, and what came of
//! both ([`Proof`]). Whole entries of packs are inflated by us, small ones at once and large ones with flat memory;
//! deltas and loose objects, which our own repositories hardly have, come through libgit2 and are held whole, within
//! [`MOST_HELD_BYTES`]. Whatever a pack says is taken for hostile: the name decides whether bytes count.
//!
//! [`stands_in`] tells a file's own bytes from what stands in for them: a pointer of git-lfs, or ciphertext. Whoever
//! learns to fetch or decrypt those begins there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};
use git2::{ObjectType, Oid};
use libdeflater::Decompressor;

use crate::error::{Error, Kind, Result};
use crate::git::pack::{EntryKind, ObjectHasher, ObjectKind, PackReader, PackSet, RawEntry};
use crate::git::repository::Repository;
use crate::history::form::{self, Form, HEAD_BYTES};
use crate::metadata::Record;
use crate::progress::Progress;

/// Up to this an object is inflated at once, which is twice as fast.
const WHOLE_BYTES: u64 = 1024 * 1024;
/// Git makes no deltas of files above this size by default (`core.bigFileThreshold`).
pub const MOST_HELD_BYTES: u64 = 512 * 1024 * 1024;
/// How much is inflated between two writes.
const PIECE_BYTES: usize = 256 * 1024;
/// What git-crypt writes in front of everything that it encrypts.
const CIPHER_HEADER: &[u8] = b"\0GITCRYPT\0";

/// The objects of a repository, for several threads.
pub struct Contents {
    repository: PathBuf,
    packs: PackSet,
}

/// Where a blob is, and how large.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub id: Oid,
    /// Bytes.
    pub size: u64,
    /// In which pack, as a whole; else libgit2 has it.
    entry: Option<(Arc<PackReader>, RawEntry)>,
}

/// What the bytes that came turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// BLAKE3 of them.
    pub blake3: [u8; 32],
    /// How many there were.
    pub size: u64,
    /// The first of them, as many as [`stands_in`] needs to know.
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

/// What stands in a repository instead of a file's own bytes, in words; `None` if it is the file. `is_as_recorded`: the
/// bytes have the recorded checksum, so they are the user's, whatever they look like.
pub fn stands_in(proof: &Proof, record: Option<&Record>, is_as_recorded: bool) -> Option<&'static str> {
    if is_as_recorded {
        return None;
    }
    // A record may claim anything of bytes that do not have its checksum.
    let form = match proof.beginning.starts_with(CIPHER_HEADER) {
        true => Form::GitCrypt,
        false => form::of(&proof.beginning, proof.size, record),
    };
    match form {
        Form::Content => None,
        Form::Pointer => Some(
            "the repository holds a git-lfs pointer to it, and this version cannot fetch what it points at; --raw restores \
             the pointer",
        ),
        Form::GitCrypt => Some(
            "the repository holds it encrypted by git-crypt, and this version cannot decrypt it; --raw restores the \
             ciphertext",
        ),
        Form::OpenPgp => Some(
            "the repository holds it encrypted by OpenPGP, and this version cannot decrypt it; --raw restores the \
             ciphertext",
        ),
    }
}

impl Proof {
    /// Whether the metadata speaks of these very bytes.
    pub fn fits(&self, record: &Record) -> bool {
        record.size.is_none_or(|size| size == self.size)
            && record.blake3.is_none_or(|hash| hash == self.blake3)
    }
}

impl Contents {
    /// The objects of the repository at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let packs = PackSet::open(&path.join("objects/pack"))?;
        Ok(Self { repository: path.to_path_buf(), packs })
    }

    /// One thread's way to them.
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader {
            contents: self,
            repository: None,
            inflate: Decompressor::new(),
            packed: Vec::new(),
            plain: Vec::new(),
        }
    }
}

/// One thread's way to the objects, with its buffers.
pub struct ContentReader<'c> {
    contents: &'c Contents,
    /// libgit2's view, opened when it is first needed: no two threads may share one.
    repository: Option<Repository>,
    inflate: Decompressor,
    packed: Vec<u8>,
    plain: Vec<u8>,
}

impl ContentReader<'_> {
    /// Looks a blob up.
    ///
    /// # Errors
    /// [`Kind::Git`] if it is missing, or is no blob, or its pack is damaged there.
    pub fn find(&mut self, id: Oid) -> Result<Found> {
        match self.contents.packs.find(&id)? {
            Some((pack, entry)) if matches!(entry.kind, EntryKind::Whole(_)) => {
                if entry.kind != EntryKind::Whole(ObjectKind::Blob) {
                    return Err(Error::new(Kind::Git, format!("the object {id} is no file's content")));
                }
                Ok(Found { id, size: entry.size, entry: Some((pack, entry)) })
            }
            _ => {
                let odb = self.git()?.objects()?;
                let header = odb.read_header(id).map_err(|error| {
                    Error::with_source(Kind::Git, format!("the content {id} is missing or damaged"), error)
                });
                match header? {
                    (size, ObjectType::Blob) => Ok(Found { id, size: size as u64, entry: None }),
                    (_, kind) => {
                        Err(Error::new(Kind::Git, format!("the object {id} is a {kind}, no file's content")))
                    }
                }
            }
        }
    }

    fn git(&mut self) -> Result<&Repository> {
        let opened = match self.repository.take() {
            Some(opened) => opened,
            None => Repository::open(&self.contents.repository)?,
        };
        Ok(self.repository.insert(opened))
    }

    /// Gives the blob's bytes to `sink` in pieces. They count only if this returns without an error.
    pub fn stream(
        &mut self,
        found: &Found,
        progress: &Progress,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Proof, Trouble> {
        let mut checked = Checked::new(found, sink);
        match &found.entry {
            Some((pack, entry)) if entry.size <= WHOLE_BYTES && entry.compressed_len <= 2 * WHOLE_BYTES => {
                self.inflate_whole(pack, entry).map_err(Trouble::Object)?;
                checked.take(&self.plain)?;
            }
            Some((pack, entry)) => inflate_in_pieces(pack, entry, progress, &mut checked)?,
            None => {
                if found.size > MOST_HELD_BYTES {
                    let text = format!(
                        "the content {} of {} bytes is stored in a form that has to be held in memory whole, which is \
                         done up to {MOST_HELD_BYTES} bytes; `git cat-file blob {0}` gives it",
                        found.id, found.size
                    );
                    return Err(Trouble::Object(Error::new(Kind::Git, text)));
                }
                let odb = self.git().and_then(|git| git.objects()).map_err(Trouble::Object)?;
                let object = odb.read(found.id).map_err(|error| {
                    let text = format!("the content {} cannot be read", found.id);
                    Trouble::Object(Error::with_source(Kind::Git, text, error))
                })?;
                for piece in object.data().chunks(PIECE_BYTES) {
                    progress.check().map_err(Trouble::Elsewhere)?;
                    checked.take(piece)?;
                }
            }
        }
        checked.finish()
    }

    /// How the blob begins, as far as [`stands_in`] needs to know; the rest of it is not read.
    pub fn beginning(&mut self, found: &Found, progress: &Progress) -> Result<Vec<u8>> {
        let mut beginning = Vec::new();
        let outcome = self.stream(found, progress, &mut |piece| {
            let wanted = HEAD_BYTES.saturating_sub(beginning.len()).min(piece.len());
            beginning.extend_from_slice(&piece[..wanted]);
            if beginning.len() < HEAD_BYTES { Ok(()) } else { Err(Error::cancelled()) }
        });
        match outcome {
            Err(Trouble::Object(error)) => Err(error),
            Err(Trouble::Elsewhere(error)) if progress.is_cancelled() => Err(error),
            _ => Ok(beginning),
        }
    }

    /// Inflates a small entry into `self.plain`.
    fn inflate_whole(&mut self, pack: &PackReader, entry: &RawEntry) -> Result<()> {
        let packed = &mut self.packed;
        packed.clear();
        pack.stream_raw(entry, &mut |piece| {
            packed.extend_from_slice(piece);
            Ok(())
        })?;
        self.plain.resize(entry.size as usize, 0);
        match self.inflate.zlib_decompress(&self.packed, &mut self.plain) {
            Ok(length) if length as u64 == entry.size => Ok(()),
            Ok(_) => Err(damaged(pack, entry, "it is shorter than its header says")),
            Err(error) => Err(damaged(pack, entry, &error.to_string())),
        }
    }
}

fn damaged(pack: &PackReader, entry: &RawEntry, what: &str) -> Error {
    let place = crate::path::lossy(pack.path().as_os_str().as_encoded_bytes());
    Error::new(Kind::Git, format!("the pack {place} is damaged at offset {}: {what}", entry.offset))
}

fn inflate_in_pieces(
    pack: &PackReader,
    entry: &RawEntry,
    progress: &Progress,
    checked: &mut Checked<'_>,
) -> std::result::Result<(), Trouble> {
    let mut inflate = Decompress::new(true);
    let mut plain = vec![0; PIECE_BYTES];
    let mut trouble = None;
    let mut ended = false;
    let read = pack.stream_raw(entry, &mut |mut piece| {
        // Zlib's trailer may come in a piece of its own, after all bytes are there.
        while !piece.is_empty() && !ended {
            progress.check()?;
            let (taken, given) = (inflate.total_in(), inflate.total_out());
            let status = inflate
                .decompress(piece, &mut plain, FlushDecompress::None)
                .map_err(|error| damaged(pack, entry, &error.to_string()))?;
            let taken = (inflate.total_in() - taken) as usize;
            let given = (inflate.total_out() - given) as usize;
            if let Err(found) = checked.take(&plain[..given]) {
                trouble = Some(found);
                return Err(Error::cancelled());
            }
            piece = &piece[taken..];
            ended = status == Status::StreamEnd;
            if taken == 0 && given == 0 && !ended {
                return Err(damaged(pack, entry, "it does not inflate"));
            }
        }
        Ok(())
    });
    match (trouble, read) {
        (Some(trouble), _) => Err(trouble),
        (None, Err(error)) if error.kind() == Kind::Cancelled => Err(Trouble::Elsewhere(error)),
        (None, Err(error)) => Err(Trouble::Object(error)),
        (None, Ok(())) => {
            // What the inflater still holds back.
            while !ended {
                let given = inflate.total_out();
                let status = inflate.decompress(&[], &mut plain, FlushDecompress::Finish);
                let given = (inflate.total_out() - given) as usize;
                checked.take(&plain[..given])?;
                match status {
                    Ok(Status::StreamEnd) => ended = true,
                    Ok(_) if given > 0 => {}
                    _ => return Err(Trouble::Object(damaged(pack, entry, "it ends too early"))),
                }
            }
            Ok(())
        }
    }
}

/// Hashes what passes, and stops more than there should be.
struct Checked<'s> {
    id: Oid,
    size: u64,
    left: u64,
    git: ObjectHasher,
    blake3: blake3::Hasher,
    beginning: Vec<u8>,
    sink: &'s mut dyn FnMut(&[u8]) -> Result<()>,
}

impl<'s> Checked<'s> {
    fn new(found: &Found, sink: &'s mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        Self {
            id: found.id,
            size: found.size,
            left: found.size,
            git: ObjectHasher::new(ObjectKind::Blob, found.size),
            blake3: blake3::Hasher::new(),
            beginning: Vec::new(),
            sink,
        }
    }

    fn take(&mut self, piece: &[u8]) -> std::result::Result<(), Trouble> {
        let length = piece.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            let text = format!("the content {} is longer than its {} bytes", self.id, self.size);
            Trouble::Object(Error::new(Kind::Git, text))
        })?;
        self.git.update(piece).map_err(Trouble::Object)?;
        self.blake3.update(piece);
        let wanted = HEAD_BYTES.saturating_sub(self.beginning.len()).min(piece.len());
        self.beginning.extend_from_slice(&piece[..wanted]);
        (self.sink)(piece).map_err(Trouble::Elsewhere)
    }

    fn finish(self) -> std::result::Result<Proof, Trouble> {
        if self.left > 0 {
            let text = format!("the content {} is {} bytes shorter than it should be", self.id, self.left);
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        let name = self.git.finish().map_err(Trouble::Object)?;
        if name != self.id {
            let text =
                format!("what the repository holds under the name {} is another object, {name}", self.id);
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        Ok(Proof { blake3: *self.blake3.finalize().as_bytes(), size: self.size, beginning: self.beginning })
    }
}

#[cfg(test)]
mod tests;
