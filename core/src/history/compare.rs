//! What differs between two snapshots, under the names that the user knows: added, changed, deleted, renamed, and what
//! changed in the metadata only.
//!
//! In: two trees, or a path in both. Out: a [`Comparison`], sorted by path. Only directories and shards that differ are
//! read. Directories are told of where they are empty, or where their own mode, owner or attributes changed; that the
//! time of a directory changes with what is added to it and removed from it goes without saying.

mod encoding;
mod fields;
mod renames;

use std::collections::BTreeMap;

use git2::Oid;

use super::Snapshot;
use super::directory::{Located, Node, Place, find, kind_of};
use crate::beneath::EntryKind;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::metadata::{OWN_NAME, RECORDS_NAME, Record, differing_records};
use crate::names::RootName;
use crate::path::{RelPath, unescape_component};
use crate::tree::{Entry, MAX_DEPTH, diff_names};

use encoding::Encoding;
pub use fields::Fields;

/// Differences that are held in memory at most.
const MAX_CHANGES: usize = 2_000_000;
/// Directories that are opened at most, so that a hostile tree ends.
const MAX_DIRECTORIES: usize = 8_000_000;
/// Sentences about unreadable metadata that are kept.
const MAX_DAMAGE: usize = 100;

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was not there.
    Added,
    /// Its content or kind is another.
    Changed,
    /// It is gone.
    Deleted,
    /// It has the content of a path that is gone.
    Renamed {
        /// That path's root.
        root: RootName,
        /// That path.
        path: RelPath,
    },
    /// Only what is recorded of it changed.
    Metadata,
}

impl What {
    /// The letter in listings.
    pub fn letter(&self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'M',
            Self::Deleted => 'D',
            Self::Renamed { .. } => 'R',
            Self::Metadata => 'm',
        }
    }

    /// The word for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Renamed { .. } => "renamed",
            Self::Metadata => "metadata",
        }
    }
}

/// One side of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub kind: EntryKind,
    /// What Git holds, if that differs from the other side.
    pub entry: Option<Entry>,
    /// Bytes of its content, if they are recorded.
    pub size: Option<u64>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The root.
    pub root: RootName,
    /// The path in it, in the newer snapshot if it is there.
    pub path: RelPath,
    /// What happened.
    pub what: What,
    /// As it was.
    pub old: Option<Side>,
    /// As it is.
    pub new: Option<Side>,
    /// Which parts of the metadata changed, where both sides have some.
    pub fields: Fields,
}

/// All differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By root and path.
    pub changes: Vec<Change>,
    /// What of the metadata could not be read, in words.
    pub damage: Vec<String>,
}

/// Compares two snapshots as wholes.
///
/// # Errors
/// [`Kind::Git`] if a tree cannot be read, or if there are more differences than can be held.
pub fn snapshots(objects: &ObjectDatabase<'_>, old: &Snapshot, new: &Snapshot) -> Result<Comparison> {
    let mut roots: BTreeMap<RootName, (Option<Place>, Option<Place>)> = BTreeMap::new();
    for root in old.roots(objects)? {
        roots.entry(root.name).or_default().0 = Some(root.place);
    }
    for root in new.roots(objects)? {
        roots.entry(root.name).or_default().1 = Some(root.place);
    }
    let encoding = Encoding::between(objects, old.tree, new.tree)?;
    let mut comparer = Comparer::new(objects, encoding);
    for (root, (old, new)) in roots {
        comparer.root(&root, RelPath::root(), old, new)?;
    }
    comparer.finish()
}

/// Compares what stands at `path` of `root` in both.
///
/// # Errors
/// As [`snapshots`].
pub fn within(
    objects: &ObjectDatabase<'_>,
    old: &Snapshot,
    new: &Snapshot,
    root: &RootName,
    path: &RelPath,
) -> Result<Comparison> {
    let encoding = Encoding::between(objects, old.tree, new.tree)?;
    let mut comparer = Comparer::new(objects, encoding);
    let located = |snapshot: &Snapshot| find(objects, snapshot.tree, root, path);
    let (old, new) = (Half::of(located(old)?), Half::of(located(new)?));
    comparer.pair(root, path.clone(), &old, &new)?;
    comparer.drain(root)?;
    comparer.finish()
}

/// What one side has under a name: something with content or a record, a directory, or nothing.
#[derive(Default)]
struct Half {
    entry: Option<Entry>,
    record: Option<Record>,
    metadata: Option<Oid>,
}

