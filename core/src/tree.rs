//! Git trees: reading them strictly, editing them along changed paths only, and comparing two of them.
//!
//! In: object ids and paths in the repository (already escaped, see [`crate::path`]). Out: new tree objects,
//! handed to a [`TreeSink`], and the id of the new root. Trees come from remotes too, so every one is taken
//! for hostile: whatever is not exactly Git's format is an [`Error`], and neither depth nor order of what is
//! read can overflow the stack, because every descent here keeps its frames on the heap and ends at
//! [`MAX_DEPTH`].

mod diff;
mod edit;
#[cfg(test)]
pub(crate) mod judge;
mod parse;
#[cfg(test)]
mod tests;
mod trail;

use std::ops::Range;

use git2::{ObjectType, Odb, OdbObject, Oid};

use crate::error::{Error, Kind, Result};
use crate::path::lossy;

pub use diff::{Change, diff_names, diff_new_objects, diff_paths};
pub use edit::{Edits, apply};
pub use parse::{Entries, Malformed, RawEntry, parse, serialize};
pub use trail::Trail;

/// A regular file.
pub const MODE_FILE: u32 = 0o100_644;
/// A regular file with the executable bit.
pub const MODE_EXECUTABLE: u32 = 0o100_755;
/// A symbolic link; the blob is its target.
pub const MODE_SYMLINK: u32 = 0o120_000;
/// A directory.
pub const MODE_TREE: u32 = 0o40_000;
/// A commit of another repository. Read, because an adopted history can hold one; never written.
pub const MODE_COMMIT: u32 = 0o160_000;

/// Directories below each other that are followed at most; Linux cannot name a deeper one in one call.
pub const MAX_DEPTH: usize = 4096;

/// A tree object that is longer is not read: four million names.
const MAX_BYTES: usize = 256 << 20;

/// What a name stands for in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// One of the `MODE_*` constants.
    pub mode: u32,
    /// The object.
    pub oid: Oid,
}

impl Entry {
    /// A directory.
    pub fn tree(oid: Oid) -> Self {
        Self { mode: MODE_TREE, oid }
    }

    /// Whether this is a directory.
    pub fn is_tree(self) -> bool {
        self.mode == MODE_TREE
    }
}

/// Where new objects go: the pack of a batch, or an object database.
pub trait TreeSink {
    /// Takes one object and says its id. An object that is already there may be written once more.
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid>;
}

/// Loose objects, without any promise of durability: for tests and for tools.
impl TreeSink for Odb<'_> {
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid> {
        Odb::write(self, kind, data)
            .map_err(|e| Error::with_source(Kind::Git, format!("cannot write a {kind} object"), e))
    }
}

/// A tree that is kept to look up several names in it.
pub struct Listing<'o> {
    object: OdbObject<'o>,
    entries: Vec<(Range<usize>, Entry)>,
}

impl<'o> Listing<'o> {
    /// Reads and checks the tree `oid`, which stands at `path`.
    pub fn read(objects: &'o Odb<'_>, oid: Oid, path: &[u8]) -> Result<Self> {
        let object = read_tree(objects, oid, path)?;
        let mut entries = Vec::new();
        let mut cursor = parse::Cursor::default();
        while let Some(raw) = cursor.next(object.data()).map_err(|e| malformed(oid, path, e))? {
            entries.push((raw.name_range(), raw.entry));
        }
        Ok(Self { object, entries })
    }

    /// What stands under `name`.
    pub fn get(&self, name: &[u8]) -> Option<Entry> {
        let data = self.object.data();
        [false, true].into_iter().find_map(|as_tree| {
            let found = self
                .entries
                .binary_search_by(|(at, entry)| {
                    parse::order(&data[at.clone()], entry.is_tree(), name, as_tree)
                })
                .ok()?;
            Some(self.entries[found].1)
        })
    }

    /// Every name, in Git's order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Entry)> {
        self.entries.iter().map(|(at, entry)| (&self.object.data()[at.clone()], *entry))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether this is the empty tree.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What stands at `path` below the tree `base`; the empty path is `base` itself.
pub fn lookup(objects: &Odb<'_>, base: Oid, path: &[u8]) -> Result<Option<Entry>> {
    let mut current = Entry::tree(base);
    if path.is_empty() {
        return Ok(Some(current));
    }
    let mut walked = 0;
    for component in path.split(|b| *b == b'/') {
        if !current.is_tree() {
            return Ok(None);
        }
        let at = path.get(..walked).unwrap_or_default();
        match entry_in(objects, current.oid, at, component)? {
            Some(entry) => current = entry,
            None => return Ok(None),
        }
        walked += component.len() + 1;
    }
    Ok(Some(current))
}

/// What stands under `name` in the tree `tree`, which stands at `path`.
pub fn entry_in(objects: &Odb<'_>, tree: Oid, path: &[u8], name: &[u8]) -> Result<Option<Entry>> {
    let object = read_tree(objects, tree, path)?;
    for raw in parse(object.data()) {
        let raw = raw.map_err(|e| malformed(tree, path, e))?;
        if raw.name == name {
            return Ok(Some(raw.entry));
        }
    }
    Ok(None)
}

fn read_tree<'o>(objects: &'o Odb<'_>, oid: Oid, path: &[u8]) -> Result<OdbObject<'o>> {
    let fail =
        |e| Error::with_source(Kind::Git, format!("cannot read the tree {oid} at {:?}", lossy(path)), e);
    // A few kilobytes of a pack can inflate to gigabytes.
    let (size, _) = objects.read_header(oid).map_err(fail)?;
    if size > MAX_BYTES {
        let text = format!(
            "the tree {oid} at {:?} has {size} bytes, more than the {MAX_BYTES} that are read",
            lossy(path)
        );
        return Err(Error::new(Kind::Git, text));
    }
    let object = objects.read(oid).map_err(fail)?;
    if object.kind() != ObjectType::Tree {
        let text = format!("the object {oid} at {:?} is a {}, not a tree", lossy(path), object.kind());
        return Err(Error::new(Kind::Git, text));
    }
    Ok(object)
}

fn malformed(oid: Oid, path: &[u8], source: Malformed) -> Error {
    Error::with_source(
        Kind::Git,
        format!("the tree {oid} at {:?} is damaged or hostile", lossy(path)),
        source,
    )
}

fn too_deep(path: &[u8]) -> Error {
    let start = path.get(..80).unwrap_or(path);
    let text = format!("more than {MAX_DEPTH} directories below each other, beginning {:?}", lossy(start));
    Error::new(Kind::Git, text)
}
