//! The stat cache from a commit: after a lost database it tells the next walk what the tree holds.
//!
//! The looks are made so that they match nothing on disk: every file is read again, but what is gone is noticed
//! as gone, and a file whose checksum is still the recorded one keeps its object without being stored anew.

use git2::Oid;

use super::message::{BATCH_TRAILER, trailer};
use super::raw;
use crate::beneath::Look;
use crate::error::Result;
use crate::git::repository::Repository;
use crate::metadata::{self, Record};
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::store::files::{FileDelta, FileRecord};
use crate::tree::{self, Listing};

/// Records handed over at a time.
const PART: usize = 10_000;

/// The number of the batch that made `commit`, as its trailer says; 0 if it does not say.
pub fn batch_of(repository: &Repository, commit: Oid) -> Result<u64> {
    let message = repository.message_of(commit)?;
    Ok(trailer(&message, BATCH_TRAILER).and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// Hands the records of `root` in `commit` to `take`, in parts.
pub fn rebuild_files(
    repository: &Repository,
    commit: Oid,
    root: &RootName,
    progress: &Progress,
    take: &mut dyn FnMut(Vec<FileDelta>) -> Result<()>,
) -> Result<()> {
    let tree = repository.tree_of(commit)?;
    let objects = repository.objects()?;
    let mut part = Vec::new();
    let mut here: Option<(RelPath, Option<Listing<'_>>)> = None;
    metadata::walk(&objects, tree, root, &mut |directory, record| {
        progress.check()?;
        let is_own = record.name == metadata::OWN_NAME;
        let path = if is_own { directory.clone() } else { directory.join(&record.name) };
        if here.as_ref().is_none_or(|(known, _)| known != directory) {
            let git_path = directory.to_git_path(root);
            let listing = match tree::lookup(&objects, tree, &git_path)? {
                Some(entry) if entry.is_tree() => Some(Listing::read(&objects, entry.oid, &git_path)?),
                _ => None,
            };
            here = Some((directory.clone(), listing));
        }
        let listing = here.as_ref().and_then(|(_, listing)| listing.as_ref());
        let name = crate::path::escape_component(&record.name);
        let stored =
            listing.and_then(|listing| listing.get(&name)).filter(|entry| !is_own && !entry.is_tree());
        part.push(FileDelta::Put(path, Box::new(file_record(&record, stored.map(|entry| entry.oid)))));
        if part.len() >= PART {
            take(std::mem::take(&mut part))?;
        }
        Ok(())
    })?;
    take(part)
}

fn file_record(record: &Record, stored: Option<Oid>) -> FileRecord {
    let look = Look {
        kind: record.kind,
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        size: record.size.unwrap_or(0),
        // No inode has the number 0, so no look on disk is this one.
        mtime_ns: 0,
        ctime_ns: 0,
        inode: 0,
        device: 0,
        links: 0,
        special: 0,
        // What was mounted there and is not any more must not be taken for deleted.
        is_mount: record.is_mount,
    };
    FileRecord {
        look,
        recorded_ns: 0,
        stored: stored.map_or([0; 20], raw),
        // Without an object there is nothing that a matching checksum could stand for.
        checksum: stored.and(record.blake3).unwrap_or([0; 32]),
    }
}
