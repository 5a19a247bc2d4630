//! One object on its way into a pack: its name and its deflated bytes.
//!
//! Whole objects are hashed and deflated in memory by [`prepare`], on as many threads as one likes; large
//! blobs go through [`ObjectHasher`] and `StreamDeflater` chunk by chunk. Hashing is SHA-1 as Git does it,
//! with detection of the known collision attacks: content made for one is an error, never a stored object.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress, Status};
use git2::{ObjectType, Oid};
use libdeflater::CompressionLvl;
use sha1::Digest;

use super::header::{HeaderKind, MAX_HEADER_BYTES, encode_entry_header};
use super::sha1::{DetectingSha1, Verdict};
use super::{HASH_BYTES, oid_from};
use crate::error::{Error, Kind, Result};

/// The level of both compressors: level 6 takes twice the CPU time for a pack of source files a tenth smaller.
const DEFLATE_LEVEL: u8 = 1;
/// A compressor's buffer larger than this is given back after use.
const KEPT_SCRATCH_BYTES: usize = 4 * 1024 * 1024;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A snapshot.
    Commit,
    /// A directory.
    Tree,
    /// Content.
    Blob,
    /// An annotated tag.
    Tag,
}

impl ObjectKind {
    /// The word in front of the size where an object is hashed.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Commit => "commit",
            ObjectKind::Tree => "tree",
            ObjectKind::Blob => "blob",
            ObjectKind::Tag => "tag",
        }
    }
}

impl From<ObjectKind> for ObjectType {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Commit => ObjectType::Commit,
            ObjectKind::Tree => ObjectType::Tree,
            ObjectKind::Blob => ObjectType::Blob,
            ObjectKind::Tag => ObjectType::Tag,
        }
    }
}

impl TryFrom<ObjectType> for ObjectKind {
    type Error = Error;

    fn try_from(kind: ObjectType) -> Result<Self> {
        match kind {
            ObjectType::Commit => Ok(ObjectKind::Commit),
            ObjectType::Tree => Ok(ObjectKind::Tree),
            ObjectType::Blob => Ok(ObjectKind::Blob),
            ObjectType::Tag => Ok(ObjectKind::Tag),
            ObjectType::Any => Err(Error::new(Kind::Internal, "\"any\" is not the kind of an object")),
        }
    }
}

/// Names a blob, tree, commit or tag of known size whose bytes come in pieces.
pub struct ObjectHasher {
    sha: DetectingSha1,
    kind: ObjectKind,
    missing: u64,
}

impl ObjectHasher {
    /// Starts an object of exactly `size` bytes.
    pub fn new(kind: ObjectKind, size: u64) -> Self {
        let mut sha = DetectingSha1::new();
        sha.update(format!("{} {size}\0", kind.as_str()).as_bytes());
        Self { sha, kind, missing: size }
    }

    /// Takes the next piece; the pieces together must not exceed the announced size.
    pub fn update(&mut self, piece: &[u8]) -> Result<()> {
        self.missing = self.missing.checked_sub(piece.len() as u64).ok_or_else(|| {
            Error::new(Kind::Internal, "more bytes were hashed than the object was announced to have")
        })?;
        self.sha.update(piece);
        Ok(())
    }

    /// The object's name. A detected collision attack is an error of [`Kind::Git`].
    pub fn finish(self) -> Result<Oid> {
        if self.missing != 0 {
            return Err(Error::new(
                Kind::Internal,
                "fewer bytes were hashed than the object was announced to have",
            ));
        }
        name_of(self.sha.finish(), self.kind)
    }
}

fn name_of(verdict: Verdict, kind: ObjectKind) -> Result<Oid> {
    let name = oid_from(&verdict.hash)?;
    if verdict.attacked {
        return Err(Error::new(
            Kind::Git,
            format!(
                "SHA-1 collision attack detected in a {} that would be named {name}; Git cannot hold such content, \
                 change it or exclude the file",
                kind.as_str(),
            ),
        ));
    }
    Ok(name)
}

/// The name of bytes that another hash proves as well: made-to-collide ones are not looked for.
pub struct PlainObjectHasher {
    sha: sha1::Sha1,
}

impl PlainObjectHasher {
    /// Starts an object of `size` bytes; whoever gives it bytes counts them.
    pub fn new(kind: ObjectKind, size: u64) -> Self {
        let mut sha = sha1::Sha1::default();
        sha.update(format!("{} {size}\0", kind.as_str()).as_bytes());
        Self { sha }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.sha.update(piece);
    }

    /// The object's name.
    ///
    /// # Errors
    /// None that happen.
    pub fn finish(self) -> Result<Oid> {
        oid_from(&self.sha.finalize())
    }
}

/// The name of an object that is in memory. A detected collision attack is an error of [`Kind::Git`].
pub fn hash_object(kind: ObjectKind, data: &[u8]) -> Result<Oid> {
    let mut hasher = ObjectHasher::new(kind, data.len() as u64);
    hasher.update(data)?;
    hasher.finish()
}

/// Deflates whole objects; one a thread, kept, because making one costs more than deflating a small file.
pub struct Compressor {
    deflate: libdeflater::Compressor,
    scratch: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// A compressor of the level at which packs are written.
    pub fn new() -> Self {
        let level = CompressionLvl::new(i32::from(DEFLATE_LEVEL)).unwrap_or_default();
        Self { deflate: libdeflater::Compressor::new(level), scratch: Vec::new() }
    }

    /// One that only wraps, for what is known not to get smaller.
    pub fn uncompressing() -> Self {
        let level = CompressionLvl::new(0).unwrap_or_default();
        Self { deflate: libdeflater::Compressor::new(level), scratch: Vec::new() }
    }

