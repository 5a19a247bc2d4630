//! Where the entries of a pack begin and end, found while it arrives: nothing in a pack says how long an entry is but the
//! end of its deflated bytes.
//!
//! In: the pack in pieces that end anywhere. Out: a table of its entries with their CRC-32, and the inflated bytes of whole
//! objects, for [`Hashing`]. Deltas are inflated for their end and their size only; `forest` reads them again.

use flate2::{Decompress, FlushDecompress, Status};
use git2::Oid;

use super::super::header::{HeaderKind, MAX_HEADER_BYTES, decode_entry_header};
use super::super::object::ObjectKind;
use super::super::{HASH_BYTES, PACK_HEADER_BYTES};
use super::damaged;
use super::hashing::Hashing;
use crate::error::Result;

/// Where deltas are inflated to.
const SCRATCH_BYTES: usize = 32 * 1024;

/// One entry of the pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    /// Of its header and its deflated bytes.
    pub(super) crc: u32,
    /// What it is if it stands there whole.
    pub(super) whole: Option<ObjectKind>,
}

/// All that the structure of a pack says.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// In the order in which they stand there.
    pub(super) entries: Vec<Entry>,
    /// Deltas by the entry that is their base: base, delta.
    pub(super) by_place: Vec<(u32, u32)>,
    /// Deltas by the name of their base.
    pub(super) by_name: Vec<(Oid, u32)>,
    /// Where the trailer begins.
    pub(super) data_end: u64,
}

impl Scanned {
    pub(super) fn deltas(&self) -> usize {
        self.by_place.len() + self.by_name.len()
    }

    /// Where the entry after this one begins.
    pub(super) fn end_of(&self, entry: u32) -> u64 {
        self.entries.get(entry as usize + 1).map_or(self.data_end, |next| next.offset)
    }

    /// The base of one of the objects that have no name: neither it nor what it rests on is in the pack.
    pub(super) fn lacking(&self, names: &[Option<Oid>]) -> Option<Oid> {
        let lacking =
            self.by_name.iter().find(|(_, delta)| names.get(*delta as usize).is_some_and(Option::is_none));
        lacking.map(|(base, _)| *base)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Header,
    EntryHeader,
    Deflated,
    Trailer,
}

/// The entry that is being inflated.
#[derive(Debug, Clone, Copy)]
struct Open {
    whole: Option<ObjectKind>,
    size: u64,
    /// Bytes of it that have not come out yet.
    left: u64,
}

pub(super) struct Scanner {
    phase: Phase,
    /// The beginning of a header, or of the trailer, that came in pieces.
    partial: Vec<u8>,
    /// Where in the pack the next byte stands.
    position: u64,
    announced: u32,
    scanned: Scanned,
    open: Open,
    crc: crc32fast::Hasher,
    inflate: Decompress,
    scratch: Vec<u8>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Header,
            partial: Vec::new(),
            position: 0,
            announced: 0,
            scanned: Scanned::default(),
            open: Open { whole: None, size: 0, left: 0 },
            crc: crc32fast::Hasher::new(),
            inflate: Decompress::new(true),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Takes the next piece; how many of its bytes stand before the trailer.
    pub(super) fn take(&mut self, piece: &[u8], hashing: &mut Hashing) -> Result<usize> {
        let mut rest = piece;
        let mut covered = piece.len();
        while !rest.is_empty() {
            let used = match self.phase {
                Phase::Header => self.header(rest)?,
                Phase::EntryHeader => self.entry_header(rest)?,
                Phase::Deflated => self.deflated(rest, hashing)?,
                Phase::Trailer => {
                    covered = covered.min(piece.len() - rest.len());
                    self.trailer(rest)?
                }
            };
            self.position += used as u64;
            rest = &rest[used..];
        }
        Ok(covered)
    }

    /// Fills `partial` up to `wanted` bytes; how many that took.
    fn gather(&mut self, rest: &[u8], wanted: usize) -> usize {
        let used = wanted.saturating_sub(self.partial.len()).min(rest.len());
        self.partial.extend_from_slice(&rest[..used]);
        used
    }

    fn header(&mut self, rest: &[u8]) -> Result<usize> {
        let used = self.gather(rest, PACK_HEADER_BYTES as usize);
        let Ok(header) = <[u8; PACK_HEADER_BYTES as usize]>::try_from(self.partial.as_slice()) else {
            return Ok(used);
        };
        let [p, a, c, k, version @ .., n0, n1, n2, n3] = header;
        if [p, a, c, k] != *b"PACK" || !matches!(version, [0, 0, 0, 2 | 3]) {
            return Err(damaged(0, "it does not begin as a pack of version 2 or 3 does"));
        }
        self.announced = u32::from_be_bytes([n0, n1, n2, n3]);
        self.partial.clear();
        self.next_entry();
        Ok(used)
    }

