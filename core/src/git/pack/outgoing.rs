//! A pack that is never a file: objects go out one after the other, as they are stored.
//!
//! Entries that are stored whole are copied without inflating them. A delta goes along if its base goes too; one whose
//! base stays here is written whole, because what the other end holds beyond the advertised references is not known.
//! Of an object whose former version the other end has, the differences are sent if they are much smaller: a large
//! directory in which one name changed, or a log that grew.
//! The pack can be written more than once, each time from what is stored then: merging packs meanwhile does no harm.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use git2::{ObjectType, Odb, Oid};
use sha1::{Digest, Sha1};

use super::delta::delta;
use super::header::{HeaderKind, MAX_HEADER_BYTES, encode_entry_header};
use super::object::{Compressor, ObjectKind, prepare};
use super::reader::{EntryKind, PackReader, RawEntry};
use super::{HASH_BYTES, PackSet, hash_object};
use crate::error::{Error, Kind, Result};
use crate::git::repository::{Repository, git_error};
use crate::progress::Progress;

/// Differences are not searched for in what takes fewer bytes: it costs more than it saves.
const LEAST_BYTES: u64 = 4 * 1024;
/// Both versions are held in memory.
const LARGEST_DIFFERED: u64 = 16 * 1024 * 1024;
/// Differences against differences go so deep; the other end reads each of them to make the last (git's `pack.depth`).
const DEEPEST: usize = 50;
/// Gathered before it is handed on.
const BUFFER_BYTES: usize = 64 * 1024;

/// Objects of a repository, to be written as one pack.
pub struct OutgoingPack<'r> {
    source: &'r Repository,
    packs: PackSet,
    objects: &'r [Oid],
    formers: Option<&'r HashMap<Oid, Oid>>,
    progress: &'r Progress,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Objects in the pack.
    pub objects: u64,
    /// Its bytes, header and checksum included.
    pub bytes: u64,
    /// How many of them are differences against what is not in the pack, or not as it is stored.
    pub deltas: u64,
}

type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> Result<()>;

impl<'r> OutgoingPack<'r> {
    /// The pack of `objects`, each named once.
    pub fn new(source: &'r Repository, objects: &'r [Oid], progress: &'r Progress) -> Result<Self> {
        let packs = PackSet::open(&source.pack_directory())?;
        Ok(Self { source, packs, objects, formers: None, progress })
    }

    /// Lets objects be sent as differences against others, which are in the pack or at the other end.
    pub fn rest_on(&mut self, formers: &'r HashMap<Oid, Oid>) {
        self.formers = Some(formers);
    }

    /// About how many bytes it will have; never far too low, but for deltas that have to be written whole.
    pub fn estimate(&self) -> Result<u64> {
        stored_bytes(self.source, &self.packs, self.objects, self.progress)
    }

    /// Writes it.
    pub fn write(&self, sink: Sink<'_>) -> Result<Written> {
        let number = u32::try_from(self.objects.len())
            .map_err(|_| Error::new(Kind::Internal, "more objects than a pack can hold"))?;
        let mut stream = Stream { sink, sha: Sha1::new(), buffer: Vec::new(), bytes: 0 };
        stream.add(b"PACK\0\0\0\x02")?;
        stream.add(&number.to_be_bytes())?;
        let members: HashSet<Oid> = self.objects.iter().copied().collect();
        let mut bases = HashMap::new();
        let mut compressor = Compressor::new();
        let database = self.source.objects()?;
        let mut deltas = 0;
        for oid in self.objects {
            self.progress.check()?;
            let found = self.packs.find(oid)?;
            if let Some((base, delta)) = self.difference(*oid, found.as_ref(), &database, &mut bases)? {
                stream.difference(base, &delta, &mut compressor)?;
                deltas += 1;
                continue;
            }
            if let Some((reader, entry)) = found
                && self.goes_as_it_is(*oid, &reader, &entry, &members, &mut bases)?
            {
                stream.copy(&reader, &entry, self.progress)?;
                continue;
            }
            let object = database
                .read(*oid)
                .map_err(|error| git_error(&format!("read object {oid} of"), self.source.path(), error))?;
            let kind = kind_of(object.kind());
            if hash_object(kind, object.data())? != *oid {
                let text = format!("object {oid} of {} is damaged", self.source.path().display());
                return Err(Error::new(Kind::Git, text));
            }
            stream.add(&prepare(kind, object.data(), &mut compressor)?.entry)?;
        }
        let bytes = stream.finish()?;
        Ok(Written { objects: u64::from(number), bytes, deltas })
    }

