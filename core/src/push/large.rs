//! The large contents that a push needs at the remote before a branch there may lead to them.
//!
//! In: objects that are about to be sent. Out: the pointers among them, each once, handed to whoever brings contents
//! there. What a remote refuses for itself (too large for it, no room for it) holds nothing else up, but the push is then
//! incomplete, and says so.

use std::collections::BTreeSet;

use git2::{ObjectType, Oid, TreeWalkMode, TreeWalkResult};

use crate::error::{Kind, Result};
use crate::git::contents::may_point;
use crate::git::reachable::new_objects;
use crate::git::repository::{Repository, git_error};
use crate::lfs::{Objects, Pointer};
use crate::path::lossy;
use crate::progress::Progress;
use crate::transport::Notes;

/// Of so many a message has the names.
const NAMED: usize = 5;

/// Brings large contents to a remote.
pub trait LargeDelivery {
    /// Makes sure that the remote has these contents: asks for each, sends what it lacks, and has it confirmed.
    ///
    /// # Errors
    /// What stands in the way of all of them; trouble with single ones is in the answer.
    fn bring(&mut self, wanted: &[Pointer], progress: &Progress) -> Result<Brought>;

    /// What was noticed since the last call.
    fn notes(&mut self) -> Notes {
        Notes::default()
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brought {
    /// Contents sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that the remote does not have now.
    pub withheld: Vec<Withheld>,
}

impl Brought {
    /// Adds what came of others.
    pub fn add(&mut self, other: Brought) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.withheld.extend(other.withheld);
    }
}

/// A large content that could not be brought to a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Which.
    pub pointer: Pointer,
    /// The class of the reason.
    pub kind: Kind,
    /// The reason, and what to do.
    pub why: String,
}

impl Withheld {
    /// The class that stands for several: what has to be mended first.
    pub fn class(all: &[Withheld]) -> Kind {
        let has = |kind: Kind| all.iter().any(|one| one.kind == kind);
        let urgent = [Kind::Quota, Kind::TooLarge].into_iter().find(|kind| has(*kind));
        urgent.or(all.first().map(|one| one.kind)).unwrap_or(Kind::RemoteRefused)
    }

    /// What to say of several, with the names that they have in a commit.
    pub fn explain(all: &[Withheld], source: &Repository, commit: Oid) -> String {
        let shown: Vec<String> = all
            .iter()
            .take(NAMED)
            .map(|one| {
                let name = name_of(source, commit, &one.pointer)
                    .unwrap_or_else(|| "in an earlier commit".to_owned());
                format!("{name} ({} bytes, object {}): {}", one.pointer.size, one.pointer.id, one.why)
            })
            .collect();
        let more = match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!(
            "{} large {} not at the remote, everything else is: {}{more}",
            all.len(),
            if all.len() == 1 { "object is" } else { "objects are" },
            shown.join("; ")
        )
    }
}

/// Where a commit has a large content, if it has it: the first name found.
fn name_of(source: &Repository, commit: Oid, pointer: &Pointer) -> Option<String> {
    let blob = Oid::hash_object(ObjectType::Blob, pointer.encode().as_bytes()).ok()?;
    let tree = source.git().find_tree(source.tree_of(commit).ok()?).ok()?;
    let mut found = None;
    let walked = tree.walk(TreeWalkMode::PreOrder, |directory, entry| {
        if entry.id() != blob {
            return TreeWalkResult::Ok;
        }
        found = Some(lossy(&[directory.as_bytes(), entry.name_bytes()].concat()));
        TreeWalkResult::Abort
    });
    // To stop at what was looked for is an error to libgit2.
    let _ = walked;
    found
}

/// Whether a repository has, or had, large contents at all; if not, nothing is looked for.
pub fn has_any(source: &Repository) -> bool {
    Objects::of(source.path()).is_in_use()
}

/// The pointers among `objects`, each once.
///
/// # Errors
/// When an object cannot be read.
pub fn pointers_in(source: &Repository, objects: &[Oid], progress: &Progress) -> Result<Vec<Pointer>> {
    let database = source.objects()?;
    let fail = |error| git_error("read the objects of", source.path(), error);
    let mut found = BTreeSet::new();
    for object in objects {
        progress.check()?;
        let (size, kind) = database.read_header(*object).map_err(fail)?;
        if kind == ObjectType::Blob && may_point(size as u64) {
            found.extend(Pointer::parse(database.read(*object).map_err(fail)?.data()));
        }
    }
    Ok(found.into_iter().collect())
}

/// The pointers that are reachable from `tip` and not from `have`.
///
/// # Errors
/// When the history cannot be read.
pub fn pointers_between(
    source: &Repository,
    tip: Oid,
    have: &[Oid],
    progress: &Progress,
) -> Result<Vec<Pointer>> {
    let have: Vec<Oid> = have.iter().copied().filter(|commit| source.has_commit(*commit)).collect();
    pointers_in(source, &new_objects(source, tip, &have, progress)?, progress)
}
