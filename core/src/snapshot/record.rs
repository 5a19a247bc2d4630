//! From captured findings to edits: the tree, the metadata records, the stat cache, the rows that must wait.

use std::collections::{HashMap, HashSet};

use git2::Oid;

use super::attributes::PointerNames;
use super::gather::RootFindings;
use super::{Summary, git_mode, raw};
use crate::beneath::{self, EntryKind, Look, Unseen};
use crate::clock::now_ns;
use crate::content::Capture;
use crate::error::Result;
use crate::git::repository::Repository;
use crate::guard::{Guard, Tally};
use crate::metadata::{Changes, Mtime, Record};
use crate::names::RootName;
use crate::path::RelPath;
use crate::scan::Finding;
use crate::store::changes::{Failure, RowVerdict, SkipReason};
use crate::store::checkpoints::RowOutcome;
use crate::store::files::{FileDelta, FileRecord, FilesView};
use crate::tree::{Edits, Entry};

/// The first pause before a path that could not be captured is tried again; it doubles up to the longest.
const FIRST_PAUSE_MS: i64 = 1_000;
const LONGEST_PAUSE_MS: i64 = 60_000;
/// The same for what cannot be read because of the disk or a want of descriptors; permissions seldom change by
/// themselves, and wait the longest pause.
const FIRST_UNREADABLE_PAUSE_MS: i64 = 5_000;
const LONGEST_UNREADABLE_PAUSE_MS: i64 = 300_000;

/// What stands in the tree for a file or a link.
struct Content {
    stored: Oid,
    checksum: [u8; 32],
    is_pointer: bool,
}

/// Where the edits of one root are collected.
pub(super) struct Collector<'c> {
    pub files: &'c FilesView,
    pub edits: &'c mut Edits,
    pub changes: Changes,
    pub deltas: Vec<FileDelta>,
    pub outcomes: Vec<RowOutcome>,
    pub summary: &'c mut Summary,
    pub owners: &'c mut Owners,
    /// Which names stand for pointers, and no longer do.
    pub pointers: PointerNames,
    /// What is taken away and put, if somebody counts it.
    pub tally: Option<Tally>,
    pub guard: Option<Guard<'c>>,
    pub repository: &'c Repository,
    /// Failed attempts of the batch's rows so far, by path.
    pub attempts: HashMap<RelPath, (u64, u32)>,
    pub now_ms: i64,
}

