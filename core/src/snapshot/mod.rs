//! A batch becomes a commit.
//!
//! [`build`] reads what the batch's rows point at into **one pack** (contents, metadata, trees, the commit) and
//! syncs it under a temporary name; nothing visible has changed by then. The queue then records the
//! [`StagedCommit`] durably, and [`publish`] puts the pack in place and moves the branch. Settling the rows is
//! the queue's. docs/architecture.md has the table of crash points; [`recover`] is what the next start does.

mod attributes;
mod description;
mod gather;
pub mod message;
mod publish;
mod rebuild;
mod record;
mod rollback;
mod store;
mod switch;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use git2::{ObjectType, Oid};

use self::attributes::PointerNames;
use self::gather::RootFindings;
use self::record::{Collector, Owners};
use crate::beneath::EntryKind;
use crate::clock;
use crate::config::{Encryption, Tags};
use crate::content::{Destination, Elsewhere};
use crate::crypt::sealer::Sealer;
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::pack::{self, ObjectKind, PackSet, PackWriter};
use crate::git::repository::Repository;
use crate::guard::{self, Guard, Loss};
use crate::lfs::{Classifier, Objects, Pointer};
use crate::metadata;
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::scan::{Counts, Finding, Limit, WatchedRoot};
use crate::store::changes::{RowVerdict, TakenRow};
use crate::store::checkpoints::{Checkpoint, RowOutcome, Settlement, StagedCommit};
use crate::store::files::{FileRecord, FilesView};
use crate::tree::{self, Edits, TreeSink};

pub use gather::UnavailableRoot;
pub use publish::{Recovered, publish, recover};
pub use rebuild::{batch_of, rebuild_files};
pub use rollback::take_back;
pub use switch::{Again, Switched, clear_commits, may_begin_at};

/// The version of the repository layout that docs/format.md describes.
pub const FORMAT: u32 = 1;

/// Everything that a batch needs, decided by the caller.
pub struct Batch<'b> {
    /// Where the commit goes.
    pub repository: &'b Repository,
    /// The branch, in full.
    pub branch: &'b str,
    /// The commit that the stat cache speaks of. The branch may not exist yet, or stand behind it, where its name
    /// depends on the date.
    pub base: Option<Oid>,
    /// Author and committer.
    pub identity: (&'b str, &'b str),
    /// Who backs up, for the trailer.
    pub instance: &'b str,
    /// When to set tags, and how they are called.
    pub tags: &'b Tags,
    /// The roots of the repository.
    pub roots: &'b [WatchedRoot],
    /// The rows to look at.
    pub rows: Vec<TakenRow>,
    /// Which files go to large storage.
    pub classifier: &'b Classifier,
    /// What the configuration says of encryption, if anything.
    pub encryption: Option<&'b Encryption>,
    /// What encrypts, if anything is to be encrypted.
    pub sealer: Option<&'b Sealer>,
    /// Whether every remote is known to have a large content.
    pub is_everywhere: &'b (dyn Fn(&Pointer) -> Result<bool> + Sync),
    /// The stat cache as it was when the rows were taken or later.
    pub files: &'b FilesView,
    /// How much one commit takes.
    pub limit: Limit,
    /// Bytes; a file of more is alone in its commit, and is left out where the disk has no room for it.
    pub large_file: u64,
    /// This batch's number.
    pub number: u64,
    /// Threads that read files.
    pub threads: usize,
    /// What mass changes are judged by; absent where none is looked for.
    pub guard: Option<Guard<'b>>,
}

/// What a batch came to, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files and links that were not in the parent.
    pub added: u64,
    /// Files and links whose content or metadata is new.
    pub changed: u64,
    /// Entries that are gone; a directory counts once.
    pub deleted: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files that changed while they were read.
    pub torn: u64,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// Numbers of the walks in this batch, by root; the flag says that the walk is complete.
    pub walks: BTreeMap<RootName, (Counts, bool)>,
    /// Roots that could not be looked at, and why.
    pub unavailable: Vec<UnavailableRoot>,
    /// The mass change that this batch belongs to, if it does.
    pub mass_change: Option<(RootName, Loss)>,
    /// Nothing was looked at: what is there was brought into another form.
    pub switched: Option<Switched>,
}

/// What became of a batch.
#[derive(Debug)]
pub enum Built {
    /// The tree is what it was; only rows and stat cache move on.
    Unchanged(Box<Settlement>, Summary),
    /// A pack waits for the staged record and the branch.
    Commit(Box<StagedCommit>, Summary),
}

