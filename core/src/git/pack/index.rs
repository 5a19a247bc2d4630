//! The index of a pack, version 2: which object stands where.
//!
//! In goes the list of entries that a writer made, out comes the file, byte for byte what `git index-pack`
//! writes; and back: [`PackIndex`] answers by object name or by position in name order. A small one is read
//! into memory and holds no descriptor, so that many packs cost few; of a large one a few bytes are read a
//! question, so that a million objects cost no memory. Every number in a file is taken for hostile until checked. Layout: magic and version, fanout (256 × u32), names, CRC-32s, 31-bit offsets, 63-bit offsets
//! for those that do not fit, the pack's checksum, the checksum of all before it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::object::Hashing;
use super::{CHUNK_BYTES, HASH_BYTES, oid_from, shown};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const FANOUT_BYTES: u64 = 256 * 4;
const NAMES_AT: u64 = MAGIC.len() as u64 + FANOUT_BYTES;
/// In the 31-bit table: the number is a row of the 63-bit table.
const LARGE: u32 = 1 << 31;
/// The first offset that needs a row in the 63-bit table.
pub(super) const FIRST_LARGE_OFFSET: u64 = 1 << 31;
/// When so few names are left to search they are read at once.
const NAMES_AT_ONCE: u32 = 128;
/// An index of at most so many bytes (some 37,000 objects) is held in memory.
pub(super) const IN_MEMORY_BYTES: u64 = 1024 * 1024;

/// One row of an index that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The object's name.
    pub oid: Oid,
    /// Where its entry begins in the pack.
    pub offset: u64,
    /// CRC-32 of the entry as stored, header included.
    pub crc: u32,
}

/// Writes the index of `entries`, which must be sorted by name, each name once. Offsets from
/// `first_large_offset` on go to the 63-bit table (anything but [`FIRST_LARGE_OFFSET`] is for tests).
pub(super) fn write_index(
    out: impl Write,
    entries: &[IndexEntry],
    pack_checksum: &[u8; HASH_BYTES],
    first_large_offset: u64,
) -> std::io::Result<()> {
    debug_assert!(entries.is_sorted_by(|a, b| a.oid < b.oid));
    let mut out = Hashing::new(out);
    out.write_all(&MAGIC)?;
    let mut below = 0;
    for first_byte in 0..=255u8 {
        below += entries[below..].partition_point(|entry| entry.oid.as_bytes()[0] <= first_byte);
        out.write_all(&(below as u32).to_be_bytes())?;
    }
    for entry in entries {
        out.write_all(entry.oid.as_bytes())?;
    }
    for entry in entries {
        out.write_all(&entry.crc.to_be_bytes())?;
    }
    let is_large = |offset: u64| offset >= first_large_offset.min(FIRST_LARGE_OFFSET);
    let mut large_rows = 0;
    for entry in entries {
        let small = if is_large(entry.offset) {
            large_rows += 1;
            LARGE | (large_rows - 1)
        } else {
            entry.offset as u32
        };
        out.write_all(&small.to_be_bytes())?;
    }
    for entry in entries.iter().filter(|entry| is_large(entry.offset)) {
        out.write_all(&entry.offset.to_be_bytes())?;
    }
    out.write_all(pack_checksum)?;
    let (checksum, mut out) = out.finish();
    out.write_all(&checksum)?;
    out.flush()
}

#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    File(File),
}

/// The index of one pack, open for questions.
#[derive(Debug)]
pub struct PackIndex {
    content: Content,
    path: PathBuf,
    /// How many names begin with a byte of at most the row's number.
    fanout: Vec<u32>,
    large_rows: u64,
    pack_checksum: [u8; HASH_BYTES],
}

