//! Which other objects an object names: the tree and the parents of a commit, the entries of a tree, what is tagged.
//!
//! In: objects, in any order. Out: every name in them, once. Submodules are elsewhere by design and not counted. Trees
//! are read as leniently as Git reads them: what an old program wrote has to be fetchable.

use std::collections::HashSet;

use git2::Oid;

use super::super::HASH_BYTES;
use super::super::object::ObjectKind;
use crate::error::{Error, Kind, Result};
use crate::tree::MODE_COMMIT;

/// Whoever names more different objects than that makes us hold more than a gigabyte.
const MOST: usize = 32 * 1024 * 1024;

/// Names of objects that have to be there.
#[derive(Debug, Default)]
pub(super) struct Links {
    names: HashSet<Oid>,
}

impl Links {
    /// Takes what `data` names.
    pub(super) fn take(&mut self, kind: ObjectKind, data: &[u8]) -> Result<()> {
        let is_understood = match kind {
            ObjectKind::Blob => Some(()),
            ObjectKind::Tree => self.of_tree(data),
            ObjectKind::Commit => self.of_header(data, "tree", "parent"),
            ObjectKind::Tag => self.of_header(data, "object", ""),
        };
        is_understood.ok_or_else(|| {
            Error::new(Kind::Git, format!("the pack holds a {} that is not written as one", kind.as_str()))
        })?;
        self.check(MOST)
    }

    /// Takes what was found elsewhere, in a pack of `objects`.
    pub(super) fn join(&mut self, other: Self, objects: u32) -> Result<()> {
        self.names.extend(other.names);
        self.check(objects as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Oid> {
        self.names.iter()
    }

    fn check(&self, most: usize) -> Result<()> {
        if self.names.len() <= most {
            return Ok(());
        }
        let text =
            format!("the objects of the pack name more than {most} others, of which not all can be there");
        Err(Error::new(Kind::Git, text))
    }

    fn of_tree(&mut self, mut rest: &[u8]) -> Option<()> {
        while !rest.is_empty() {
            let space = rest.iter().take(8).position(|byte| *byte == b' ')?;
            let mode = std::str::from_utf8(&rest[..space]).ok()?;
            let mode = u32::from_str_radix(mode, 8).ok()?;
            let nul = space + rest[space..].iter().position(|byte| *byte == 0)?;
            let name = rest.get(nul + 1..nul + 1 + HASH_BYTES)?;
            if mode != MODE_COMMIT {
                self.names.insert(Oid::from_bytes(name).ok()?);
            }
            rest = &rest[nul + 1 + HASH_BYTES..];
        }
        Some(())
    }

    /// The first line must begin with `first`; as many as there are behind it may begin with `further`.
    fn of_header(&mut self, data: &[u8], first: &str, further: &str) -> Option<()> {
        let mut lines = data.split(|byte| *byte == b'\n');
        let named = |line: &[u8], word: &str| {
            let hex = line.strip_prefix(word.as_bytes())?.strip_prefix(b" ")?;
            let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.len() == 2 * HASH_BYTES)?;
            Oid::from_str(hex).ok()
        };
        self.names.insert(named(lines.next()?, first)?);
        self.names.extend(lines.map_while(|line| named(line, further)));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ObjectKind, data: &[u8]) -> Option<usize> {
        let mut links = Links::default();
        links.take(kind, data).ok().map(|()| links.names.len())
    }

    #[test]
    fn commits_tags_and_trees_name_what_they_rest_on_and_submodules_do_not_count() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let commit = format!("tree {a}\nparent {b}\nparent {a}\nauthor x\n\nparent {}\n", "c".repeat(40));
        assert_eq!(of(ObjectKind::Commit, commit.as_bytes()), Some(2));
        assert_eq!(of(ObjectKind::Tag, format!("object {a}\ntype commit\n").as_bytes()), Some(1));
        let entry = |mode: &str, id: u8| [mode.as_bytes(), b" n\0", &[id; 20]].concat();
        let tree = [entry("100644", 1), entry("40000", 2), entry("160000", 3)].concat();
        assert_eq!(of(ObjectKind::Tree, &tree), Some(2));
        assert_eq!(of(ObjectKind::Tree, b""), Some(0));
        assert_eq!(of(ObjectKind::Blob, b"tree"), Some(0));
        for (kind, data) in [
            (ObjectKind::Commit, &b""[..]),
            (ObjectKind::Commit, b"tree 12\n"),
            (ObjectKind::Tag, b"tag x\n"),
            (ObjectKind::Tree, b"100644 name"),
            (ObjectKind::Tree, &tree[..tree.len() - 1]),
            (ObjectKind::Tree, b"99 n\0aaaaaaaaaaaaaaaaaaaa"),
        ] {
            assert_eq!(of(kind, data), None, "{data:?}");
        }
    }
}
