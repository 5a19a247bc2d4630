//! A blob's bytes, from the repository to wherever they go, and the proof that they are the right ones.
//!
//! In: the name of a blob. Out: its bytes in pieces, each hashed as Git names objects and by BLAKE3, and what came of
//! both ([`Proof`]). Whole entries of packs are inflated by us, small ones at once and large ones with flat memory; so are
//! loose objects. Deltas, which our own repositories have of trees only, come through libgit2 and are held whole, within
//! [`MOST_HELD_BYTES`]. Whatever a repository says is taken for hostile: the name decides whether bytes count.
//!
//! A pointer of Git LFS is a blob of its own. [`ContentReader::behind`] leads from it to the large content that it stands
//! for, which is proven by SHA-256 instead.
//!
//! `checked` hashes and counts, `first` looks at beginnings, `loose` reads objects that are files of their own, `large` those outside Git.

mod checked;
mod first;
mod large;
mod loose;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};
use git2::{ObjectType, OdbLookupFlags, Oid};
use libdeflater::Decompressor;

use self::checked::Checked;
pub use self::checked::{BEGINNING_BYTES, Proof, Trouble};
pub use self::large::{LargeContents, may_point};
use self::loose::Loose;
use super::pack::{EntryKind, ObjectKind, PackReader, PackSet, RawEntry};
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

/// Up to this an object is inflated at once, which is twice as fast.
const WHOLE_BYTES: u64 = 1024 * 1024;
/// Git makes no deltas of files above this size by default (`core.bigFileThreshold`).
pub const MOST_HELD_BYTES: u64 = 512 * 1024 * 1024;
/// How much is inflated between two writes.
const PIECE_BYTES: usize = 256 * 1024;

/// The objects of a repository, for several threads.
pub struct Contents {
    repository: PathBuf,
    packs: PackSet,
    large: Arc<dyn LargeContents>,
}

/// Where a blob is, and how large.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub id: Oid,
    /// Bytes.
    pub size: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// In a pack, as a whole.
    Packed(Arc<PackReader>, RawEntry),
    /// In a file of its own.
    Loose,
    /// Where libgit2 finds it, if anybody does.
    Elsewhere,
    /// Outside Git, as this pointer says.
    Large(Pointer),
}

impl Found {
    /// What is to be proven by SHA-256, because it is outside Git.
    pub fn pointer(&self) -> Option<&Pointer> {
        match &self.place {
            Place::Large(pointer) => Some(pointer),
            _ => None,
        }
    }
}

