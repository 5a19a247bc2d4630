//! From rows to findings: what has to be stored, recorded or taken away, before anything is read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use bytesize::ByteSize;

use crate::beneath::{EntryKind, Look, RootDirectory, Unseen, names_in};
use crate::clock::now_ns;
use crate::error::{Kind, Result};
use crate::ignore::Verdict;
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::scan::{self, Counts, Finding, Limit, WatchedRoot};
use crate::snapshot::Batch;
use crate::store::changes::{Cursor, Failure, RowVerdict, Scope, SkipReason, TakenRow};
use crate::store::checkpoints::RowOutcome;
use crate::store::files::FileRecord;

/// A root that is missing for now looks again after this, milliseconds.
const UNAVAILABLE_PAUSE_MS: i64 = 10_000;

/// Metadata record, tree entry, index row and stat cache row of one finding, in the pack and in the database.
const BYTES_A_FINDING: u64 = 1024;

/// A root that cannot be looked at; its last version stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnavailableRoot {
    /// Which.
    pub root: RootName,
    /// Why, and what to do.
    pub reason: String,
}

/// The findings of one root.
pub(super) struct RootFindings<'b> {
    pub watched: &'b WatchedRoot,
    pub directory: RootDirectory,
    pub findings: Vec<Finding>,
}

pub(super) struct Gathered<'b> {
    pub roots: Vec<RootFindings<'b>>,
    pub outcomes: Vec<RowOutcome>,
    pub walks: BTreeMap<RootName, (Counts, bool)>,
    pub unavailable: Vec<UnavailableRoot>,
}

impl Gathered<'_> {
    /// Bytes that the commit takes on the disk if nothing of it can be compressed.
    pub fn bytes_at_most(&self) -> u64 {
        let findings = self.roots.iter().flat_map(|root| &root.findings);
        findings.fold(0u64, |sum, finding| {
            let content = match finding {
                Finding::Changed { look, .. } if look.kind == EntryKind::File => look.size,
                _ => 0,
            };
            sum.saturating_add(content).saturating_add(BYTES_A_FINDING)
        })
    }

    /// Leaves files of more than `bytes` out, for want of room: they must not hold up all others.
    pub fn leave_out_larger_than(&mut self, bytes: u64) {
        for finding in self.roots.iter_mut().flat_map(|root| &mut root.findings) {
            if let Finding::Changed { path, look, .. } = finding
                && look.kind == EntryKind::File
                && look.size > bytes
            {
                let message = format!(
                    "its {} do not fit on the disk of the state directory: make room there",
                    ByteSize(look.size)
                );
                let failure = Failure { reason: SkipReason::TooLarge, message };
                *finding = Finding::Skipped { path: path.clone(), failure };
            }
        }
    }
}

