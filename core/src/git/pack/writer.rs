//! Writing one pack, as a stream, from any number of threads.
//!
//! Objects come prepared by other threads, as a stream of known size, or raw out of another pack; each is
//! appended once. [`PackWriter::finish`] completes the pack and writes its index, still under temporary names
//! (see [`super::install`]); a writer dropped before that leaves nothing behind.
//!
//! What must stay true: everything before `entry_end` is whole entries that `entries` lists. An entry that
//! fails halfway, by a short reader, a full disk or a panic, is simply overwritten by the next, so after an
//! error the writer is as it was before the call.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use git2::Oid;

use super::header::{HeaderKind, MAX_HEADER_BYTES, encode_entry_header};
use super::index::{FIRST_LARGE_OFFSET, IndexEntry, write_index};
use super::install::{FinishedPack, TemporaryFile};
use super::object::{
    Compressor, Hashing, ObjectHasher, ObjectKind, Prepared, StreamDeflater, hash_object, prepare_hashed,
};
use super::reader::{EntryKind, PackReader, RawEntry};
use super::{CHUNK_BYTES, HASH_BYTES, PACK_HEADER_BYTES};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// So much is gathered before it is written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Whether a finished pack has to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Files are synced when finished, their directory when installed.
    Durable,
    /// The system writes them when it likes: for scratch repositories.
    Relaxed,
}

/// What became of a streamed blob.
#[derive(Debug)]
#[must_use]
pub enum Streamed {
    /// It is in the pack under this name.
    Stored(Oid),
    /// The reader gave more or fewer bytes than announced; the pack is as it was.
    SizeChanged,
    /// The reader failed; the pack is as it was. The caller knows the place and adds it.
    ReadFailed(io::Error),
}

/// What became of an entry of another pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Copied {
    /// It was appended.
    Added,
    /// The object is in this pack already.
    AlreadyThere,
    /// It is a delta against something that is, in this pack, a delta against it: two packs may hold the same
    /// two objects the other way round. Nothing was appended; the object has to be added whole.
    Cyclic,
}

/// A pack in the making.
#[derive(Debug)]
pub struct PackWriter {
    pack_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    output: Output,
    /// Where the last whole entry ends and the next begins.
    entry_end: u64,
    entries: Vec<IndexEntry>,
    known: HashSet<Oid>,
    /// The base of every delta in this pack.
    bases: HashMap<Oid, Oid>,
}

thread_local! {
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new());
}

impl PackWriter {
    /// Begins a pack in a repository's `objects/pack`.
    pub fn create(pack_dir: &Path) -> Result<Self> {
        let mut output = Output {
            file: TemporaryFile::create(pack_dir)?,
            flushed: 0,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        };
        output.append(b"PACK\0\0\0\x02\0\0\0\0")?;
        let state = State {
            output,
            entry_end: PACK_HEADER_BYTES,
            entries: Vec::new(),
            known: HashSet::new(),
            bases: HashMap::new(),
        };
        Ok(Self { pack_dir: pack_dir.to_owned(), state: Mutex::new(state) })
    }

    /// Adds an object that is in memory, unless it is in this pack; its name either way.
    pub fn add(&self, kind: ObjectKind, data: &[u8]) -> Result<Oid> {
        let oid = hash_object(kind, data)?;
        if !self.contains(&oid) {
            let prepared =
                COMPRESSOR.with_borrow_mut(|compressor| prepare_hashed(oid, kind, data, compressor))?;
            self.add_prepared(&prepared)?;
        }
        Ok(oid)
    }

    /// Adds an object prepared by [`super::prepare`]; false if it is in this pack already.
    pub fn add_prepared(&self, prepared: &Prepared) -> Result<bool> {
        let mut state = self.lock();
        if state.known.contains(&prepared.oid()) {
            return Ok(false);
        }
        state.begin();
        state.output.append(&prepared.entry)?;
        state.commit(prepared.oid(), prepared.crc);
        Ok(true)
    }

    /// Adds a blob of `size` bytes that is read once, in pieces, in constant memory; other threads wait
    /// meanwhile. `observe` sees every piece. A detected SHA-1 collision is an error of [`Kind::Git`], and
    /// nothing else here is.
    pub fn add_stream(
        &self,
        size: u64,
        reader: &mut dyn Read,
        progress: &Progress,
        observe: &mut dyn FnMut(&[u8]),
    ) -> Result<Streamed> {
        self.add_blob(StreamDeflater::new(false), size, reader, progress, observe)
    }

    /// As [`PackWriter::add_stream`] for a ciphertext, which no compression makes smaller.
    ///
    /// # Errors
    /// As [`PackWriter::add_stream`].
    pub fn add_ciphertext(&self, size: u64, reader: &mut dyn Read, progress: &Progress) -> Result<Streamed> {
        self.add_blob(StreamDeflater::new(true), size, reader, progress, &mut |_| {})
    }

