//! One pack, read entry by entry.
//!
//! [`PackReader::entry`] tells where an object stands, what its entry is (whole, or a delta against what)
//! and how many bytes it takes; [`PackReader::stream_raw`] hands those bytes on still compressed, so that an
//! entry moves to another pack or to a remote without being inflated. Files may be truncated, flipped or
//! malicious: everything found in them is checked or ends in an error that names the file and the place.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use git2::Oid;

use super::ahead::Ahead;
use super::header::{HeaderKind, MAX_HEADER_BYTES, decode_entry_header};
use super::index::PackIndex;
use super::object::{Hashing, ObjectKind};
use super::{CHUNK_BYTES, HASH_BYTES, PACK_HEADER_BYTES, hash_object, shown};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// The object itself.
    Whole(ObjectKind),
    /// A delta against the entry that begins at `base_offset` in the same pack.
    OfsDelta {
        /// Where the base begins.
        base_offset: u64,
    },
    /// A delta against an object named in the entry.
    RefDelta {
        /// The base's name.
        base: Oid,
    },
}

/// Where an object is in a pack and in what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry {
    /// Where the entry begins in the pack.
    pub offset: u64,
    /// Bytes of its header, the base's name or distance included.
    pub header_len: u64,
    /// What it holds.
    pub kind: EntryKind,
    /// Size after inflating: of the object, or of the delta.
    pub size: u64,
    /// Bytes after the header.
    pub compressed_len: u64,
    /// CRC-32 of header and compressed bytes, as the index has it.
    pub crc: u32,
}

/// All entries in the order in which they stand in the pack.
#[derive(Debug)]
struct OffsetOrder {
    offsets: Vec<u64>,
    /// The position in name order of the object at each offset.
    positions: Vec<u32>,
}

/// A pack and its index, open.
#[derive(Debug)]
pub struct PackReader {
    file: File,
    path: PathBuf,
    index: Arc<PackIndex>,
    ahead: Ahead,
    /// Where the trailer begins.
    data_end: u64,
    checksum: [u8; HASH_BYTES],
    /// Made at the first question that needs it: 12 bytes an object, unlike the index, which stays on disk.
    order: OnceLock<OffsetOrder>,
}

