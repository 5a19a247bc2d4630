//! File systems that were mounted below a root and are not any more: what was on them is not deleted.
//!
//! In goes a recorded entry that is not there now, out comes what that means: it is gone, or it stays as its last
//! version because a mount went away, or, of a directory with mounts somewhere below it, some of it each. Whether a
//! directory was one is in its record ([`Look::is_mount`](crate::beneath::Look::is_mount)).

use std::collections::HashSet;
use std::os::fd::AsFd;

use super::listing::Listing;
use super::{Finding, Ground};
use crate::beneath::{EntryKind, Unseen, names_in};
use crate::error::Result;
use crate::path::RelPath;
use crate::store::changes::{Failure, SkipReason};

/// What is said of a directory that something was mounted on, and that is empty or gone now.
const UNMOUNTED: &str = "a file system was mounted here, and now the directory is empty or gone: mount it again; \
     its last version is kept. If it is meant to be empty, make the directory and put one file into it";

impl Ground<'_> {
    /// What became of the recorded entry at `path`, of the given kind, that is not there although its directory is
    /// or is looked at itself. What stays is named by the topmost mount.
    ///
    /// # Errors
    /// Only for the stat cache.
    pub fn vanished(&self, path: &RelPath, kind: EntryKind) -> Result<Vec<Finding>> {
        if kind != EntryKind::Directory {
            return Ok(vec![Finding::Gone { path: path.clone(), kind }]);
        }
        if self.is_lost_mount(path)? {
            return Ok(vec![unmounted(path.clone())]);
        }
        let mut lost = HashSet::new();
        let mut on_the_way = HashSet::new();
        for mount in self.files.mounts_below(&self.watched.name, path)? {
            if self.is_lost_mount(&mount)? {
                on_the_way.extend(directories_between(path, &mount));
                lost.insert(mount);
            }
        }
        if lost.is_empty() {
            return Ok(vec![Finding::Gone { path: path.clone(), kind }]);
        }
        // The directories on the way stay too, as the tree cannot hold the one without the others.
        let mut findings = Vec::new();
        let mut pending = vec![path.clone()];
        while let Some(directory) = pending.pop() {
            for (name, record) in self.files.children(&self.watched.name, &directory)? {
                let child = directory.join(&name);
                if lost.contains(&child) {
                    findings.push(unmounted(child));
                } else if on_the_way.contains(&child) {
                    pending.push(child);
                } else {
                    findings.push(Finding::Gone { path: child, kind: record.look.kind });
                }
            }
        }
        Ok(findings)
    }

    /// As [`Self::vanished`] for an entry that was looked at alone: its directory may be gone too, and have been a
    /// mount or on one. What was not recorded is of interest then only.
    ///
    /// # Errors
    /// Only for the stat cache.
    pub fn vanished_alone(&self, path: &RelPath, recorded: Option<EntryKind>) -> Result<Vec<Finding>> {
        let mut above = path.parent();
        // The root itself was there a moment ago, and not empty.
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            if self.is_lost_mount(&directory)? {
                return Ok(vec![unmounted(path.clone())]);
            }
            above = directory.parent();
        }
        recorded.map_or_else(|| Ok(Vec::new()), |kind| self.vanished(path, kind))
    }

    /// Whether something was mounted on `directory` when it was recorded, and nothing is now that it is empty or
    /// gone (desktops remove a mount's directory with the mount). Then nothing below it may be taken for deleted.
    fn is_lost_mount(&self, directory: &RelPath) -> Result<bool> {
        let recorded = self.files.get(&self.watched.name, directory)?;
        if !recorded.is_some_and(|recorded| recorded.look.is_mount) {
            return Ok(false);
        }
        let is_left = match self.root.look_at(directory) {
            // Far cheaper than listing it: a mount that is there is what most deletions are in.
            Ok(look) if look.is_mount || look.kind != EntryKind::Directory => false,
            Ok(_) => {
                let opened = self.root.open_directory(directory);
                opened.and_then(|opened| names_in(opened.as_fd())).is_ok_and(|names| names.is_empty())
            }
            Err(unseen) => unseen == Unseen::Gone,
        };
        Ok(is_left && self.files.has_below(&self.watched.name, directory)?)
    }

    /// The same for a directory on which something was mounted and that was listed already.
    pub(super) fn is_left_by_a_mount(&self, directory: &RelPath, listing: &Listing) -> Result<bool> {
        let is_bare = !listing.look.is_mount && listing.entries.is_empty();
        Ok(is_bare && self.files.has_below(&self.watched.name, directory)?)
    }
}

/// That everything at and below `path` keeps its last version.
pub(super) fn unmounted(path: RelPath) -> Finding {
    let failure = Failure { reason: SkipReason::Unmounted, message: UNMOUNTED.to_owned() };
    Finding::Skipped { path, failure }
}

/// The directories above `below` that lie below `top`.
fn directories_between(top: &RelPath, below: &RelPath) -> Vec<RelPath> {
    let mut between = Vec::new();
    let mut above = below.parent();
    while let Some(directory) = above.filter(|directory| directory != top) {
        above = directory.parent();
        between.push(directory);
    }
    between
}