    fn add_blob(
        &self,
        deflater: StreamDeflater,
        size: u64,
        reader: &mut dyn Read,
        progress: &Progress,
        observe: &mut dyn FnMut(&[u8]),
    ) -> Result<Streamed> {
        let mut state = self.lock();
        let start = state.begin();
        match write_blob(&mut state.output, deflater, size, reader, progress, observe) {
            Ok(Attempt::Written { oid, crc }) => {
                if state.known.contains(&oid) {
                    state.output.roll_back(start);
                } else {
                    state.commit(oid, crc);
                }
                Ok(Streamed::Stored(oid))
            }
            Ok(Attempt::SizeChanged) => {
                state.output.roll_back(start);
                Ok(Streamed::SizeChanged)
            }
            Ok(Attempt::ReadFailed(error)) => {
                state.output.roll_back(start);
                Ok(Streamed::ReadFailed(error))
            }
            Err(error) => {
                state.output.roll_back(start);
                Err(error)
            }
        }
    }

    /// Appends the entry of `oid` from another pack as it is compressed there. A delta keeps its base, which
    /// must be in this pack when it is finished. The bytes are checked against the source's CRC.
    pub fn copy_raw(&self, oid: Oid, entry: &RawEntry, source: &PackReader) -> Result<Copied> {
        self.copy_raw_while(oid, entry, source, &Progress::new())
    }

    /// As [`PackWriter::copy_raw`], cancelled and watched by `progress`: an entry may be a film.
    pub fn copy_raw_while(
        &self,
        oid: Oid,
        entry: &RawEntry,
        source: &PackReader,
        progress: &Progress,
    ) -> Result<Copied> {
        let base = source.base_oid(entry)?;
        let header_kind = match (entry.kind, base) {
            (EntryKind::Whole(kind), _) => HeaderKind::Whole(kind),
            (_, Some(base)) => HeaderKind::RefDelta { base },
            (_, None) => return Err(Error::new(Kind::Internal, format!("the delta of {oid} has no base"))),
        };
        let mut header = Vec::with_capacity(MAX_HEADER_BYTES);
        encode_entry_header(&header_kind, entry.size, &mut header);

        let mut state = self.lock();
        if state.known.contains(&oid) {
            return Ok(Copied::AlreadyThere);
        }
        if base.is_some_and(|base| state.rests_on(base, oid)) {
            return Ok(Copied::Cyclic);
        }
        let start = state.begin();
        let mut crc = crc32fast::Hasher::new();
        let output = &mut state.output;
        let mut write = |piece: &[u8]| {
            progress.check()?;
            crc.update(piece);
            output.append(piece)
        };
        let written = write(&header).and_then(|()| source.stream_raw(entry, &mut write));
        if let Err(error) = written {
            state.output.roll_back(start);
            return Err(error);
        }
        state.commit(oid, crc.finalize());
        if let Some(base) = base {
            state.bases.insert(oid, base);
        }
        Ok(Copied::Added)
    }

    /// Whether the object is in this pack.
    pub fn contains(&self, oid: &Oid) -> bool {
        self.lock().known.contains(oid)
    }

    /// Objects so far.
    pub fn object_count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Bytes so far, the pack's header included.
    pub fn bytes(&self) -> u64 {
        self.lock().entry_end
    }

    /// Completes the pack and writes its index. `None` if nothing was added: Git has no use for empty packs.
    pub fn finish(self, sync: Sync, progress: &Progress) -> Result<Option<FinishedPack>> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.entries.is_empty() {
            return Ok(None);
        }
        if let Some((oid, base)) = state.bases.iter().find(|(_, base)| !state.known.contains(base)) {
            return Err(Error::new(
                Kind::Internal,
                format!("{oid} is a delta against {base}, which is not in its pack"),
            ));
        }
        let objects = u32::try_from(state.entries.len())
            .map_err(|_| Error::new(Kind::Limit, "a pack holds at most 4294967295 objects"))?;
        state.known = HashSet::new();
        state.begin();
        let (checksum, bytes) = state.output.complete(objects, progress)?;
        state.output.file.sync(sync)?;

