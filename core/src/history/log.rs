//! The snapshots behind a tip, newest first, and those of them that changed one path.
//!
//! Only first parents are followed: what a merge by somebody else brought in counts as a change of the merge. A path's
//! timeline compares ids along the way to the path, so a snapshot that did not touch its directory costs one
//! comparison, and no snapshot is compared as a whole.

use git2::Oid;

use super::Snapshot;
use super::directory::kind_of;
use crate::beneath::EntryKind;
use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::git::repository::Repository;
use crate::metadata::{RECORDS_NAME, Record, record_under, shard_under};
use crate::names::RootName;
use crate::path::{OWN_DIRECTORY, RelPath, escape_component};
use crate::tree::{Entry, entry_in};

/// First parents, from a tip to the first snapshot.
pub struct Log<'r> {
    repository: &'r Repository,
    next: Option<Oid>,
    began: bool,
    broke_off: Option<Oid>,
}

impl<'r> Log<'r> {
    /// Begins at `tip`.
    pub fn new(repository: &'r Repository, tip: Oid) -> Self {
        Self { repository, next: Some(tip), began: false, broke_off: None }
    }

    /// The parent that was to come next and is not in the repository, as after a shallow fetch.
    pub fn broke_off(&self) -> Option<Oid> {
        self.broke_off
    }

    fn is_here(&self, id: Oid) -> bool {
        self.repository.objects().is_ok_and(|objects| objects.exists(id))
    }
}

impl Iterator for Log<'_> {
    type Item = Result<Snapshot>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.next.take()?;
        let read = Snapshot::read(self.repository, id);
        match &read {
            Ok(snapshot) => self.next = snapshot.parents.first().copied(),
            Err(_) if self.began && !self.is_here(id) => {
                self.broke_off = Some(id);
                return None;
            }
            Err(_) => {}
        }
        self.began = true;
        Some(read)
    }
}

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// Its content or kind is another. Of a directory: a content in it.
    Changed,
    /// It is gone.
    Deleted,
    /// Only what is recorded of it is another: owner, mode, time, attributes.
    Metadata,
}

impl ChangeKind {
    /// The letter in listings.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'M',
            Self::Deleted => 'D',
            Self::Metadata => 'm',
        }
    }

    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Metadata => "metadata",
        }
    }
}

/// What a path was in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is.
    pub kind: EntryKind,
    /// What Git holds.
    pub entry: Option<Entry>,
    /// What is recorded, of everything but directories.
    pub record: Option<Record>,
    /// The metadata directory, of directories.
    metadata: Option<Oid>,
}

impl State {
    /// Bytes of a file or link; of a link without record that is not looked up.
    pub fn size(&self, objects: &ObjectDatabase<'_>) -> Option<u64> {
        if !self.kind.has_content() {
            return None;
        }
        if let Some(size) = self.record.as_ref().and_then(|record| record.size) {
            return Some(size);
        }
        objects.read_header(self.entry?.oid).ok().map(|(size, _)| size as u64)
    }
}

/// A snapshot that changed the path.
#[derive(Debug, Clone)]
pub struct Version {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What happened in it.
    pub change: ChangeKind,
    /// What the path was after it; `None` if it was deleted.
    pub state: Option<State>,
}

/// The snapshots that changed a path, newest first.
pub struct Timeline<'r, 'o> {
    log: Log<'r>,
    objects: &'r ObjectDatabase<'o>,
    tracker: Tracker,
    /// Looked at and not yet compared with the snapshot before it.
    newer: Option<(Snapshot, Option<State>)>,
}

impl<'r, 'o> Timeline<'r, 'o> {
    /// Of `path` in `root`, from `tip` on. `objects` are those of `repository`.
    pub fn new(
        repository: &'r Repository,
        objects: &'r ObjectDatabase<'o>,
        tip: Oid,
        root: &RootName,
        path: &RelPath,
    ) -> Self {
        Self { log: Log::new(repository, tip), objects, tracker: Tracker::new(root, path), newer: None }
    }

    /// As [`Log::broke_off`]: the last version may be older than it says.
    pub fn broke_off(&self) -> Option<Oid> {
        self.log.broke_off()
    }

    /// The newest snapshot in which the path is there.
    ///
    /// # Errors
    /// [`Kind::Git`](crate::error::Kind::Git) for snapshots and trees that cannot be read.
    pub fn last_seen(&mut self) -> Result<Option<Snapshot>> {
        for snapshot in self.log.by_ref() {
            let snapshot = snapshot?;
            if self.tracker.state(self.objects, snapshot.tree)?.is_some() {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Version>> {
        loop {
            let older = match self.log.next() {
                Some(snapshot) => {
                    let snapshot = snapshot?;
                    let state = self.tracker.state(self.objects, snapshot.tree)?;
                    Some((snapshot, state))
                }
                None => None,
            };
            let before = older.as_ref().and_then(|(_, state)| state.clone());
            let is_end = older.is_none();
            if let Some((snapshot, state)) = std::mem::replace(&mut self.newer, older)
                && let Some(change) = change_between(before.as_ref(), state.as_ref())
            {
                return Ok(Some(Version { snapshot, change, state }));
            }
            if is_end {
                return Ok(None);
            }
        }
    }
}

impl Iterator for Timeline<'_, '_> {
    type Item = Result<Version>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.log.next = None;
            self.newer = None;
        }
        step
    }
}

fn change_between(old: Option<&State>, new: Option<&State>) -> Option<ChangeKind> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), None) => Some(ChangeKind::Deleted),
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => {
            let is_same_content =
                old.kind == new.kind && old.entry.map(|entry| entry.oid) == new.entry.map(|entry| entry.oid);
            Some(if is_same_content { ChangeKind::Metadata } else { ChangeKind::Changed })
        }
    }
}