    /// What makes `oid` out of its former version, if that is much shorter than what is stored.
    fn difference(
        &self,
        oid: Oid,
        found: Option<&(Arc<PackReader>, RawEntry)>,
        database: &Odb<'_>,
        bases: &mut HashMap<Oid, Oid>,
    ) -> Result<Option<(Oid, Vec<u8>)>> {
        let Some(base) = self.formers.and_then(|formers| formers.get(&oid)).copied() else { return Ok(None) };
        let Some((_, RawEntry { kind: EntryKind::Whole(_), size, compressed_len, .. })) = found else {
            return Ok(None);
        };
        if *compressed_len < LEAST_BYTES || *size > LARGEST_DIFFERED {
            return Ok(None);
        }
        let mut below = Some(base);
        for _ in 0..DEEPEST {
            let Some(at) = below.filter(|at| *at != oid) else { break };
            below = bases.get(&at).copied();
        }
        // Too deep, or it would rest on itself.
        if below.is_some() {
            return Ok(None);
        }
        // Whatever cannot be read here is not needed: the object goes whole.
        let Ok((former_size, _)) = database.read_header(base) else { return Ok(None) };
        if former_size as u64 > LARGEST_DIFFERED {
            return Ok(None);
        }
        let (Ok(former), Ok(object)) = (database.read(base), database.read(oid)) else { return Ok(None) };
        if former.kind() != object.kind() {
            return Ok(None);
        }
        let most = usize::try_from(compressed_len / 2).unwrap_or(usize::MAX);
        let Some(delta) = delta(former.data(), object.data(), most) else { return Ok(None) };
        bases.insert(oid, base);
        Ok(Some((base, delta)))
    }

    /// Whether the stored entry may be sent; a delta is noted in `bases`, so that no two rest on each other.
    fn goes_as_it_is(
        &self,
        oid: Oid,
        reader: &PackReader,
        entry: &RawEntry,
        members: &HashSet<Oid>,
        bases: &mut HashMap<Oid, Oid>,
    ) -> Result<bool> {
        let Some(base) = reader.base_oid(entry)? else { return Ok(true) };
        if !members.contains(&base) {
            return Ok(false);
        }
        let mut below = Some(base);
        while let Some(at) = below {
            if at == oid {
                return Ok(false);
            }
            below = bases.get(&at).copied();
        }
        bases.insert(oid, base);
        Ok(true)
    }
}

/// The bytes that `objects` take where they are stored.
pub fn stored_bytes(
    source: &Repository,
    packs: &PackSet,
    objects: &[Oid],
    progress: &Progress,
) -> Result<u64> {
    let mut sum = 0u64;
    let database = source.objects()?;
    for oid in objects {
        progress.check()?;
        let size = match packs.find(oid)? {
            Some((_, entry)) => entry.header_len + entry.compressed_len,
            None => database.read_header(*oid).map_or(0, |(size, _)| size as u64),
        };
        sum = sum.saturating_add(size);
    }
    Ok(sum)
}

fn kind_of(kind: ObjectType) -> ObjectKind {
    match kind {
        ObjectType::Commit => ObjectKind::Commit,
        ObjectType::Tree => ObjectKind::Tree,
        ObjectType::Tag => ObjectKind::Tag,
        _ => ObjectKind::Blob,
    }
}

struct Stream<'s> {
    sink: Sink<'s>,
    sha: Sha1,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Stream<'_> {
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn copy(&mut self, reader: &PackReader, entry: &RawEntry, progress: &Progress) -> Result<()> {
        let kind = match (entry.kind, reader.base_oid(entry)?) {
            (EntryKind::Whole(kind), _) => HeaderKind::Whole(kind),
            (_, Some(base)) => HeaderKind::RefDelta { base },
            (_, None) => return Err(Error::new(Kind::Internal, "a delta without a base")),
        };
        let mut header = Vec::with_capacity(MAX_HEADER_BYTES);
        encode_entry_header(&kind, entry.size, &mut header);
        self.add(&header)?;
        reader.stream_raw(entry, &mut |piece| {
            progress.check()?;
            self.add(piece)
        })
    }

    fn difference(&mut self, base: Oid, delta: &[u8], compressor: &mut Compressor) -> Result<()> {
        let entry = compressor.entry(&HeaderKind::RefDelta { base }, delta)?;
        self.add(&entry)
    }

    fn flush(&mut self) -> Result<()> {
        (self.sink)(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        let sum = std::mem::take(&mut self.sha).finalize();
        self.buffer.extend_from_slice(&sum);
        self.bytes += HASH_BYTES as u64;
        self.flush()?;
        Ok(self.bytes)
    }
}
