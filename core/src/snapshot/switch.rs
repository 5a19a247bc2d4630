//! The switch: one commit that brings the whole tree into the form that the configuration wants, before any batch goes on.
//!
//! A tree is never mixed: all that its policy covers is encrypted with one key, and all checksums are keyed with it. So when
//! the configuration's policy is not the tip's (encryption switched on or off, another key, other paths), [`build`] makes a
//! commit of the tip's own files in the other form and of nothing else; the rows stay queued, and the stat cache gets what is
//! stored now. It is staged, published and settled like any other commit, so that whatever happens on the way leaves the one
//! form or the other.
//!
//! OpenPGP messages cannot be brought into another form here: who wrote them has public keys only. Where other people are to
//! read them, or the key of the metadata is another or lost, the switch changes what the tree says, and marks all of them in the
//! stat cache: the next batches read the files and encrypt them anew, and until then the former messages stay. Leaving OpenPGP
//! begins another branch with an empty tree ([`Way::Afresh`]), which the next batches fill.
//!
//! `decision` says whether that is to be done, `plan` walks the tree, `convert` brings contents into the other form, `source`
//! gives them twice with flat memory, `again` marks.

mod again;
mod convert;
mod decision;
mod plan;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use git2::{Oid, Sort};

use self::convert::{Converted, Converter};
pub(super) use self::decision::find;
pub use self::decision::may_begin_at;
use self::plan::{Item, Plan};
use super::attributes::{Base, PointerNames};
use super::{Batch, Built, PackSink, Summary, description, message, raw};
use crate::clock;
use crate::crypt::keyring::Key;
use crate::crypt::policy::{Cipher, Policy};
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::contents::Contents;
use crate::git::objects::ObjectDatabase;
use crate::git::pack::{self, ObjectKind, PackSet, PackWriter};
use crate::git::repository::{Repository, git_error};
use crate::lfs::Objects;
use crate::metadata::{self, Reform};
use crate::names::RootName;
use crate::path::{RelPath, lossy};
use crate::progress::Progress;
use crate::store::checkpoints::{Checkpoint, Settlement, StagedCommit};
use crate::store::files::{FileDelta, FileRecord};
use crate::tree::{self, Edits, Entry};

/// Bytes that records, trees and index take for each file.
const BYTES_A_FILE: u64 = 1024;

/// What a switch came to, for who tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// What was there: `clear text`, or the key's name.
    pub from: String,
    /// What is there now.
    pub to: String,
    /// Files that are stored in another form now.
    pub files: u64,
    /// Files that cannot be: they are left out from now on.
    pub left_out: Vec<String>,
    /// Older commits in this history that anybody can read.
    pub clear_commits: u64,
    /// What is read and encrypted anew by the next batches, and why, if that has to be.
    pub again: Option<Again>,
}

/// Why everything has to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Others than before are to read it.
    Recipients,
    /// The key of the metadata is another.
    Key,
    /// The key of the metadata is lost, and with it the metadata.
    Lost,
    /// The branch begins with what is in the watched directories.
    Afresh,
}

impl Again {
    /// In words, for logs and commit messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recipients => "other recipients",
            Self::Key => "another key of the metadata",
            Self::Lost => "the key of the metadata is lost",
            Self::Afresh => "a new branch after OpenPGP",
        }
    }
}

/// A switch that has to be made before anything else is committed.
pub(super) struct Switch {
    tree: Oid,
    /// The commit that it builds on; absent where it begins a history of its own.
    parent: Option<Oid>,
    old: Option<Old>,
    way: Way,
}

/// How the tree that is there is encrypted.
struct Old {
    policy: Policy,
    /// Absent if it is lost, which only who writes OpenPGP messages gets over.
    key: Option<Arc<Key>>,
}

/// How the other form is come to.
enum Way {
    /// What is there is converted, or marked.
    Over,
    /// Nothing of what is there can be read: the branch begins anew.
    Afresh,
}