/// A way down from a tree, and what stood along it last time.
struct Chain {
    names: Vec<Vec<u8>>,
    met: Vec<Option<Entry>>,
}

impl Chain {
    fn new(names: Vec<Vec<u8>>) -> Self {
        Self { met: vec![None; names.len() + 1], names }
    }

    /// What stands at the end of the way below `tree`.
    fn follow(&mut self, objects: &ObjectDatabase<'_>, tree: Oid) -> Result<Option<Entry>> {
        let mut found = Some(Entry::tree(tree));
        let mut at = Vec::new();
        for (level, name) in self.names.iter().enumerate() {
            if found == self.met[level] {
                return Ok(self.met.last().copied().flatten());
            }
            // Written only once the rest is known, or an error would leave a mixture behind.
            let below = match found.filter(|entry| entry.is_tree()) {
                Some(entry) => entry_in(objects, entry.oid, &at, name),
                None => Ok(None),
            };
            let below = below.inspect_err(|_| self.met.fill(None))?;
            self.met[level] = found;
            found = below;
            at.extend_from_slice(name);
            at.push(b'/');
        }
        if let Some(last) = self.met.last_mut() {
            *last = found;
        }
        Ok(found)
    }
}

/// Tells what one path is in tree after tree, quickly where they hardly differ.
struct Tracker {
    name: Vec<u8>,
    files: Chain,
    /// To the metadata of the directory that holds the path, or of the root if that is the path.
    metadata: Chain,
    /// The metadata directory last met, and what it says of the path.
    recorded: (Option<Entry>, Recorded),
}

/// What a metadata directory says of a name in it.
#[derive(Clone, Default)]
struct Recorded {
    directory: Option<Oid>,
    shard: Option<Oid>,
    record: Option<Record>,
}

impl Tracker {
    fn new(root: &RootName, path: &RelPath) -> Self {
        let names = |path: &RelPath| {
            let mut names = vec![root.as_str().as_bytes().to_vec()];
            names.extend(path.components().map(|name| escape_component(name).into_owned()));
            names
        };
        let holder = path.parent().unwrap_or_default();
        let mut to_holder = vec![OWN_DIRECTORY.as_bytes().to_vec(), b"meta".to_vec()];
        to_holder.extend(names(&holder));
        Self {
            name: path.file_name().unwrap_or_default().to_vec(),
            files: Chain::new(names(path)),
            metadata: Chain::new(to_holder),
            recorded: (None, Recorded::default()),
        }
    }

    fn state(&mut self, objects: &ObjectDatabase<'_>, tree: Oid) -> Result<Option<State>> {
        let entry = self.files.follow(objects, tree)?;
        // Metadata that cannot be read says nothing, and hides nothing.
        let holder = self.metadata.follow(objects, tree).unwrap_or_default();
        if holder != self.recorded.0 || holder.is_none() {
            self.recorded = (holder, self.look_up(objects, holder));
        }
        let recorded = &self.recorded.1;
        let record = recorded.record.clone();
        let state = match entry.map(kind_of) {
            Some(None) => return Ok(None),
            Some(Some(EntryKind::Directory)) => {
                State { kind: EntryKind::Directory, entry, record: None, metadata: recorded.directory }
            }
            Some(Some(kind)) => {
                let record = record.filter(|record| record.kind == kind);
                State { kind, entry, record, metadata: None }
            }
            None if recorded.directory.is_some() => {
                State { kind: EntryKind::Directory, entry, record: None, metadata: recorded.directory }
            }
            None => match record.filter(|record| !record.kind.has_content()) {
                Some(record) => State { kind: record.kind, entry, record: Some(record), metadata: None },
                None => return Ok(None),
            },
        };
        Ok(Some(state))
    }

    fn look_up(&self, objects: &ObjectDatabase<'_>, holder: Option<Entry>) -> Recorded {
        let Some(holder) = holder.filter(|entry| entry.is_tree()) else { return Recorded::default() };
        if self.name.is_empty() {
            return Recorded { directory: Some(holder.oid), ..Recorded::default() };
        }
        let child = |name: &[u8]| entry_in(objects, holder.oid, b".backupbot/meta", name).ok().flatten();
        let directory = child(&escape_component(&self.name)).filter(|entry| entry.is_tree());
        let shard =
            child(RECORDS_NAME).and_then(|node| shard_under(objects, node, &self.name).ok().flatten());
        let record = match (shard, &self.recorded.1) {
            (Some(shard), known) if known.shard == Some(shard) => known.record.clone(),
            (Some(shard), _) => record_under(objects, shard, &self.name).ok().flatten(),
            (None, _) => None,
        };
        Recorded { directory: directory.map(|entry| entry.oid), shard, record }
    }
}

#[cfg(test)]
mod tests;
