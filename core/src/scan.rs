//! A root against the stat cache: what is there, what changed since it was last stored, what is gone.
//!
//! [`walk`] goes through a directory tree in a fixed order (a directory's own record, then its entries that are
//! not directories by name, then its directories by name) and compares each directory's listing with the
//! recorded children. It stops when it has found enough for one commit and says where to go on. Memory is
//! bounded by the largest single directory and a fixed lookahead (`listing.rs`), descriptors by one a thread.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::beneath::{self, EntryKind, Look, RootDirectory, Unseen};
use crate::clock::now_ns;
use crate::error::Result;
use crate::ignore::{ExcludedBy, Scope, Verdict};
use crate::path::RelPath;
use crate::progress::Progress;
use crate::store::changes::{Cursor, Failure, SkipReason};
use crate::store::files::{FileRecord, FilesView};

use listing::{Listing, Lookahead};

mod listing;
mod mounts;
mod watched;

pub use watched::{Bounds, WatchedRoot};

/// One thing a walk or a look found.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// An entry that is not as it was recorded, or was not recorded.
    Changed {
        /// Where.
        path: RelPath,
        /// What it is now.
        look: Look,
        /// What was recorded of it.
        recorded: Option<Box<FileRecord>>,
    },
    /// A recorded entry that is gone, or is left out now.
    Gone {
        /// Where.
        path: RelPath,
        /// What it was.
        kind: EntryKind,
    },
    /// Something that cannot be looked at; its last version stays.
    Skipped {
        /// Where.
        path: RelPath,
        /// Why.
        failure: Failure,
    },
}

/// Numbers of a walk, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files and links seen.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries left out by patterns and ignore files; a directory counts once.
    pub excluded_by_rules: u64,
    /// Entries left out by the documented system list.
    pub excluded_by_system: u64,
    /// Entries left out because they are on another file system; what is below them is not counted.
    pub excluded_by_file_system: u64,
}

impl Counts {
    /// Adds the numbers of the next part of the same walk.
    pub fn add(&mut self, more: &Counts) {
        self.files += more.files;
        self.bytes += more.bytes;
        self.excluded_by_rules += more.excluded_by_rules;
        self.excluded_by_system += more.excluded_by_system;
        self.excluded_by_file_system += more.excluded_by_file_system;
    }
}

/// Directories that are read before the walk has come to them.
const DIRECTORIES_AHEAD: usize = 4;

/// How much one commit should take.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Findings.
    pub findings: usize,
    /// Bytes of files to be read.
    pub bytes: u64,
}

/// What a walk goes through.
#[derive(Clone, Copy)]
pub struct Ground<'g> {
    /// The open root.
    pub root: &'g RootDirectory,
    /// What is known of it.
    pub watched: &'g WatchedRoot,
    /// What was recorded of it.
    pub files: &'g FilesView,
    /// Threads that read directories, at least one.
    pub threads: usize,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// In the order of the walk; what is gone stands before what replaces it.
    pub findings: Vec<Finding>,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// Where to go on; absent when the walk is complete.
    pub cursor: Option<Cursor>,
    /// Numbers of this part.
    pub counts: Counts,
}

/// Compares everything at and below `top` with the stat cache, from `cursor` on, until `limit` is reached.
///
/// # Errors
/// Only for the stat cache and cancellation; whatever cannot be looked at is a [`Finding::Skipped`].
pub fn walk(
    ground: Ground<'_>,
    top: &RelPath,
    cursor: Option<&Cursor>,
    limit: Limit,
    progress: &Progress,
) -> Result<Walked> {
    let Ground { root, watched, files, threads } = ground;
    Lookahead::run(root, &watched.rules, threads.saturating_sub(1), |ahead| {
        let out = Walked::default();
        let mut walker = Walker { ground, root, watched, files, limit, progress, ahead, out, full: false };
        match cursor {
            None => walker.start(top)?,
            Some(cursor) => walker.resume(top, cursor)?,
        }
        Ok(walker.out)
    })
}

