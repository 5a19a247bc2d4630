//! One directory of a snapshot: what Git holds of it, joined with what the metadata says, under the names that the
//! user knows. Git's tree is the truth for contents; a record that contradicts it, or cannot be read, is left out and
//! told in a [`Remark`], and no damage of the metadata makes a directory unreadable.
//!
//! In: the ids of a directory's two trees ([`Place`]), so that going down costs no lookup from the top. Out: a
//! [`Directory`]; a whole subtree by [`Walk`]; a single path by [`find`].

use std::collections::BTreeSet;
use std::fmt;

use git2::Oid;

use crate::beneath::EntryKind;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::metadata::{self, OWN_NAME, Record, find_record, read_what_is_there};
use crate::names::RootName;
use crate::path::{RelPath, lossy, unescape_component};
use crate::tree::{Entry, Listing, MAX_DEPTH, MODE_COMMIT, MODE_EXECUTABLE, MODE_SYMLINK, MODE_TREE, lookup};

/// What the directories that wait in a walk take of memory at most: enough for a million of them.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// What we write into directories that need it; never the user's, whose file of this name is escaped.
const OWN_FILE: &[u8] = b".gitattributes";

/// The two trees of one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Git's, with contents and subdirectories; `None` if nothing in or below it has content.
    pub files: Option<Oid>,
    /// The metadata's; `None` if there is none.
    pub metadata: Option<Oid>,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name as the user knows it: not escaped, never empty, `.` or `..`, without slash and NUL. Only the node that
    /// [`find`] gives for a root itself has an empty one.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// What Git holds: mode and object. `None` for special files and for directories without any content.
    pub entry: Option<Entry>,
    /// What the metadata says. Of a directory it is in the directory itself ([`Directory::own`], [`own_record`]), and
    /// here only in the node that [`find`] gives.
    pub record: Option<Record>,
    /// The metadata directory, of a directory.
    pub metadata: Option<Oid>,
}

impl Node {
    /// Where to read the directory that this is; `None` if it is no directory.
    pub fn place(&self) -> Option<Place> {
        let files = self.entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid);
        (self.kind == EntryKind::Directory).then_some(Place { files, metadata: self.metadata })
    }
}

/// What did not fit together, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The name in the directory, as far as it is known; empty for the directory itself.
    pub name: Vec<u8>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nothing is recorded of a whole directory, as in a commit that another program made.
    NoMetadata,
    /// Some or all records of a directory cannot be read; the words say why.
    Damaged(String),
    /// Git holds it and nothing is recorded of it.
    Unrecorded,
    /// The record and Git contradict each other; the record was left out.
    Contradicted,
    /// It is recorded, and Git does not hold its content.
    Missing,
    /// A commit of another repository, whose files are not here.
    Gitlink,
    /// A name that no backup writes. It is given as Git has it, and left out.
    ImpossibleName,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMetadata => "no owner, mode, time or attribute is recorded for what is in it",
            Self::Damaged(why) => return write!(f, "its records cannot be read: {why}"),
            Self::Unrecorded => "no owner, mode, time or attribute is recorded for it",
            Self::Contradicted => "what is recorded contradicts what Git holds, and does not count",
            Self::Missing => "it is recorded, but Git does not hold its content",
            Self::Gitlink => "it is a link to a commit of another repository, whose files are not here",
            Self::ImpossibleName => "no backup writes such a name; it is left out",
        })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return self.problem.fmt(f);
        }
        write!(f, "{}: {}", lossy(&self.name), self.problem)
    }
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The record of the directory itself.
    pub own: Option<Record>,
    /// What is in it, in the order of the names, each once.
    pub nodes: Vec<Node>,
    /// What did not fit.
    pub remarks: Vec<Remark>,
}

