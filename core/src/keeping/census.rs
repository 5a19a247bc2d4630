//! Which large contents the history of a repository points at, what they are called, and which are in its latest snapshot.
//!
//! In: tips. Out: each content once, with the latest name that it had. Only the directories that changed from commit to commit
//! are looked into, and of their files only those that the directory's `.gitattributes` names as pointers: a text that
//! merely looks like one is somebody's file.

use std::collections::BTreeMap;

use git2::{Odb, Oid, Sort};

use crate::error::Result;
use crate::git::contents::may_point;
use crate::git::repository::{Repository, git_error};
use crate::lfs::attributes::{self, Attributes};
use crate::lfs::{ObjectId, Pointer};
use crate::path::{lossy, unescape_component};
use crate::progress::Progress;
use crate::tree::{self, MODE_EXECUTABLE, MODE_FILE, diff_paths};

/// A `.gitattributes` of more bytes is not read.
const LARGEST_ATTRIBUTES: usize = 64 << 20;

/// What is known of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub size: u64,
    /// `<root>/path` as it stands in Git: the latest name that it had.
    pub path: Vec<u8>,
    /// Whether the latest snapshot has it.
    pub is_current: bool,
}

impl Found {
    /// `<root>/path` as it is on the disk.
    pub fn path_on_disk(&self) -> Vec<u8> {
        let components = self.path.split(|byte| *byte == b'/').map(|name| {
            let on_disk = unescape_component(name);
            on_disk.map_or_else(|| name.to_vec(), |name| name.into_owned())
        });
        components.collect::<Vec<_>>().join(&b'/')
    }

    /// The same for people.
    pub fn shown(&self) -> String {
        lossy(&self.path_on_disk())
    }
}

/// What a history points at.
#[derive(Debug, Clone, Default)]
pub struct Census {
    found: BTreeMap<ObjectId, Found>,
}

impl Census {
    /// Every content that `tips` lead to. Which are in the latest snapshot is not asked ([`Census::see_latest`]).
    ///
    /// # Errors
    /// When the history cannot be read, and cancellation.
    pub fn of(repository: &Repository, tips: &[Oid], progress: &Progress) -> Result<Self> {
        let mut census = Self::default();
        let fail = |error| git_error("walk the history of", repository.path(), error);
        let git = repository.git();
        let objects = repository.objects()?;
        let mut commits = git.revwalk().map_err(fail)?;
        // Names of later commits take the place of those of earlier ones.
        commits.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail)?;
        for tip in tips {
            commits.push(*tip).map_err(fail)?;
        }
        for commit in commits {
            progress.check()?;
            progress.tick();
            let commit = git.find_commit(commit.map_err(fail)?).map_err(fail)?;
            let before = match commit.parent_ids().next() {
                Some(parent) => Some(repository.tree_of(parent)?),
                None => None,
            };
            each_pointer(repository, &objects, before, commit.tree_id(), progress, &mut |path, pointer| {
                census.note(path, pointer, false);
            })?;
        }
        Ok(census)
    }

    /// That of all branches.
    ///
    /// # Errors
    /// As [`Census::of`].
    pub fn of_branches(repository: &Repository, progress: &Progress) -> Result<Self> {
        Self::of(repository, &branches(repository)?, progress)
    }

    /// Says of each content whether the snapshot `latest` has it; the names in it count.
    ///
    /// # Errors
    /// As [`Census::of`].
    pub fn see_latest(&mut self, repository: &Repository, latest: Oid, progress: &Progress) -> Result<()> {
        let tree = repository.tree_of(latest)?;
        let objects = repository.objects()?;
        self.found.values_mut().for_each(|found| found.is_current = false);
        each_pointer(repository, &objects, None, tree, progress, &mut |path, pointer| {
            self.note(path, pointer, true);
        })?;
        Ok(())
    }

    fn note(&mut self, path: &[u8], pointer: Pointer, is_current: bool) {
        let found = Found { size: pointer.size, path: path.to_vec(), is_current };
        self.found.insert(pointer.id, found);
    }

    /// All contents, by name of the content.
    pub fn contents(&self) -> impl Iterator<Item = (Pointer, &Found)> {
        self.found.iter().map(|(id, found)| (Pointer { id: *id, size: found.size }, found))
    }

    /// All contents, as they are asked for.
    pub fn pointers(&self) -> Vec<Pointer> {
        self.contents().map(|(pointer, _)| pointer).collect()
    }

    /// What is known of one.
    pub fn get(&self, id: &ObjectId) -> Option<&Found> {
        self.found.get(id)
    }
}

