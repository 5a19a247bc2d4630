//! What a batch found out about names, gathered before it is written. The result is as if each call took
//! effect at once: a file where a directory was takes the directory's records away, and the reverse.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{EntryKind, OWN_NAME, Record};
use crate::path::RelPath;

/// What changes in one directory.
#[derive(Debug, Clone, Default)]
pub(super) struct DirectoryChanges {
    /// Nothing that the tree has at or below this directory counts.
    pub(super) wiped: bool,
    /// By name; `None` removes.
    pub(super) records: BTreeMap<Vec<u8>, Option<Record>>,
}

/// Changed, added and removed records of one root.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub(super) directories: BTreeMap<RelPath, DirectoryChanges>,
}

impl Changes {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// `record.name` in `directory` is as the record says. A record of a directory is taken as
    /// [`Changes::put_directory`] takes it. That `directory` itself is new, or was a file in the tree until
    /// now, has to be said by `put_directory`.
    pub fn put(&mut self, directory: &RelPath, record: Record) {
        if record.name == OWN_NAME {
            return self.put_directory(directory, record);
        }
        let path = child(directory, &record.name);
        if record.kind == EntryKind::Directory {
            if let Ok(path) = RelPath::new(path) {
                self.put_directory(&path, record);
            }
            return;
        }
        self.forget_within(&path);
        self.directory(directory).records.insert(record.name.clone(), Some(record));
    }

    /// `directory` is there, and `own` is its record; the record's name does not matter.
    pub fn put_directory(&mut self, directory: &RelPath, own: Record) {
        let own = Record { name: OWN_NAME.to_vec(), ..own };
        self.directory(directory).records.insert(OWN_NAME.to_vec(), Some(own));
        if let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) {
            self.directory(&parent).records.insert(name.to_vec(), None);
        }
    }

    /// Nothing is at `path` any more: no file, no directory and nothing below it. The root's own path
    /// removes everything. Below what this batch found to be a file there was nothing to remove.
    pub fn remove(&mut self, path: &RelPath) {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            if self.is_below_a_file(&parent) {
                return;
            }
            self.directories.entry(parent).or_default().records.insert(name.to_vec(), None);
        }
        self.forget_within(path.as_bytes());
        self.directories
            .insert(path.clone(), DirectoryChanges { wiped: true, ..DirectoryChanges::default() });
    }

    fn forget_within(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.directories.clear();
            return;
        }
        self.directories.remove(path);
        // Everything below `path` sorts from `path/` up to `path0`, as `0` is the byte after the slash.
        let (mut first_below, mut first_after) = (path.to_vec(), path.to_vec());
        first_below.push(b'/');
        first_after.push(b'/' + 1);
        loop {
            let bounds = (Bound::Included(first_below.as_slice()), Bound::Excluded(first_after.as_slice()));
            let below = self.directories.range::<[u8], _>(bounds).next();
            let Some((below, _)) = below else { return };
            let below = below.clone();
            self.directories.remove(&below);
        }
    }

    fn is_below_a_file(&self, directory: &RelPath) -> bool {
        if self.directories.contains_key(directory) {
            return false;
        }
        let mut path = directory.clone();
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let put = self.directories.get(&parent).and_then(|changes| changes.records.get(name));
            if let Some(Some(_)) = put {
                return true;
            }
            path = parent;
        }
        false
    }

    /// The changes of a directory that is now known to be one, like all above it.
    fn directory(&mut self, directory: &RelPath) -> &mut DirectoryChanges {
        if !self.directories.contains_key(directory) {
            self.end_files_above(directory);
        }
        self.directories.entry(directory.clone()).or_default()
    }

    /// Where this batch put a file on the way to `directory`, that file is gone, and what the tree has
    /// there, which the file had replaced, does not come back.
    fn end_files_above(&mut self, directory: &RelPath) {
        let mut path = directory.clone();
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let put = self.directories.get_mut(&parent).and_then(|changes| changes.records.get_mut(name));
            if let Some(file @ Some(_)) = put {
                *file = None;
                self.directories.entry(path.clone()).or_default().wiped = true;
            }
            path = parent;
        }
    }
}

/// The bytes of a path, also for a name that no file can have; such a record is refused when it is written.
fn child(directory: &RelPath, name: &[u8]) -> Vec<u8> {
    match directory.as_bytes() {
        b"" => name.to_vec(),
        directory => [directory, b"/", name].concat(),
    }
}