impl Contents {
    /// The objects of the repository at `path`.
    ///
    /// # Errors
    /// If its packs cannot be listed.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, None)
    }

    /// As [`Contents::open`], with large contents from elsewhere than the repository's own store.
    ///
    /// # Errors
    /// As [`Contents::open`].
    pub fn open_with(path: &Path, large: Option<Arc<dyn LargeContents>>) -> Result<Self> {
        let packs = PackSet::open(&path.join("objects/pack"))?;
        let large = large.unwrap_or_else(|| Arc::new(Objects::of(path)));
        Ok(Self { repository: path.to_path_buf(), packs, large })
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
        let found = |kind: ObjectKind, size, place| match kind {
            ObjectKind::Blob => Ok(Found { id, size, place }),
            kind => {
                let kind = kind.as_str();
                Err(Error::new(Kind::Git, format!("the object {id} is a {kind}, no file's content")))
            }
        };
        match self.contents.packs.find(&id)? {
            Some((pack, entry)) => {
                if let EntryKind::Whole(kind) = entry.kind {
                    return found(kind, entry.size, Place::Packed(pack, entry));
                }
            }
            None => {
                if let Some(loose) = Loose::open(&self.contents.repository, &id)? {
                    return found(loose.kind, loose.size, Place::Loose);
                }
            }
        }
        // A delta; or it was packed in this moment, or stands where only libgit2 looks.
        let odb = self.git()?.objects()?;
        let (size, kind) = odb.read_header(id).map_err(|error| {
            Error::with_source(Kind::Git, format!("the content {id} is missing or damaged"), error)
        })?;
        found(kind.try_into()?, size as u64, Place::Elsewhere)
    }

    /// As [`ContentReader::find`]; one that is not here is taken to be what is said of it, if anything is.
    ///
    /// # Errors
    /// As [`ContentReader::find`].
    pub fn find_or_believe(&mut self, id: Oid, size: Option<u64>) -> Result<Found> {
        let Some(size) = size else { return self.find(id) };
        // Asked without looking at the directory again for each of a hundred thousand.
        let is_here = self.contents.packs.contains(&id)?
            || self.git()?.objects()?.exists_ext(id, OdbLookupFlags::NO_REFRESH);
        if is_here { self.find(id) } else { Ok(Found { id, size, place: Place::Elsewhere }) }
    }

    fn git(&mut self) -> Result<&Repository> {
        let opened = match self.repository.take() {
            Some(opened) => opened,
            None => Repository::open(&self.contents.repository)?,
        };
        Ok(self.repository.insert(opened))
    }

    /// The large content that a blob points at; the blob itself if it points at none, or is a user's own file that only
    /// looks like a pointer: then its BLAKE3 is the recorded one.
    ///
    /// # Errors
    /// What is wrong with the blob.
    pub fn behind(&mut self, found: Found, recorded: Option<[u8; 32]>, progress: &Progress) -> Result<Found> {
        if !may_point(found.size) || matches!(found.place, Place::Large(_)) {
            return Ok(found);
        }
        let blob = self.beginning(&found, progress)?;
        let Some(pointer) = Pointer::parse(&blob) else { return Ok(found) };
        if recorded.is_some_and(|recorded| recorded == *blake3::hash(&blob).as_bytes()) {
            return Ok(found);
        }
        Ok(Found { id: found.id, size: pointer.size, place: Place::Large(pointer) })
    }

    /// Whether the bytes are here, or can at least be asked for.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn can_be_had(&self, found: &Found) -> Result<bool> {
        match &found.place {
            Place::Large(pointer) => self.contents.large.can_be_had(pointer),
            _ => Ok(true),
        }
    }

    /// Whether it was taken away from here on purpose ([`LargeContents::is_elsewhere`]).
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn is_elsewhere(&self, found: &Found) -> Result<bool> {
        match &found.place {
            Place::Large(pointer) => self.contents.large.is_elsewhere(pointer),
            _ => Ok(false),
        }
    }

    /// Gives the blob's bytes to `sink` in pieces. They count only if this returns without an error.
    ///
    /// # Errors
    /// [`Trouble`] tells what is wrong with the blob from what `sink` said.
    pub fn stream(
        &mut self,
        found: &Found,
        progress: &Progress,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Proof, Trouble> {
        match &found.place {
            Place::Large(pointer) => large::stream(self.contents.large.as_ref(), pointer, progress, sink),
            _ => self.pass(found, progress, Checked::new(found, sink)),
        }
    }

    /// As [`ContentReader::stream`] where the bytes should have a BLAKE3. Only if they have another, or none is known, is the
    /// Git name all that proves them, and attacks on SHA-1 are looked for: then by reading once more.
    ///
    /// # Errors
    /// As [`ContentReader::stream`].
    pub fn stream_expecting(
        &mut self,
        found: &Found,
        expected: Option<[u8; 32]>,
        progress: &Progress,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Proof, Trouble> {
        let Some(expected) = expected.filter(|_| found.pointer().is_none()) else {
            return self.stream(found, progress, sink);
        };
        let proof = self.pass(found, progress, Checked::by_plain_name(found, sink))?;
        if proof.blake3 != expected {
            self.stream(found, progress, &mut |_| Ok(()))?;
        }
        Ok(proof)
    }

    fn pass(
        &mut self,
        found: &Found,
        progress: &Progress,
        mut checked: Checked<'_>,
    ) -> std::result::Result<Proof, Trouble> {
        match &found.place {
            Place::Packed(pack, entry)
                if entry.size <= WHOLE_BYTES && entry.compressed_len <= 2 * WHOLE_BYTES =>
            {
                self.inflate_whole(pack, entry).map_err(Trouble::Object)?;
                checked.take(&self.plain[..entry.size as usize])?;
            }
            Place::Packed(pack, entry) => inflate_in_pieces(pack, entry, progress, &mut checked)?,
            Place::Loose => {
                match Loose::open(&self.contents.repository, &found.id).map_err(Trouble::Object)? {
                    Some(loose) => loose.stream(progress, &mut checked)?,
                    // It was packed since it was found.
                    None => self.at_once(found, progress, &mut checked)?,
                }
            }
            Place::Elsewhere | Place::Large(_) => self.at_once(found, progress, &mut checked)?,
        }
        checked.finish()
    }

    /// Through libgit2, held whole.
    fn at_once(
        &mut self,
        found: &Found,
        progress: &Progress,
        checked: &mut Checked<'_>,
    ) -> std::result::Result<(), Trouble> {
        if found.size > MOST_HELD_BYTES {
            let text = format!(
                "the content {} of {} bytes is stored in a form that has to be held in memory whole, which is done up to \
                 {MOST_HELD_BYTES} bytes; `git cat-file blob {0}` gives it",
                found.id, found.size
            );
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        let odb = self.git().and_then(|git| git.objects()).map_err(Trouble::Object)?;
        let object = odb.read(found.id).map_err(|error| {
            let text = format!("the content {} cannot be read", found.id);
            Trouble::Object(Error::with_source(Kind::Git, text, error))
        })?;
        if object.kind() != ObjectType::Blob {
            let text = format!("the object {} is no file's content", found.id);
            return Err(Trouble::Object(Error::new(Kind::Git, text)));
        }
        for piece in object.data().chunks(PIECE_BYTES) {
            progress.check().map_err(Trouble::Elsewhere)?;
            checked.take(piece)?;
        }
        Ok(())
    }

    /// How the blob begins, as far as it takes to tell a file from what stands in for one; the rest of it is not read.
    ///
    /// # Errors
    /// What is wrong with the blob.
    pub fn beginning(&mut self, found: &Found, progress: &Progress) -> Result<Vec<u8>> {
        let mut beginning = Vec::new();
        let outcome = self.stream(found, progress, &mut |piece| {
            let wanted = BEGINNING_BYTES.saturating_sub(beginning.len()).min(piece.len());
            beginning.extend_from_slice(&piece[..wanted]);
            if beginning.len() < BEGINNING_BYTES { Ok(()) } else { Err(Error::cancelled()) }
        });
        match outcome {
            Err(Trouble::Object(error)) => Err(error),
            Err(Trouble::Elsewhere(error)) if progress.is_cancelled() => Err(error),
            _ => Ok(beginning),
        }
    }

    /// Inflates a small entry into the beginning of `self.plain`.
    fn inflate_whole(&mut self, pack: &PackReader, entry: &RawEntry) -> Result<()> {
        let packed = pack.read_raw(entry, &mut self.packed)?;
        let size = entry.size as usize;
        if self.plain.len() < size {
            self.plain.resize(size, 0);
        }
        match self.inflate.zlib_decompress(packed, &mut self.plain[..size]) {
            Ok(length) if length == size => Ok(()),
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
