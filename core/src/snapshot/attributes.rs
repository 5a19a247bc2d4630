//! The `.gitattributes` of the directories whose pointers a batch changes; of no others.
//!
//! In: for each file that was looked at, whether a pointer stands for it now, and the tree of the parent. Out: edits. A
//! directory's file is read from the parent's tree and changed; where it is not there or not ours, it is made from what
//! the stat cache says the tree holds. With its last name the file goes.

use std::collections::{BTreeMap, BTreeSet};

use git2::{ObjectType, Oid};

use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::lfs::Attributes;
use crate::lfs::attributes::FILE_NAME;
use crate::names::RootName;
use crate::path::{RelPath, escape_component};
use crate::store::files::{FileRecord, FilesView};
use crate::tree::{self, Edits, Entry, Trail, TreeSink};

/// A larger file is not read; Git itself passes over such a one.
const LARGEST_FILE: usize = 100 << 20;

/// Which names of one root stand for pointers after a batch, and no longer do.
#[derive(Debug, Default)]
pub(super) struct PointerNames {
    /// By directory and name on disk.
    noted: BTreeMap<RelPath, BTreeMap<Vec<u8>, bool>>,
    /// Directories that are gone, with all that was in them; they may have come again.
    gone: BTreeSet<RelPath>,
}

/// What a batch builds on.
#[derive(Clone, Copy)]
pub(super) struct Base<'b> {
    pub objects: &'b ObjectDatabase<'b>,
    pub tree: Option<Oid>,
    pub files: &'b FilesView,
}

impl PointerNames {
    /// A file was looked at that `former` was recorded of.
    pub fn note(&mut self, path: &RelPath, former: Option<&FileRecord>, is_pointer: bool) {
        let was_pointer = former.is_some_and(|former| former.is_pointer);
        if !is_pointer && !was_pointer {
            return;
        }
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
            self.noted.entry(directory).or_default().insert(name.to_vec(), is_pointer);
        }
    }

    /// What stands for a file that nobody looked at is another thing now.
    pub fn turn(&mut self, path: &RelPath, is_pointer: bool) {
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
            self.noted.entry(directory).or_default().insert(name.to_vec(), is_pointer);
        }
    }

    /// A directory is gone.
    pub fn directory_gone(&mut self, path: &RelPath) {
        self.gone.insert(path.clone());
    }

    fn is_gone(&self, directory: &RelPath) -> bool {
        let mut above = if self.gone.is_empty() { None } else { Some(directory.clone()) };
        while let Some(path) = above {
            if self.gone.contains(&path) {
                return true;
            }
            above = path.parent();
        }
        false
    }

    /// Adds the edits for what was noted.
    ///
    /// # Errors
    /// For the parent's trees, the stat cache and the sink.
    pub fn apply(
        &self,
        base: Base<'_>,
        root: &RootName,
        sink: &dyn TreeSink,
        edits: &mut Edits,
    ) -> Result<()> {
        if self.noted.is_empty() {
            return Ok(());
        }
        let mut trail = Trail::new(base.objects, base.tree, RelPath::root().to_git_path(root), |_| Ok(()))?;
        for (directory, names) in &self.noted {
            let mut path = directory.to_git_path(root);
            path.push(b'/');
            path.extend_from_slice(FILE_NAME);
            let before = if self.is_gone(directory) {
                Former::default()
            } else {
                base.former(&mut trail, root, directory)?
            };
            let mut after = before.names.clone();
            for (name, is_pointer) in names {
                after.set(&escape_component(name), *is_pointer);
            }
            if after.is_empty() {
                // Where the directory became a file, this does nothing.
                if before.is_there {
                    edits.remove(path);
                }
            } else if after != before.names || !before.is_sound {
                let oid = sink.write(ObjectType::Blob, &after.encode())?;
                edits.set(path, Entry { mode: tree::MODE_FILE, oid });
            }
        }
        Ok(())
    }
}

/// What a directory had before.
#[derive(Default)]
struct Former {
    names: Attributes,
    is_there: bool,
    /// The file is there and says what `names` has.
    is_sound: bool,
}

impl Base<'_> {
    fn former(&self, trail: &mut Trail<'_>, root: &RootName, directory: &RelPath) -> Result<Former> {
        let found = trail.listing(directory)?.and_then(|listing| listing.get(FILE_NAME));
        if let Some(names) = found.and_then(|entry| read(self.objects, entry)) {
            return Ok(Former { names, is_there: true, is_sound: true });
        }
        let children = self.files.children(root, directory)?;
        let pointers = children.iter().filter(|(_, record)| record.is_pointer);
        let names = pointers.map(|(name, _)| escape_component(name).into_owned()).collect();
        Ok(Former { names, is_there: found.is_some(), is_sound: false })
    }
}

/// The names in a file of ours; `None` for anything else.
pub(super) fn read(objects: &ObjectDatabase<'_>, entry: Entry) -> Option<Attributes> {
    let (size, kind) = objects.read_header(entry.oid).ok()?;
    if entry.mode != tree::MODE_FILE || kind != ObjectType::Blob || size > LARGEST_FILE {
        return None;
    }
    Attributes::parse(objects.read(entry.oid).ok()?.data())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lfs::Classifier;

    /// A batch looks at one path after the other, so a directory can be gone at one and there again at the next.
    #[test]
    fn of_a_directory_that_was_gone_only_what_was_seen_again_is_named() {
        let mut bench = crate::snapshot::tests::bench();
        bench.classifier = Classifier::of(&crate::lfs::tests::settings("{threshold: 2}", &[]));
        for path in ["d/a", "d/b", "d/deep/c", "e/f"] {
            bench.write(path, "large");
        }
        bench.back_up();
        let tip = bench.repository.reference("refs/heads/main").unwrap().unwrap();
        let objects = bench.repository.objects().unwrap();
        let files = bench.store.reader().files(&bench.name).unwrap();
        let base =
            Base { objects: &objects, tree: Some(bench.repository.tree_of(tip).unwrap()), files: &files };
        let (root, path) = (bench.roots[0].name.clone(), |path: &str| RelPath::new(path).unwrap());
        let former = |at: &str| files.get(&root, &path(at)).unwrap();
        let names = |pointers: &PointerNames, directory: &str| {
            let mut edits = Edits::new();
            edits.remove(&b"folder/d"[..]);
            pointers.apply(base, &root, &objects, &mut edits).unwrap();
            let tree = tree::apply(&objects, &objects, base.tree, &edits).unwrap().unwrap();
            let at = format!("folder/{directory}/.gitattributes");
            let entry = tree::lookup(&objects, tree, at.as_bytes()).unwrap()?;
            Some(read(&objects, entry).unwrap().names().map(crate::path::lossy).collect::<Vec<_>>())
        };
        let mut pointers = PointerNames::default();
        pointers.directory_gone(&path("d"));
        assert_eq!(names(&pointers, "d"), None);
        pointers.note(&path("d/b"), former("d/b").as_ref(), true);
        pointers.note(&path("d/deep/c"), former("d/deep/c").as_ref(), false);
        pointers.note(&path("e/g"), None, true);
        assert_eq!(names(&pointers, "d").unwrap(), ["b"]);
        assert_eq!(names(&pointers, "d/deep"), None);
        assert_eq!(names(&pointers, "e").unwrap(), ["f", "g"]);
    }
}
