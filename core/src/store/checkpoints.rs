//! Checkpoints and the record of a commit that is about to happen.
//!
//! [`StagedCommit`] is written in one durable transaction after its pack is synced and before the branch moves.
//! It names everything that the start after a crash needs: if the branch is at `commit`, settle from it; if it
//! is still where it stood, drop the pack, the queue rows are all still there.

use serde::{Deserialize, Serialize};

use super::changes::RowVerdict;
use super::files::FileDelta;
use super::{CHECKPOINTS, META, Outcome, PAUSED, STAGED, Store, StoreReader, decode};
use crate::clock;
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

/// A repository that somebody paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// When it ends by itself, Unix milliseconds; `None`: when somebody says so.
    pub until_ms: Option<i64>,
}

/// Where the end of a pause is kept. No repository has a NUL in its name.
pub(super) fn until_key(repository: &RepositoryName) -> String {
    format!("{repository}\0until")
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
        Ok(self.pause(repository, clock::now_ms())?.map(|pause| pause.since_ms))
    }

    /// The pause that is in force at `now_ms`. One whose end has come is none any more, whatever else happened
    /// meanwhile, so that nobody has to be there to end it.
    pub fn pause(&self, repository: &RepositoryName, now_ms: i64) -> Result<Option<Pause>> {
        self.store().read(|transaction| {
            let paused = transaction.open_table(PAUSED)?;
            let of = |key: &str| paused.get(key).map(|found| found.map(|value| value.value()));
            let until_ms = of(&until_key(repository))?;
            let is_over = until_ms.is_some_and(|until_ms| until_ms <= now_ms);
            Ok(of(repository.as_str())?.filter(|_| !is_over).map(|since_ms| Pause { since_ms, until_ms }))
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
