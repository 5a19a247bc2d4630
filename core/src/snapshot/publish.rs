//! The commit point, and what the next start does about a commit that was on its way.
//!
//! Order: pack synced under temporary names → staged record durable → pack in place → branch moved. A start
//! that finds a staged record looks at the branch: at the commit, everything up to the branch happened; where
//! it stood before, the pack is dropped wherever it is, and the rows that led to it are all still queued; anywhere
//! else, somebody moved the branch, and the same is done, because our commit is in nobody's history.

use crate::error::{Kind, Result};
use crate::fault;
use crate::git::pack;
use crate::git::refs;
use crate::git::repository::Repository;
use crate::progress::Progress;
use crate::snapshot::{oid, raw};
use crate::store::checkpoints::StagedCommit;

/// Puts the pack in place, moves the branch from where it stood to the commit, sets the tags.
///
/// # Errors
/// [`Kind::RefMoved`] when the branch stands elsewhere by now: [`recover`] then cleans up.
pub fn publish(repository: &Repository, staged: &StagedCommit, progress: &Progress) -> Result<()> {
    fault::point("snapshot:staged");
    pack::install_by_name(&repository.pack_directory(), &staged.pack)?;
    fault::point("snapshot:pack-installed");
    // A run that was given up must not move the branch under its successor.
    progress.check()?;
    let expected = staged.expected.as_ref().map(oid).transpose()?;
    let commit = oid(&staged.commit)?;
    refs::move_reference(repository, &staged.branch, expected, commit)?;
    fault::point("snapshot:branch-moved");
    set_tags(repository, staged)
}

fn set_tags(repository: &Repository, staged: &StagedCommit) -> Result<()> {
    let commit = oid(&staged.commit)?;
    for tag in &staged.tags {
        match refs::move_reference(repository, tag, None, commit) {
            Err(error) if error.kind() != Kind::RefMoved => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a start finds of a commit that was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// The branch had moved: settle from the record.
    Settle,
    /// It had not: forget the record, the pack is gone.
    Drop,
}

/// Finishes or undoes a staged commit. Running it again after a crash in it is harmless.
pub fn recover(repository: &Repository, staged: &StagedCommit) -> Result<Recovered> {
    let present = repository.reference(&staged.branch)?;
    if let Some(ours) = present.filter(|present| raw(*present) == staged.commit) {
        // Seen is not durable: the process may have died, or the disk failed, between the move and its sync. And
        // a sync that failed is not to be tried again but the write: the reference is written anew.
        refs::move_reference(repository, &staged.branch, Some(ours), ours)?;
        set_tags(repository, staged)?;
        return Ok(Recovered::Settle);
    }
    let ours = oid(&staged.commit)?;
    if let Some(present) = present
        && repository.is_ancestor(ours, present)?
    {
        // Somebody built on our commit before we settled it: it happened.
        return Ok(Recovered::Settle);
    }
    pack::remove_by_name(&repository.pack_directory(), &staged.pack)?;
    fault::point("recover:pack-dropped");
    Ok(Recovered::Drop)
}