impl PackReader {
    /// Opens a pack by the path of its `.pack` or its `.idx`, and checks that the two belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let index = PackIndex::open(&path.with_extension("idx"))?;
        Self::open_with(path, Arc::new(index))
    }

    /// As [`PackReader::open`] where the index is open already.
    pub(super) fn open_with(path: &Path, index: Arc<PackIndex>) -> Result<Self> {
        let pack_path = path.with_extension("pack");
        let file = File::open(&pack_path).map_err(|error| Error::io("open the pack", &pack_path, error))?;
        let length = file.metadata().map_err(|error| Error::io("examine the pack", &pack_path, error))?.len();
        let mut reader = Self {
            file,
            path: pack_path,
            ahead: Ahead::default(),
            index,
            data_end: 0,
            checksum: [0; HASH_BYTES],
            order: OnceLock::new(),
        };
        reader.check_ends(length)?;
        Ok(reader)
    }

    fn check_ends(&mut self, length: u64) -> Result<()> {
        self.data_end = length
            .checked_sub(HASH_BYTES as u64)
            .filter(|end| *end >= PACK_HEADER_BYTES)
            .ok_or_else(|| self.damaged(0, "it is too short"))?;
        let mut header = [0; PACK_HEADER_BYTES as usize];
        self.read_exact(&mut header, 0)?;
        let [p, a, c, k, version @ .., n0, n1, n2, n3] = header;
        if [p, a, c, k] != *b"PACK" || !matches!(u32::from_be_bytes(version), 2 | 3) {
            return Err(self.damaged(0, "it does not begin as a pack of version 2 or 3 does"));
        }
        if u32::from_be_bytes([n0, n1, n2, n3]) != self.index.len() {
            return Err(self.damaged(8, "it has another number of objects than its index"));
        }
        let mut checksum = [0; HASH_BYTES];
        self.read_exact(&mut checksum, self.data_end)?;
        if checksum != *self.index.pack_checksum() {
            return Err(self.damaged(self.data_end, "its index belongs to another pack"));
        }
        self.checksum = checksum;
        Ok(())
    }

    /// The `.pack` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checksum at its end, after which packs are named.
    pub fn checksum(&self) -> &[u8; HASH_BYTES] {
        &self.checksum
    }

    /// Its index.
    pub fn index(&self) -> &PackIndex {
        &self.index
    }

    /// How many objects are in it.
    pub fn len(&self) -> u32 {
        self.index.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of the `.pack` file.
    pub fn bytes(&self) -> u64 {
        self.data_end + HASH_BYTES as u64
    }

    /// Whether the object is in it.
    pub fn contains(&self, oid: &Oid) -> Result<bool> {
        Ok(self.index.position(oid)?.is_some())
    }

    /// The entry of an object; `None` if it is not in this pack.
    pub fn entry(&self, oid: &Oid) -> Result<Option<RawEntry>> {
        let Some(position) = self.index.position(oid)? else { return Ok(None) };
        let offset = self.index.offset(position)?;
        let order = self.order()?;
        let Ok(rank) = order.offsets.binary_search(&offset) else {
            return Err(self.damaged(offset, "its index changed while it was read"));
        };
        self.entry_of_rank(order, rank).map(Some)
    }

    /// All objects with their entries, in the order in which they stand in the pack.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<(Oid, RawEntry)>> + '_> {
        let order = self.order()?;
        Ok((0..order.offsets.len())
            .map(move |rank| Ok((self.index.oid(order.positions[rank])?, self.entry_of_rank(order, rank)?))))
    }

    /// The name of the object that `entry` is a delta against; `None` if it is whole. A base named by offset
    /// is in this pack, one named by name need not be.
    pub fn base_oid(&self, entry: &RawEntry) -> Result<Option<Oid>> {
        match entry.kind {
            EntryKind::Whole(_) => Ok(None),
            EntryKind::RefDelta { base } => Ok(Some(base)),
            EntryKind::OfsDelta { base_offset } => {
                let order = self.order()?;
                let rank = order.offsets.binary_search(&base_offset).map_err(|_| {
                    self.damaged(
                        entry.offset,
                        &format!("no entry begins at {base_offset}, where its base should be"),
                    )
                })?;
                self.index.oid(order.positions[rank]).map(Some)
            }
        }
    }

    /// Gives the compressed bytes of `entry`, without its header, to `sink` in pieces. The CRC in the index is
    /// checked along the way, so the bytes count only once this has returned without an error.
    pub fn stream_raw(&self, entry: &RawEntry, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut crc = crc32fast::Hasher::new();
        let mut header = [0; MAX_HEADER_BYTES];
        let header = header
            .get_mut(..entry.header_len as usize)
            .ok_or_else(|| Error::new(Kind::Internal, "an entry's header is longer than any header"))?;
        self.read_exact(header, entry.offset)?;
        crc.update(header);
        let mut rest = entry.compressed_len;
        let mut at = entry.offset + entry.header_len;
        let mut buffer = vec![0; rest.min(CHUNK_BYTES as u64) as usize];
        while rest > 0 {
            let piece = &mut buffer[..rest.min(CHUNK_BYTES as u64) as usize];
            self.read_exact(piece, at)?;
            crc.update(piece);
            sink(piece)?;
            at += piece.len() as u64;
            rest -= piece.len() as u64;
        }
        if crc.finalize() != entry.crc {
            return Err(self.damaged(entry.offset, "its bytes do not have the CRC that the index says"));
        }
        Ok(())
    }

    /// The compressed bytes of a small `entry`, without its header, read at once into `buffer`, which only grows. They are
    /// checked against the CRC in the index.
    pub fn read_raw<'b>(&self, entry: &RawEntry, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let length = usize::try_from(entry.header_len.saturating_add(entry.compressed_len))
            .map_err(|_| self.damaged(entry.offset, "it is too long"))?;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let bytes = &mut buffer[..length];
        self.read_exact(bytes, entry.offset)?;
        if crc32fast::hash(bytes) != entry.crc {
            return Err(self.damaged(entry.offset, "its bytes do not have the CRC that the index says"));
        }
        Ok(&bytes[length.min(entry.header_len as usize)..])
    }

    /// An object stored whole, inflated, its name verified. `None` if it is not here; an error if it is a
    /// delta or larger than `max_size` bytes.
    pub fn read_object(&self, oid: &Oid, max_size: u64) -> Result<Option<(ObjectKind, Vec<u8>)>> {
        let Some(entry) = self.entry(oid)? else { return Ok(None) };
        let EntryKind::Whole(kind) = entry.kind else {
            return Err(Error::new(
                Kind::Git,
                format!("{oid} is stored as a delta in {}", shown(&self.path)),
            ));
        };
        if entry.size > max_size {
            return Err(Error::new(
                Kind::Git,
                format!("{oid} has {} bytes, more than the {max_size} that are read at once", entry.size),
            ));
        }
        let at = entry.offset + entry.header_len;
        let compressed = Span { reader: self, at, end: at + entry.compressed_len };
        let mut data = Vec::new();
        flate2::read::ZlibDecoder::new(compressed)
            .take(entry.size.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|error| {
                Error::with_source(Kind::Git, self.place(entry.offset, "it does not inflate"), error)
            })?;
        if data.len() as u64 != entry.size {
            return Err(self.damaged(entry.offset, "it does not inflate to the size that its header says"));
        }
        if hash_object(kind, &data)? != *oid {
            return Err(self.damaged(entry.offset, &format!("what is there is not {oid}")));
        }
        Ok(Some((kind, data)))
    }

    /// Reads pack and index through and compares their checksums and the order of their entries. That every
    /// object has the name that it is listed under is not checked here.
    pub fn verify(&self, progress: &Progress) -> Result<()> {
        self.index.verify(progress)?;
        let mut hash = Hashing::new(std::io::sink());
        let mut rest = Span { reader: self, at: 0, end: self.data_end };
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            progress.check()?;
            let count =
                rest.read(&mut buffer).map_err(|error| Error::io("read the pack", &self.path, error))?;
            if count == 0 {
                break;
            }
            hash.write_all(&buffer[..count])
                .map_err(|error| Error::io("hash the pack", &self.path, error))?;
        }
        if rest.at != self.data_end || hash.finish().0 != self.checksum {
            return Err(self.damaged(self.data_end, "its checksum is wrong"));
        }
        self.order().map(|_| ())
    }

    fn order(&self) -> Result<&OffsetOrder> {
        if let Some(order) = self.order.get() {
            return Ok(order);
        }
        let by_name = self.index.offsets()?;
        let mut positions: Vec<u32> = (0..self.len()).collect();
        positions.sort_unstable_by_key(|position| by_name[*position as usize]);
        let offsets: Vec<u64> = positions.iter().map(|position| by_name[*position as usize]).collect();
        if let Some(outside) =
            offsets.iter().find(|offset| !(PACK_HEADER_BYTES..self.data_end).contains(offset))
        {
            return Err(self.damaged(*outside, "its index lists an object outside of it"));
        }
        if let Some(twice) = offsets.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.damaged(twice[0], "its index lists two objects at one place"));
        }
        Ok(self.order.get_or_init(|| OffsetOrder { offsets, positions }))
    }

    fn entry_of_rank(&self, order: &OffsetOrder, rank: usize) -> Result<RawEntry> {
        let offset = order.offsets[rank];
        let end = order.offsets.get(rank + 1).copied().unwrap_or(self.data_end);
        let mut buffer = [0; MAX_HEADER_BYTES];
        let bytes = &mut buffer[..(end - offset).min(MAX_HEADER_BYTES as u64) as usize];
        self.read_exact(bytes, offset)?;
        let header = decode_entry_header(bytes).map_err(|what| self.damaged(offset, what))?;
        let kind = match header.kind {
            HeaderKind::Whole(kind) => EntryKind::Whole(kind),
            HeaderKind::RefDelta { base } => EntryKind::RefDelta { base },
            HeaderKind::OfsDelta { distance } => {
                let base_offset = offset
                    .checked_sub(distance)
                    .filter(|base| *base >= PACK_HEADER_BYTES && *base < offset)
                    .ok_or_else(|| self.damaged(offset, "its base does not stand before it in the pack"))?;
                EntryKind::OfsDelta { base_offset }
            }
        };
        let header_len = header.length as u64;
        Ok(RawEntry {
            offset,
            header_len,
            kind,
            size: header.size,
            compressed_len: end - offset - header_len,
            crc: self.index.crc(order.positions[rank])?,
        })
    }

    fn read_exact(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.ahead
            .read_exact(&self.file, buffer, at)
            .map_err(|error| Error::io("read the pack", &self.path, error))
    }

    fn damaged(&self, offset: u64, what: &str) -> Error {
        Error::new(Kind::Git, self.place(offset, what))
    }

    fn place(&self, offset: u64, what: &str) -> String {
        format!("the pack {} is damaged at offset {offset}: {what}", shown(&self.path))
    }
}

/// A stretch of a pack as a stream.
struct Span<'a> {
    reader: &'a PackReader,
    at: u64,
    end: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = (self.end - self.at).min(buffer.len() as u64) as usize;
        let count = self.reader.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
