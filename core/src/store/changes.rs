//! The queue: rows that say where to look, settled only if nothing happened there since.
//!
//! A row is a path of a root with the sequence number of its latest change. Enqueueing the same path again
//! raises the number and keeps the row's place in the order; a batch takes rows with their numbers; settling
//! deletes a row only if its number is still the one taken, otherwise the row goes to the end of the order.
//!
//! A *deep* row says "this path and everything below". It may need many batches, so it keeps a cursor (the last
//! path a batch looked at) and the number it had when its walk began; only a walk that began at the row's
//! present number finishes it. A deep row that no batch has taken yet absorbs changes below it; one that was
//! taken absorbs nothing, because the walk may have passed the place. Above [`WATERMARK`] rows a root's rows
//! become one deep row: coarser, never dropped.

mod rows;
mod take;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use self::rows::{RowMark, Tables};
pub use self::take::Waiting;
pub use self::view::Skipped;
use super::checkpoints::{Pause, until_key};
use super::checkpoints::{Settlement, StagedCommit};
use super::{
    CHANGES, CHECKPOINTS, FILES, ORDER, PAUSED, STAGED, Store, StoreReader, decode, encode, files, guard,
};
use crate::clock::left_until;
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;

/// Rows a root may have before they become one deep row.
pub const WATERMARK: usize = 50_000;

/// The rest before a walk that ended while changes went on is done again, milliseconds: a storm must not keep a
/// core busy with looking.
const REST_BETWEEN_WALKS_MS: i64 = 5_000;

/// No row is ever postponed for longer, so a time further away was written under another clock.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How far a walk has come. Walks enter a directory, take its entries that are not directories in name order,
/// and then its directories in name order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last entry that is finished.
    pub path: RelPath,
    /// Whether that entry was a directory being entered: its own record is finished, nothing below it is.
    pub entered: bool,
}

/// How far a row reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The entry at the path.
    Exact,
    /// The entry and everything below it.
    Deep {
        /// Where the walk goes on; absent before the first batch.
        cursor: Option<Cursor>,
        /// The row's sequence number when the walk began.
        walk_seq: u64,
    },
}

/// Why a path could not be stored for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SkipReason {
    /// Its root is missing, empty where it was not, or another file system.
    RootUnavailable,
    /// The system refuses to let us look or read.
    Unreadable,
    /// It changed while it was read, each time.
    Changing,
    /// It cannot be stored in this form; the message says why.
    Unsupported,
    /// It was the top of a mounted file system, and is empty.
    Unmounted,
    /// It is larger than what is taken, or than the room there is.
    TooLarge,
}

impl SkipReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RootUnavailable,
        Self::Unreadable,
        Self::Changing,
        Self::Unsupported,
        Self::Unmounted,
        Self::TooLarge,
    ];

    /// The word used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::RootUnavailable => "root_unavailable",
            SkipReason::Unmounted => "unmounted",
            SkipReason::TooLarge => "too_large",
            SkipReason::Unreadable => "unreadable",
            SkipReason::Changing => "changing",
            SkipReason::Unsupported => "unsupported",
        }
    }
}

/// The last failed attempt at a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class.
    pub reason: SkipReason,
    /// The words.
    pub message: String,
}

/// One row of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The number of its latest change.
    pub seq: u64,
    /// Its place in the order.
    pub order: u64,
    /// When the oldest change that it stands for was queued, Unix milliseconds.
    pub since_ms: i64,
    /// How far it reaches.
    pub scope: Scope,
    /// Failed attempts since the latest change.
    pub attempts: u32,
    /// Not to be taken before this, Unix milliseconds.
    pub not_before_ms: i64,
    /// The last failed attempt.
    pub failure: Option<Failure>,
}

impl ChangeRow {
    fn is_postponed(&self, now_ms: i64) -> bool {
        !left_until(self.not_before_ms, now_ms, LONGEST_PAUSE).is_zero()
    }
}

/// What a batch found out about a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowVerdict {
    /// Its state is in the commit, or needs none.
    Done,
    /// To be tried again; a row that does not exist yet (found by a walk) is made.
    Again {
        /// Not before this, Unix milliseconds.
        not_before_ms: i64,
        /// Why.
        failure: Failure,
    },
    /// A deep row's walk went on to `cursor`, or to its end.
    Walked {
        /// Where to go on; absent when the walk is complete.
        cursor: Option<Cursor>,
        /// The row's sequence number when the walk began.
        walk_seq: u64,
    },
}

