//! A push that is larger than one request should be goes in several, each of whole commits.
//!
//! Hosts and the proxies before them bound requests, and after a first backup, or weeks without a network, much waits.
//! Each slice moves the branch to its last commit, so what has arrived stays there whatever becomes of the rest.

use std::collections::HashSet;

use git2::{Oid, Sort};

use super::Sending;
use crate::error::{Kind, Result};
use crate::git::pack::{PackSet, stored_bytes};
use crate::git::reachable::{PushSet, push_set};
use crate::git::repository::{Repository, git_error};
use crate::progress::Progress;
use crate::transport::{ReferenceUpdate, Sent, Transport};

/// Commits up to a tip, and what they need beyond those before.
struct Slice {
    tip: Oid,
    commits: usize,
    set: PushSet,
    bytes: u64,
}

/// Sends what is missing. `branch` is moved with each slice, if it is to be moved; the other references with the last.
pub(super) fn send(
    sending: &mut Sending<'_, '_>,
    transport: &mut dyn Transport,
    branch: Option<&str>,
    updates: Vec<ReferenceUpdate>,
    progress: &Progress,
) -> Result<Sent> {
    let (mut moving, others): (Vec<_>, Vec<_>) =
        updates.into_iter().partition(|update| Some(update.name.as_str()) == branch);
    let mut stands = moving.pop().map(|update| update.expected);
    let mut have = sending.tips.to_vec();
    let mut budget = transport.slice_bytes().filter(|_| stands.is_some());
    let mut sent = Sent::default();
    let mut lost = sending.lost.to_vec();
    'anew: loop {
        let slices = cut(sending.source, sending.commit, &have, budget, progress)?;
        let number = slices.len();
        for (place, mut slice) in slices.into_iter().enumerate() {
            // None of them is among the new ones: they are reachable from what the remote has.
            slice.set.objects.extend_from_slice(&lost);
            let mut updates = Vec::new();
            if let (Some(name), Some(expected)) = (branch, stands) {
                updates.push(ReferenceUpdate { name: name.to_owned(), expected, new: slice.tip });
            }
            if place + 1 == number {
                updates.extend(others.iter().cloned());
            }
            sending.bring_for(&slice.set.objects, progress)?;
            match transport.push(sending.source, &slice.set, &updates, progress) {
                Ok(part) => {
                    sent.objects += part.objects;
                    sent.bytes += part.bytes;
                    lost.clear();
                }
                Err(error) if error.kind() == Kind::TooLarge && slice.commits > 1 => {
                    budget = Some(slice.bytes / 2);
                    continue 'anew;
                }
                Err(error) if error.kind() == Kind::TooLarge => {
                    return Err(error.with_words(&what_is_too_large(sending.source, &slice)));
                }
                Err(error) => return Err(error),
            }
            stands = stands.map(|_| Some(slice.tip));
            have.push(slice.tip);
        }
        return Ok(sent);
    }
}

/// Cuts the commits up to `tip` into slices of at most about `budget` bytes; a single commit may be larger.
fn cut(
    source: &Repository,
    tip: Oid,
    have: &[Oid],
    budget: Option<u64>,
    progress: &Progress,
) -> Result<Vec<Slice>> {
    let Some(budget) = budget else {
        let set = push_set(source, tip, have, progress)?;
        return Ok(vec![Slice { tip, commits: 1, set, bytes: 0 }]);
    };
    let packs = PackSet::open(&source.pack_directory())?;
    let mut slices: Vec<Slice> = Vec::new();
    let mut known = have.to_vec();
    let mut seen = HashSet::new();
    for commit in chain(source, tip, have)? {
        progress.check()?;
        let mut set = push_set(source, commit, &known, progress)?;
        // What is again as it was some commits before is new against the commit between.
        set.retain(|oid| seen.insert(oid));
        let bytes = stored_bytes(source, &packs, &set.objects, progress)?;
        match slices.last_mut() {
            Some(slice) if slice.bytes.saturating_add(bytes) <= budget => {
                slice.tip = commit;
                slice.commits += 1;
                slice.bytes += bytes;
                slice.set.append(set);
            }
            _ => slices.push(Slice { tip: commit, commits: 1, set, bytes }),
        }
        // It stands for all before it.
        known.truncate(have.len());
        known.push(commit);
    }
    if slices.is_empty() {
        slices.push(Slice { tip, commits: 1, set: PushSet::default(), bytes: 0 });
    }
    Ok(slices)
}

/// The commits to `tip` that are not in the history of `have`, oldest first, along first parents.
fn chain(source: &Repository, tip: Oid, have: &[Oid]) -> Result<Vec<Oid>> {
    let fail = |error| git_error("walk the history of", source.path(), error);
    let mut walk = source.git().revwalk().map_err(fail)?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail)?;
    walk.simplify_first_parent().map_err(fail)?;
    walk.push(tip).map_err(fail)?;
    for commit in have {
        walk.hide(*commit).map_err(fail)?;
    }
    walk.map(|commit| commit.map_err(fail)).collect()
}

/// Which file makes a commit larger than the remote takes.
fn what_is_too_large(source: &Repository, slice: &Slice) -> String {
    let largest = largest_file(source, slice).ok().flatten();
    let file =
        largest.map_or_else(String::new, |(path, size)| format!(", most of it {path} with {size} bytes"));
    format!(
        "commit {} alone takes {} bytes{file}; raise the limit there, or exclude what is too large and let it go back \
         to an earlier commit",
        slice.tip, slice.bytes
    )
}

fn largest_file(
    source: &Repository,
    slice: &Slice,
) -> std::result::Result<Option<(String, u64)>, git2::Error> {
    let git = source.git();
    let commit = git.find_commit(slice.tip)?;
    let before = commit.parent(0).ok().map(|parent| parent.tree()).transpose()?;
    let diff = git.diff_tree_to_tree(before.as_ref(), Some(&commit.tree()?), None)?;
    let database = git.odb()?;
    let mut largest: Option<(String, u64)> = None;
    for delta in diff.deltas() {
        let file = delta.new_file();
        let Ok((size, _)) = database.read_header(file.id()) else { continue };
        if largest.as_ref().is_none_or(|(_, other)| *other < size as u64) {
            let path = file.path_bytes().map_or_else(String::new, crate::path::lossy);
            largest = Some((path, size as u64));
        }
    }
    Ok(largest)
}
