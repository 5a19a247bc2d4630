//! A blob's bytes, from the repository to wherever they go, and the proof that they are the right ones.
//!
//! In: the name of a blob. Out: its bytes in pieces, each hashed as Git names objects and by BLAKE3, and what came of
//! both ([`Proof`]). Whole entries of packs are inflated by us, small ones at once and large ones with flat memory; so are
//! loose objects. Deltas, which our own repositories have of trees only, come through libgit2 and are held whole, within
//! [`MOST_HELD_BYTES`]. Whatever a repository says is taken for hostile: the name decides whether bytes count.
//!
//! A pointer of Git LFS is a blob of its own. [`ContentReader::behind`] leads from it to the large content that it stands
//! for, which is proven by SHA-256 instead. Where the snapshot is encrypted it leads on to the plaintext: what was stored is
//! proven as before, then decrypted and proven once more, and size and checksum are those of the plaintext.
//!
//! `delivery` decrypts and counts what goes out, `checked` hashes and counts, `first` looks at beginnings, `inflate` reads whole
//! entries of packs, `loose` objects that are files of their own, `large` those outside Git.

mod checked;
mod delivery;
mod first;
mod found;
mod inflate;
mod large;
mod loose;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectType, OdbLookupFlags, Oid};
use libdeflater::Decompressor;

use self::checked::Checked;
use self::delivery::Delivery;
pub use self::delivery::{BEGINNING_BYTES, Proof, Trouble};
use self::found::Place;
pub use self::found::{Found, Recorded};
use self::inflate::{damaged, inflate_in_pieces};
pub use self::large::{LargeContents, may_point};
use self::loose::Loose;
use super::pack::{EntryKind, ObjectKind, PackReader, PackSet, RawEntry};
use super::repository::Repository;
use crate::crypt::unsealer::{Seal, Unsealer};
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
    unsealer: Option<Arc<Unsealer>>,
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
        Ok(Self { repository: path.to_path_buf(), packs, large, unsealer: None })
    }

    /// The same as the files of an encrypted snapshot.
    #[must_use]
    pub fn opened_by(self, unsealer: Option<Arc<Unsealer>>) -> Self {
        Self { unsealer, ..self }
    }

    /// How the file at this path of the repository is encrypted, if it is.
    pub fn seal_of(&self, path: &[u8]) -> Option<Seal> {
        self.unsealer.as_ref().and_then(|unsealer| unsealer.seal_of(path))
    }

    /// Makes sure that there is something that opens what is encrypted like this.
    ///
    /// # Errors
    /// As [`Unsealer::must_read_contents`].
    pub fn must_open(&self, seal: Option<Seal>) -> Result<()> {
        match &self.unsealer {
            Some(unsealer) if seal == Some(Seal::OpenPgp) => unsealer.must_read_contents(),
            _ => Ok(()),
        }
    }

    /// A hasher whose result is the checksum that the snapshot's records have.
    pub fn hasher(&self) -> blake3::Hasher {
        self.unsealer.as_ref().map_or_else(blake3::Hasher::new, |unsealer| unsealer.checksums().hasher())
    }

    /// The checksum that the snapshot's records have.
    pub fn checksum(&self, plaintext: &[u8]) -> [u8; 32] {
        *self.hasher().update(plaintext).finalize().as_bytes()
    }

    fn delivery<'s>(
        &'s self,
        found: &Found,
        progress: &Progress,
        sink: &'s mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Delivery<'s>, Trouble> {
        let decryptor = match (&self.unsealer, found.seal) {
            (_, None) => None,
            (Some(unsealer), Some(seal)) => {
                Some(unsealer.decryptor(seal, found.most(), progress).map_err(Trouble::Elsewhere)?)
            }
            (None, Some(_)) => {
                let text = "a content is encrypted, and it is not known with which key";
                return Err(Trouble::Elsewhere(Error::new(Kind::Internal, text)));
            }
        };
        Ok(Delivery::new(decryptor, self.hasher(), sink))
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

impl<'c> ContentReader<'c> {
    /// What is read from.
    pub fn contents(&self) -> &'c Contents {
        self.contents
    }

    /// Looks a blob up.
    ///
    /// # Errors
    /// [`Kind::Git`] if it is missing, or is no blob, or its pack is damaged there.
    pub fn find(&mut self, id: Oid) -> Result<Found> {
        let found = |kind: ObjectKind, size, place| match kind {
            ObjectKind::Blob => Ok(Found::new(id, size, place)),
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
        if is_here { self.find(id) } else { Ok(Found::new(id, size, Place::Believed)) }
    }

    fn git(&mut self) -> Result<&Repository> {
        let opened = match self.repository.take() {
            Some(opened) => opened,
            None => Repository::open(&self.contents.repository)?,
        };
        Ok(self.repository.insert(opened))
    }

    /// What a file holds: the large content that its blob points at, decrypted if the file is encrypted
    /// ([`Contents::seal_of`]). The blob itself if it is neither, also a user's own file that only looks like a pointer: then
    /// its checksum is the recorded one.
    ///
    /// # Errors
    /// What is wrong with the blob; that it is clear text and should not be; [`Kind::EncryptionKey`] if nothing here opens it.
    pub fn behind(
        &mut self,
        found: Found,
        seal: Option<Seal>,
        recorded: Recorded,
        progress: &Progress,
    ) -> Result<Found> {
        let found = self.pointed_at(found, recorded.blake3, progress)?;
        let Some(seal) = seal else { return Ok(found) };
        self.contents.must_open(Some(seal))?;
        found.opened(seal, recorded.size)
    }

    fn pointed_at(&mut self, found: Found, recorded: Option<[u8; 32]>, progress: &Progress) -> Result<Found> {
        if !may_point(found.stored) || found.is_led_to() {
            return Ok(found);
        }
        let blob = self.beginning(&found, progress)?;
        let Some(pointer) = Pointer::parse(&blob) else { return Ok(found) };
        if recorded.is_some_and(|recorded| recorded == self.contents.checksum(&blob)) {
            return Ok(found);
        }
        Ok(Found::new(found.id, pointer.size, Place::Large(pointer)))
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
        let contents = self.contents;
        let delivery = contents.delivery(found, progress, sink)?;
        match &found.place {
            Place::Large(pointer) => large::stream(contents.large.as_ref(), pointer, progress, delivery),
            _ => self.pass(found, progress, Checked::new(found, delivery)),
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
        let delivery = self.contents.delivery(found, progress, sink)?;
        let proof = self.pass(found, progress, Checked::by_plain_name(found, delivery))?;
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
            Place::Elsewhere | Place::Believed | Place::Large(_) => {
                self.at_once(found, progress, &mut checked)?
            }
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
        if found.stored > MOST_HELD_BYTES {
            let text = format!(
                "the content {} of {} bytes is stored in a form that has to be held in memory whole, which is done up to \
                 {MOST_HELD_BYTES} bytes; `git cat-file blob {0}` gives it",
                found.id, found.stored
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
        self.start(found, BEGINNING_BYTES, progress)
    }

    fn start(&mut self, found: &Found, count: usize, progress: &Progress) -> Result<Vec<u8>> {
        let mut beginning = Vec::new();
        let outcome = self.stream(found, progress, &mut |piece| {
            let wanted = count.saturating_sub(beginning.len()).min(piece.len());
            beginning.extend_from_slice(&piece[..wanted]);
            if beginning.len() < count { Ok(()) } else { Err(Error::cancelled()) }
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
