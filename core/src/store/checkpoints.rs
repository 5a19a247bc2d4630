//! Checkpoints and the record of a commit that is about to happen.
//!
//! [`StagedCommit`] is written in one durable transaction after its pack is synced and before the branch moves.
//! It names everything that the start after a crash needs: if the branch is at `commit`, settle from it; if it
//! is still where it stood, drop the pack, the queue rows are all still there.

use serde::{Deserialize, Serialize};

use super::changes::RowVerdict;
use super::files::FileDelta;
use super::{CHECKPOINTS, META, Outcome, PAUSED, STAGED, Store, StoreReader, decode};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;

/// A commit that was settled: the branch stood there and the stat cache agreed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The commit.
    pub commit: [u8; 20],
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// The batch that made it, counted from 1.
    pub batch: u64,
}

/// What became of one row of the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOutcome {
    /// The row's root.
    pub root: RootName,
    /// The row's path.
    pub path: RelPath,
    /// The sequence number it had when the batch took it; a later one means that it changed again.
    pub seq: u64,
    /// What to do with it.
    pub verdict: RowVerdict,
}

/// Everything that follows from a batch, applied in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// What becomes of the rows.
    pub rows: Vec<RowOutcome>,
    /// What becomes of the stat cache.
    pub files: Vec<(RootName, Vec<FileDelta>)>,
    /// The new checkpoint; absent when there was nothing to commit.
    pub checkpoint: Option<Checkpoint>,
}

/// A commit whose pack is on disk and whose branch has not been seen to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedCommit {
    /// The branch, in full (`refs/heads/…`).
    pub branch: String,
    /// Where the branch stood; absent if it did not exist.
    pub expected: Option<[u8; 20]>,
    /// The commit in the pack.
    pub commit: [u8; 20],
    /// The pack that holds it (`pack-<hex>`).
    pub pack: String,
    /// Tags to set once the branch has moved, in full.
    pub tags: Vec<String>,
    /// What follows from it.
    pub settlement: Settlement,
}

impl StoreReader {
    /// The repository's checkpoint.
    pub fn checkpoint(&self, repository: &RepositoryName) -> Result<Option<Checkpoint>> {
        self.store().read(|transaction| {
            let found = transaction.open_table(CHECKPOINTS)?.get(repository.as_str())?;
            found.map(|value| decode(value.value())).transpose()
        })
    }

    /// The commit in the making, if a crash left one.
    pub fn staged(&self, repository: &RepositoryName) -> Result<Option<StagedCommit>> {
        staged(self.store(), repository)
    }

    /// Since when the repository is paused, Unix milliseconds.
    pub fn paused_since(&self, repository: &RepositoryName) -> Result<Option<i64>> {
        self.store().read(|transaction| {
            Ok(transaction.open_table(PAUSED)?.get(repository.as_str())?.map(|value| value.value()))
        })
    }

    /// The checksum of the configuration that was last in force.
    pub fn config_checksum(&self) -> Result<Option<String>> {
        self.store().read(|transaction| {
            let found = transaction.open_table(META)?.get("config")?;
            Ok(found.map(|value| String::from_utf8_lossy(value.value()).into_owned()))
        })
    }
}

pub(super) fn staged(store: &Store, repository: &RepositoryName) -> Result<Option<StagedCommit>> {
    store.read(|transaction| -> Outcome<Option<StagedCommit>> {
        let found = transaction.open_table(STAGED)?.get(repository.as_str())?;
        found.map(|value| decode(value.value())).transpose()
    })
}