/// Reads a batch into a pack.
///
/// # Errors
/// For the repository, the disk and cancellation. Trouble with single files is in the settlement.
pub fn build(batch: &Batch<'_>, progress: &Progress) -> Result<Built> {
    let repository = batch.repository;
    let present_tip = repository.reference(batch.branch)?;
    let parent = parent_of(batch, present_tip)?;
    let parent_tree = parent.map(|commit| repository.tree_of(commit)).transpose()?;
    let objects = repository.objects()?;
    if let Some(switch) = switch::find(batch, &objects, present_tip, parent.zip(parent_tree))? {
        return switch::build(batch, &switch, &objects, present_tip, progress);
    }
    // A disk without room for anything is told before the directories are walked.
    let room = Room::of(repository.path())?;
    room.must_hold(0, repository.path())?;
    let known = PackSet::open(&repository.pack_directory())?;
    let pack = PackWriter::create(&repository.pack_directory())?;
    fault::point("snapshot:pack-begun");

    let now_ms = clock::now_ms();
    let mut gathered = gather::gather(batch, now_ms, progress)?;
    if gathered.bytes_at_most() > room.spare() {
        gathered.leave_out_larger_than(batch.large_file);
    }
    room.must_hold(gathered.bytes_at_most(), repository.path())?;
    let mut summary =
        Summary { walks: gathered.walks, unavailable: gathered.unavailable, ..Summary::default() };
    let mut edits = Edits::new();
    let mut settlement = Settlement { rows: gathered.outcomes, ..Settlement::default() };
    let mut owners = Owners::default();
    let sink = PackSink(&pack);
    let large = Objects::of(repository.path());
    let elsewhere = elsewhere(batch, &gathered.roots)?;
    let to = Destination {
        pack: &pack,
        present: &known,
        objects: &large,
        classifier: batch.classifier,
        sealer: batch.sealer,
        elsewhere: &elsewhere,
        is_everywhere: batch.is_everywhere,
    };
    let mut judge = batch
        .guard
        .map(|guard| guard.begin(repository, parent, now_ms.div_euclid(1000), progress))
        .transpose()?;
    for root in gathered.roots {
        let captures = store::store(&root, to, batch.threads, progress)?;
        let name = &root.watched.name;
        let attempts = batch.rows.iter().filter(|row| row.root == *name);
        let mut collector = Collector {
            files: batch.files,
            edits: &mut edits,
            changes: metadata::Changes::new(),
            deltas: Vec::new(),
            outcomes: Vec::new(),
            summary: &mut summary,
            owners: &mut owners,
            pointers: PointerNames::default(),
            tally: judge.as_ref().and_then(|judge| judge.tally(name)),
            guard: batch.guard,
            repository,
            attempts: attempts.map(|row| (row.path.clone(), (row.row.seq, row.row.attempts))).collect(),
            now_ms,
        };
        collector.removals(&root)?;
        collector.entries(&root, captures)?;
        let Collector { changes, deltas, outcomes, pointers, tally, .. } = collector;
        if let (Some(judge), Some(tally)) = (&mut judge, tally)
            && let Some(loss) = judge.take(name, &tally, batch.files)?
        {
            summary.mass_change = Some((name.clone(), loss));
        }
        metadata::apply(
            &objects,
            &sink,
            parent_tree,
            name,
            &changes,
            batch.sealer.map(Sealer::key),
            &mut edits,
        )?;
        let base = attributes::Base { objects: &objects, tree: parent_tree, files: batch.files };
        pointers.apply(base, name, &sink, &mut edits)?;
        override_outcomes(&mut settlement, outcomes);
        if !deltas.is_empty() {
            settlement.files.push((name.clone(), deltas));
        }
    }
    description::apply(&objects, parent_tree, batch.sealer, &sink, &mut edits)?;
    progress.check()?;
    let tree = match tree::apply(&objects, &sink, parent_tree, &edits)? {
        Some(tree) => tree,
        None => sink.write(ObjectType::Tree, b"")?,
    };
    if Some(tree) == parent_tree {
        if let Some(judge) = judge {
            judge.remember(None);
        }
        return Ok(Built::Unchanged(Box::new(settlement), summary));
    }
    let is_quarantined =
        summary.mass_change.is_some() && judge.as_ref().is_some_and(guard::Judge::quarantines);
    let commit_time = clock::now();
    let text = message::commit_object(batch, tree, parent, commit_time, &summary)?;
    let commit = pack.add(ObjectKind::Commit, text.as_bytes())?;
    let tags = if is_quarantined { Vec::new() } else { message::tags(batch, commit_time)? };
    let finished = pack.finish(pack::Sync::Durable, progress)?;
    let Some(finished) = finished else {
        return Err(Error::new(Kind::Internal, "a commit was written to an empty pack"));
    };
    fault::point("snapshot:pack-synced");
    summary.pack_bytes = finished.bytes();
    settlement.checkpoint = Some(Checkpoint { commit: raw(commit), at_ms: now_ms, batch: batch.number });
    if let Some(judge) = judge {
        judge.remember(Some(commit));
    }
    let (branch, expected) = if is_quarantined {
        (guard::branch::name(repository, batch.instance, commit_time.as_second())?, None)
    } else {
        (batch.branch.to_owned(), present_tip.map(raw))
    };
    let staged =
        StagedCommit { branch, expected, commit: raw(commit), pack: finished.into_name(), tags, settlement };
    Ok(Built::Commit(Box::new(staged), summary))
}

