//! Which objects a history needs beyond another: the push set, and what a fetch copies.
//!
//! Commits are walked down to the tips that the other side has, and each tree is compared with its parent's, so
//! the cost is what changed, not what exists.

use std::collections::HashSet;

use git2::{ObjectType, Oid, Sort};

use super::repository::{Repository, git_error};
use crate::error::Result;
use crate::progress::Progress;
use crate::tree;

/// The objects reachable from `tip` and not from `have`, each once: commits oldest first, each followed by its
/// trees and blobs.
pub fn new_objects(repository: &Repository, tip: Oid, have: &[Oid], progress: &Progress) -> Result<Vec<Oid>> {
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
    let mut found = Vec::new();
    for commit in commits {
        progress.check()?;
        let commit = commit.map_err(fail)?;
        let commit = git.find_commit(commit).map_err(fail)?;
        if seen.insert(commit.id()) {
            found.push(commit.id());
        }
        let parent_tree = match commit.parent_ids().next() {
            Some(parent) => Some(repository.tree_of(parent)?),
            None => None,
        };
        tree::diff_new_objects(&objects, parent_tree, commit.tree_id(), &mut |kind, oid| {
            let fresh = seen.insert(oid);
            if fresh {
                found.push(oid);
            }
            // A tree that was seen brings nothing new below it.
            Ok(fresh || kind != ObjectType::Tree)
        })?;
    }
    Ok(found)
}