struct Walker<'w> {
    ground: Ground<'w>,
    root: &'w RootDirectory,
    watched: &'w WatchedRoot,
    files: &'w FilesView,
    limit: Limit,
    progress: &'w Progress,
    ahead: &'w Lookahead,
    out: Walked,
    full: bool,
}

/// Directories still to be entered, the next one last.
type Pending = Vec<RelPath>;

impl Walker<'_> {
    fn start(&mut self, top: &RelPath) -> Result<()> {
        let recorded = self.files.get(&self.watched.name, top)?;
        let mut pending = Pending::new();
        match self.root.look_at(top) {
            Ok(look) if look.kind == EntryKind::Directory => {
                if !top.is_root() && self.is_excluded(top, &look) {
                    self.gone(top, recorded.as_ref());
                    return Ok(());
                }
                pending.push(top.clone());
            }
            Ok(look) => {
                if self.is_excluded(top, &look) {
                    self.gone(top, recorded.as_ref());
                } else {
                    self.compare(top.clone(), look, recorded);
                }
            }
            Err(Unseen::Gone) => {
                let kind = recorded.map(|record| record.look.kind);
                self.out.findings.extend(self.ground.vanished_alone(top, kind)?);
            }
            Err(Unseen::Unreadable(why)) => self.skip(top.clone(), SkipReason::Unreadable, why),
        }
        self.run(pending)
    }

    /// Rebuilds what was still to be done when the walk stopped at `cursor`: in each directory on the way to it
    /// the later directories, then the rest of the directory that it stopped in.
    fn resume(&mut self, top: &RelPath, cursor: &Cursor) -> Result<()> {
        let stopped_in = match cursor.path.parent() {
            _ if cursor.entered => cursor.path.clone(),
            Some(parent) => parent,
            None => RelPath::root(),
        };
        let mut pending = Pending::new();
        let mut directory = top.clone();
        let below_top = stopped_in.components().skip(top.components().count()).map(<[u8]>::to_vec);
        let way: Vec<Vec<u8>> = if stopped_in.is_within(top) { below_top.collect() } else { Vec::new() };
        for next in way {
            self.push_later_directories(&directory, Some(&next), &mut pending);
            directory = directory.join(&next);
        }
        let after = if cursor.entered { None } else { cursor.path.file_name().map(<[u8]>::to_vec) };
        if let Some(listing) = self.list(&directory) {
            self.entries(&directory, listing, after.as_deref(), &mut pending)?;
        }
        self.run(pending)
    }

    fn push_later_directories(&self, directory: &RelPath, after: Option<&[u8]>, pending: &mut Pending) {
        let Ok(open) = self.root.open_directory(directory) else { return };
        let Ok(names) = beneath::names_in(open.as_fd()) else { return };
        let later = names.iter().rev().filter(|name| after.is_none_or(|after| name.as_bytes() > after));
        for name in later {
            let Ok(look) = beneath::look_in(open.as_fd(), name) else { continue };
            let path = directory.join(name.as_bytes());
            if look.kind == EntryKind::Directory && !self.is_excluded(&path, &look) {
                pending.push(path);
            }
        }
    }

    fn run(&mut self, mut pending: Pending) -> Result<()> {
        while let Some(directory) = pending.pop() {
            if self.full {
                return Ok(());
            }
            self.progress.check()?;
            self.ahead.announce(pending.iter().rev().take(DIRECTORIES_AHEAD));
            let Some(listing) = self.list(&directory) else { continue };
            let recorded = self.files.get(&self.watched.name, &directory)?;
            if recorded.as_ref().is_some_and(|recorded| recorded.look.is_mount)
                && self.ground.is_left_by_a_mount(&directory, &listing)?
            {
                self.out.findings.push(mounts::unmounted(directory));
                continue;
            }
            self.compare(directory.clone(), listing.look, recorded);
            self.stop_if_full(&directory, true);
            if self.full {
                return Ok(());
            }
            self.entries(&directory, listing, None, &mut pending)?;
        }
        Ok(())
    }

    /// What is in a directory; where it cannot be read, as much as can be told is, and its last version stays.
    fn list(&mut self, directory: &RelPath) -> Option<Listing> {
        match self.ahead.take(self.root, &self.watched.rules, directory) {
            Ok(listing) => Some(listing),
            // It was a directory when its parent was listed: whatever it is now, an event will tell.
            Err(Unseen::Gone) => None,
            Err(Unseen::Unreadable(why)) => {
                self.skip(directory.clone(), SkipReason::Unreadable, why);
                None
            }
        }
    }

    /// Compares the children of one directory; directories among them go to `pending`, the first one last.
    fn entries(
        &mut self,
        directory: &RelPath,
        listing: Listing,
        after: Option<&[u8]>,
        pending: &mut Pending,
    ) -> Result<()> {
        let mut found = Pending::new();
        let scope = listing.scope;
        let recorded = self.files.children(&self.watched.name, directory)?;
        let mut unrecorded = self.files.directories_within(&self.watched.name, directory)?;
        unrecorded.retain(|name| recorded.binary_search_by(|(recorded, _)| recorded.cmp(name)).is_err());
        let mut recorded = recorded.into_iter().peekable();
        for (name, look) in listing.entries {
            let name = name.as_bytes();
            let came_again = unrecorded.iter().position(|unrecorded| unrecorded == name);
            let came_again = came_again.map(|place| unrecorded.remove(place));
            while let Some((gone, record)) = recorded.next_if(|(recorded, _)| recorded.as_slice() < name) {
                self.vanished_child(directory, &gone, &record, after)?;
            }
            let record =
                recorded.next_if(|(recorded, _)| recorded.as_slice() == name).map(|(_, record)| record);
            let path = directory.join(name);
            let look = match look {
                Ok(look) => look,
                Err(Unseen::Gone) => {
                    if let Some(record) = record {
                        self.vanished_child(directory, name, &record, after)?;
                    }
                    unrecorded.extend(came_again);
                    continue;
                }
                Err(Unseen::Unreadable(why)) => {
                    self.skip(path, SkipReason::Unreadable, why);
                    continue;
                }
            };
            let is_directory = look.kind == EntryKind::Directory;
            if self.excluded(&scope, name, &look) {
                if let Some(record) = record {
                    self.gone_child(directory, name, &record, after);
                } else if came_again.is_some() {
                    self.out.findings.push(Finding::Gone { path, kind: EntryKind::Directory });
                }
                continue;
            }
            if is_directory {
                found.push(path);
                continue;
            }
            if after.is_some_and(|after| name <= after) {
                continue;
            }
            self.out.counts.files += u64::from(look.kind.has_content());
            self.out.counts.bytes += look.size;
            let is_taken = self.watched.refusal(&look).is_none();
            if is_taken && self.would_overflow(&look, record.as_ref()) {
                self.stop_before(directory, after, &path);
                return Ok(());
            }
            self.compare(path.clone(), look, record);
            self.stop_if_full(&path, false);
            if self.full {
                return Ok(());
            }
        }
        for (gone, record) in recorded {
            self.vanished_child(directory, &gone, &record, after)?;
        }
        for gone in unrecorded {
            let findings = self.ground.vanished(&directory.join(&gone), EntryKind::Directory)?;
            self.out.findings.extend(findings);
        }
        pending.extend(found.into_iter().rev());
        Ok(())
    }

    /// Whether taking this file would make the commit larger than it should be.
    fn would_overflow(&self, look: &Look, record: Option<&FileRecord>) -> bool {
        let unchanged = record.is_some_and(|record| record.proves_unchanged(look, now_ns()));
        !unchanged && self.out.bytes > 0 && self.out.bytes.saturating_add(look.size) > self.limit.bytes
    }

    /// Stops so that `path` is the first entry of the next batch.
    fn stop_before(&mut self, directory: &RelPath, after: Option<&[u8]>, path: &RelPath) {
        let last = self.out.findings.iter().rev().find_map(|finding| match finding {
            Finding::Changed { path: last, .. }
                if last.parent().as_ref() == Some(directory) && last < path =>
            {
                Some(Cursor { path: last.clone(), entered: false })
            }
            _ => None,
        });
        let before = after.map(|after| Cursor { path: directory.join(after), entered: false });
        let entered = Cursor { path: directory.clone(), entered: true };
        self.out.cursor = Some(last.or(before).unwrap_or(entered));
        self.full = true;
    }

    fn stop_if_full(&mut self, done: &RelPath, entered: bool) {
        if self.out.findings.len() >= self.limit.findings || self.out.bytes >= self.limit.bytes {
            self.out.cursor = Some(Cursor { path: done.clone(), entered });
            self.full = true;
        }
    }

    fn compare(&mut self, path: RelPath, look: Look, recorded: Option<FileRecord>) {
        self.progress.tick();
        // What is stored already is no trouble, however large it is by now's limits.
        if recorded.as_ref().is_some_and(|recorded| recorded.proves_unchanged(&look, now_ns())) {
            return;
        }
        if let Some(failure) = self.watched.refusal(&look) {
            self.out.findings.push(Finding::Skipped { path, failure });
            return;
        }
        if let Some(recorded) = &recorded
            && recorded.look.kind == EntryKind::Directory
            && look.kind != EntryKind::Directory
        {
            self.out.findings.push(Finding::Gone { path: path.clone(), kind: EntryKind::Directory });
        }
        if look.kind == EntryKind::File {
            self.out.bytes = self.out.bytes.saturating_add(look.size);
        }
        self.out.findings.push(Finding::Changed { path, look, recorded: recorded.map(Box::new) });
    }

    fn gone(&mut self, path: &RelPath, recorded: Option<&FileRecord>) {
        if let Some(recorded) = recorded {
            self.out.findings.push(Finding::Gone { path: path.clone(), kind: recorded.look.kind });
        }
    }

    fn gone_child(&mut self, directory: &RelPath, name: &[u8], record: &FileRecord, after: Option<&[u8]>) {
        if after.is_none_or(|after| name > after) || record.look.kind == EntryKind::Directory {
            self.gone(&directory.join(name), Some(record));
        }
    }

    /// As [`Self::gone_child`] for what is not there any more, and not merely left out.
    fn vanished_child(
        &mut self,
        directory: &RelPath,
        name: &[u8],
        record: &FileRecord,
        after: Option<&[u8]>,
    ) -> Result<()> {
        if after.is_none_or(|after| name > after) || record.look.kind == EntryKind::Directory {
            let findings = self.ground.vanished(&directory.join(name), record.look.kind)?;
            self.out.findings.extend(findings);
        }
        Ok(())
    }

    fn skip(&mut self, path: RelPath, reason: SkipReason, message: String) {
        let failure = Failure { reason, message };
        self.out.findings.push(Finding::Skipped { path, failure });
    }

    fn is_excluded(&self, path: &RelPath, look: &Look) -> bool {
        let is_directory = look.kind == EntryKind::Directory;
        self.watched.is_elsewhere(self.root, look)
            || matches!(self.watched.rules.verdict(path, is_directory), Verdict::Excluded { .. })
    }

    fn excluded(&mut self, scope: &Scope, name: &[u8], look: &Look) -> bool {
        match self.watched.rules.verdict_child(scope, name, look.kind == EntryKind::Directory) {
            Verdict::Included if self.watched.is_elsewhere(self.root, look) => {
                self.out.counts.excluded_by_file_system += 1;
                true
            }
            Verdict::Included => false,
            Verdict::Excluded { by: ExcludedBy::System, .. } => {
                self.out.counts.excluded_by_system += 1;
                true
            }
            Verdict::Excluded { .. } => {
                self.out.counts.excluded_by_rules += 1;
                true
            }
        }
    }
}
