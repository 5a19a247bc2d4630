//! Which watch stands for which directory, in about 150 bytes a directory.
//!
//! A watch belongs to a directory wherever it is moved, so a node holds its parent and its own name, never a
//! path: a rename moves one node and every path below it is right again. In go watch descriptors with their
//! places, out come paths. A node can be detached for the moment between the two events of a rename; paths
//! below it are unknown meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::path::RelPath;

/// A watch descriptor, as the kernel counts them; never negative.
pub(super) type Watch = i32;

/// The parent of a detached node.
const NOWHERE: Watch = -1;
/// The parent of the root.
const ABOVE_ROOT: Watch = -2;

#[derive(Debug)]
struct Node {
    parent: Watch,
    name: Arc<[u8]>,
    /// The walk that saw it last.
    walk: u32,
}

/// What [`Table::place`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The directory was not watched before.
    New,
    /// It was watched, and stands where it stood.
    Known,
    /// It was watched, but stood elsewhere or nowhere: whatever is below it is at a new path too.
    Moved,
    /// It has a place already that the same walk saw, or this place would be below itself; nothing was changed.
    Twice,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: HashMap<Watch, Node>,
    children: BTreeMap<(Watch, Arc<[u8]>), Watch>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn place_root(&mut self, watch: Watch, walk: u32) {
        self.nodes.insert(watch, Node { parent: ABOVE_ROOT, name: Arc::from([]), walk });
    }

    /// The path of the directory; none if it is unknown or at present detached.
    pub fn path(&self, watch: Watch) -> Option<RelPath> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = self.nodes.get(&watch)?;
        while at.parent != ABOVE_ROOT {
            names.push(&at.name);
            at = self.nodes.get(&at.parent)?;
        }
        names.reverse();
        RelPath::new(names.join(&b'/')).ok()
    }

    /// The watch of the directory `name` in `parent`.
    pub fn child(&self, parent: Watch, name: &[u8]) -> Option<Watch> {
        self.children.get(&(parent, Arc::from(name))).copied()
    }

    /// The watch of the directory at `path` below `root`.
    pub fn find(&self, root: Watch, path: &RelPath) -> Option<Watch> {
        path.components().try_fold(root, |at, name| self.child(at, name))
    }

    /// Says that `watch` stands for `name` in `parent`, as `walk` sees it. A watch that stood for that name is
    /// detached, and returned so that it can be dropped with all below it.
    pub fn place(&mut self, watch: Watch, parent: Watch, name: &[u8], walk: u32) -> (Placed, Option<Watch>) {
        if let Some(node) = self.nodes.get(&watch) {
            let here = node.parent == parent && *node.name == *name;
            if !here && (node.walk == walk && node.parent != NOWHERE || self.is_at_or_above(watch, parent)) {
                return (Placed::Twice, None);
            }
            if here {
                self.see(watch, walk);
                return (Placed::Known, None);
            }
        }
        let known = self.nodes.contains_key(&watch);
        if known {
            self.detach(watch);
        }
        let name: Arc<[u8]> = Arc::from(name);
        let evicted = self.children.insert((parent, Arc::clone(&name)), watch);
        if let Some(node) = evicted.and_then(|evicted| self.nodes.get_mut(&evicted)) {
            node.parent = NOWHERE;
        }
        self.nodes.insert(watch, Node { parent, name, walk });
        (if known { Placed::Moved } else { Placed::New }, evicted)
    }

    fn is_at_or_above(&self, watch: Watch, below: Watch) -> bool {
        let mut at = below;
        loop {
            if at == watch {
                return true;
            }
            let Some(node) = self.nodes.get(&at) else { return false };
            at = node.parent;
        }
    }

    /// Stamps a directory as seen by `walk`.
    pub fn see(&mut self, watch: Watch, walk: u32) {
        if let Some(node) = self.nodes.get_mut(&watch) {
            node.walk = walk;
        }
    }

    /// Takes a directory out of its place, with all below it.
    pub fn detach(&mut self, watch: Watch) {
        let Some(node) = self.nodes.get_mut(&watch) else { return };
        if node.parent == NOWHERE || node.parent == ABOVE_ROOT {
            return;
        }
        let key = (node.parent, Arc::clone(&node.name));
        node.parent = NOWHERE;
        self.children.remove(&key);
    }

    /// Removes a directory and all below it; returns their watches, its own first.
    pub fn remove(&mut self, watch: Watch) -> Vec<Watch> {
        if !self.nodes.contains_key(&watch) {
            return Vec::new();
        }
        self.detach(watch);
        let removed = self.subtree(watch);
        for gone in &removed {
            if let Some(node) = self.nodes.remove(gone) {
                self.children.remove(&(node.parent, node.name));
            }
        }
        removed
    }

    /// A directory and all directories below it.
    fn subtree(&self, watch: Watch) -> Vec<Watch> {
        let mut found = vec![watch];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            found.extend(self.children_of(at));
            next += 1;
        }
        found
    }

    fn children_of(&self, watch: Watch) -> impl Iterator<Item = Watch> {
        let from = (watch, Arc::from([]));
        self.children
            .range(from..)
            .take_while(move |((parent, _), _)| *parent == watch)
            .map(|(_, child)| *child)
    }

    /// Removes what `walk` should have seen at or below `top` and did not; returns the watches.
    pub fn remove_unseen(&mut self, top: Watch, walk: u32) -> Vec<Watch> {
        let unseen: Vec<Watch> = self
            .subtree(top)
            .into_iter()
            .filter(|watch| self.nodes.get(watch).is_some_and(|node| node.walk != walk))
            .collect();
        unseen.into_iter().flat_map(|watch| self.remove(watch)).collect()
    }

    /// Removes everything that is not below `root`: what is detached.
    pub fn remove_detached(&mut self, root: Watch) -> Vec<Watch> {
        let tops: Vec<Watch> = self
            .nodes
            .iter()
            .filter(|(watch, node)| node.parent == NOWHERE && **watch != root)
            .map(|(watch, _)| *watch)
            .collect();
        tops.into_iter().flat_map(|watch| self.remove(watch)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(table: &Table, watch: Watch) -> Option<String> {
        table.path(watch).map(|path| path.to_string())
    }

    fn small() -> Table {
        let mut table = Table::default();
        table.place_root(1, 1);
        for (watch, parent, name) in [(2, 1, "a"), (3, 2, "b"), (4, 3, "c"), (5, 1, "a-b")] {
            assert_eq!(table.place(watch, parent, name.as_bytes(), 1), (Placed::New, None));
        }
        table
    }

    #[test]
    fn a_rename_moves_every_path_below() {
        let mut table = small();
        assert_eq!(path(&table, 4).as_deref(), Some("a/b/c"));
        table.detach(3);
        assert_eq!((path(&table, 3), path(&table, 4)), (None, None));
        assert_eq!(table.place(3, 5, b"x", 1), (Placed::Moved, None));
        assert_eq!(table.place(3, 5, b"x", 2), (Placed::Known, None));
        assert_eq!(path(&table, 4).as_deref(), Some("a-b/x/c"));
        assert_eq!(table.find(1, &RelPath::new("a-b/x/c").unwrap()), Some(4));
        assert_eq!(table.child(2, b"b"), None);
    }

    #[test]
    fn a_new_directory_of_an_old_name_evicts_the_old_one() {
        let mut table = small();
        assert_eq!(table.place(9, 1, b"a", 2), (Placed::New, Some(2)));
        assert_eq!(table.remove(2), [2, 3, 4]);
        assert_eq!(path(&table, 9).as_deref(), Some("a"));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_directory_seen_twice_keeps_its_first_place_and_makes_no_circle() {
        let mut table = small();
        assert_eq!(table.place(3, 5, b"again", 1).0, Placed::Twice);
        assert_eq!(table.place(2, 4, b"circle", 2).0, Placed::Twice);
        assert_eq!(table.place(1, 4, b"root", 2).0, Placed::Twice);
        assert_eq!(path(&table, 4).as_deref(), Some("a/b/c"));
    }

    #[test]
    fn what_a_walk_did_not_see_is_removed() {
        let mut table = small();
        table.place_root(1, 2);
        table.place(2, 1, b"a", 2);
        table.detach(5);
        assert_eq!(table.remove_unseen(1, 2), [3, 4]);
        assert_eq!(table.remove_detached(1), [5]);
        assert_eq!(table.len(), 2);
        assert!(table.children.len() == 1);
    }
}