impl Directory {
    /// Reads the directory at `path` of `root` in a snapshot's tree; `None` if there is none.
    ///
    /// # Errors
    /// As [`Directory::at`].
    pub fn read(
        objects: &ObjectDatabase<'_>,
        tree: Oid,
        root: &RootName,
        path: &RelPath,
    ) -> Result<Option<Self>> {
        let found = find(objects, tree, root, path)?;
        match found.and_then(|located| located.node.place()) {
            Some(place) => Self::at(objects, place, root, path).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the directory with these trees; `root` and `path` are for messages.
    ///
    /// # Errors
    /// [`Kind::Git`] if Git's own tree cannot be read or breaks Git's rules, such as by naming something twice.
    pub fn at(objects: &ObjectDatabase<'_>, place: Place, root: &RootName, path: &RelPath) -> Result<Self> {
        let mut directory = Self::default();
        if let Some(files) = place.files {
            directory.take_files(objects, files, &path.to_git_path(root))?;
        }
        match place.metadata {
            Some(metadata) => {
                directory.take_metadata(objects, metadata, &metadata::directory_path(root, path));
            }
            None => directory.remark(b"", Problem::NoMetadata),
        }
        Ok(directory)
    }

    fn remark(&mut self, name: &[u8], problem: Problem) {
        self.remarks.push(Remark { name: name.to_vec(), problem });
    }

    fn take_files(&mut self, objects: &ObjectDatabase<'_>, tree: Oid, path: &[u8]) -> Result<()> {
        let listing = Listing::read(objects, tree, path)?;
        self.nodes.reserve_exact(listing.len());
        for (stored, entry) in listing.iter() {
            if stored == OWN_FILE {
                continue;
            }
            let Some(name) = unescape_component(stored) else {
                self.remark(stored, Problem::ImpossibleName);
                continue;
            };
            let Some(kind) = kind_of(entry) else {
                self.remark(&name, Problem::Gitlink);
                continue;
            };
            let name = name.into_owned();
            self.nodes.push(Node { name, kind, entry: Some(entry), record: None, metadata: None });
        }
        self.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    fn take_metadata(&mut self, objects: &ObjectDatabase<'_>, tree: Oid, path: &[u8]) {
        let readable = read_what_is_there(objects, tree, path);
        let is_damaged = !readable.damage.is_empty();
        for why in readable.damage {
            self.remark(b"", Problem::Damaged(why));
        }
        self.own = readable.own;
        let mut only_recorded: Vec<Node> = Vec::new();
        for (name, metadata) in readable.directories {
            match self.position(&name) {
                Some(at) if self.nodes[at].kind == EntryKind::Directory => {
                    self.nodes[at].metadata = Some(metadata);
                }
                Some(_) => self.remark(&name, Problem::Contradicted),
                None => only_recorded.push(Node {
                    name,
                    kind: EntryKind::Directory,
                    entry: None,
                    record: None,
                    metadata: Some(metadata),
                }),
            }
        }
        let directories = only_recorded.len();
        for record in readable.records {
            match self.position(&record.name) {
                Some(at) if agrees(&self.nodes[at], &record) => self.nodes[at].record = Some(record),
                Some(_) => self.remark(&record.name, Problem::Contradicted),
                None if record.kind.has_content() => self.remark(&record.name, Problem::Missing),
                None => {
                    let as_directory = only_recorded[..directories]
                        .binary_search_by(|node| node.name.as_slice().cmp(&record.name));
                    if as_directory.is_ok() {
                        self.remark(&record.name, Problem::Contradicted);
                        continue;
                    }
                    let (name, kind) = (record.name.clone(), record.kind);
                    let record = Some(record);
                    only_recorded.push(Node { name, kind, entry: None, record, metadata: None });
                }
            }
        }
        if !is_damaged {
            self.remark_on_the_unrecorded();
        }
        self.nodes.append(&mut only_recorded);
        self.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }

    fn remark_on_the_unrecorded(&mut self) {
        if self.own.is_none() {
            self.remark(b"", Problem::Unrecorded);
        }
        let contradicted: BTreeSet<&[u8]> =
            self.remarks.iter().map(|remark| remark.name.as_slice()).collect();
        let unrecorded = self.nodes.iter().filter(|node| {
            node.kind.has_content() && node.record.is_none() && !contradicted.contains(node.name.as_slice())
        });
        let names: Vec<Vec<u8>> = unrecorded.map(|node| node.name.clone()).collect();
        for name in names {
            self.remark(&name, Problem::Unrecorded);
        }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).ok()
    }
}

/// What a tree's entry is on disk; `None` for what no root can hold.
pub(super) fn kind_of(entry: Entry) -> Option<EntryKind> {
    match entry.mode {
        MODE_TREE => Some(EntryKind::Directory),
        MODE_SYMLINK => Some(EntryKind::Symlink),
        MODE_COMMIT => None,
        _ => Some(EntryKind::File),
    }
}

/// Whether the record can be of what Git holds.
fn agrees(node: &Node, record: &Record) -> bool {
    let is_executable = node.entry.is_some_and(|entry| entry.mode == MODE_EXECUTABLE);
    node.kind == record.kind && (node.kind != EntryKind::File || is_executable == (record.mode & 0o100 != 0))
}

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// It, with its record, also if it is a directory.
    pub node: Node,
    /// What did not fit.
    pub remarks: Vec<Remark>,
}

/// Looks one path up, without reading the records of its neighbours; `None` if nothing is there.
///
/// # Errors
/// [`Kind::Git`] if one of Git's own trees on the way cannot be read.
pub fn find(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    path: &RelPath,
) -> Result<Option<Located>> {
    let entry = lookup(objects, tree, &path.to_git_path(root))?;
    let own_metadata = lookup(objects, tree, &metadata::directory_path(root, path));
    let (own_metadata, damage) = or_damage(own_metadata);
    let own_metadata = own_metadata.filter(|entry| entry.is_tree()).map(|entry| entry.oid);
    let name = path.file_name().unwrap_or_default().to_vec();
    let mut located = Located {
        node: Node { name, kind: EntryKind::Directory, entry, record: None, metadata: None },
        remarks: damage.into_iter().collect(),
    };
    match entry.map(kind_of) {
        Some(None) => return Ok(None),
        Some(Some(EntryKind::Directory)) => located.node.metadata = own_metadata,
        Some(Some(kind)) => {
            located.node.kind = kind;
            let (record, damage) = or_damage(recorded_in_parent(objects, tree, root, path));
            located.remarks.extend(damage);
            located.judge(record);
            return Ok(Some(located));
        }
        None if own_metadata.is_some() => located.node.metadata = own_metadata,
        None => {
            let (record, damage) = or_damage(recorded_in_parent(objects, tree, root, path));
            located.remarks.extend(damage);
            let Some(record) = record.filter(|record| !record.kind.has_content()) else { return Ok(None) };
            located.node.kind = record.kind;
            located.node.record = Some(record);
            return Ok(Some(located));
        }
    }
    match located.node.metadata {
        Some(metadata) => {
            let at = metadata::directory_path(root, path);
            let (record, damage) = or_damage(find_record(objects, metadata, &at, OWN_NAME));
            located.remarks.extend(damage);
            located.node.record = record;
        }
        None => located.remarks.push(Remark { name: Vec::new(), problem: Problem::NoMetadata }),
    }
    Ok(Some(located))
}

impl Located {
    fn judge(&mut self, record: Option<Record>) {
        let problem = match record {
            Some(record) if agrees(&self.node, &record) => {
                self.node.record = Some(record);
                return;
            }
            Some(_) => Problem::Contradicted,
            None if self.remarks.is_empty() => Problem::Unrecorded,
            None => return,
        };
        self.remarks.push(Remark { name: Vec::new(), problem });
    }
}

fn or_damage<T>(read: Result<Option<T>>) -> (Option<T>, Option<Remark>) {
    match read {
        Ok(found) => (found, None),
        Err(error) => {
            let problem = Problem::Damaged(error.to_string());
            (None, Some(Remark { name: Vec::new(), problem }))
        }
    }
}

fn recorded_in_parent(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    path: &RelPath,
) -> Result<Option<Record>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let at = metadata::directory_path(root, &parent);
    match lookup(objects, tree, &at)? {
        Some(entry) => find_record(objects, entry.oid, &at, name),
        None => Ok(None),
    }
}

