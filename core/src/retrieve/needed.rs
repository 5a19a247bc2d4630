//! Which objects of a snapshot a restore of a part of it reads, found by its names alone.
//!
//! In: a repository that has the snapshot's trees. Out: the blobs of the records that belong to the wanted paths, then, once
//! these are here, the blobs of the contents and how much that is.

use std::collections::{BTreeSet, HashSet};

use git2::{ObjectType, Odb, Oid};

use crate::beneath::EntryKind;
use crate::crypt::gitcrypt::wrapped;
use crate::crypt::policy;
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::history::directory::Directory;
use crate::history::{Root, Snapshot};
use crate::metadata::{FORMAT_PATH, RECORDS_NAME};
use crate::path::{OWN_DIRECTORY, RelPath, unescape_component};
use crate::progress::Progress;
use crate::restore::Selection;
use crate::tree::{Entry, Listing, MAX_DEPTH, MODE_COMMIT, lookup};

/// More objects than that are not asked for one by one.
const MOST: usize = 2_000_000;

/// What has to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// The whole snapshot; how much that is the remote does not say.
    Everything,
    /// Contents of so many files.
    Some {
        /// Different contents.
        files: u64,
        /// Their bytes as the records have them, before compression.
        bytes: u64,
    },
}

/// The blobs of the records.
pub(super) fn records(
    repository: &Repository,
    snapshot: &Snapshot,
    selection: &Selection,
    progress: &Progress,
) -> Result<Vec<Oid>> {
    let objects = repository.objects()?;
    let mut found = Found::new(&objects);
    if let Some(format) = lookup(&objects, snapshot.tree, FORMAT_PATH.as_bytes())? {
        found.take(format)?;
    }
    for root in snapshot.roots(&objects)? {
        let chosen = selection.of_root(&root.name)?;
        let at = format!("{OWN_DIRECTORY}/meta/{}", root.name.as_str());
        let Some(metadata) = lookup(&objects, snapshot.tree, at.as_bytes())?.filter(|entry| entry.is_tree())
        else {
            continue;
        };
        let mut waiting = vec![(RelPath::root(), metadata.oid)];
        while let Some((path, tree)) = waiting.pop() {
            progress.check()?;
            if !chosen.may_hold(&path) && !chosen.covers(&path, true) {
                continue;
            }
            for (name, entry) in Listing::read(&objects, tree, at.as_bytes())?.iter() {
                if name == RECORDS_NAME {
                    found.all_of(entry)?;
                } else if let (true, Some(plain)) = (entry.is_tree(), unescape_component(name)) {
                    waiting.push((below(&path, &plain)?, entry.oid));
                }
            }
        }
    }
    Ok(found.missing)
}

/// The blobs of what says how the snapshot is encrypted, and of its key.
pub(super) fn encryption(repository: &Repository, snapshot: &Snapshot) -> Result<Vec<Oid>> {
    let objects = repository.objects()?;
    let Some(policy) = lookup(&objects, snapshot.tree, policy::PATH.as_bytes())? else {
        return Ok(Vec::new());
    };
    let mut found = Found::new(&objects);
    found.take(policy)?;
    let keys = wrapped::recipients(&objects, snapshot.tree)?;
    found.missing.extend(keys.into_iter().map(|key| key.oid));
    Ok(found.missing)
}

/// The blobs of contents.
pub(super) struct Needed {
    pub(super) all: Vec<Oid>,
    /// Those without which it cannot be told what would be done with them.
    pub(super) untold: Vec<Oid>,
    pub(super) cost: Cost,
}

/// The blobs of the contents.
pub(super) fn contents(
    repository: &Repository,
    snapshot: &Snapshot,
    selection: &Selection,
    progress: &Progress,
) -> Result<Needed> {
    let objects = repository.objects()?;
    let mut found = Found::new(&objects);
    let mut untold = Vec::new();
    let mut bytes = 0u64;
    for Root { name, place } in snapshot.roots(&objects)? {
        let chosen = selection.of_root(&name)?;
        let mut waiting = vec![(RelPath::root(), place)];
        while let Some((path, place)) = waiting.pop() {
            progress.check()?;
            if !chosen.may_hold(&path) && !chosen.covers(&path, true) {
                continue;
            }
            // What cannot be read is the restore's to report.
            let Ok(directory) = Directory::at(&objects, place, &name, &path) else { continue };
            for node in &directory.nodes {
                if let Some(place) = node.place() {
                    waiting.push((below(&path, &node.name)?, place));
                    continue;
                }
                let Some(entry) = node.entry else { continue };
                if chosen.covers(&path.join(&node.name), false) && found.take(entry)? {
                    let size = node.record.as_ref().and_then(|record| record.size);
                    bytes = bytes.saturating_add(size.unwrap_or(0));
                    if size.is_none() || node.kind != EntryKind::File {
                        untold.push(entry.oid);
                    }
                }
            }
        }
    }
    let files = found.missing.len() as u64;
    Ok(Needed { all: found.missing, untold, cost: Cost::Some { files, bytes } })
}

fn below(path: &RelPath, name: &[u8]) -> Result<RelPath> {
    let path = path.join(name);
    if path.components().count() <= MAX_DEPTH {
        return Ok(path);
    }
    Err(Error::new(Kind::Git, format!("more than {MAX_DEPTH} directories below each other in the metadata")))
}

/// Blobs that are wanted and not here.
struct Found<'o, 'r> {
    objects: &'o Odb<'r>,
    seen: HashSet<Oid>,
    missing: Vec<Oid>,
}

impl<'o, 'r> Found<'o, 'r> {
    fn new(objects: &'o Odb<'r>) -> Self {
        Self { objects, seen: HashSet::new(), missing: Vec::new() }
    }

    /// Whether it is new and missing.
    fn take(&mut self, entry: Entry) -> Result<bool> {
        if entry.mode == MODE_COMMIT || !self.seen.insert(entry.oid) || self.objects.exists(entry.oid) {
            return Ok(false);
        }
        if self.missing.len() >= MOST {
            let text =
                format!("more than {MOST} objects would have to be asked for one by one: restore everything");
            return Err(Error::new(Kind::Limit, text));
        }
        self.missing.push(entry.oid);
        Ok(true)
    }

    /// A shard, or all shards of a tree of them.
    fn all_of(&mut self, entry: Entry) -> Result<()> {
        let mut waiting = vec![entry];
        let mut trees = BTreeSet::new();
        while let Some(entry) = waiting.pop() {
            if !entry.is_tree() {
                self.take(entry)?;
            } else if trees.insert(entry.oid)
                && self.objects.read_header(entry.oid).is_ok_and(|(_, kind)| kind == ObjectType::Tree)
            {
                waiting.extend(
                    Listing::read(self.objects, entry.oid, RECORDS_NAME)?.iter().map(|(_, entry)| entry),
                );
            }
        }
        Ok(())
    }
}