impl PackIndex {
    /// Opens `path` and checks all that can be checked without reading the tables.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_within(path, IN_MEMORY_BYTES)
    }

    /// As [`PackIndex::open`]; one of at most `in_memory` bytes is held in memory.
    pub(super) fn open_within(path: &Path, in_memory: u64) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open the pack index", path, error))?;
        let length = file.metadata().map_err(|error| Error::io("examine the pack index", path, error))?.len();
        let content = if length <= in_memory {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, 0)
                .map_err(|error| Error::io("read the pack index", path, error))?;
            Content::Memory(bytes)
        } else {
            Content::File(file)
        };
        let mut index = Self {
            content,
            path: path.to_owned(),
            fanout: Vec::new(),
            large_rows: 0,
            pack_checksum: [0; HASH_BYTES],
        };
        index.check_shape(length)?;
        Ok(index)
    }

    fn check_shape(&mut self, length: u64) -> Result<()> {
        let trailer = 2 * HASH_BYTES as u64;
        if length < NAMES_AT + trailer {
            return Err(self.damaged("it is too short"));
        }
        let mut head = [0; NAMES_AT as usize];
        self.read(&mut head, 0)?;
        let (magic, fanout) = head.split_at(MAGIC.len());
        if magic[..4] != MAGIC[..4] {
            return Err(self.damaged("it is of version 1 or no index at all; only version 2 is read"));
        }
        if *magic != MAGIC {
            return Err(self.damaged("only version 2 is read"));
        }
        self.fanout = fanout.chunks_exact(4).map(be_u32).collect();
        if !self.fanout.is_sorted() {
            return Err(self.damaged("its fanout table is not ascending"));
        }
        let rows = u64::from(self.len());
        let small = NAMES_AT + rows * (HASH_BYTES as u64 + 4 + 4) + trailer;
        let large_bytes = length
            .checked_sub(small)
            .ok_or_else(|| self.damaged("it is shorter than its number of objects says"))?;
        self.large_rows = large_bytes / 8;
        if large_bytes % 8 != 0 || self.large_rows > rows {
            return Err(self.damaged("its length does not fit its number of objects"));
        }
        let mut pack_checksum = [0; HASH_BYTES];
        self.read(&mut pack_checksum, length - trailer)?;
        self.pack_checksum = pack_checksum;
        Ok(())
    }

    /// Bytes of memory that the file itself takes: none where a descriptor is held instead.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes.len() as u64),
            Content::File(_) => None,
        }
    }

    /// How many objects it lists.
    pub fn len(&self) -> u32 {
        self.fanout.last().copied().unwrap_or(0)
    }

    /// Whether it lists none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The checksum at the end of the pack that this is the index of.
    pub fn pack_checksum(&self) -> &[u8; HASH_BYTES] {
        &self.pack_checksum
    }

    /// Where `oid` stands in the order of names.
    pub fn position(&self, oid: &Oid) -> Result<Option<u32>> {
        let wanted = oid.as_bytes();
        let first = usize::from(wanted[0]);
        let mut low = if first == 0 { 0 } else { self.fanout[first - 1] };
        let mut high = self.fanout[first];
        while high - low > NAMES_AT_ONCE {
            let middle = low + (high - low) / 2;
            let mut name = [0; HASH_BYTES];
            self.read(&mut name, name_at(middle))?;
            match name.as_slice().cmp(wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        let mut buffer = [0; NAMES_AT_ONCE as usize * HASH_BYTES];
        let names = &mut buffer[..(high - low) as usize * HASH_BYTES];
        self.read(names, name_at(low))?;
        let names = names.chunks_exact(HASH_BYTES);
        Ok((low..).zip(names).find(|(_, name)| *name == wanted).map(|(position, _)| position))
    }

    /// The name at `position`, which must be below [`PackIndex::len`].
    pub fn oid(&self, position: u32) -> Result<Oid> {
        let mut name = [0; HASH_BYTES];
        self.read_row(&mut name, position, name_at(position))?;
        oid_from(&name)
    }

    /// The CRC-32 of the entry of the name at `position`.
    pub fn crc(&self, position: u32) -> Result<u32> {
        let mut crc = [0; 4];
        self.read_row(&mut crc, position, self.crc_at(position))?;
        Ok(u32::from_be_bytes(crc))
    }

    /// Where the entry of the name at `position` begins. Not yet compared with the pack's length.
    pub fn offset(&self, position: u32) -> Result<u64> {
        let mut small = [0; 4];
        self.read_row(&mut small, position, self.small_offset_at(position))?;
        self.whole_offset(u32::from_be_bytes(small))
    }

    /// All offsets in the order of names.
    pub fn offsets(&self) -> Result<Vec<u64>> {
        let mut offsets = Vec::with_capacity(self.len() as usize);
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut position = 0;
        while position < self.len() {
            let rows = (self.len() - position).min((CHUNK_BYTES / 4) as u32);
            let bytes = &mut buffer[..rows as usize * 4];
            self.read(bytes, self.small_offset_at(position))?;
            for small in bytes.chunks_exact(4) {
                offsets.push(self.whole_offset(be_u32(small))?);
            }
            position += rows;
        }
        Ok(offsets)
    }

    /// Goes through the whole file: its checksum, the order of its names, and its fanout.
    pub fn verify(&self, progress: &Progress) -> Result<()> {
        let length = self.large_at(0) + self.large_rows * 8 + 2 * HASH_BYTES as u64;
        let covered = length - HASH_BYTES as u64;
        let mut sink = Hashing::new(std::io::sink());
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < covered {
            progress.check()?;
            let piece = &mut buffer[..(covered - at).min(CHUNK_BYTES as u64) as usize];
            self.read(piece, at)?;
            sink.write_all(piece).map_err(|error| Error::io("hash the pack index", &self.path, error))?;
            at += piece.len() as u64;
        }
        let mut stored = [0; HASH_BYTES];
        self.read(&mut stored, covered)?;
        if sink.finish().0 != stored {
            return Err(self.damaged("its checksum is wrong"));
        }
        self.verify_names(progress)
    }

    fn verify_names(&self, progress: &Progress) -> Result<()> {
        let mut before: Option<Oid> = None;
        for position in 0..self.len() {
            if position % 4096 == 0 {
                progress.check()?;
            }
            let oid = self.oid(position)?;
            let bucket = usize::from(oid.as_bytes()[0]);
            let bucket_begin = if bucket == 0 { 0 } else { self.fanout[bucket - 1] };
            if before.is_some_and(|before| before >= oid) {
                return Err(self.damaged("its names are not in ascending order"));
            }
            if !(bucket_begin..self.fanout[bucket]).contains(&position) {
                return Err(self.damaged("its fanout table does not fit its names"));
            }
            before = Some(oid);
        }
        Ok(())
    }

    fn whole_offset(&self, small: u32) -> Result<u64> {
        if small & LARGE == 0 {
            return Ok(u64::from(small));
        }
        let row = u64::from(small & !LARGE);
        if row >= self.large_rows {
            return Err(self.damaged("an offset points past its table of large offsets"));
        }
        let mut large = [0; 8];
        self.read(&mut large, self.large_at(row))?;
        Ok(u64::from_be_bytes(large))
    }

    fn crc_at(&self, position: u32) -> u64 {
        name_at(self.len()) + u64::from(position) * 4
    }

    fn small_offset_at(&self, position: u32) -> u64 {
        self.crc_at(self.len()) + u64::from(position) * 4
    }

    fn large_at(&self, row: u64) -> u64 {
        self.small_offset_at(self.len()) + row * 8
    }

    fn read_row(&self, buffer: &mut [u8], position: u32, at: u64) -> Result<()> {
        if position >= self.len() {
            return Err(Error::new(
                Kind::Internal,
                format!("there is no object number {position} in {}", shown(&self.path)),
            ));
        }
        self.read(buffer, at)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let read = match &self.content {
            Content::File(file) => file.read_exact_at(buffer, at),
            Content::Memory(bytes) => usize::try_from(at)
                .ok()
                .and_then(|from| bytes.get(from..from.checked_add(buffer.len())?))
                .map(|found| buffer.copy_from_slice(found))
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| Error::io("read the pack index", &self.path, error))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::new(
            Kind::Git,
            format!(
                "the pack index {} is damaged: {what}; move it away and run `git index-pack` on its pack",
                shown(&self.path)
            ),
        )
    }
}

fn name_at(position: u32) -> u64 {
    NAMES_AT + u64::from(position) * HASH_BYTES as u64
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries_with_fake_offsets() -> Vec<IndexEntry> {
        let offsets = [12, 0x7fff_ffff, 0x8000_0000, 5, 0x1_0000_0000, 0x7fff_ffff_ffff_ffff];
        let mut entries: Vec<IndexEntry> = (0..1000u32)
            .map(|number| IndexEntry {
                oid: Oid::hash_object(git2::ObjectType::Blob, &number.to_be_bytes()).unwrap(),
                offset: offsets.get(number as usize).copied().unwrap_or(u64::from(number) * 100),
                crc: number.wrapping_mul(0x9e37_79b9),
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.oid);
        entries
    }

    fn written(entries: &[IndexEntry]) -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut bytes = Vec::new();
        write_index(&mut bytes, entries, &[9; 20], FIRST_LARGE_OFFSET).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn offsets_beyond_31_bits_are_read_back_as_written() {
        let entries = entries_with_fake_offsets();
        let (file, bytes) = written(&entries);
        for in_memory in [0, u64::MAX] {
            let index = PackIndex::open_within(file.path(), in_memory).unwrap();
            assert_eq!(index.resident_bytes(), (in_memory > 0).then_some(bytes.len() as u64));
            assert_eq!(index.len(), 1000);
            assert_eq!(index.large_rows, 3);
            assert_eq!(index.pack_checksum(), &[9; 20]);
            index.verify(&Progress::new()).unwrap();
            assert_eq!(
                index.offsets().unwrap(),
                entries.iter().map(|entry| entry.offset).collect::<Vec<_>>()
            );
            for (position, entry) in (0..).zip(&entries) {
                assert_eq!(index.position(&entry.oid).unwrap(), Some(position));
                assert_eq!(index.oid(position).unwrap(), entry.oid);
                assert_eq!(index.crc(position).unwrap(), entry.crc);
                assert_eq!(index.offset(position).unwrap(), entry.offset);
            }
            assert!(index.oid(1000).is_err() && index.crc(1000).is_err() && index.offset(1000).is_err());
            assert_eq!(index.position(&Oid::ZERO_SHA1).unwrap(), None);
            assert_eq!(index.position(&Oid::from_bytes(&[0xff; 20]).unwrap()).unwrap(), None);
        }
    }

    #[test]
    fn names_are_found_in_a_bucket_too_big_to_be_read_at_once() {
        let entries: Vec<IndexEntry> = (0..5000u32)
            .map(|number| {
                let mut name = [7; 20];
                name[1..5].copy_from_slice(&(number * 2).to_be_bytes());
                IndexEntry {
                    oid: Oid::from_bytes(&name).unwrap(),
                    offset: u64::from(number) + 12,
                    crc: number,
                }
            })
            .collect();
        let (file, _) = written(&entries);
        for in_memory in [0, u64::MAX] {
            let index = PackIndex::open_within(file.path(), in_memory).unwrap();
            for (position, entry) in (0..).zip(&entries) {
                assert_eq!(index.position(&entry.oid).unwrap(), Some(position));
                let mut absent = <[u8; 20]>::try_from(entry.oid.as_bytes()).unwrap();
                absent[4] |= 1;
                assert_eq!(index.position(&Oid::from_bytes(&absent).unwrap()).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_row_of_large_offsets_that_does_not_exist_is_an_error() {
        let (file, mut bytes) = written(&entries_with_fake_offsets());
        let small_offsets = (NAMES_AT + 1000 * 24) as usize;
        bytes[small_offsets..small_offsets + 4].copy_from_slice(&(LARGE | 3).to_be_bytes());
        std::fs::write(file.path(), &bytes).unwrap();
        let index = PackIndex::open(file.path()).unwrap();
        assert_eq!(index.offset(0).unwrap_err().kind(), Kind::Git);
        assert!(index.offsets().is_err());
    }

    #[test]
    fn every_length_but_the_right_one_is_refused() {
        let (file, bytes) = written(&entries_with_fake_offsets()[..3]);
        for length in 0..bytes.len() {
            std::fs::write(file.path(), &bytes[..length]).unwrap();
            assert!(PackIndex::open(file.path()).is_err(), "{length} bytes");
        }
        let mut longer = bytes;
        longer.push(0);
        std::fs::write(file.path(), &longer).unwrap();
        assert!(PackIndex::open(file.path()).is_err());
    }

    #[test]
    fn a_fanout_that_descends_is_refused() {
        let (file, mut bytes) = written(&entries_with_fake_offsets());
        bytes[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(PackIndex::open(file.path()).unwrap_err().to_string().contains("fanout"));
    }
}