/// How far a newly queued path reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// The entry itself.
    Exact,
    /// The entry and everything below.
    Deep,
}

/// A row as a batch takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenRow {
    /// The row's root.
    pub root: RootName,
    /// The row's path.
    pub path: RelPath,
    /// The row.
    pub row: ChangeRow,
}

#[derive(Debug, Default)]
struct RootRows {
    rows: usize,
    /// Deep rows; `true` while no batch has taken them, so that they may absorb.
    deep: BTreeMap<RelPath, bool>,
}

impl RootRows {
    fn absorbs(&self, path: &RelPath) -> bool {
        if self.deep.is_empty() {
            return false;
        }
        let mut above = Some(path.clone());
        while let Some(path) = above {
            if self.deep.get(&path).is_some_and(|untaken| *untaken) {
                return true;
            }
            above = path.parent();
        }
        false
    }
}

/// The queue's tables with the right to write them.
#[derive(Debug)]
pub struct QueueStore {
    pub(super) store: Store,
    next_seq: u64,
    roots: BTreeMap<(RepositoryName, RootName), RootRows>,
}

impl QueueStore {
    pub(super) fn new(store: Store) -> Result<Self> {
        let (next_seq, roots) = store.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let mut highest = 0;
            let mut roots: BTreeMap<(RepositoryName, RootName), RootRows> = BTreeMap::new();
            for entry in changes.iter()? {
                let (key, value) = entry?;
                let (repository, root, path) = key.value();
                let row: ChangeRow = decode(value.value())?;
                highest = highest.max(row.seq).max(row.order);
                let (Ok(repository), Ok(root), Ok(path)) =
                    (RepositoryName::new(repository), RootName::new(root), RelPath::new(path))
                else {
                    continue;
                };
                let rows = roots.entry((repository, root)).or_default();
                rows.rows += 1;
                if matches!(row.scope, Scope::Deep { .. }) {
                    // A batch of the run before may have taken it: then its walk has passed places by now.
                    rows.deep.insert(path, false);
                }
            }
            Ok((highest + 1, roots))
        })?;
        Ok(Self { store, next_seq, roots })
    }

    /// The number of the latest change accepted so far.
    pub fn highest_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Queues `paths` of a root durably, in one transaction; afterwards a crash loses none of them.
    /// Returns the highest sequence number that covers them.
    pub fn enqueue(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        paths: &[(RelPath, Reach)],
        now_ms: i64,
    ) -> Result<u64> {
        let key = (repository.clone(), root.clone());
        // The marks in memory must not run ahead of a transaction that fails.
        let mut rows = self.roots.remove(&key).unwrap_or_default();
        let before = (rows.rows, rows.deep.clone());
        let mut next_seq = self.next_seq;
        let outcome = self.store.write(|transaction| {
            let mut tables =
                Tables { changes: transaction.open_table(CHANGES)?, order: transaction.open_table(ORDER)? };
            for (path, reach) in paths {
                if rows.absorbs(path) {
                    continue;
                }
                let seq = next_seq;
                next_seq += 1;
                tables.raise(repository, root, path, *reach, seq, now_ms, &mut rows)?;
                if rows.rows > WATERMARK {
                    tables.coarsen(repository, root, next_seq, now_ms, &mut rows)?;
                    next_seq += 1;
                }
            }
            Ok(())
        });
        if outcome.is_err() {
            (rows.rows, rows.deep) = before;
        } else {
            self.next_seq = next_seq;
        }
        self.roots.insert(key, rows);
        outcome.map(|()| self.highest_seq())
    }

    /// Records the commit that is about to happen. Its pack must be synced already.
    pub fn stage(&mut self, repository: &RepositoryName, staged: &StagedCommit) -> Result<()> {
        self.store.write(|transaction| {
            transaction.open_table(STAGED)?.insert(repository.as_str(), encode(staged)?.as_slice())?;
            Ok(())
        })
    }

    /// Forgets the commit that was about to happen; its rows are all still queued.
    pub fn unstage(&mut self, repository: &RepositoryName) -> Result<()> {
        self.store.write(|transaction| {
            transaction.open_table(STAGED)?.remove(repository.as_str())?;
            guard::forget_pending(transaction, repository)
        })
    }

    /// Applies everything that follows from a batch, in one transaction, and clears the staged commit.
    pub fn settle(
        &mut self,
        repository: &RepositoryName,
        settlement: &Settlement,
        now_ms: i64,
    ) -> Result<()> {
        let mut next_seq = self.next_seq;
        let mut marks: Vec<(RootName, RelPath, RowMark)> = Vec::new();
        self.store.write(|transaction| {
            let mut tables =
                Tables { changes: transaction.open_table(CHANGES)?, order: transaction.open_table(ORDER)? };
            for outcome in &settlement.rows {
                let mark = tables.settle_row(repository, outcome, &mut next_seq, now_ms)?;
                marks.push((outcome.root.clone(), outcome.path.clone(), mark));
            }
            let mut table = transaction.open_table(FILES)?;
            for (root, deltas) in &settlement.files {
                files::apply(&mut table, repository, root, deltas)?;
            }
            if let Some(checkpoint) = &settlement.checkpoint {
                transaction
                    .open_table(CHECKPOINTS)?
                    .insert(repository.as_str(), encode(checkpoint)?.as_slice())?;
            }
            guard::open_pending(transaction, repository)?;
            transaction.open_table(STAGED)?.remove(repository.as_str())?;
            Ok(())
        })?;
        self.next_seq = next_seq;
        for (root, path, mark) in marks {
            let rows = self.roots.entry((repository.clone(), root)).or_default();
            match mark {
                RowMark::Unchanged => {}
                RowMark::Gone => {
                    rows.rows = rows.rows.saturating_sub(1);
                    rows.deep.remove(&path);
                }
                RowMark::New => rows.rows += 1,
                RowMark::DeepRestarts => {
                    rows.deep.insert(path, true);
                }
            }
        }
        Ok(())
    }

    /// Empties the repository's stat cache, because its checkpoint is not in the branch's history, and forgets
    /// the checkpoint, so that a start that finds none knows that the cache is not complete.
    pub fn distrust_files(&mut self, repository: &RepositoryName) -> Result<()> {
        self.store.write(|transaction| {
            transaction.open_table(CHECKPOINTS)?.remove(repository.as_str())?;
            files::clear_repository(&mut transaction.open_table(FILES)?, repository)
        })
    }

    /// The wall clock was set back to `to_ns`: from now on a file can get a time that it had before. What is recorded of
    /// files with such times proves nothing any more. Returns how many that are.
    pub fn clock_went_back(&mut self, repository: &RepositoryName, to_ns: i64) -> Result<usize> {
        self.store
            .write(|transaction| files::forget_proofs(&mut transaction.open_table(FILES)?, repository, to_ns))
    }

    /// Pauses without an end, or resumes; survives restarts.
    pub fn set_paused(&mut self, repository: &RepositoryName, since_ms: Option<i64>) -> Result<()> {
        self.set_pause(repository, since_ms.map(|since_ms| Pause { since_ms, until_ms: None }))
    }

    /// Pauses, or resumes; survives restarts.
    pub fn set_pause(&mut self, repository: &RepositoryName, pause: Option<Pause>) -> Result<()> {
        self.store.write(|transaction| {
            let mut paused = transaction.open_table(PAUSED)?;
            let until = until_key(repository);
            match pause.and_then(|pause| pause.until_ms) {
                Some(until_ms) => paused.insert(until.as_str(), until_ms)?,
                None => paused.remove(until.as_str())?,
            };
            match pause {
                Some(pause) => paused.insert(repository.as_str(), pause.since_ms)?,
                None => paused.remove(repository.as_str())?,
            };
            Ok(())
        })
    }

    /// Drops what is queued of roots other than `roots`: nobody will ever commit it, and whoever waits for everything would wait
    /// for it. A root that comes back is compared as a whole. Returns how many rows there were.
    pub fn keep_only(&mut self, repository: &RepositoryName, roots: &[RootName]) -> Result<usize> {
        let is_other = |root: &str| !roots.iter().any(|kept| kept.as_str() == root);
        let dropped = self.store.write(|transaction| {
            let mut tables =
                Tables { changes: transaction.open_table(CHANGES)?, order: transaction.open_table(ORDER)? };
            tables.remove_where(repository, is_other)
        })?;
        self.roots.retain(|(name, root), _| name != repository || !is_other(root.as_str()));
        Ok(dropped)
    }

    /// Rows in the repository's queue.
    pub fn row_count(&self, repository: &RepositoryName) -> usize {
        self.roots.iter().filter(|((name, _), _)| name == repository).map(|(_, rows)| rows.rows).sum()
    }

    /// What everybody may read.
    pub fn reader(&self) -> StoreReader {
        self.store.reader()
    }
}

#[cfg(test)]
mod tests;
