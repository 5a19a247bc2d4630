//! What the guard against mass changes must not forget: which branch is the current one, and since when each root
//! counts.
//!
//! A quarantine begins with the commit that triggers it. [`QueueStore::stage_opening`] writes it beside the staged
//! commit, as one that is pending; settling that commit, in the same transaction as everything else that follows from
//! it, opens it; undoing the commit forgets it. So the record says "quarantine" exactly if the commit happened.

use std::collections::BTreeMap;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::{GUARD, Outcome, PAUSED, QueueStore, STAGED, StoreReader, decode, encode};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::store::checkpoints::StagedCommit;

/// A mass change, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The root in which it was found.
    pub root: RootName,
    /// Files that were deleted or rewritten.
    pub lost: u64,
    /// Files that there were.
    pub of: u64,
    /// When it was found, Unix milliseconds.
    pub at_ms: i64,
}

/// Commits go to a branch of their own until somebody approves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// That branch, in full.
    pub branch: String,
    /// The branch that is protected, in full, as it was called then.
    pub protected_branch: String,
    /// The commit before the quarantine.
    pub protected: [u8; 20],
    /// Why.
    pub seen: Seen,
    /// When somebody rejected it, Unix milliseconds.
    pub rejected_ms: Option<i64>,
}

/// The last quarantine that somebody approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Where the protected branch went.
    pub commit: [u8; 20],
    /// When, Unix milliseconds: what remotes were seen to have before this, they had on another branch.
    pub at_ms: i64,
}

/// What is known of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The quarantine that begins if the staged commit happens.
    pub pending: Option<Quarantine>,
    /// The quarantine that is in force.
    pub quarantine: Option<Quarantine>,
    /// The roots that were compared whole once, and the commit since which they count.
    pub since: BTreeMap<RootName, [u8; 20]>,
    /// The last approval.
    pub approval: Option<Approval>,
    /// The last mass change for which there was only an alert.
    pub told: Option<Seen>,
}

impl QueueStore {
    /// As [`QueueStore::stage`] for a commit with which a quarantine begins.
    pub fn stage_opening(
        &mut self,
        repository: &RepositoryName,
        staged: &StagedCommit,
        quarantine: &Quarantine,
    ) -> Result<()> {
        self.store.write(|transaction| {
            transaction.open_table(STAGED)?.insert(repository.as_str(), encode(staged)?.as_slice())?;
            change(transaction, repository, |record| record.pending = Some(quarantine.clone()))
        })
    }

    /// The root was compared whole: from `commit` on it counts. Nothing is changed for one that counts already.
    pub fn count_since(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        commit: [u8; 20],
    ) -> Result<()> {
        self.change_guard(repository, |record| {
            record.since.entry(root.clone()).or_insert(commit);
        })
    }

    /// Forgets roots that are not among `roots`: should one come back, it is a new one.
    pub fn count_only(&mut self, repository: &RepositoryName, roots: &[RootName]) -> Result<()> {
        self.change_guard(repository, |record| record.since.retain(|root, _| roots.contains(root)))
    }

    /// Keeps a mass change for which there is only an alert.
    pub fn tell_mass_change(&mut self, repository: &RepositoryName, seen: &Seen) -> Result<()> {
        self.change_guard(repository, |record| record.told = Some(seen.clone()))
    }

    /// The quarantine is over, and what was approved is what counts from now on.
    pub fn end_quarantine(&mut self, repository: &RepositoryName, approval: &Approval) -> Result<()> {
        self.change_guard(repository, |record| {
            record.quarantine = None;
            record.approval = Some(approval.clone());
            record.told = None;
            record.since.values_mut().for_each(|commit| *commit = approval.commit);
        })
    }

    /// A quarantine is in force of which the database knew nothing.
    pub fn reopen_quarantine(&mut self, repository: &RepositoryName, quarantine: &Quarantine) -> Result<()> {
        self.change_guard(repository, |record| record.quarantine = Some(quarantine.clone()))
    }

    /// The quarantine is rejected, and the repository paused, if it was not.
    pub fn reject_quarantine(&mut self, repository: &RepositoryName, at_ms: i64) -> Result<()> {
        self.store.write(|transaction| {
            change(transaction, repository, |record| {
                if let Some(quarantine) = &mut record.quarantine {
                    quarantine.rejected_ms.get_or_insert(at_ms);
                }
            })?;
            let mut paused = transaction.open_table(PAUSED)?;
            let is_paused = paused.get(repository.as_str())?.is_some();
            if !is_paused {
                paused.insert(repository.as_str(), at_ms)?;
            }
            Ok(())
        })
    }

    fn change_guard(
        &mut self,
        repository: &RepositoryName,
        edit: impl FnOnce(&mut GuardRecord),
    ) -> Result<()> {
        self.store.write(|transaction| change(transaction, repository, edit))
    }
}

/// The commit that is staged happened: the quarantine that begins with it is in force.
pub(super) fn open_pending(transaction: &redb::WriteTransaction, repository: &RepositoryName) -> Outcome<()> {
    let staged: Option<StagedCommit> = {
        let table = transaction.open_table(STAGED)?;
        let found = table.get(repository.as_str())?;
        found.map(|value| decode(value.value())).transpose()?
    };
    let Some(staged) = staged else { return Ok(()) };
    change(transaction, repository, |record| {
        if let Some(quarantine) = record.pending.take_if(|pending| pending.branch == staged.branch) {
            record.quarantine = Some(quarantine);
        }
    })
}

/// It did not.
pub(super) fn forget_pending(
    transaction: &redb::WriteTransaction,
    repository: &RepositoryName,
) -> Outcome<()> {
    change(transaction, repository, |record| record.pending = None)
}

fn change(
    transaction: &redb::WriteTransaction,
    repository: &RepositoryName,
    edit: impl FnOnce(&mut GuardRecord),
) -> Outcome<()> {
    let mut table = transaction.open_table(GUARD)?;
    let mut record: GuardRecord = {
        let found = table.get(repository.as_str())?;
        found.map(|value| decode(value.value())).transpose()?.unwrap_or_default()
    };
    let before = record.clone();
    edit(&mut record);
    if record != before {
        table.insert(repository.as_str(), encode(&record)?.as_slice())?;
    }
    Ok(())
}

impl StoreReader {
    /// What the guard knows of a repository.
    pub fn guard(&self, repository: &RepositoryName) -> Result<GuardRecord> {
        self.store().read(|transaction| {
            let found = transaction.open_table(GUARD)?.get(repository.as_str())?;
            Ok(found.map(|value| decode(value.value())).transpose()?.unwrap_or_default())
        })
    }
}