/// Makes the commit.
///
/// # Errors
/// [`Kind::EncryptionKey`] if a large content is not here any more; for the repository, the disk and cancellation.
pub(super) fn build(
    batch: &Batch<'_>,
    switch: &Switch,
    objects: &ObjectDatabase<'_>,
    present_tip: Option<Oid>,
    progress: &Progress,
) -> Result<Built> {
    let repository = batch.repository;
    let large = Objects::of(repository.path());
    let old = switch.old.as_ref();
    let plan = match switch.way {
        Way::Over => Plan::of_tree(batch, objects, switch.tree, old, &large, progress)?,
        Way::Afresh => Plan::default(),
    };
    let room = Room::of(repository.path())?;
    room.must_hold(plan.bytes.saturating_add(plan.items.len() as u64 * BYTES_A_FILE), repository.path())?;
    let known = PackSet::open(&repository.pack_directory())?;
    let pack = PackWriter::create(&repository.pack_directory())?;
    fault::point("snapshot:pack-begun");
    let converter = Converter {
        contents: &Contents::open(repository.path())?,
        large: &large,
        pack: &pack,
        known: &known,
        classifier: batch.classifier,
        old: old.and_then(|old| Some((&old.policy, old.key.as_deref()?))),
        new: batch.sealer,
        messages: Mutex::default(),
    };
    let converted = convert::all(&converter, &plan.items, batch.threads, progress)?;
    fault::point("switch:contents-stored");

    let sink = PackSink(&pack);
    let mut edits = Edits::new();
    let mut settlement = Settlement::default();
    let mut files = 0;
    for (item, result) in plan.items.iter().zip(&converted) {
        if result.stored != item.entry.oid {
            files += 1;
            edits.set(item.path.clone(), Entry { mode: item.entry.mode, oid: result.stored });
        }
    }
    for (path, _) in &plan.too_large {
        edits.remove(path.clone());
    }
    let by_root = by_root(&plan.items, &converted);
    let base = Base { objects, tree: Some(switch.tree), files: batch.files };
    // Also those that are no longer configured: their last version stays in the tree.
    let too_large = plan.too_large.iter().filter_map(|(_, place)| place.as_ref()).map(|(root, _)| root);
    let roots: BTreeSet<&RootName> = by_root.keys().chain(too_large).collect();
    for root in roots {
        let of_root = by_root.get(root).map_or(&[][..], Vec::as_slice);
        let mut pointers = PointerNames::default();
        let mut deltas = Vec::new();
        for (item, result) in of_root {
            let Some((_, path)) = &item.place else { continue };
            let recorded = batch.files.get(root, path)?;
            if item.is_pointer != result.is_pointer {
                pointers.turn(path, result.is_pointer);
            }
            deltas.extend(recorded.map(|recorded| item.delta(path, &recorded, result)));
        }
        for (_, place) in &plan.too_large {
            if let Some((name, path)) = place
                && name == root
            {
                pointers.turn(path, false);
                deltas.push(FileDelta::Remove(path.clone()));
            }
        }
        pointers.apply(base, root, &sink, &mut edits)?;
        if !deltas.is_empty() {
            settlement.files.push((root.clone(), deltas));
        }
    }
    let again = again::why(batch, switch, &plan);
    settlement.files.extend(again::marks(batch, again, &plan)?);
    let tree = match switch.way {
        Way::Over => {
            write_records(batch, switch, objects, &sink, &plan, &converted, again, &mut edits, progress)?;
            tree::apply(objects, &sink, Some(switch.tree), &edits)?
        }
        Way::Afresh => {
            description::apply(objects, None, batch.sealer, &sink, &mut edits)?;
            tree::apply(objects, &sink, None, &edits)?
        }
    };
    let tree = tree.ok_or_else(|| Error::new(Kind::Internal, "a switch came to an empty tree"))?;
    progress.check()?;

    let commit_time = clock::now();
    let clear_commits = match (batch.sealer, switch.parent) {
        (Some(_), Some(parent)) => clear_commits(repository, parent, progress)?,
        _ => 0,
    };
    let switched = Switched {
        from: match switch.way {
            Way::Over => named(old.map(|old| &old.policy)),
            Way::Afresh => "OpenPGP messages on another branch".to_owned(),
        },
        to: named(batch.sealer.map(|sealer| sealer.policy())),
        files,
        left_out: plan.too_large.iter().map(|(path, _)| lossy(path)).collect(),
        clear_commits,
        again,
    };
    let mut summary = Summary { switched: Some(switched), ..Summary::default() };
    let text = message::commit_object(batch, tree, switch.parent, commit_time, &summary)?;
    let commit = pack.add(ObjectKind::Commit, text.as_bytes())?;
    let tags = message::tags(batch, commit_time)?;
    let Some(finished) = pack.finish(pack::Sync::Durable, progress)? else {
        return Err(Error::new(Kind::Internal, "a switch was written to an empty pack"));
    };
    fault::point("snapshot:pack-synced");
    summary.pack_bytes = finished.bytes();
    let at_ms = clock::now_ms();
    settlement.checkpoint = Some(Checkpoint { commit: raw(commit), at_ms, batch: batch.number });
    if let (Some(guard), Some(parent)) = (batch.guard, switch.parent) {
        let turned = by_root.iter().map(|(root, of_root)| {
            let pairs = of_root.iter().map(|(item, result)| (raw(item.entry.oid), raw(result.stored)));
            (root, pairs.collect())
        });
        guard.memory.turn(parent, commit, turned);
    }
    let staged = StagedCommit {
        branch: batch.branch.to_owned(),
        expected: present_tip.map(raw),
        commit: raw(commit),
        pack: finished.into_name(),
        tags,
        settlement,
    };
    Ok(Built::Commit(Box::new(staged), summary))
}