    /// The entry header followed by the deflated `data`.
    pub(super) fn entry(&mut self, kind: &HeaderKind, data: &[u8]) -> Result<Vec<u8>> {
        let mut entry = Vec::with_capacity(MAX_HEADER_BYTES);
        encode_entry_header(kind, data.len() as u64, &mut entry);
        let bound = self.deflate.zlib_compress_bound(data.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let length = self
            .deflate
            .zlib_compress(data, &mut self.scratch)
            .map_err(|error| Error::new(Kind::Internal, format!("deflating an object failed: {error}")))?;
        entry.reserve_exact(length);
        entry.extend_from_slice(&self.scratch[..length]);
        if self.scratch.len() > KEPT_SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        Ok(entry)
    }
}

/// An object hashed and deflated, ready to be appended to a pack.
pub struct Prepared {
    oid: Oid,
    kind: ObjectKind,
    size: u64,
    pub(super) entry: Vec<u8>,
    pub(super) crc: u32,
}

impl Prepared {
    /// The object's name.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// What it is.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Its size before deflating, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes it will take in a pack, header included.
    pub fn stored_bytes(&self) -> u64 {
        self.entry.len() as u64
    }
}

/// Hashes and deflates one object. Needs no pack, so any number of threads can do it at a time.
pub fn prepare(kind: ObjectKind, data: &[u8], compressor: &mut Compressor) -> Result<Prepared> {
    let oid = hash_object(kind, data)?;
    prepare_hashed(oid, kind, data, compressor)
}

/// As [`prepare`] for an object whose name was already computed by [`hash_object`].
pub fn prepare_hashed(
    oid: Oid,
    kind: ObjectKind,
    data: &[u8],
    compressor: &mut Compressor,
) -> Result<Prepared> {
    let entry = compressor.entry(&HeaderKind::Whole(kind), data)?;
    let crc = crc32fast::hash(&entry);
    Ok(Prepared { oid, kind, size: data.len() as u64, entry, crc })
}

/// Deflates a blob that comes in pieces, in constant memory.
pub(super) struct StreamDeflater {
    deflate: Compress,
    scratch: Vec<u8>,
}

impl StreamDeflater {
    /// `is_dense` says that the bytes are known not to get smaller.
    pub(super) fn new(is_dense: bool) -> Self {
        let level = if is_dense { Compression::none() } else { Compression::new(u32::from(DEFLATE_LEVEL)) };
        Self { deflate: Compress::new(level, true), scratch: vec![0; 64 * 1024] }
    }

    /// Takes the next piece; `sink` is given what came out, in order.
    pub(super) fn write(&mut self, piece: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            let (consumed, _) = self.step(rest, FlushCompress::None, sink)?;
            rest = &rest[consumed..];
        }
        Ok(())
    }

    /// Ends the stream.
    pub(super) fn finish(mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.step(&[], FlushCompress::Finish, sink)?.1 != Status::StreamEnd {}
        Ok(())
    }

    fn step(
        &mut self,
        input: &[u8],
        flush: FlushCompress,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(usize, Status)> {
        let (taken_before, given_before) = (self.deflate.total_in(), self.deflate.total_out());
        let status = self
            .deflate
            .compress(input, &mut self.scratch, flush)
            .map_err(|error| Error::with_source(Kind::Internal, "deflating a stream failed", error))?;
        let consumed = (self.deflate.total_in() - taken_before) as usize;
        let produced = (self.deflate.total_out() - given_before) as usize;
        if consumed == 0 && produced == 0 && status != Status::StreamEnd {
            return Err(Error::new(Kind::Internal, "deflating a stream stands still"));
        }
        sink(&self.scratch[..produced])?;
        Ok((consumed, status))
    }
}

/// Passes bytes on and remembers their plain SHA-1: the trailers of packs and indexes, where nothing is
/// named by content and the processor's own rounds will do.
pub(super) struct Hashing<W> {
    inner: W,
    sha: sha1::Sha1,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, sha: sha1::Sha1::default() }
    }

    /// The hash of all that was written, and the writer beneath.
    pub(super) fn finish(self) -> ([u8; HASH_BYTES], W) {
        (self.sha.finalize().into(), self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sha1::shattered_blocks;
    use super::*;

    #[test]
    fn names_are_those_of_git() {
        for kind in [ObjectKind::Commit, ObjectKind::Tree, ObjectKind::Blob, ObjectKind::Tag] {
            for data in [&b""[..], b"hello\n", &[7; 100_000]] {
                let mut plain = PlainObjectHasher::new(kind, data.len() as u64);
                plain.update(data);
                assert_eq!(plain.finish().unwrap(), Oid::hash_object(kind.into(), data).unwrap());
                assert_eq!(hash_object(kind, data).unwrap(), Oid::hash_object(kind.into(), data).unwrap());
            }
            assert_eq!(ObjectKind::try_from(ObjectType::from(kind)).unwrap(), kind);
        }
        assert!(ObjectKind::try_from(ObjectType::Any).is_err());
    }

    #[test]
    fn a_hasher_refuses_another_size_than_announced() {
        let mut hasher = ObjectHasher::new(ObjectKind::Blob, 3);
        hasher.update(b"ab").unwrap();
        assert!(hasher.update(b"cd").is_err());
        assert!(ObjectHasher::new(ObjectKind::Blob, 3).finish().is_err());
    }

    #[test]
    fn a_collision_attack_is_an_error_that_says_so() {
        let mut sha = DetectingSha1::new();
        sha.update(&shattered_blocks());
        let error = name_of(sha.finish(), ObjectKind::Blob).unwrap_err();
        assert_eq!(error.kind(), Kind::Git);
        assert!(error.to_string().contains("collision attack"), "{error}");
        assert!(error.to_string().contains("a blob that would be named"), "{error}");
    }
}
