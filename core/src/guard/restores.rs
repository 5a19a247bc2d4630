//! What restores in place did lately: they delete and rewrite files because somebody asked for it, so that is no loss.
//!
//! The journals of the restores tell which paths were touched and which snapshot was put back. A file at such a path
//! that is what the snapshot has there, or is gone as it is there, was put so by the restore; anything else was done by
//! somebody else, and counts. A snapshot of another form, from before encryption was switched on or the key changed, has other
//! objects for the same contents, and one of OpenPGP messages always has: then a file at such a path is taken for the restore's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, SystemTime};

use git2::Oid;

use crate::crypt::policy::Policy;
use crate::error::Result;
use crate::git::repository::Repository;
use crate::names::RootName;
use crate::path::RelPath;
use crate::restore::journal;
use crate::tree;

/// Restores in place within the window.
#[derive(Debug, Default)]
pub struct Restores {
    past: Vec<Past>,
    /// The form of what is committed now.
    form: Option<Policy>,
    trees: RefCell<HashMap<Oid, Top>>,
}

/// The tree of a snapshot, and whether it is of the form of now.
#[derive(Debug, Clone, Copy)]
struct Top {
    tree: Oid,
    is_of_this_form: bool,
}

#[derive(Debug)]
struct Past {
    snapshot: Oid,
    paths: BTreeMap<RootName, BTreeSet<RelPath>>,
}

impl Restores {
    /// Those of `repository` that `directory` has journals of, as far as they were written to within `window`. One that
    /// cannot be read tells nothing.
    /// `form` is that of what is committed now.
    pub fn read(directory: &Path, repository: &str, window: Duration, form: Option<Policy>) -> Self {
        let since = SystemTime::now().checked_sub(window).unwrap_or(SystemTime::UNIX_EPOCH);
        let past = journal::touched_since(directory, repository, since).into_iter().filter_map(|past| {
            Some(Past { snapshot: past.head.identity.snapshot.parse().ok()?, paths: past.paths })
        });
        Self { past: past.collect(), form, trees: RefCell::default() }
    }

    /// Whether a restore left `path` as it stands now, with this stored object or none.
    pub fn did(
        &self,
        repository: &Repository,
        root: &RootName,
        path: &RelPath,
        stands: Option<&[u8; 20]>,
    ) -> Result<bool> {
        for past in &self.past {
            if !past.paths.get(root).is_some_and(|paths| paths.contains(path))
                || !repository.has_commit(past.snapshot)
            {
                continue;
            }
            let objects = repository.objects()?;
            let known = self.trees.borrow().get(&past.snapshot).copied();
            let top = match known {
                Some(top) => top,
                None => {
                    let tree = repository.tree_of(past.snapshot)?;
                    let form = Policy::of_tree(&objects, tree)?;
                    let is_other_each_time = form.as_ref().is_some_and(|form| form.cipher.is_open_pgp());
                    Top { tree, is_of_this_form: form == self.form && !is_other_each_time }
                }
            };
            self.trees.borrow_mut().insert(past.snapshot, top);
            let entry = tree::lookup(&objects, top.tree, &path.to_git_path(root))?;
            let held = entry.filter(|entry| !entry.is_tree()).map(|entry| entry.oid);
            if !top.is_of_this_form && held.is_some() && stands.is_some() {
                return Ok(true);
            }
            if held.as_ref().map(Oid::as_bytes) == stands.map(|stands| stands.as_slice()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
