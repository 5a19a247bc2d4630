//! What anybody may read of the queue: one row, what is skipped, since when something waits.

use redb::ReadableTableMetadata;

use super::{ChangeRow, Failure};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;
use crate::store::{CHANGES, ORDER, StoreReader, decode};

/// A path that is not in the latest commit as it is on disk, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its root.
    pub root: RootName,
    /// Its path.
    pub path: RelPath,
    /// Why.
    pub failure: Failure,
}

impl StoreReader {
    /// The row of one path.
    pub fn change(
        &self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
    ) -> Result<Option<ChangeRow>> {
        self.store().read(|transaction| {
            let found = transaction.open_table(CHANGES)?.get((
                repository.as_str(),
                root.as_str(),
                path.as_bytes(),
            ))?;
            found.map(|value| decode(value.value())).transpose()
        })
    }

    /// The paths that could not be stored for now: how many, and the first `most` of them.
    pub fn skipped(&self, repository: &RepositoryName, most: usize) -> Result<(usize, Vec<Skipped>)> {
        self.store().read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let order = transaction.open_table(ORDER)?;
            let (mut count, mut listed) = (0, Vec::new());
            for entry in order.range((repository.as_str(), 0)..=(repository.as_str(), u64::MAX))? {
                let (_, place) = entry?;
                let (root, path) = place.value();
                let Some(value) = changes.get((repository.as_str(), root, path))? else { continue };
                let row: ChangeRow = decode(value.value())?;
                let Some(failure) = row.failure else { continue };
                count += 1;
                if listed.len() < most
                    && let (Ok(root), Ok(path)) = (RootName::new(root), RelPath::new(path))
                {
                    listed.push(Skipped { root, path, failure });
                }
            }
            Ok((count, listed))
        })
    }

    /// When the oldest change was queued that is not in a commit and could be, Unix milliseconds.
    pub fn oldest_change_ms(&self, repository: &RepositoryName) -> Result<Option<i64>> {
        self.store().read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let order = transaction.open_table(ORDER)?;
            let mut oldest: Option<i64> = None;
            for entry in order.range((repository.as_str(), 0)..=(repository.as_str(), u64::MAX))? {
                let (_, place) = entry?;
                let (root, path) = place.value();
                let Some(value) = changes.get((repository.as_str(), root, path))? else { continue };
                let row: ChangeRow = decode(value.value())?;
                if row.failure.is_none() {
                    oldest = Some(oldest.map_or(row.since_ms, |since| since.min(row.since_ms)));
                }
            }
            Ok(oldest)
        })
    }

    /// Rows in all queues together.
    pub fn total_rows(&self) -> Result<u64> {
        self.store().read(|transaction| Ok(transaction.open_table(CHANGES)?.len()?))
    }
}
