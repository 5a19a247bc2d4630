//! Something gone and something new with the very same content are one thing with another name. Only exact contents
//! count, and only one pair for each path: of several candidates those with the same file name, then those that sort
//! first. Empty files are alike without being related.

use std::collections::HashMap;

use git2::Oid;

use super::{Change, What};
use crate::beneath::EntryKind;
use crate::path::RelPath;

/// Git's name of the empty content.
const EMPTY: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

type Content = (EntryKind, Oid);

/// Turns pairs of deletions and additions into renames.
pub(super) fn pair(changes: Vec<Change>) -> Vec<Change> {
    let empty = Oid::from_str(EMPTY).ok();
    let content = |change: &Change| -> Option<Content> {
        let side = match change.what {
            What::Added => change.new,
            What::Deleted => change.old,
            _ => None,
        }?;
        let oid = side.entry?.oid;
        (Some(oid) != empty).then_some((side.kind, oid))
    };
    let mut gone: HashMap<Content, Vec<usize>> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        if change.what == What::Deleted
            && let Some(content) = content(change)
        {
            gone.entry(content).or_default().push(index);
        }
    }
    if gone.is_empty() {
        return changes;
    }
    for candidates in gone.values_mut() {
        candidates.sort_by(|a, b| place(&changes[*b]).cmp(&place(&changes[*a])));
    }
    let mut added: Vec<usize> = (0..changes.len()).filter(|at| changes[*at].what == What::Added).collect();
    added.sort_by(|a, b| place(&changes[*a]).cmp(&place(&changes[*b])));

    let mut source_of: Vec<Option<usize>> = vec![None; changes.len()];
    let mut is_taken = vec![false; changes.len()];
    for by_name in [true, false] {
        for index in &added {
            let Some(content) = content(&changes[*index]).filter(|_| source_of[*index].is_none()) else {
                continue;
            };
            let Some(candidates) = gone.get_mut(&content) else { continue };
            let found = if by_name {
                let name = changes[*index].path.file_name();
                // Where thousands have one content, the first hundred are enough to look for a name in.
                let mut last = candidates.iter().enumerate().rev().take(100);
                last.find(|(_, at)| changes[**at].path.file_name() == name).map(|(at, _)| at)
            } else {
                candidates.len().checked_sub(1)
            };
            if let Some(found) = found {
                let source = candidates.remove(found);
                source_of[*index] = Some(source);
                is_taken[source] = true;
            }
        }
    }
    let sources: Vec<Option<Change>> =
        source_of.iter().map(|source| source.map(|at| changes[at].clone())).collect();
    let mut paired = Vec::with_capacity(changes.len());
    for (index, (mut change, source)) in changes.into_iter().zip(sources).enumerate() {
        if is_taken[index] {
            continue;
        }
        if let Some(source) = source {
            change.old = source.old;
            change.what = What::Renamed { root: source.root, path: source.path };
        }
        paired.push(change);
    }
    paired
}

fn place(change: &Change) -> (&str, &RelPath) {
    (change.root.as_str(), &change.path)
}