impl Half {
    fn of(located: Option<Located>) -> Self {
        let Some(Located { node: Node { kind, entry, record, metadata, .. }, .. }) = located else {
            return Self::default();
        };
        let record = record.filter(|_| kind != EntryKind::Directory);
        Self { entry, record, metadata }
    }

    fn directory(&self) -> Option<Place> {
        let files = self.entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid);
        let is_directory = files.is_some() || (self.entry.is_none() && self.metadata.is_some());
        is_directory.then_some(Place { files, metadata: self.metadata })
    }

    /// What is there if it is no directory. Without an entry only what needs none: a file's record alone says that the
    /// file is the same on both sides.
    fn leaf(&self) -> Option<Side> {
        let kind = match self.entry {
            Some(entry) => kind_of(entry)?,
            None if self.directory().is_some() => return None,
            None => self.record.as_ref()?.kind,
        };
        let size = self.record.as_ref().and_then(|record| record.size);
        let is_leaf = kind != EntryKind::Directory && (self.entry.is_some() || !kind.has_content());
        is_leaf.then_some(Side { kind, entry: self.entry, size })
    }
}

struct Frame {
    path: RelPath,
    old: Option<Place>,
    new: Option<Place>,
}

struct Comparer<'c, 'o> {
    objects: &'c ObjectDatabase<'o>,
    encoding: Encoding,
    found: Comparison,
    waiting: Vec<Frame>,
    opened: usize,
}

impl<'c, 'o> Comparer<'c, 'o> {
    fn new(objects: &'c ObjectDatabase<'o>, encoding: Encoding) -> Self {
        Self { objects, encoding, found: Comparison::default(), waiting: Vec::new(), opened: 0 }
    }

    fn finish(self) -> Result<Comparison> {
        let mut found = self.found;
        found.changes = renames::pair(found.changes);
        found
            .changes
            .sort_by(|a, b| (&a.root, &a.path, a.what.letter()).cmp(&(&b.root, &b.path, b.what.letter())));
        Ok(found)
    }

    fn root(&mut self, root: &RootName, path: RelPath, old: Option<Place>, new: Option<Place>) -> Result<()> {
        self.push(path, old, new)?;
        self.drain(root)
    }

