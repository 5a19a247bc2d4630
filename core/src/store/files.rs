//! The stat cache: what each file was when its content was last stored, so that a scan reads only what changed.
//!
//! A row counts only while the repository's checkpoint is its branch's tip or an ancestor of it; whoever finds
//! otherwise clears the rows. Keys are `repository NUL root NUL directory NUL name`, so the children of one
//! directory lie together in name order, and a merge with a directory listing needs no memory but that listing.

use std::collections::HashSet;

use redb::ReadOnlyTable;
use serde::{Deserialize, Serialize};

use super::{FILES, Inner, Outcome, StoreReader, decode, encode, store_error};
use crate::beneath::{EntryKind, Look};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;

/// A file's modification time within this of the moment it was recorded proves nothing: the file may have
/// changed again within the clock's grain. Two seconds cover FAT and coarse network file systems.
const RACY_NANOSECONDS: i64 = 2_000_000_000;

/// One entry as it was when it was last stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What the file system said before the content was read.
    pub look: Look,
    /// When that was, nanoseconds since 1970.
    pub recorded_ns: i64,
    /// The stored object; zeros for entries without content.
    pub stored: [u8; 20],
    /// BLAKE3 of the plaintext; zeros for entries without content.
    pub checksum: [u8; 32],
}

impl FileRecord {
    /// Whether `now` proves that nothing changed since this was recorded.
    pub fn proves_unchanged(&self, now: &Look) -> bool {
        if !self.look.is_same_as(now) {
            return false;
        }
        let content_can_race = now.kind == EntryKind::File;
        !content_can_race || now.mtime_ns < self.recorded_ns.saturating_sub(RACY_NANOSECONDS)
    }
}

/// What a commit changes in the stat cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileDelta {
    /// The entry is now this.
    Put(RelPath, Box<FileRecord>),
    /// The entry is gone.
    Remove(RelPath),
    /// The entry and everything below it are gone.
    RemoveTree(RelPath),
}

fn prefix(repository: &RepositoryName, root: &RootName) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(repository.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(root.as_str().as_bytes());
    key.push(0);
    key
}

fn key(repository: &RepositoryName, root: &RootName, path: &RelPath) -> Vec<u8> {
    let mut key = prefix(repository, root);
    if let Some(parent) = path.parent() {
        key.extend_from_slice(parent.as_bytes());
    }
    key.push(0);
    key.extend_from_slice(path.file_name().unwrap_or_default());
    key
}

/// The path in a key, its prefix taken off.
fn path_of(rest: &[u8]) -> Option<RelPath> {
    let cut = rest.iter().position(|b| *b == 0)?;
    let directory = RelPath::new(&rest[..cut]).ok()?;
    Some(if rest.len() == cut + 1 { directory } else { directory.join(&rest[cut + 1..]) })
}

/// The smallest key that is greater than every key with this prefix.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    prefix
}

type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

pub(super) fn apply(
    table: &mut Table<'_>,
    repository: &RepositoryName,
    root: &RootName,
    deltas: &[FileDelta],
) -> Outcome<()> {
    for delta in deltas {
        match delta {
            FileDelta::Put(path, record) => {
                let value = encode(record.as_ref())?;
                table.insert(key(repository, root, path).as_slice(), value.as_slice())?;
            }
            FileDelta::Remove(path) => {
                table.remove(key(repository, root, path).as_slice())?;
            }
            FileDelta::RemoveTree(path) => remove_tree(table, repository, root, path)?,
        }
    }
    Ok(())
}

fn remove_tree(
    table: &mut Table<'_>,
    repository: &RepositoryName,
    root: &RootName,
    path: &RelPath,
) -> Outcome<()> {
    if path.is_root() {
        return clear_prefix(table, &prefix(repository, root));
    }
    table.remove(key(repository, root, path).as_slice())?;
    for separator in [0u8, b'/'] {
        let mut below = prefix(repository, root);
        below.extend_from_slice(path.as_bytes());
        below.push(separator);
        clear_prefix(table, &below)?;
    }
    Ok(())
}

fn clear_prefix(table: &mut Table<'_>, from: &[u8]) -> Outcome<()> {
    let to = after(from.to_vec());
    table.retain_in(from..to.as_slice(), |_, _| false)?;
    Ok(())
}

pub(super) fn clear_repository(table: &mut Table<'_>, repository: &RepositoryName) -> Outcome<()> {
    let mut from = repository.as_str().as_bytes().to_vec();
    from.push(0);
    clear_prefix(table, &from)
}