impl Collector<'_> {
    /// What is gone goes first: what stands in its place now must not be taken away with it. So does a content
    /// that a directory or a special file has taken the place of.
    pub fn removals(&mut self, root: &RootFindings<'_>) -> Result<()> {
        // An entry can be missed at its own row and at its directory's.
        let mut removed = HashSet::new();
        for finding in &root.findings {
            match finding {
                Finding::Gone { path, kind } if removed.insert(path) => {
                    self.remove(&root.watched.name, path, *kind)?;
                }
                Finding::Changed { path, look, recorded: Some(recorded) }
                    if recorded.look.kind.has_content() && !look.kind.has_content() =>
                {
                    self.edits.remove(path.to_git_path(&root.watched.name));
                    self.pointers.note(path, Some(recorded), false);
                    self.count(&root.watched.name, path, Some(&recorded.stored), None)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&mut self, root: &RootName, path: &RelPath, kind: EntryKind) -> Result<()> {
        self.summary.deleted += 1;
        self.edits.remove(path.to_git_path(root));
        self.changes.remove(path);
        self.count_removal(root, path)?;
        if kind.has_content() {
            self.pointers.note(path, self.files.get(root, path)?.as_ref(), false);
        }
        if kind == EntryKind::Directory || self.files.has_below(root, path)? {
            self.pointers.directory_gone(path);
            self.deltas.push(FileDelta::RemoveTree(path.clone()));
        } else {
            self.deltas.push(FileDelta::Remove(path.clone()));
        }
        Ok(())
    }

    /// Takes the findings and what became of their contents.
    ///
    /// A batch looks at one path after the other while the disk goes on changing, so it may have seen a path as
    /// a file and something below it as a file too. The tree can hold one of them only, and the stat cache must
    /// never claim more than the tree has: what lies below a path that is no directory here waits.
    pub fn entries(&mut self, root: &RootFindings<'_>, captures: Vec<Option<Capture>>) -> Result<()> {
        let is_leaf = |finding: &Finding, capture: &Option<Capture>| match (finding, capture) {
            (Finding::Changed { path, look, .. }, None | Some(Capture::Stored(_))) => {
                (look.kind != EntryKind::Directory).then(|| path.clone())
            }
            _ => None,
        };
        let leaves: HashSet<RelPath> = root
            .findings
            .iter()
            .zip(&captures)
            .filter_map(|(finding, capture)| is_leaf(finding, capture))
            .collect();
        for (finding, capture) in root.findings.iter().zip(captures) {
            match finding {
                Finding::Gone { .. } => {}
                Finding::Skipped { path, failure } => self.wait(&root.watched.name, path, failure.clone()),
                Finding::Changed { path, .. } if lies_below(path, &leaves) => {
                    let message =
                        "a directory on the way to it turned into something else meanwhile".to_owned();
                    let failure = Failure { reason: SkipReason::Changing, message };
                    self.wait(&root.watched.name, path, failure);
                }
                Finding::Changed { path, look, recorded } => {
                    self.changed(root, path, look, recorded.as_deref(), capture)?;
                }
            }
        }
        Ok(())
    }

    fn changed(
        &mut self,
        root: &RootFindings<'_>,
        path: &RelPath,
        look: &Look,
        recorded: Option<&FileRecord>,
        capture: Option<Capture>,
    ) -> Result<()> {
        let name = &root.watched.name;
        match capture {
            None => self.put(root, path, look, None, Vec::new(), now_ns())?,
            Some(Capture::Stored(cleaned)) => {
                self.summary.bytes += cleaned.look.size;
                match recorded.filter(|record| record.look.kind.has_content()) {
                    Some(_) => self.summary.changed += 1,
                    None => self.summary.added += 1,
                }
                let after = raw(cleaned.stored);
                let before = recorded.filter(|record| record.look.kind.has_content());
                // What only had to be stored again is no change.
                let before = before.map(|record| if record.is_stored() { record.stored } else { after });
                self.count(name, path, before.as_ref(), Some(&after))?;
                self.pointers.note(path, recorded, cleaned.is_pointer);
                let content = Some(Content {
                    stored: cleaned.stored,
                    checksum: cleaned.checksum,
                    is_pointer: cleaned.is_pointer,
                });
                self.put(root, path, &cleaned.look, content, cleaned.xattrs, cleaned.recorded_ns)?;
            }
            // Gone since it was found: its own event or the next rescan tells what stands there now.
            Some(Capture::Gone) => {
                let failure = Failure {
                    reason: SkipReason::Changing,
                    message: "it vanished while it was read".to_owned(),
                };
                self.wait(name, path, failure);
            }
            Some(Capture::Failed(failure)) => {
                self.summary.torn += u64::from(failure.reason == SkipReason::Changing);
                self.wait(name, path, failure);
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        root: &RootFindings<'_>,
        path: &RelPath,
        look: &Look,
        content: Option<Content>,
        mut xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        recorded_ns: i64,
    ) -> Result<()> {
        // Records below a path that is no directory speak of files that the tree loses with this edit.
        if look.kind != EntryKind::Directory && self.files.has_below(&root.watched.name, path)? {
            self.count_below(&root.watched.name, path)?;
            self.pointers.directory_gone(path);
            self.deltas.push(FileDelta::RemoveTree(path.clone()));
        }
        if look.kind == EntryKind::Directory
            && let Ok(open) = root.directory.open_directory(path)
        {
            match beneath::xattrs_of(std::os::fd::AsFd::as_fd(&open)) {
                Ok(found) => xattrs = found,
                Err(Unseen::Unreadable(message)) => {
                    let failure = Failure { reason: SkipReason::Unreadable, message };
                    self.wait(&root.watched.name, path, failure);
                    return Ok(());
                }
                Err(Unseen::Gone) => {}
            }
        }
        if let (Some(content), Some(mode)) = (&content, git_mode(look.kind, look.mode)) {
            self.edits.set(path.to_git_path(&root.watched.name), Entry { mode, oid: content.stored });
        }
        let checksum = content.as_ref().map(|content| content.checksum);
        let record = self.record(root, path, look, checksum, xattrs);
        match path.parent() {
            Some(parent) if look.kind != EntryKind::Directory => self.changes.put(&parent, record),
            _ => self.changes.put_directory(path, record),
        }
        let record = FileRecord {
            look: *look,
            recorded_ns,
            stored: content.as_ref().map_or([0; 20], |content| raw(content.stored)),
            checksum: checksum.unwrap_or([0; 32]),
            is_pointer: content.is_some_and(|content| content.is_pointer),
        };
        self.deltas.push(FileDelta::Put(path.clone(), Box::new(record)));
        Ok(())
    }

    fn record(
        &mut self,
        root: &RootFindings<'_>,
        path: &RelPath,
        look: &Look,
        checksum: Option<[u8; 32]>,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Record {
        let is_file = look.kind == EntryKind::File;
        // Inode numbers are unique within a file system; the root's own needs no number of its own.
        let hard_link = (is_file && look.links > 1).then(|| {
            if look.device == root.directory.look().device {
                format!("{:x}", look.inode)
            } else {
                format!("{:x}:{:x}", look.device, look.inode)
            }
        });
        Record {
            name: path.file_name().unwrap_or(b".").to_vec(),
            kind: look.kind,
            mode: look.mode,
            uid: look.uid,
            gid: look.gid,
            user: self.owners.user(look.uid),
            group: self.owners.group(look.gid),
            mtime: mtime(look.mtime_ns),
            size: look.kind.has_content().then_some(look.size),
            blake3: checksum.filter(|_| is_file),
            xattrs: xattrs.into_iter().collect(),
            xattrs_omitted: false,
            hard_link,
            device: look.device_numbers(),
            is_mount: look.is_mount,
        }
    }

    /// Tells who counts what stood at a path and what stands there.
    fn count(
        &mut self,
        root: &RootName,
        path: &RelPath,
        before: Option<&[u8; 20]>,
        after: Option<&[u8; 20]>,
    ) -> Result<()> {
        let (Some(tally), Some(guard)) = (&mut self.tally, self.guard) else { return Ok(()) };
        let is_excused = guard.restores.did(self.repository, root, path, after)?;
        tally.note(path, before, after, is_excused);
        Ok(())
    }

    fn count_removal(&mut self, root: &RootName, path: &RelPath) -> Result<()> {
        if self.tally.is_none() {
            return Ok(());
        }
        let recorded = self.files.get(root, path)?.filter(|record| record.look.kind.has_content());
        if let Some(recorded) = recorded {
            self.count(root, path, Some(&recorded.stored), None)?;
        }
        self.count_below(root, path)
    }

    fn count_below(&mut self, root: &RootName, path: &RelPath) -> Result<()> {
        let (Some(tally), Some(guard)) = (&mut self.tally, self.guard) else { return Ok(()) };
        let mut outcome = Ok(());
        self.files.contents_below(root, path, &mut |path, stored| match guard.restores.did(
            self.repository,
            root,
            &path,
            None,
        ) {
            Ok(is_excused) => tally.note(&path, Some(&stored), None, is_excused),
            Err(error) => outcome = Err(error),
        })?;
        outcome
    }

    fn wait(&mut self, root: &RootName, path: &RelPath, failure: Failure) {
        let (seq, attempts) = self.attempts.get(path).copied().unwrap_or((0, 0));
        let pause = match failure.reason {
            SkipReason::Changing => (FIRST_PAUSE_MS << attempts.min(16)).min(LONGEST_PAUSE_MS),
            _ if failure.message == beneath::PERMISSION_DENIED => LONGEST_UNREADABLE_PAUSE_MS,
            _ => (FIRST_UNREADABLE_PAUSE_MS << attempts.min(16)).min(LONGEST_UNREADABLE_PAUSE_MS),
        };
        let verdict = RowVerdict::Again { not_before_ms: self.now_ms + pause, failure };
        self.outcomes.push(RowOutcome { root: root.clone(), path: path.clone(), seq, verdict });
    }
}

/// Whether a directory on the way to `path` is one of `leaves`.
fn lies_below(path: &RelPath, leaves: &HashSet<RelPath>) -> bool {
    let mut above = path.parent();
    while let Some(directory) = above {
        if leaves.contains(&directory) {
            return true;
        }
        above = directory.parent();
    }
    false
}

fn mtime(ns: i64) -> Mtime {
    let nanoseconds = u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0);
    Mtime { seconds: ns.div_euclid(1_000_000_000), nanoseconds }
}

/// Names of users and groups, each asked for once a batch.
#[derive(Default)]
pub(super) struct Owners {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Owners {
    fn user(&mut self, uid: u32) -> Option<String> {
        let ask = || uzers::get_user_by_uid(uid)?.name().to_str().map(str::to_owned);
        self.users.entry(uid).or_insert_with(ask).clone()
    }

    fn group(&mut self, gid: u32) -> Option<String> {
        let ask = || uzers::get_group_by_gid(gid)?.name().to_str().map(str::to_owned);
        self.groups.entry(gid).or_insert_with(ask).clone()
    }
}