    fn push(&mut self, path: RelPath, old: Option<Place>, new: Option<Place>) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if path.components().count() > MAX_DEPTH {
            return Err(Error::new(Kind::Git, "more directories below each other than any backup has"));
        }
        self.waiting.push(Frame { path, old, new });
        Ok(())
    }

    fn drain(&mut self, root: &RootName) -> Result<()> {
        while let Some(frame) = self.waiting.pop() {
            self.opened += 1;
            let is_too_much = self.opened > MAX_DIRECTORIES
                || self.waiting.len() > MAX_CHANGES
                || self.found.changes.len() > MAX_CHANGES;
            if is_too_much {
                let text = format!("more than {MAX_CHANGES} differences: narrow them with --path");
                return Err(Error::new(Kind::Git, text));
            }
            self.directory(root, frame)?;
        }
        Ok(())
    }

    fn directory(&mut self, root: &RootName, frame: Frame) -> Result<()> {
        let Frame { path, old, new } = frame;
        let mut halves: BTreeMap<Vec<u8>, (Half, Half)> = BTreeMap::new();
        let files = |place: Option<Place>| place.and_then(|place| place.files);
        diff_names(self.objects, files(old), files(new), &mut |change| {
            // What is no name of a user's is none here: a walk tells of it.
            let Some(name) = unescape_component(change.path) else { return Ok(()) };
            let halves = halves.entry(name.into_owned()).or_default();
            halves.0.entry = halves.0.entry.or(change.old);
            halves.1.entry = halves.1.entry.or(change.new);
            Ok(())
        })?;
        let own = self.metadata(old, new, &mut halves);
        let mut came_or_went = false;
        let is_empty = halves.is_empty();
        for (name, (old_half, new_half)) in halves {
            let is_there = |half: &Half| half.leaf().is_some() || half.directory().is_some();
            came_or_went |= is_there(&old_half) != is_there(&new_half);
            self.pair(root, path.join(&name), &old_half, &new_half)?;
        }
        self.itself(root, path, (old, new), &own, is_empty, came_or_went);
        Ok(())
    }

    /// Puts what differs in the metadata with the names; the records of the directory itself are given back.
    fn metadata(
        &mut self,
        old: Option<Place>,
        new: Option<Place>,
        halves: &mut BTreeMap<Vec<u8>, (Half, Half)>,
    ) -> (Option<Record>, Option<Record>) {
        let tree = |place: Option<Place>| place.and_then(|place| place.metadata);
        let mut nodes = (None, None);
        let joined = diff_names(self.objects, tree(old), tree(new), &mut |change| {
            let directory = |entry: Option<Entry>| entry.filter(|entry| entry.is_tree()).map(|it| it.oid);
            if change.path == RECORDS_NAME {
                nodes.0 = nodes.0.or(change.old);
                nodes.1 = nodes.1.or(change.new);
            } else if let Some(name) = unescape_component(change.path) {
                let halves = halves.entry(name.into_owned()).or_default();
                halves.0.metadata = halves.0.metadata.or(directory(change.old));
                halves.1.metadata = halves.1.metadata.or(directory(change.new));
            }
            Ok(())
        });
        self.damaged(joined.err().map(|error| error.to_string()));
        let (records, damage) = differing_records(self.objects, nodes.0, nodes.1);
        self.damaged(damage);
        let mut own = (None, None);
        for change in records {
            if change.name == OWN_NAME {
                own = (change.old, change.new);
                continue;
            }
            let halves = halves.entry(change.name).or_default();
            halves.0.record = change.old;
            halves.1.record = change.new;
        }
        own
    }

    fn damaged(&mut self, more: impl IntoIterator<Item = String>) {
        let room = MAX_DAMAGE.saturating_sub(self.found.damage.len());
        self.found.damage.extend(more.into_iter().take(room));
    }

    /// The directory itself: empty and new, empty and gone, or with another record.
    fn itself(
        &mut self,
        root: &RootName,
        path: RelPath,
        places: (Option<Place>, Option<Place>),
        own: &(Option<Record>, Option<Record>),
        is_empty: bool,
        came_or_went: bool,
    ) {
        let side = Some(Side { kind: EntryKind::Directory, entry: None, size: None });
        let mut fields = Fields::between(own.0.as_ref(), own.1.as_ref());
        if came_or_went {
            fields.mtime = false;
        }
        let (what, old, new) = match places {
            (None, Some(_)) if is_empty => (What::Added, None, side),
            (Some(_), None) if is_empty => (What::Deleted, side, None),
            (Some(_), Some(_)) if fields.any() => (What::Metadata, side, side),
            _ => return,
        };
        self.found.changes.push(Change { root: root.clone(), path, what, old, new, fields });
    }

    fn pair(&mut self, root: &RootName, path: RelPath, old: &Half, new: &Half) -> Result<()> {
        self.push(path.clone(), old.directory(), new.directory())?;
        let records = (old.record.as_ref(), new.record.as_ref());
        let mut fields = Fields::between(records.0, records.1);
        self.encoding.settle(&mut fields, records.0, records.1);
        let (old_side, new_side) = (old.leaf(), new.leaf());
        let what = match (old_side, new_side) {
            (None, None) => {
                let is_directory = old.directory().is_some() || new.directory().is_some();
                let is_recorded_anew = old.record.is_some() != new.record.is_some();
                if !is_directory && (fields.any() || is_recorded_anew) {
                    self.only_recorded(root, path, old, new, fields);
                }
                return Ok(());
            }
            (None, Some(_)) => What::Added,
            (Some(_), None) => What::Deleted,
            (Some(old), Some(new))
                if is_same_content(old, new)
                    || is_same_file(old, new) && self.encoding.is_same_content(records.0, records.1) =>
            {
                fields.mode |= old.entry.map(|entry| entry.mode) != new.entry.map(|entry| entry.mode);
                if !fields.any() {
                    return Ok(());
                }
                What::Metadata
            }
            (Some(_), Some(_)) => {
                fields.content = false;
                What::Changed
            }
        };
        let change = Change { root: root.clone(), path, what, old: old_side, new: new_side, fields };
        self.found.changes.push(change);
        Ok(())
    }

    /// Of a file that Git holds the same on both sides.
    fn only_recorded(&mut self, root: &RootName, path: RelPath, old: &Half, new: &Half, fields: Fields) {
        let side = |half: &Half| {
            let record = half.record.as_ref()?;
            Some(Side { kind: record.kind, entry: None, size: record.size })
        };
        let (old, new) = (side(old).or(side(new)), side(new).or(side(old)));
        self.found.changes.push(Change { root: root.clone(), path, what: What::Metadata, old, new, fields });
    }
}

fn is_same_content(old: Side, new: Side) -> bool {
    let oid = |side: Side| side.entry.map(|entry| entry.oid);
    old.kind == new.kind && oid(old) == oid(new)
}

fn is_same_file(old: Side, new: Side) -> bool {
    old.kind == EntryKind::File && new.kind == EntryKind::File
}

#[cfg(test)]
mod tests;
