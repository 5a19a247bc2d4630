//! Two trees side by side: what differs, by path or by object. Equal directories are never opened, so the
//! cost follows the changes and the width of the directories on their paths, not the size of the trees.

use std::cmp::Ordering;
use std::ops::Range;

use git2::{ObjectType, Odb, OdbObject, Oid};

use super::parse::{Cursor, order};
use super::{Entry, MAX_DEPTH, MODE_COMMIT, malformed, read_tree, too_deep};
use crate::error::Result;

/// One path at which two trees differ. Never both `None`, never equal. A file on one side and a directory on
/// the other are two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The path in the repository, escaped.
    pub path: &'a [u8],
    /// What stood there; `None` if added.
    pub old: Option<Entry>,
    /// What stands there; `None` if removed.
    pub new: Option<Entry>,
}

/// Calls `visit` for each tree and blob in `new` that `old` does not have at the same path: every object that
/// a holder of `old` can lack is among them. With it comes what `old` has there, if that is of the same kind. A tree
/// comes before what is in it. `visit` says whether to look into the tree it was given (for blobs the answer is ignored); an id is visited as often as it stands at
/// different paths, so a caller that remembers ids and answers `false` for a known one also stops a tree that
/// names itself many times over.
pub fn diff_new_objects(
    objects: &Odb<'_>,
    old: Option<Oid>,
    new: Oid,
    visit: &mut dyn FnMut(ObjectType, Oid, Option<Oid>) -> Result<bool>,
) -> Result<()> {
    if old == Some(new) || !visit(ObjectType::Tree, new, old)? {
        return Ok(());
    }
    join(objects, old, Some(new), &mut |change| match change.new {
        Some(entry) if change.old.map(|old| old.oid) == Some(entry.oid) || entry.mode == MODE_COMMIT => {
            Ok(false)
        }
        Some(entry) => {
            let kind = if entry.is_tree() { ObjectType::Tree } else { ObjectType::Blob };
            let former = change.old.filter(|old| old.is_tree() == entry.is_tree() && old.mode != MODE_COMMIT);
            visit(kind, entry.oid, former.map(|old| old.oid))
        }
        None => Ok(false),
    })
}

/// Calls `visit` for each file, link or foreign commit that was added, changed or removed between two trees
/// (`None`: the empty tree), in Git's order. Directories are opened, never reported.
pub fn diff_paths(
    objects: &Odb<'_>,
    old: Option<Oid>,
    new: Option<Oid>,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    join(objects, old, new, &mut |change| {
        let is_directory = change.old.or(change.new).is_some_and(Entry::is_tree);
        if !is_directory {
            visit(change)?;
        }
        Ok(is_directory)
    })
}

/// Calls `visit` for each name at which two directories differ, in Git's order, and opens none of them.
pub fn diff_names(
    objects: &Odb<'_>,
    old: Option<Oid>,
    new: Option<Oid>,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    join(objects, old, new, &mut |change| visit(change).map(|()| false))
}

/// One tree being read, an entry ahead.
struct Side<'o> {
    oid: Oid,
    object: OdbObject<'o>,
    cursor: Cursor,
    head: Option<(Range<usize>, Entry)>,
}

impl<'o> Side<'o> {
    fn open(objects: &'o Odb<'_>, oid: Option<Oid>, path: &[u8]) -> Result<Option<Self>> {
        let Some(oid) = oid else { return Ok(None) };
        let object = read_tree(objects, oid, path)?;
        let mut side = Self { oid, object, cursor: Cursor::default(), head: None };
        side.advance(path)?;
        Ok(Some(side))
    }

    fn advance(&mut self, path: &[u8]) -> Result<()> {
        let next = self.cursor.next(self.object.data()).map_err(|e| malformed(self.oid, path, e))?;
        self.head = next.map(|raw| (raw.name_range(), raw.entry));
        Ok(())
    }

    fn head(&self) -> Option<(&[u8], Entry)> {
        self.head.as_ref().map(|(name, entry)| (&self.object.data()[name.clone()], *entry))
    }
}

struct Frame<'o> {
    old: Option<Side<'o>>,
    new: Option<Side<'o>>,
    /// The length of this directory's path, with its slash.
    prefix: usize,
}

impl Frame<'_> {
    /// Takes the next name in Git's order, appends it to `path`, and says what each side has there.
    fn step(&mut self, path: &mut Vec<u8>) -> Result<Option<(Option<Entry>, Option<Entry>)>> {
        let old = self.old.as_ref().and_then(Side::head);
        let new = self.new.as_ref().and_then(Side::head);
        let (name, first) = match (old, new) {
            (None, None) => return Ok(None),
            (Some((name, _)), None) => (name, Ordering::Less),
            (None, Some((name, _))) => (name, Ordering::Greater),
            (Some((old_name, old_entry)), Some((new_name, new_entry))) => {
                let first = order(old_name, old_entry.is_tree(), new_name, new_entry.is_tree());
                (if first == Ordering::Greater { new_name } else { old_name }, first)
            }
        };
        path.extend_from_slice(name);
        let found = (
            old.map(|(_, entry)| entry).filter(|_| first != Ordering::Greater),
            new.map(|(_, entry)| entry).filter(|_| first != Ordering::Less),
        );
        let at = path.get(..self.prefix).unwrap_or_default();
        if let Some(side) = self.old.as_mut().filter(|_| found.0.is_some()) {
            side.advance(at)?;
        }
        if let Some(side) = self.new.as_mut().filter(|_| found.1.is_some()) {
            side.advance(at)?;
        }
        Ok(Some(found))
    }
}

/// Reports every name at which the trees differ and opens the directories for which `on_change` says so.
fn join(
    objects: &Odb<'_>,
    old: Option<Oid>,
    new: Option<Oid>,
    on_change: &mut dyn FnMut(Change<'_>) -> Result<bool>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let mut path = Vec::new();
    let first = Frame { old: Side::open(objects, old, b"")?, new: Side::open(objects, new, b"")?, prefix: 0 };
    let mut frames = vec![first];
    while let Some(frame) = frames.last_mut() {
        path.truncate(frame.prefix);
        let Some((old, new)) = frame.step(&mut path)? else {
            frames.pop();
            continue;
        };
        if old == new || !on_change(Change { path: &path, old, new })? {
            continue;
        }
        let tree = |entry: Option<Entry>| entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid);
        let (old, new) = (tree(old), tree(new));
        if old.is_none() && new.is_none() {
            continue;
        }
        if frames.len() >= MAX_DEPTH {
            return Err(too_deep(&path));
        }
        path.push(b'/');
        let below = Frame {
            old: Side::open(objects, old, &path)?,
            new: Side::open(objects, new, &path)?,
            prefix: path.len(),
        };
        frames.push(below);
    }
    Ok(())
}