        state.entries.sort_unstable_by_key(|entry| entry.oid);
        let index = TemporaryFile::create(&self.pack_dir)?;
        write_index(
            io::BufWriter::with_capacity(CHUNK_BYTES, index.file()),
            &state.entries,
            &checksum,
            FIRST_LARGE_OFFSET,
        )
        .map_err(|error| Error::io("write the pack index", index.path(), error))?;
        index.sync(sync)?;
        let pack = state.output.file;
        FinishedPack::adopt(&self.pack_dir, pack, index, &checksum, objects, bytes, sync).map(Some)
    }

    /// Sends what is written from now on to another file; the file before.
    #[cfg(test)]
    pub(super) fn redirect(&self, to: std::fs::File) -> std::fs::File {
        self.lock().output.file.redirect(to)
    }

    /// A thread that panicked in here has left at most a piece of an entry, which [`State::begin`] removes.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes what a failed entry may have left, and tells where the next begins.
    fn begin(&mut self) -> u64 {
        if self.output.position() != self.entry_end {
            self.output.roll_back(self.entry_end);
        }
        self.entry_end
    }

    /// All since [`State::begin`] is the entry of `oid`.
    fn commit(&mut self, oid: Oid, crc: u32) {
        self.known.insert(oid);
        self.entries.push(IndexEntry { oid, offset: self.entry_end, crc });
        self.entry_end = self.output.position();
    }

    /// Whether `oid` is `ground` or a delta that needs `ground` in the end.
    fn rests_on(&self, oid: Oid, ground: Oid) -> bool {
        // No chain in `bases` is a circle: this is asked before every insertion.
        std::iter::successors(Some(oid), |oid| self.bases.get(oid).copied()).any(|oid| oid == ground)
    }
}

enum Attempt {
    Written { oid: Oid, crc: u32 },
    SizeChanged,
    ReadFailed(io::Error),
}

fn write_blob(
    output: &mut Output,
    mut deflater: StreamDeflater,
    size: u64,
    reader: &mut dyn Read,
    progress: &Progress,
    observe: &mut dyn FnMut(&[u8]),
) -> Result<Attempt> {
    let mut crc = crc32fast::Hasher::new();
    let mut write = |bytes: &[u8]| {
        crc.update(bytes);
        output.append(bytes)
    };
    let mut header = Vec::with_capacity(MAX_HEADER_BYTES);
    encode_entry_header(&HeaderKind::Whole(ObjectKind::Blob), size, &mut header);
    write(&header)?;
    let mut hasher = ObjectHasher::new(ObjectKind::Blob, size);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut missing = size;
    loop {
        progress.check()?;
        let count = match reader.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Attempt::ReadFailed(error)),
        };
        if count == 0 {
            break;
        }
        if count as u64 > missing {
            return Ok(Attempt::SizeChanged);
        }
        missing -= count as u64;
        let piece = &buffer[..count];
        observe(piece);
        hasher.update(piece)?;
        deflater.write(piece, &mut write)?;
    }
    if missing != 0 {
        return Ok(Attempt::SizeChanged);
    }
    let oid = hasher.finish()?;
    deflater.finish(&mut write)?;
    Ok(Attempt::Written { oid, crc: crc.finalize() })
}

/// The end of a file that grows. Bytes are written at positions that this knows, so a write that failed
/// halfway leaves nothing but garbage past the end, and the next one starts at the same place.
#[derive(Debug)]
struct Output {
    file: TemporaryFile,
    /// How much of the file counts.
    flushed: u64,
    /// What comes after it.
    buffer: Vec<u8>,
}

impl Output {
    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Appends all of `bytes` or, on an error, nothing.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.write_at(bytes, self.flushed)?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.write_at(&self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn roll_back(&mut self, position: u64) {
        if let Some(buffered) = position.checked_sub(self.flushed) {
            self.buffer.truncate(buffered as usize);
            return;
        }
        self.buffer.clear();
        self.flushed = position;
        // Only to give the space back now: what lies past the end is overwritten, or cut off in `complete`.
        let _ = self.file.file().set_len(position);
    }

    /// Writes the number of objects and the trailer; the checksum and the length of the file.
    fn complete(&mut self, objects: u32, progress: &Progress) -> Result<([u8; HASH_BYTES], u64)> {
        self.flush()?;
        self.write_at(&objects.to_be_bytes(), PACK_HEADER_BYTES - 4)?;
        let mut hash = Hashing::new(io::sink());
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < self.flushed {
            progress.check()?;
            let piece = &mut buffer[..(self.flushed - at).min(CHUNK_BYTES as u64) as usize];
            self.file
                .file()
                .read_exact_at(piece, at)
                .and_then(|()| hash.write_all(piece))
                .map_err(|error| Error::io("read back", self.file.path(), error))?;
            at += piece.len() as u64;
        }
        let (checksum, _) = hash.finish();
        self.append(&checksum)?;
        self.flush()?;
        self.file
            .file()
            .set_len(self.flushed)
            .map_err(|error| Error::io("set the length of", self.file.path(), error))?;
        Ok((checksum, self.flushed))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file
            .file()
            .write_all_at(bytes, at)
            .map_err(|error| Error::io("write the pack", self.file.path(), error))
    }
}