    fn next_entry(&mut self) {
        let is_last = self.scanned.entries.len() == self.announced as usize;
        self.phase = if is_last { Phase::Trailer } else { Phase::EntryHeader };
    }

    fn entry_header(&mut self, rest: &[u8]) -> Result<usize> {
        let held = self.partial.len();
        let offset = self.position - held as u64;
        self.gather(rest, MAX_HEADER_BYTES);
        let header = match decode_entry_header(&self.partial) {
            Ok(header) => header,
            // More has to come.
            Err(_) if self.partial.len() < MAX_HEADER_BYTES => return Ok(self.partial.len() - held),
            Err(what) => return Err(damaged(offset, what)),
        };
        self.crc = crc32fast::Hasher::new();
        self.crc.update(&self.partial[..header.length]);
        self.partial.clear();
        let number = self.scanned.entries.len() as u32;
        let whole = match header.kind {
            HeaderKind::Whole(kind) => Some(kind),
            HeaderKind::OfsDelta { distance } => {
                let base = offset.checked_sub(distance).filter(|_| distance > 0);
                let base = base.and_then(|base| {
                    self.scanned.entries.binary_search_by_key(&base, |entry| entry.offset).ok()
                });
                let base = base.ok_or_else(|| {
                    damaged(offset, "it is a difference from something that does not stand before it")
                })?;
                self.scanned.by_place.push((base as u32, number));
                None
            }
            HeaderKind::RefDelta { base } => {
                self.scanned.by_name.push((base, number));
                None
            }
        };
        self.scanned.entries.push(Entry { offset, crc: 0, whole });
        self.open = Open { whole, size: header.size, left: header.size };
        self.inflate.reset(true);
        self.phase = Phase::Deflated;
        // Without the bytes that were held, it was not a header.
        Ok(header.length - held)
    }

    fn deflated(&mut self, rest: &[u8], hashing: &mut Hashing) -> Result<usize> {
        let mut used = 0;
        let number = (self.scanned.entries.len() - 1) as u32;
        let Open { whole, size, .. } = self.open;
        let offset = self.scanned.entries[number as usize].offset;
        loop {
            let room = if whole.is_some() { hashing.room() } else { &mut self.scratch };
            let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(&rest[used..], room, FlushDecompress::None)
                .map_err(|error| damaged(offset, &format!("it does not inflate: {error}")))?;
            let taken = (self.inflate.total_in() - taken) as usize;
            let given = (self.inflate.total_out() - given) as usize;
            used += taken;
            self.open.left = self
                .open
                .left
                .checked_sub(given as u64)
                .ok_or_else(|| damaged(offset, "it inflates to more than its header says"))?;
            let is_over = status == Status::StreamEnd;
            if let Some(kind) = whole {
                hashing.filled(given, number, kind, size)?;
                if is_over && self.open.left == 0 {
                    hashing.end(number, kind, size);
                }
            }
            if is_over {
                if self.open.left > 0 {
                    return Err(damaged(offset, "it inflates to less than its header says"));
                }
                self.crc.update(&rest[..used]);
                let crc = std::mem::take(&mut self.crc);
                self.scanned.entries[number as usize].crc = crc.finalize();
                self.next_entry();
                return Ok(used);
            }
            if taken == 0 && given == 0 {
                if used < rest.len() {
                    return Err(damaged(offset, "it does not inflate"));
                }
                self.crc.update(rest);
                return Ok(used);
            }
        }
    }

    fn trailer(&mut self, rest: &[u8]) -> Result<usize> {
        if self.scanned.data_end == 0 {
            self.scanned.data_end = self.position;
        }
        match self.gather(rest, HASH_BYTES) {
            0 => Err(damaged(self.position, "there is more than the objects that it announces")),
            used => Ok(used),
        }
    }

    /// All has come; `checksum` is that of what stands before the trailer.
    pub(super) fn finish(&mut self, checksum: &[u8; HASH_BYTES]) -> Result<Scanned> {
        if self.phase != Phase::Trailer || self.partial.len() < HASH_BYTES {
            let what = match self.phase {
                Phase::Header => "it ends within its header".to_owned(),
                _ => format!("it ends early: {} objects were announced", self.announced),
            };
            return Err(damaged(self.position, &what));
        }
        if self.partial != checksum {
            return Err(damaged(self.scanned.data_end, "its checksum is wrong"));
        }
        Ok(std::mem::take(&mut self.scanned))
    }
}