pub(super) fn gather<'b>(batch: &Batch<'b>, now_ms: i64, progress: &Progress) -> Result<Gathered<'b>> {
    let mut gathered =
        Gathered { roots: Vec::new(), outcomes: Vec::new(), walks: BTreeMap::new(), unavailable: Vec::new() };
    let mut room = batch.limit;
    for watched in batch.roots {
        let rows: Vec<&TakenRow> = batch.rows.iter().filter(|row| row.root == watched.name).collect();
        if rows.is_empty() {
            continue;
        }
        let directory = match watched.open(batch.files) {
            Ok(directory) => directory,
            Err(error) if error.kind() == Kind::RootUnavailable => {
                hold(&rows, &error.to_string(), now_ms, &mut gathered);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut gatherer = Gatherer { batch, watched, directory: &directory, room, findings: Vec::new() };
        for row in rows {
            progress.check()?;
            let verdict = gatherer.look(row, &mut gathered.walks, progress)?;
            gathered.outcomes.extend(verdict.map(|verdict| outcome(row, verdict)));
        }
        gatherer.look_at_other_names()?;
        gatherer.touch_parents()?;
        room = gatherer.room;
        let findings = gatherer.findings;
        gathered.roots.push(RootFindings { watched, directory, findings });
    }
    Ok(gathered)
}

fn outcome(row: &TakenRow, verdict: RowVerdict) -> RowOutcome {
    RowOutcome { root: row.root.clone(), path: row.path.clone(), seq: row.row.seq, verdict }
}

fn hold(rows: &[&TakenRow], reason: &str, now_ms: i64, gathered: &mut Gathered<'_>) {
    let Some(first) = rows.first() else { return };
    gathered.unavailable.push(UnavailableRoot { root: first.root.clone(), reason: reason.to_owned() });
    for row in rows {
        let failure = Failure { reason: SkipReason::RootUnavailable, message: reason.to_owned() };
        let not_before_ms = now_ms + UNAVAILABLE_PAUSE_MS;
        gathered.outcomes.push(outcome(row, RowVerdict::Again { not_before_ms, failure }));
    }
}

struct Gatherer<'g, 'b> {
    batch: &'g Batch<'b>,
    watched: &'b WatchedRoot,
    directory: &'g RootDirectory,
    room: Limit,
    findings: Vec<Finding>,
}

impl Gatherer<'_, '_> {
    /// Looks where the row says; `None` leaves the row as it is, for the next batch.
    fn look(
        &mut self,
        row: &TakenRow,
        walks: &mut BTreeMap<RootName, (Counts, bool)>,
        progress: &Progress,
    ) -> Result<Option<RowVerdict>> {
        if self.room.findings == 0 || self.room.bytes == 0 {
            return Ok(None);
        }
        if let Scope::Deep { cursor, walk_seq } = &row.row.scope {
            let walk_seq = if cursor.is_none() { row.row.seq } else { *walk_seq };
            return self.walk(row, cursor.as_ref(), walk_seq, walks, progress).map(Some);
        }
        let path = &row.path;
        let recorded = self.batch.files.get(&self.watched.name, path)?;
        let excluded = |look: &Look| {
            let is_directory = look.kind == EntryKind::Directory;
            self.watched.is_elsewhere(self.directory, look)
                || matches!(self.watched.rules.verdict(path, is_directory), Verdict::Excluded { .. })
        };
        match self.directory.look_at(path) {
            Ok(look) if excluded(&look) => {
                self.findings.extend(recorded.map(|record| gone(path, record.look.kind)));
            }
            Ok(look) if look.kind == EntryKind::Directory => {
                // A directory that is not known as one may have come with anything in it; one that something was
                // mounted on may hide anything now; of one that could not be listed nobody knows what is in it.
                let is_same = |record: &FileRecord| {
                    record.look.kind == EntryKind::Directory && record.look.is_mount == look.is_mount
                };
                if !recorded.as_ref().is_some_and(is_same) || row.row.failure.is_some() {
                    return self.walk(row, None, row.row.seq, &mut BTreeMap::new(), progress).map(Some);
                }
                self.take_away_what_vanished_from(path)?;
                self.changed(path, look, recorded);
            }
            Ok(look) => {
                let unchanged =
                    recorded.as_ref().is_some_and(|record| record.proves_unchanged(&look, now_ns()));
                if unchanged {
                    return Ok(Some(RowVerdict::Done));
                }
                if let Some(failure) = self.watched.refusal(&look) {
                    self.findings.push(Finding::Skipped { path: path.clone(), failure });
                    return Ok(Some(RowVerdict::Done));
                }
                let too_much = look.kind == EntryKind::File
                    && self.room.bytes < self.batch.limit.bytes
                    && look.size > self.room.bytes;
                if too_much {
                    return Ok(None);
                }
                if recorded.as_ref().is_some_and(|record| record.look.kind == EntryKind::Directory) {
                    self.findings.push(gone(path, EntryKind::Directory));
                }
                self.changed(path, look, recorded);
            }
            Err(Unseen::Gone) => {
                let kind = match recorded {
                    Some(record) => record.look.kind,
                    // It came again within a batch that had seen it gone.
                    None if self.batch.files.has_below(&self.watched.name, path)? => EntryKind::Directory,
                    None => return Ok(Some(RowVerdict::Done)),
                };
                let findings = self.ground().vanished_alone(path, Some(kind))?;
                self.findings.extend(findings);
            }
            Err(Unseen::Unreadable(message)) => self.skip(path, SkipReason::Unreadable, message),
        }
        Ok(Some(RowVerdict::Done))
    }

    fn skip(&mut self, path: &RelPath, reason: SkipReason, message: String) {
        let failure = Failure { reason, message };
        self.findings.push(Finding::Skipped { path: path.clone(), failure });
    }

    fn ground(&self) -> scan::Ground<'_> {
        scan::Ground {
            root: self.directory,
            watched: self.watched,
            files: self.batch.files,
            threads: self.batch.threads,
        }
    }

    /// Who watches by comparing listings cannot name an entry that came and went between two of them; we may
    /// have stored it meanwhile.
    fn take_away_what_vanished_from(&mut self, directory: &RelPath) -> Result<()> {
        let listed = self.directory.open_directory(directory).and_then(|open| names_in(open.as_fd()));
        let Ok(names) = listed else { return Ok(()) };
        let is_there = |name: &[u8]| names.binary_search_by(|listed| listed.as_bytes().cmp(name)).is_ok();
        let mut vanished: BTreeMap<Vec<u8>, EntryKind> = BTreeMap::new();
        for name in self.batch.files.directories_within(&self.watched.name, directory)? {
            vanished.insert(name, EntryKind::Directory);
        }
        for (name, record) in self.batch.files.children(&self.watched.name, directory)? {
            vanished.insert(name, record.look.kind);
        }
        for (name, kind) in vanished.into_iter().filter(|(name, _)| !is_there(name)) {
            let findings = self.ground().vanished(&directory.join(&name), kind)?;
            self.findings.extend(findings);
        }
        Ok(())
    }

    fn changed(&mut self, path: &RelPath, look: Look, recorded: Option<FileRecord>) {
        if look.kind == EntryKind::File {
            self.room.bytes = self.room.bytes.saturating_sub(look.size);
        }
        self.room.findings = self.room.findings.saturating_sub(1);
        self.findings.push(Finding::Changed { path: path.clone(), look, recorded: recorded.map(Box::new) });
    }

    fn walk(
        &mut self,
        row: &TakenRow,
        cursor: Option<&Cursor>,
        walk_seq: u64,
        walks: &mut BTreeMap<RootName, (Counts, bool)>,
        progress: &Progress,
    ) -> Result<RowVerdict> {
        let walked = scan::walk(self.ground(), &row.path, cursor, self.room, progress)?;
        self.room.findings = self.room.findings.saturating_sub(walked.findings.len());
        self.room.bytes = self.room.bytes.saturating_sub(walked.bytes);
        self.findings.extend(walked.findings);
        if row.path.is_root() {
            walks.insert(self.watched.name.clone(), (walked.counts, walked.cursor.is_none()));
        }
        Ok(RowVerdict::Walked { cursor: walked.cursor, walk_seq })
    }

    /// A change through one of a file's names is told for that name only: its other names changed too.
    fn look_at_other_names(&mut self) -> Result<()> {
        let mut inodes = HashSet::new();
        let mut found = HashSet::new();
        for finding in &self.findings {
            let Finding::Changed { path, look, recorded } = finding else { continue };
            let former = recorded.as_ref().map(|record| record.look);
            let linked = [Some(*look), former].into_iter().flatten();
            let linked = linked.filter(|look| look.kind == EntryKind::File && look.links > 1);
            inodes.extend(linked.map(|look| (look.device, look.inode)));
            found.insert(path.clone());
        }
        if inodes.is_empty() {
            return Ok(());
        }
        for path in self.batch.files.names_of(&self.watched.name, &inodes)? {
            if found.contains(&path) {
                continue;
            }
            let Ok(look) = self.directory.look_at(&path) else { continue };
            let recorded = self.batch.files.get(&self.watched.name, &path)?;
            let is_stale = recorded.as_ref().is_some_and(|record| !record.proves_unchanged(&look, now_ns()));
            if look.kind == EntryKind::File && is_stale {
                self.changed(&path, look, recorded);
            }
        }
        Ok(())
    }

    /// An entry that comes or goes changes its directory's times, of which no event tells.
    fn touch_parents(&mut self) -> Result<()> {
        let mut parents = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for finding in &self.findings {
            match finding {
                Finding::Changed { path, look, .. } if look.kind == EntryKind::Directory => {
                    seen.insert(path.clone());
                    parents.extend(path.parent());
                }
                Finding::Changed { path, .. } | Finding::Gone { path, .. } => parents.extend(path.parent()),
                Finding::Skipped { .. } => {}
            }
        }
        while let Some(path) = parents.pop_last() {
            if seen.contains(&path) {
                continue;
            }
            let look = match self.directory.look_at(&path) {
                Ok(look) if look.kind == EntryKind::Directory => look,
                // It went too: so did the entry that it was.
                Err(Unseen::Gone) => {
                    parents.extend(path.parent());
                    continue;
                }
                _ => continue,
            };
            seen.insert(path.clone());
            let recorded = self.batch.files.get(&self.watched.name, &path)?;
            // A directory that is not recorded yet has a row of its own that walks it.
            let stale = recorded.as_ref().is_some_and(|record| {
                record.look.kind == EntryKind::Directory && !record.proves_unchanged(&look, now_ns())
            });
            if stale {
                let recorded = recorded.map(Box::new);
                self.findings.push(Finding::Changed { path, look, recorded });
            }
        }
        Ok(())
    }
}

fn gone(path: &RelPath, kind: EntryKind) -> Finding {
    Finding::Gone { path: path.clone(), kind }
}
