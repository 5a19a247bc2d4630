//! What Git does not keep: owners, modes, times, attributes, links between names, empty directories and
//! special files, as records below `.backupbot/meta/<root>/` in the same tree as the files.
//!
//! The records of a directory stand under the name `_bb_meta` in its own metadata directory, in one blob or
//! in a tree of 64 of them by the name's hash, and so on downwards, so that one change in a directory of any
//! size writes one small blob. docs/format.md describes the format for readers without this program.
//!
//! In: [`Changes`] against a tree. Out: new blobs to a [`TreeSink`](crate::tree::TreeSink), and
//! [`Edits`](crate::tree::Edits) that put them in place together with the files. The readers take every tree
//! for hostile.

mod changes;
mod difference;
mod edit;
mod read;
mod record;
mod reform;
mod shard;
#[cfg(test)]
mod tests;
mod tolerant;

use git2::{ObjectType, Oid};

use crate::crypt::gitcrypt::cipher::OVERHEAD;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::names::RootName;
use crate::path::{OWN_DIRECTORY, RelPath, lossy};

pub use crate::beneath::EntryKind;
pub use changes::Changes;
pub use difference::{RecordChange, differing_records};
pub use edit::{MetadataStats, apply};
pub use read::{DirectoryRecords, check_format, read_directory, read_record, walk};
pub use record::{Mtime, Record};
pub use reform::{Reform, ReformOf, rewrite};
pub use tolerant::{Readable, find_record, read_what_is_there, record_under, shard_under};

/// The version of the repository's format, in `.backupbot/format` and in each shard's first line.
pub const FORMAT_VERSION: u32 = 1;
/// The file that holds [`FORMAT_VERSION`] as text with a newline.
pub const FORMAT_PATH: &str = ".backupbot/format";
/// Where a directory's own records stand in its metadata directory. No escape produces this name.
pub const RECORDS_NAME: &[u8] = b"_bb_meta";
/// The name of a directory's record of itself.
pub const OWN_NAME: &[u8] = b".";

/// Where all of it stands.
pub const TOP: &str = ".backupbot/meta";

/// A shard that is longer is not read.
const MAX_SHARD_BYTES: usize = 16 << 20;
/// Six bits a level: beyond this a name's hash is used up.
const MAX_LEVELS: usize = 42;
/// What no writer leaves below a tree of shards.
const NOTHING_IN_IT: &str = "a shard without records";

/// The metadata directory of a directory.
pub fn directory_path(root: &RootName, directory: &RelPath) -> Vec<u8> {
    let mut path = format!("{OWN_DIRECTORY}/meta/").into_bytes();
    path.extend_from_slice(&directory.to_git_path(root));
    path
}

fn records_path(root: &RootName, directory: &RelPath) -> Vec<u8> {
    let mut path = directory_path(root, directory);
    path.push(b'/');
    path.extend_from_slice(RECORDS_NAME);
    path
}

/// The hash that decides a name's shard.
fn hash_of(name: &[u8]) -> [u8; 32] {
    *blake3::hash(name).as_bytes()
}

/// The six bits of a hash, from the first bit on, that choose the child at `level`.
fn child_at(hash: &[u8; 32], level: usize) -> u8 {
    let first_bit = level * 6;
    let byte = |index: usize| u16::from(hash.get(index).copied().unwrap_or_default());
    let pair = byte(first_bit / 8) << 8 | byte(first_bit / 8 + 1);
    (pair >> (10 - first_bit % 8) & 0x3f) as u8
}

fn child_name(child: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(child >> 4)], DIGITS[usize::from(child & 15)]]
}

/// The child that a name in a tree of shards stands for; `None` for any other name.
fn child_of(name: &[u8]) -> Option<u8> {
    (0..64).find(|child| child_name(*child) == name)
}

fn damaged(path: &[u8], problem: &str) -> Error {
    Error::new(Kind::Git, format!("the metadata at {:?} is damaged: {problem}", lossy(path)))
}

/// Reads a blob of at most `limit` bytes, and opens it if it is encrypted.
fn read_blob(objects: &ObjectDatabase<'_>, oid: Oid, path: &[u8], limit: usize) -> Result<Vec<u8>> {
    let unreadable =
        |e| Error::with_source(Kind::Git, format!("cannot read the metadata {oid} at {:?}", lossy(path)), e);
    let (size, kind) = objects.read_header(oid).map_err(unreadable)?;
    if kind != ObjectType::Blob {
        return Err(damaged(path, &format!("a {kind} stands where a blob should")));
    }
    if size > limit + OVERHEAD as usize {
        return Err(damaged(path, &format!("{size} bytes where at most {limit} belong")));
    }
    let stored = objects.read(oid).map_err(unreadable)?.data().to_vec();
    let context = |error: Error| {
        let place = format!("the metadata at {:?}", lossy(path));
        Error::with_source(error.kind(), place, error.to_string())
    };
    objects.open_own(stored).map_err(context)
}