/// The record of a directory that another one holds, whose own path is `path`.
///
/// # Errors
/// [`Kind::Git`] if it cannot be read.
pub fn own_record(
    objects: &ObjectDatabase<'_>,
    node: &Node,
    root: &RootName,
    path: &RelPath,
) -> Result<Option<Record>> {
    match node.metadata {
        Some(metadata) => find_record(objects, metadata, &metadata::directory_path(root, path), OWN_NAME),
        None => Ok(None),
    }
}

/// All directories from one downwards, each before those in it, those of one directory in the order of their names.
///
/// What cannot be read comes as an error beside its path; the walk goes on with the rest. It holds one directory, and
/// the names of those that wait: a tree that needs more than is reasonable ends it with an error.
pub struct Walk<'w, 'o> {
    objects: &'w ObjectDatabase<'o>,
    root: &'w RootName,
    /// The next one last.
    waiting: Vec<(RelPath, Place)>,
    bytes: usize,
}

impl<'w, 'o> Walk<'w, 'o> {
    /// Begins at the directory `path` of `root`, which has the trees `place`.
    pub fn new(objects: &'w ObjectDatabase<'o>, root: &'w RootName, path: RelPath, place: Place) -> Self {
        Self { objects, root, bytes: cost(&path), waiting: vec![(path, place)] }
    }

    fn push_directories(&mut self, path: &RelPath, directory: &Directory) -> Result<()> {
        let before = self.waiting.len();
        for node in directory.nodes.iter().rev() {
            let Some(place) = node.place() else { continue };
            let below = path.join(&node.name);
            self.bytes += cost(&below);
            self.waiting.push((below, place));
            if self.bytes > MAX_WAITING_BYTES {
                return Err(self.end(path, "more directories beside each other"));
            }
        }
        if self.waiting.len() > before && path.components().count() >= MAX_DEPTH {
            return Err(self.end(path, "more directories below each other"));
        }
        Ok(())
    }

    fn end(&mut self, path: &RelPath, what: &str) -> Error {
        self.waiting.clear();
        let shown: String = path.to_string().chars().take(200).collect();
        let text = format!("below {}/{shown}: {what} than any backup has; the rest is left out", self.root);
        Error::new(Kind::Git, text)
    }
}

fn cost(path: &RelPath) -> usize {
    path.as_bytes().len() + size_of::<(RelPath, Place)>()
}

impl Iterator for Walk<'_, '_> {
    type Item = (RelPath, Result<Directory>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, place) = self.waiting.pop()?;
        self.bytes -= cost(&path);
        let read = Directory::at(self.objects, place, self.root, &path);
        let read = match read {
            Ok(directory) => self.push_directories(&path, &directory).map(|()| directory),
            Err(error) => Err(error),
        };
        Some((path, read))
    }
}

#[cfg(test)]
mod tests;
