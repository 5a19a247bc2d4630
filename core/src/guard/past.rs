//! What the commits within the window did, read from the repository: after a restart, and wherever else the memory
//! does not fit.
//!
//! Only what differs between a commit and the one before it is read. Of very many commits neighbours are taken together,
//! so that the cost is bounded by the changes and not by how often somebody committed. A commit that brought everything
//! into another form did nothing: what was done before it is told of the contents as they are stored since.

use std::collections::BTreeMap;

use git2::Oid;

use super::restores::Restores;
use super::tally::{Tally, Turned};
use super::window::Window;
use crate::crypt::policy::{self, Policy};
use crate::error::{Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::git::repository::{Repository, git_error};
use crate::metadata;
use crate::names::RootName;
use crate::path::{RelPath, unescape_component};
use crate::progress::Progress;
use crate::snapshot::raw;
use crate::tree;

/// Steps that are read at most.
const MOST_STEPS: usize = 256;

struct Past {
    commit: Oid,
    parent: Option<Oid>,
    at_s: i64,
    /// It brought everything into another form.
    is_switch: bool,
}

/// What was done to each root of `since` after `start_s`, Unix seconds, and after the commit that stands there.
pub(super) fn read(
    repository: &Repository,
    tip: Oid,
    start_s: i64,
    since: &BTreeMap<RootName, Oid>,
    restores: &Restores,
    progress: &Progress,
) -> Result<BTreeMap<RootName, Window>> {
    let commits = within(repository, tip, start_s, since, progress)?;
    let mut windows: BTreeMap<RootName, Window> = BTreeMap::new();
    for (root, begins) in since {
        // What came after the commit since which the root counts; all, if that is older than the window.
        let counted = commits.iter().position(|past| past.commit == *begins).unwrap_or(commits.len());
        let commits = commits.get(..counted).unwrap_or_default();
        let length = commits.len().div_ceil(MOST_STEPS).max(1);
        let mut window = Window::default();
        let between_switches = commits.chunk_by(|newer, older| !newer.is_switch && !older.is_switch);
        let groups: Vec<&[Past]> = between_switches.flat_map(|run| run.chunks(length)).collect();
        for group in groups.into_iter().rev() {
            progress.check()?;
            let (Some(newest), Some(oldest)) = (group.first(), group.last()) else { continue };
            if newest.is_switch {
                window.turn(&turned(repository, oldest.parent, newest.commit, root)?);
                continue;
            }
            let tally = difference(repository, oldest.parent, newest.commit, root, restores)?;
            window.take(&tally, newest.at_s);
        }
        windows.insert(root.clone(), window);
    }
    Ok(windows)
}

/// How many files of a root are lost between two commits, and how many there were in the older one.
pub(super) fn lost_between(
    repository: &Repository,
    old: Oid,
    new: Oid,
    root: &RootName,
) -> Result<(u64, u64)> {
    let objects = repository.objects()?;
    let lost = if policy_of(repository, old)? == policy_of(repository, new)? {
        difference(repository, Some(old), new, root, &Restores::default())?
    } else {
        // What was rewritten cannot be told from what was brought into another form.
        let mut gone = Tally::default();
        changes(repository, Some(old), new, root, &mut |path, before, after| {
            if after.is_none() {
                gone.note(path, before, None, false);
            }
            Ok(())
        })?;
        gone
    };
    let mut window = Window::default();
    window.take(&lost, 0);
    let top = tree::lookup(&objects, repository.tree_of(old)?, &RelPath::root().to_git_path(root))?;
    let mut of = 0;
    tree::diff_paths(&objects, None, top.filter(|top| top.is_tree()).map(|top| top.oid), &mut |_| {
        of += 1;
        Ok(())
    })?;
    Ok((window.taken_away(), of))
}

/// The commits after `start_s`, newest first, up to where no root counts any more.
fn within(
    repository: &Repository,
    tip: Oid,
    start_s: i64,
    since: &BTreeMap<RootName, Oid>,
    progress: &Progress,
) -> Result<Vec<Past>> {
    let mut commits = Vec::new();
    let mut counting: Vec<Oid> = since.values().copied().collect();
    let mut next = Some(tip);
    while let Some(id) = next {
        progress.check()?;
        let fail = |error| git_error(&format!("read commit {id} of"), repository.path(), error);
        let commit = repository.git().find_commit(id).map_err(fail)?;
        let at_s = commit.time().seconds();
        counting.retain(|begins| *begins != id);
        if at_s <= start_s || counting.is_empty() {
            // Where a root begins to count, its position has to be found.
            commits.push(Past { commit: id, parent: None, at_s, is_switch: false });
            break;
        }
        next = commit.parent_ids().next();
        // What a shallow history does not have cannot be compared with.
        next = next.filter(|parent| repository.has_commit(*parent));
        commits.push(Past { commit: id, parent: next, at_s, is_switch: false });
    }
    // The last one is the state that the others are compared with.
    if commits.last().is_some_and(|past| past.parent.is_none()) {
        let begins = commits.pop();
        if let (Some(last), Some(begins)) = (commits.last_mut(), begins) {
            last.parent = Some(begins.commit);
        }
    }
    let mut policy = commits.first().map(|past| policy_of(repository, past.commit)).transpose()?;
    for past in &mut commits {
        let Some(parent) = past.parent else { continue };
        let before = policy_of(repository, parent)?;
        past.is_switch = policy.replace(before) != Some(before);
    }
    Ok(commits)
}

/// What says how a commit is encrypted.
fn policy_of(repository: &Repository, commit: Oid) -> Result<Option<Oid>> {
    let objects = repository.objects()?;
    let found = tree::lookup(&objects, repository.tree_of(commit)?, policy::PATH.as_bytes())?;
    Ok(found.map(|entry| entry.oid))
}

/// What each file of a root is stored as since a switch.
fn turned(repository: &Repository, old: Option<Oid>, new: Oid, root: &RootName) -> Result<Turned> {
    let mut pairs = Vec::new();
    changes(repository, old, new, root, &mut |_, before, after| {
        pairs.extend(before.copied().zip(after.copied()));
        Ok(())
    })?;
    Ok(Turned::of(pairs.iter().map(|(old, new)| (old, new))))
}

fn difference(
    repository: &Repository,
    old: Option<Oid>,
    new: Oid,
    root: &RootName,
    restores: &Restores,
) -> Result<Tally> {
    let mut tally = Tally::default();
    changes(repository, old, new, root, &mut |path, before, after| {
        let is_excused = restores.did(repository, root, path, after)?;
        tally.note(path, before, after, is_excused);
        Ok(())
    })?;
    Ok(tally)
}

type Visit<'v> = dyn FnMut(&RelPath, Option<&[u8; 20]>, Option<&[u8; 20]>) -> Result<()> + 'v;

/// Calls `visit` with each file of a root that is stored as something else in the newer commit.
fn changes(
    repository: &Repository,
    old: Option<Oid>,
    new: Oid,
    root: &RootName,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let objects = repository.objects()?;
    let top = RelPath::root().to_git_path(root);
    let directory = |tree: Oid| -> Result<Option<Oid>> {
        let entry = tree::lookup(&objects, tree, &top)?;
        Ok(entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid))
    };
    let trees = (old.map(|old| repository.tree_of(old)).transpose()?, repository.tree_of(new)?);
    let (old, new) = (trees.0.map(directory).transpose()?.flatten(), directory(trees.1)?);
    let is_open_pgp = Policy::of_tree(&objects, trees.1)?.is_some_and(|policy| policy.cipher.is_open_pgp());
    tree::diff_paths(&objects, old, new, &mut |change| {
        let stored = |entry: Option<tree::Entry>| entry.map(|entry| raw(entry.oid));
        let (before, after) = (stored(change.old), stored(change.new));
        let Some(path) = path_of(change.path).filter(|_| before != after) else { return Ok(()) };
        if let (true, Some(old), Some(_), Some(_)) = (is_open_pgp, trees.0, before, after)
            && !is_other_content(&objects, old, trees.1, root, &path)?
        {
            return Ok(());
        }
        visit(&path, before.as_ref(), after.as_ref())
    })
}

/// Whether the records say that a file that was stored as another message holds something else. Where one of them has no checksum,
/// because everything had to be encrypted anew, it is taken for the same.
fn is_other_content(
    objects: &ObjectDatabase<'_>,
    old: Oid,
    new: Oid,
    root: &RootName,
    path: &RelPath,
) -> Result<bool> {
    let checksum = |tree: Oid| match metadata::read_record(objects, tree, root, path) {
        // The key of then is lost.
        Err(error) if error.kind() == Kind::EncryptionKey => Ok(None),
        record => record.map(|record| record.and_then(|record| record.blake3)),
    };
    Ok(matches!((checksum(old)?, checksum(new)?), (Some(old), Some(new)) if old != new))
}

/// A path below a root, as the user knows it; nothing for what is not the user's.
fn path_of(stored: &[u8]) -> Option<RelPath> {
    let parts: Option<Vec<_>> = stored.split(|byte| *byte == b'/').map(unescape_component).collect();
    RelPath::new(parts?.join(&b'/')).ok()
}
