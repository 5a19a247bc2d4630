//! A pack that arrives from somebody else: written, understood and indexed while it comes.
//!
//! ```text
//! bytes ─▶ file, checksum ─▶ scan: where entries begin, inflated ─▶ hashing: names, by a thread of its own
//!                                                                            │ (the pack has ended)
//!          index ◀─ every object once, nothing missing ◀─ forest: deltas, by all cores ◀┘
//! ```
//!
//! In: the bytes of a pack in pieces, as the network gives them. Out: the pack and the very index that `git index-pack`
//! would write, under temporary names, or an error that says what is wrong with it. Objects pass through flat memory
//! however large they are; deltas and what they are made from are held within bounds (`forest`); the tables take some
//! 100 bytes for an object. Thin packs are refused: we never ask for one.
//!
//! `scan` follows the pack's structure, `hashing` names what stands there whole, `forest` makes objects out of deltas by
//! `patch`, and `links` finds out what an object needs beside it.

mod forest;
mod hashing;
mod links;
mod patch;
mod scan;

#[cfg(test)]
mod tests;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use git2::Oid;
use sha1::Digest;

use self::hashing::Hashing;
use self::links::Links;
use self::scan::Scanner;
use super::index::{FIRST_LARGE_OFFSET, IndexEntry, write_index};
use super::install::{FinishedPack, TemporaryFile};
use super::writer::Sync;
use super::{CHUNK_BYTES, HASH_BYTES};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// What has to be in a pack beside what it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Whatever came is all that was asked for.
    Parts,
    /// Everything that any object in it names is in it, too.
    Closed,
}

/// A pack that is arriving. Dropped before its end, it leaves nothing.
pub struct IncomingPack {
    pack_dir: PathBuf,
    file: TemporaryFile,
    /// What is not written yet.
    buffer: Vec<u8>,
    bytes: u64,
    sha: sha1::Sha1,
    scanner: Scanner,
    hashing: Hashing,
}

impl IncomingPack {
    /// Begins a pack in a repository's `objects/pack`.
    pub fn create(pack_dir: &Path, completeness: Completeness) -> Result<Self> {
        Ok(Self {
            pack_dir: pack_dir.to_owned(),
            file: TemporaryFile::create(pack_dir)?,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            bytes: 0,
            sha: sha1::Sha1::default(),
            scanner: Scanner::new(),
            hashing: Hashing::begin(completeness == Completeness::Closed),
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Kind::Git`] as soon as they cannot be those of a pack.
    pub fn take(&mut self, piece: &[u8]) -> Result<()> {
        let covered = self.scanner.take(piece, &mut self.hashing)?;
        self.sha.update(&piece[..covered]);
        if self.buffer.len() + piece.len() > CHUNK_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.file.file().write_all(&self.buffer);
        written.map_err(|error| Error::io("write the pack", self.file.path(), error))?;
        self.buffer.clear();
        Ok(())
    }

    /// All has come: makes objects out of deltas and writes the index. `None` if the pack is empty.
    ///
    /// # Errors
    /// [`Kind::Git`] if it is not whole, not what it says, or asks for more than is reasonable.
    pub fn finish(mut self, sync: Sync, progress: &Progress) -> Result<Option<FinishedPack>> {
        let checksum: [u8; HASH_BYTES] = std::mem::take(&mut self.sha).finalize().into();
        let mut scanned = self.scanner.finish(&checksum)?;
        self.flush()?;
        let mut named = self.hashing.finish()?;
        let objects = scanned.entries.len();
        let Some(count) = u32::try_from(objects).ok().filter(|count| *count > 0) else { return Ok(None) };
        let mut names: Vec<Option<Oid>> = vec![None; objects];
        for (entry, name) in std::mem::take(&mut named.names) {
            names[entry as usize] = Some(name);
        }
        let mut links = named.links;
        if scanned.deltas() > 0 {
            let made = forest::resolve(&mut scanned, &names, self.file.file(), links.is_some(), progress)?;
            for made in made {
                for (entry, name) in made.names {
                    names[entry as usize] = Some(name);
                }
                if let (Some(all), Some(more)) = (&mut links, made.links) {
                    all.join(more, count)?;
                }
            }
        }
        let index = entries_of(&scanned, names)?;
        if let Some(links) = links {
            check_links(&links, &index)?;
        }

        self.file.sync(sync)?;
        let file = TemporaryFile::create(&self.pack_dir)?;
        let out = BufWriter::with_capacity(CHUNK_BYTES, file.file());
        write_index(out, &index, &checksum, FIRST_LARGE_OFFSET)
            .map_err(|error| Error::io("write the pack index", file.path(), error))?;
        file.sync(sync)?;
        FinishedPack::adopt(&self.pack_dir, self.file, file, &checksum, count, self.bytes, sync).map(Some)
    }
}

/// The rows of the index, in its order.
fn entries_of(scanned: &scan::Scanned, names: Vec<Option<Oid>>) -> Result<Vec<IndexEntry>> {
    if let Some(nameless) = names.iter().position(Option::is_none) {
        let base = scanned.lacking(&names).map_or_else(String::new, |base| format!(", {base}"));
        let what =
            format!("it is a difference from an object that is not in the pack or rests on itself{base}");
        return Err(damaged(scanned.entries[nameless].offset, &what));
    }
    let rows = scanned.entries.iter().zip(names);
    let mut index: Vec<IndexEntry> = rows
        .filter_map(|(entry, name)| Some(IndexEntry { oid: name?, offset: entry.offset, crc: entry.crc }))
        .collect();
    index.sort_unstable_by_key(|entry| (entry.oid, entry.offset));
    if let Some(twice) = index.windows(2).find(|pair| pair[0].oid == pair[1].oid) {
        let what = format!("{} is in it a second time", twice[1].oid);
        return Err(damaged(twice[1].offset, &what));
    }
    Ok(index)
}

fn check_links(links: &Links, index: &[IndexEntry]) -> Result<()> {
    let is_here = |oid: &Oid| index.binary_search_by_key(oid, |entry| entry.oid).is_ok();
    match links.iter().find(|oid| !is_here(oid)) {
        None => Ok(()),
        Some(missing) => {
            let text = format!("the pack is not whole: {missing}, which an object in it names, is not in it");
            Err(Error::new(Kind::Git, text))
        }
    }
}

fn damaged(offset: u64, what: &str) -> Error {
    Error::new(Kind::Git, format!("what came is no sound pack: at byte {offset}: {what}"))
}