/// The stat cache of one repository at one moment.
pub struct FilesView {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    repository: RepositoryName,
}

impl StoreReader {
    /// The stat cache of `repository` as it is now; later writes do not show.
    pub fn files(&self, repository: &RepositoryName) -> Result<FilesView> {
        let transaction = self.store().begin_read()?;
        let table = transaction.open_table(FILES).map_err(|error| store_error(Inner::from(error)))?;
        Ok(FilesView { table, repository: repository.clone() })
    }
}

impl FilesView {
    /// The record of one entry.
    pub fn get(&self, root: &RootName, path: &RelPath) -> Result<Option<FileRecord>> {
        let look = || -> Outcome<Option<FileRecord>> {
            let found = self.table.get(key(&self.repository, root, path).as_slice())?;
            found.map(|value| decode(value.value())).transpose()
        };
        look().map_err(store_error)
    }

    /// The records of a directory's children in name order.
    pub fn children(&self, root: &RootName, directory: &RelPath) -> Result<Vec<(Vec<u8>, FileRecord)>> {
        let mut from = prefix(&self.repository, root);
        from.extend_from_slice(directory.as_bytes());
        from.push(0);
        let skip = from.len();
        let to = after(from.clone());
        let look = || -> Outcome<Vec<(Vec<u8>, FileRecord)>> {
            let mut children = Vec::new();
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                let name = key.value()[skip..].to_vec();
                // The root's own record has an empty name and lies among its children.
                if !name.is_empty() {
                    children.push((name, decode(value.value())?));
                }
            }
            Ok(children)
        };
        look().map_err(store_error)
    }

    /// Whether anything is recorded below `path`, at whatever depth.
    pub fn has_below(&self, root: &RootName, path: &RelPath) -> Result<bool> {
        let look = || -> Outcome<bool> {
            for separator in [0u8, b'/'] {
                let mut from = prefix(&self.repository, root);
                from.extend_from_slice(path.as_bytes());
                from.push(separator);
                let to = after(from.clone());
                if self.table.range(from.as_slice()..to.as_slice())?.next().transpose()?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        look().map_err(store_error)
    }

    /// The recorded names of the files with these device and inode numbers. Goes through the whole root.
    pub fn names_of(&self, root: &RootName, inodes: &HashSet<(u64, u64)>) -> Result<Vec<RelPath>> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let look = || -> Outcome<Vec<RelPath>> {
            let mut names = Vec::new();
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                let record: FileRecord = decode(value.value())?;
                if inodes.contains(&(record.look.device, record.look.inode)) {
                    names.extend(path_of(&key.value()[from.len()..]));
                }
            }
            Ok(names)
        };
        look().map_err(store_error)
    }

    /// Whether anything of the root is recorded below its top.
    pub fn has_any(&self, root: &RootName) -> Result<bool> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let own = key(&self.repository, root, &RelPath::root());
        let look = || -> Outcome<bool> {
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                if row?.0.value() != own.as_slice() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        look().map_err(store_error)
    }

    /// The number of files and links recorded for the root.
    pub fn count_contents(&self, root: &RootName) -> Result<u64> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let look = || -> Outcome<u64> {
            let mut count = 0;
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let record: FileRecord = decode(row?.1.value())?;
                count += u64::from(record.look.kind.has_content());
            }
            Ok(count)
        };
        look().map_err(store_error)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn look(size: u64, mtime_ns: i64) -> Look {
        Look {
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime_ns,
            ctime_ns: mtime_ns,
            inode: 1,
            device: 1,
            links: 1,
            special: 0,
            is_mount: false,
        }
    }

    #[test]
    fn a_record_proves_nothing_about_a_file_modified_in_the_same_moment() {
        let old = look(5, 1_000_000_000);
        let record =
            FileRecord { look: old, recorded_ns: 60_000_000_000, stored: [0; 20], checksum: [0; 32] };
        assert!(record.proves_unchanged(&old));
        assert!(!record.proves_unchanged(&Look { ctime_ns: 2, ..old }));
        assert!(record.proves_unchanged(&Look { device: 2, ..old }), "the disk was found in another order");
        let fresh = FileRecord { recorded_ns: 1_500_000_000, ..record };
        assert!(!fresh.proves_unchanged(&old));
    }

    #[test]
    fn the_key_after_a_prefix_is_beyond_all_its_keys() {
        assert_eq!(after(b"a\0".to_vec()), b"a\x01");
        assert_eq!(after(vec![b'a', 255]), b"b");
    }
}