/// Where the branches stand, each commit once.
///
/// # Errors
/// When the references cannot be read.
pub fn branches(repository: &Repository) -> Result<Vec<Oid>> {
    let references = repository.references()?.into_iter();
    let branches = references.filter(|(name, _)| name.starts_with("refs/heads/"));
    let mut tips: Vec<Oid> = branches.map(|(_, tip)| tip).collect();
    tips.sort_unstable();
    tips.dedup();
    Ok(tips)
}

/// How the `.gitattributes` of a directory tells pointers.
enum Marks {
    /// There is none.
    None,
    /// Ours: these.
    Names(Attributes),
    /// Somebody else's: whatever reads as a pointer.
    Anything,
}

/// Tells of each pointer that `new` has and `old` has not under the same name.
fn each_pointer(
    repository: &Repository,
    objects: &Odb<'_>,
    old: Option<Oid>,
    new: Oid,
    progress: &Progress,
    tell: &mut dyn FnMut(&[u8], Pointer),
) -> Result<()> {
    let fail = |error| git_error("read the objects of", repository.path(), error);
    // Names of one directory follow each other.
    let mut known: Option<(Vec<u8>, Marks)> = None;
    diff_paths(objects, old, Some(new), &mut |change| {
        let Some(entry) = change.new.filter(|it| matches!(it.mode, MODE_FILE | MODE_EXECUTABLE)) else {
            return Ok(());
        };
        progress.check()?;
        let slash = change.path.iter().rposition(|byte| *byte == b'/');
        let (directory, name) = slash.map_or((&b""[..], change.path), |at| {
            (change.path.get(..=at).unwrap_or_default(), change.path.get(at + 1..).unwrap_or_default())
        });
        if known.as_ref().is_none_or(|(of, _)| of != directory) {
            known = Some((directory.to_vec(), marks(repository, objects, new, directory)?));
        }
        match known.as_ref().map(|(_, marks)| marks) {
            Some(Marks::Names(names)) if names.has(name) => {}
            Some(Marks::Anything) => {}
            _ => return Ok(()),
        }
        progress.tick();
        let (size, _) = objects.read_header(entry.oid).map_err(fail)?;
        if may_point(size as u64)
            && let Some(pointer) = Pointer::parse(objects.read(entry.oid).map_err(fail)?.data())
        {
            tell(change.path, pointer);
        }
        Ok(())
    })
}

fn marks(repository: &Repository, objects: &Odb<'_>, tree: Oid, directory: &[u8]) -> Result<Marks> {
    let fail = |error| git_error("read the objects of", repository.path(), error);
    let path = [directory, attributes::FILE_NAME].concat();
    let Some(file) = tree::lookup(objects, tree, &path)?.filter(|entry| entry.mode == MODE_FILE) else {
        return Ok(Marks::None);
    };
    let (size, _) = objects.read_header(file.oid).map_err(fail)?;
    if size > LARGEST_ATTRIBUTES {
        return Ok(Marks::Anything);
    }
    let file = objects.read(file.oid).map_err(fail)?;
    Ok(Attributes::parse(file.data()).map_or(Marks::Anything, Marks::Names))
}

#[cfg(test)]
mod tests;