/// What leaves its place in this batch, or has other names than those that changed, and would be stored as another object if it
/// were stored again.
fn elsewhere(batch: &Batch<'_>, roots: &[RootFindings<'_>]) -> Result<Elsewhere> {
    let elsewhere = Elsewhere::default();
    let Some(sealer) = batch.sealer.filter(|sealer| sealer.is_open_pgp()) else { return Ok(elsewhere) };
    for root in roots {
        let name = &root.watched.name;
        let note = |path: &RelPath, record: FileRecord| {
            if record.look.kind == EntryKind::File && sealer.covers(&path.to_git_path(name)) {
                elsewhere.note(record);
            }
        };
        let mut linked = HashSet::new();
        for finding in &root.findings {
            match finding {
                Finding::Gone { path, .. } => {
                    if let Some(record) = batch.files.get(name, path)? {
                        note(path, record);
                    }
                    batch.files.records_below(name, path, &mut |path, record| note(&path, record))?;
                }
                Finding::Changed { look, .. } if look.kind == EntryKind::File && look.links > 1 => {
                    linked.insert((look.device, look.inode));
                }
                _ => {}
            }
        }
        if linked.is_empty() {
            continue;
        }
        for path in batch.files.names_of(name, &linked)? {
            if let Some(record) = batch.files.get(name, &path)? {
                note(&path, record);
            }
        }
    }
    Ok(elsewhere)
}

/// What the commit builds on. What the stat cache calls unchanged is taken from there, so it must be the commit
/// that the cache speaks of, or files would be missing.
fn parent_of(batch: &Batch<'_>, present_tip: Option<Oid>) -> Result<Option<Oid>> {
    let Some(base) = batch.base else { return Ok(present_tip) };
    let is_ahead = match present_tip {
        Some(tip) => batch.repository.is_ancestor(tip, base)?,
        None => batch.repository.has_commit(base),
    };
    if is_ahead {
        return Ok(Some(base));
    }
    let text = format!(
        "{} of {} was moved by somebody else: it no longer leads to {base}",
        batch.branch,
        batch.repository.path().display()
    );
    Err(Error::new(Kind::RefMoved, text))
}

/// An object id as the store keeps it.
pub fn raw(oid: Oid) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(oid.as_bytes());
    bytes
}

/// An object id as libgit2 wants it.
pub fn oid(bytes: &[u8; 20]) -> Result<Oid> {
    Oid::from_bytes(bytes)
        .map_err(|error| Error::with_source(Kind::Store, "a stored commit id is not one", error))
}

struct PackSink<'p>(&'p PackWriter);

impl TreeSink for PackSink<'_> {
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid> {
        let kind = match kind {
            ObjectType::Tree => ObjectKind::Tree,
            ObjectType::Commit => ObjectKind::Commit,
            _ => ObjectKind::Blob,
        };
        self.0.add(kind, data)
    }
}

/// A path that has to wait does so in its own row, not in the walk or look that came upon it. If it is the row that
/// the walk began at, nothing was walked: were that row settled, it would stand for nothing but what came after.
fn override_outcomes(settlement: &mut Settlement, waiting: Vec<RowOutcome>) {
    if waiting.is_empty() {
        return;
    }
    let mut ended: HashMap<(RootName, RelPath), usize> = HashMap::new();
    for (place, outcome) in settlement.rows.iter().enumerate() {
        if matches!(outcome.verdict, RowVerdict::Done | RowVerdict::Walked { cursor: None, .. }) {
            ended.insert((outcome.root.clone(), outcome.path.clone()), place);
        }
    }
    for outcome in waiting {
        match ended.get(&(outcome.root.clone(), outcome.path.clone())) {
            Some(place) => settlement.rows[*place] = outcome,
            None => settlement.rows.push(outcome),
        }
    }
}

/// The mode under which Git keeps an entry of this kind; `None` for what lives in metadata only.
fn git_mode(kind: EntryKind, mode: u32) -> Option<u32> {
    match kind {
        EntryKind::File if mode & 0o100 != 0 => Some(tree::MODE_EXECUTABLE),
        EntryKind::File => Some(tree::MODE_FILE),
        EntryKind::Symlink => Some(tree::MODE_SYMLINK),
        _ => None,
    }
}
