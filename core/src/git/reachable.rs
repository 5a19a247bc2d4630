//! Which objects a history needs beyond another: the push set, and what a fetch copies.
//!
//! Commits are walked down to the tips that the other side has, and each tree is compared with its parent's, so
//! the cost is what changed, not what exists.

use std::collections::{HashMap, HashSet};

use git2::{ObjectType, Oid, Sort};

use super::repository::{Repository, git_error};
use crate::error::Result;
use crate::progress::Progress;
use crate::tree;

/// What a push has to take along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushSet {
    /// Each object once: commits oldest first, each followed by its trees and blobs.
    pub objects: Vec<Oid>,
    /// For some of them, what stood at the same path in the commit before: it is in the set, or at the other end.
    pub formers: HashMap<Oid, Oid>,
}

impl PushSet {
    /// Leaves only what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(Oid) -> bool) {
        let formers = &mut self.formers;
        self.objects.retain(|oid| {
            let stays = keep(*oid);
            if !stays {
                formers.remove(oid);
            }
            stays
        });
    }

    /// Puts another set behind this one; no object of it is in this one.
    pub fn append(&mut self, other: PushSet) {
        self.objects.extend(other.objects);
        self.formers.extend(other.formers);
    }
}

/// The objects reachable from `tip` and not from `have`, each once.
pub fn new_objects(repository: &Repository, tip: Oid, have: &[Oid], progress: &Progress) -> Result<Vec<Oid>> {
    push_set(repository, tip, have, progress).map(|set| set.objects)
}

/// The objects reachable from `tip` and not from `have`, and what they were before.
pub fn push_set(repository: &Repository, tip: Oid, have: &[Oid], progress: &Progress) -> Result<PushSet> {
    let fail = |error| git_error("walk the history of", repository.path(), error);
    let git = repository.git();
    let objects = repository.objects()?;
    let mut commits = git.revwalk().map_err(fail)?;
    commits.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail)?;
    commits.push(tip).map_err(fail)?;
    for tip in have {
        commits.hide(*tip).map_err(fail)?;
    }
    let mut seen: HashSet<Oid> = HashSet::new();
    let mut found = PushSet::default();
    for commit in commits {
        progress.check()?;
        let commit = commit.map_err(fail)?;
        let commit = git.find_commit(commit).map_err(fail)?;
        if seen.insert(commit.id()) {
            found.objects.push(commit.id());
        }
        let parent_tree = match commit.parent_ids().next() {
            Some(parent) => Some(repository.tree_of(parent)?),
            None => None,
        };
        tree::diff_new_objects(&objects, parent_tree, commit.tree_id(), &mut |kind, oid, former| {
            let fresh = seen.insert(oid);
            if fresh {
                found.objects.push(oid);
                if let Some(former) = former {
                    found.formers.insert(oid, former);
                }
            }
            // A tree that was seen brings nothing new below it.
            Ok(fresh || kind != ObjectType::Tree)
        })?;
    }
    Ok(found)
}
