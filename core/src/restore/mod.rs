//! Restoring: what a snapshot holds, back to disk, proven byte by byte, into one directory and nowhere else.
//!
//! ```text
//! Request ─ plan ─▶ steps (a dry run ends here)         what: history, selection, content
//!              └─ apply ─▶ threads ─▶ target             how: hands, target
//! ```
//!
//! [`plan()`] walks the snapshot and the target side by side and says what would happen; [`apply()`] walks in the same
//! way, by the same code, and does it. Both tell every [`Step`] before it is taken and end with a [`Report`]. One path
//! that cannot be restored is a problem in the report and stops nothing else; a full disk, a stop from outside or a
//! failing repository end the run, and running it again goes on where it ended.
//!
//! [`marker`] tells a restore's own leftovers from somebody's files, [`journal`] remembers what a restore in place
//! touched so that it can be undone.

mod bounds;
mod compare;
mod content;
mod finish;
mod hands;
pub mod journal;
pub mod marker;
mod removal;
mod report;
mod selection;
mod step;
pub mod target;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::crypt::unsealer::Unsealer;
use crate::error::{Error, Kind, Result};
use crate::git::contents::{Contents, LargeContents};
use crate::git::repository::Repository;
use crate::history::Snapshot;
use crate::ignore::IgnoreRules;
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;

pub use bounds::{Bounds, repository_bytes};
pub use content::{fits, stands_in};
pub use report::{MOST_NAMED, Named, Report, Reread, Totals};
pub use selection::{Selection, What, Wish, has_wildcards};
pub use step::{Action, Step};

/// Told every step before it is taken; an error ends the run.
pub type Tell<'t> = &'t mut dyn FnMut(&Step) -> Result<()>;

/// What is done about something that stands where something is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is left as it is.
    Never,
    /// It is left if it is what an earlier run of the same restore put there; anything else is a problem.
    Finish,
    /// It is replaced if it differs. The same size and time count as the same content.
    Changed,
    /// It is replaced.
    Always,
    /// Nothing is written; whatever differs is a problem. Contents are read.
    Compare,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Below a directory, each root under its name.
    Directory(PathBuf),
    /// Each root in its own directory.
    InPlace(BTreeMap<RootName, PathBuf>),
}

/// How.
#[derive(Debug, Clone)]
pub struct Policies {
    /// What is done about what stands there.
    pub existing: Existing,
    /// Whether a file may take the place of an empty directory, and a directory that of a file.
    pub replace_kinds: bool,
    /// Whether what the snapshot does not have is removed.
    pub delete: bool,
    /// What is left out of the backup of a root is never removed.
    pub excluded: BTreeMap<RootName, Arc<IgnoreRules>>,
    /// In place: what could not be committed before, so that its present bytes are nowhere else.
    pub unsaved: BTreeMap<RootName, BTreeSet<RelPath>>,
    /// Whether named pipes, sockets and devices are made.
    pub specials: bool,
    /// Whether what stands in for a file (a pointer, ciphertext) is restored as it is.
    pub raw: bool,
    /// Whether set-id bits and capabilities are given.
    pub set_id: bool,
    /// What a repository may ask for.
    pub bounds: Bounds,
    /// For a plan alone: a content that is not here is taken for what its record says of it.
    pub contents_elsewhere: bool,
    /// Who has large contents; without it, the repository's own store.
    pub large: Option<Arc<dyn LargeContents>>,
    /// Threads that write.
    pub threads: usize,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            existing: Existing::Never,
            replace_kinds: false,
            delete: false,
            excluded: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            specials: false,
            raw: false,
            set_id: true,
            bounds: Bounds::default(),
            contents_elsewhere: false,
            large: None,
            threads: std::thread::available_parallelism().map_or(2, |threads| threads.get().clamp(2, 4)),
        }
    }
}

/// What is to be restored, from where, to where, and how.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// From here.
    pub repository: &'r Repository,
    /// This state.
    pub snapshot: &'r Snapshot,
    /// This part of it.
    pub selection: &'r Selection,
    /// To here.
    pub destination: &'r Destination,
    /// In this way.
    pub policies: &'r Policies,
}

/// A plan: what would happen, and what it takes.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// As if it had been done.
    pub report: Report,
    /// Bytes by which the target grows at most.
    pub grows: u64,
}

fn contents_of(request: &Request<'_>) -> Result<Contents> {
    let unsealer = match Unsealer::of(request.repository, request.snapshot.tree) {
        // Who wants what is stored, ciphertexts and all, needs no key.
        Err(_) if request.policies.raw => None,
        unsealer => unsealer?,
    };
    if let Some(unsealer) = unsealer.as_ref().filter(|_| !request.policies.raw) {
        unsealer.must_read_any_content()?;
    }
    let contents = Contents::open_with(request.repository.path(), request.policies.large.clone())?;
    Ok(contents.opened_by(unsealer))
}

/// Says what [`apply()`] would do, and does nothing.
///
/// # Errors
/// As [`apply()`], but for writing; [`Kind::EncryptionKey`] if the snapshot is encrypted and its key is not known, or
/// nothing here opens its contents.
pub fn plan(request: &Request<'_>, tell: Tell<'_>, progress: &Progress) -> Result<Plan> {
    let contents = contents_of(request)?;
    let (mut report, grows) = walk::walk(request, &contents, None, tell, progress)?;
    report.dry_run = true;
    report.sort();
    Ok(Plan { report, grows })
}

/// Restores. `plan` is what [`plan()`] found for the same request, so that a target that is too small or a repository
/// that is a bomb is refused before anything is written.
///
/// # Errors
/// [`Kind::DiskFull`], [`Kind::Cancelled`], and what makes the repository or the target unusable as a whole. What was
/// restored until then stays, and the same request goes on from there. A single path that could not be restored is no
/// error: see [`Report::problems`].
pub fn apply(request: &Request<'_>, plan: &Plan, tell: Tell<'_>, progress: &Progress) -> Result<Report> {
    if request.policies.existing == Existing::Compare || request.policies.contents_elsewhere {
        return Err(Error::new(Kind::Internal, "a comparison or a plan writes nothing"));
    }
    bounds::check_room(request.destination, plan)?;
    let contents = contents_of(request)?;
    let mut report = hands::with_hands(request, &contents, progress, |hands| {
        walk::walk(request, &contents, Some(hands), tell, progress).map(|_| ())
    })?;
    report.finished = true;
    report.sort();
    Ok(report)
}

/// Reads what was restored again from the disk and compares it with the snapshot; adds to `report` what differs.
///
/// # Errors
/// What makes the repository or the target unusable as a whole, and [`Kind::Cancelled`].
pub fn reread(request: &Request<'_>, report: &mut Report, progress: &Progress) -> Result<()> {
    let policies = Policies { existing: Existing::Compare, delete: false, ..request.policies.clone() };
    let request = Request { policies: &policies, ..*request };
    let contents = contents_of(&request)?;
    let mut bytes = 0;
    let mut count = |step: &Step| {
        bytes += step.bytes;
        Ok(())
    };
    let (found, _) = walk::walk(&request, &contents, None, &mut count, progress)?;
    let mut reread =
        Reread { compared: found.totals.equal + found.problem_count, bytes, different: found.problem_count };
    let known: BTreeSet<String> = report.problems.iter().map(|problem| problem.path.clone()).collect();
    for problem in found.problems {
        if known.contains(&problem.path) {
            // Told already, with the reason.
            reread.different -= 1;
            continue;
        }
        report.problem(problem);
    }
    report.verified = Some(reread);
    report.sort();
    Ok(())
}
