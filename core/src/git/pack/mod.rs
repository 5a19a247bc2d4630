//! Packs: written in one stream, indexed, and read entry by entry.
//!
//! In go objects, out comes one pack with its index (version 2), in exactly the bytes that `git index-pack`
//! would give; the other way round, entries of any pack are found and handed on as they are stored, still
//! compressed. The format is that of Git's `gitformat-pack` manual page.
//!
//! [`object`] hashes and deflates one object, `sha1` is the hash, `header` is what stands in front of an object,
//! [`writer`] makes a pack under temporary names, [`install`] brings those to their final names (or sweeps what a crash left), [`index`] writes and reads the table of
//! contents, [`reader`] reads one pack and [`set`] all packs of a repository. `incoming` takes in a pack that somebody else
//! made.

use std::path::Path;

use git2::Oid;

use crate::error::{Error, Kind, Result};

mod ahead;
mod delta;
mod header;
mod incoming;
pub mod index;
pub mod install;
pub mod object;
pub mod outgoing;
pub mod reader;
pub mod seek;
pub mod set;
mod sha1;
pub mod writer;

#[cfg(test)]
mod tests;

pub use incoming::{Completeness, IncomingPack};
pub use index::{IndexEntry, PackIndex};
pub use install::{
    FinishedPack, InstalledPack, TEMPORARY_PREFIX, copy_whole_pack, install_by_name, install_from,
    remove_by_name, remove_temporary, sweep_foreign, sweep_temporary, waiting_in,
};
pub(in crate::git) use install::{
    SIGNS_TO_LEAVE_ALONE, is_pack_name, remove_files, sync_directory, whole_packs,
};
pub use object::{
    Compressor, ObjectHasher, ObjectKind, PlainObjectHasher, Prepared, hash_object, prepare, prepare_hashed,
};
pub use outgoing::{OutgoingPack, Written, stored_bytes};
pub use reader::{EntryKind, PackReader, RawEntry};
pub use seek::CommitSeeker;
pub use set::PackSet;
pub use writer::{Copied, PackWriter, Streamed, Sync};

/// `PACK`, version, number of objects.
const PACK_HEADER_BYTES: u64 = 12;
/// A SHA-1, as a trailer and as an object's name.
const HASH_BYTES: usize = 20;
/// How much is read, hashed or copied at a time where a whole file is gone through.
const CHUNK_BYTES: usize = 256 * 1024;

fn oid_from(bytes: &[u8]) -> Result<Oid> {
    Oid::from_bytes(bytes)
        .map_err(|error| Error::with_source(Kind::Internal, "an object name is not 20 bytes long", error))
}

fn shown(path: &Path) -> String {
    crate::path::lossy(path.as_os_str().as_encoded_bytes())
}