type OfRoot<'i> = Vec<(&'i Item, &'i Converted)>;

fn by_root<'i>(items: &'i [Item], converted: &'i [Converted]) -> BTreeMap<RootName, OfRoot<'i>> {
    let mut by_root: BTreeMap<RootName, OfRoot<'i>> = BTreeMap::new();
    for (item, result) in items.iter().zip(converted) {
        if let Some((root, _)) = &item.place {
            by_root.entry(root.clone()).or_default().push((item, result));
        }
    }
    by_root
}

/// The metadata, and what says in the tree how it is encrypted.
#[expect(clippy::too_many_arguments, reason = "all of it is the one commit")]
fn write_records(
    batch: &Batch<'_>,
    switch: &Switch,
    objects: &ObjectDatabase<'_>,
    sink: &PackSink<'_>,
    plan: &Plan,
    converted: &[Converted],
    again: Option<Again>,
    edits: &mut Edits,
    progress: &Progress,
) -> Result<()> {
    let is_other_key =
        switch.old.as_ref().map(|old| &old.policy.key) != batch.sealer.map(|sealer| &sealer.policy().key);
    if again == Some(Again::Lost) {
        // Nobody here can read it. It comes back with the files, each as it is read again.
        if tree::lookup(objects, switch.tree, metadata::TOP.as_bytes())?.is_some() {
            edits.remove(metadata::TOP);
        }
    } else if is_other_key || !plan.too_large.is_empty() {
        // Both are in the order of their paths.
        let reform_of = |path: &[u8]| {
            let place = plan.items.binary_search_by(|item| item.path.as_slice().cmp(path));
            if let Some(checksum) = place.ok().and_then(|at| converted[at].checksum) {
                return Reform::Checksum(checksum);
            }
            let is_too_large =
                plan.too_large.binary_search_by(|(too_large, _)| too_large.as_slice().cmp(path));
            match is_too_large {
                Ok(_) => Reform::Gone,
                Err(_) if is_other_key => Reform::Unknown,
                Err(_) => Reform::Same,
            }
        };
        let key = batch.sealer.map(|sealer| sealer.key());
        metadata::rewrite(objects, sink, switch.tree, key, &reform_of, edits, progress)?;
    }
    description::apply(objects, Some(switch.tree), batch.sealer, sink, edits)
}

fn named(policy: Option<&Policy>) -> String {
    policy.map_or_else(
        || "clear text".to_owned(),
        |policy| match policy.paths.texts().as_slice() {
            [] => by(policy),
            paths => format!("{}, paths {}", by(policy), paths.join(" ")),
        },
    )
}

fn by(policy: &Policy) -> String {
    match &policy.cipher {
        Cipher::GitCrypt => format!("git-crypt with key {}", policy.key),
        Cipher::OpenPgp { recipients } => {
            format!("gpg for {}, metadata with key {}", recipients.join(" "), policy.key)
        }
    }
}

/// How many commits up to `tip` are clear text.
///
/// # Errors
/// When the history cannot be read; cancellation.
pub fn clear_commits(repository: &Repository, tip: Oid, progress: &Progress) -> Result<u64> {
    let fail = |error| git_error("walk the history of", repository.path(), error);
    let objects = repository.objects()?;
    let mut commits = repository.git().revwalk().map_err(fail)?;
    commits.set_sorting(Sort::TOPOLOGICAL).map_err(fail)?;
    commits.push(tip).map_err(fail)?;
    let mut clear = 0;
    for commit in commits {
        progress.check()?;
        let tree = repository.tree_of(commit.map_err(fail)?)?;
        clear += u64::from(tree::lookup(&objects, tree, crate::crypt::policy::PATH.as_bytes())?.is_none());
    }
    Ok(clear)
}

impl Item {
    /// What the stat cache says of it from now on.
    fn delta(&self, path: &RelPath, recorded: &FileRecord, result: &Converted) -> FileDelta {
        if recorded.stored != raw(self.entry.oid) {
            // It does not speak of what the tree has: the next look finds out.
            return FileDelta::Remove(path.clone());
        }
        let record = FileRecord {
            stored: raw(result.stored),
            checksum: result.checksum.unwrap_or(recorded.checksum),
            is_pointer: result.is_pointer,
            ..recorded.clone()
        };
        FileDelta::Put(path.clone(), Box::new(record))
    }

    fn shown(&self) -> String {
        lossy(&self.path)
    }
}
