//! Rows in their two tables: raised, coarsened, settled, always in both.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::{ChangeRow, REST_BETWEEN_WALKS_MS, Reach, RootRows, RowVerdict, Scope};
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;
use crate::store::checkpoints::RowOutcome;
use crate::store::{Outcome, decode, encode};

/// What a settled row means for the numbers kept in memory.
pub(super) enum RowMark {
    Unchanged,
    Gone,
    New,
    DeepRestarts,
}

/// The queue's two tables in one transaction.
pub(super) struct Tables<'t> {
    pub(super) changes: redb::Table<'t, (&'static str, &'static str, &'static [u8]), &'static [u8]>,
    pub(super) order: redb::Table<'t, (&'static str, u64), (&'static str, &'static [u8])>,
}

impl Tables<'_> {
    fn get(
        &self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
    ) -> Outcome<Option<ChangeRow>> {
        let found = self.changes.get((repository.as_str(), root.as_str(), path.as_bytes()))?;
        found.map(|value| decode(value.value())).transpose()
    }

    fn put(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
        row: &ChangeRow,
    ) -> Outcome<()> {
        let key = (repository.as_str(), root.as_str(), path.as_bytes());
        self.changes.insert(key, encode(row)?.as_slice())?;
        self.order.insert((repository.as_str(), row.order), (root.as_str(), path.as_bytes()))?;
        Ok(())
    }

    fn remove(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
        order: u64,
    ) -> Outcome<()> {
        self.changes.remove((repository.as_str(), root.as_str(), path.as_bytes()))?;
        self.order.remove((repository.as_str(), order))?;
        Ok(())
    }

    /// Removes the rows of every root of which `is_unwanted` says so; how many.
    pub(super) fn remove_where(
        &mut self,
        repository: &RepositoryName,
        is_unwanted: impl Fn(&str) -> bool,
    ) -> Outcome<usize> {
        let whole = (repository.as_str(), 0)..=(repository.as_str(), u64::MAX);
        let mut unwanted = Vec::new();
        for entry in self.order.range(whole)? {
            let (key, place) = entry?;
            let (root, path) = place.value();
            if is_unwanted(root) {
                unwanted.push((key.value().1, root.to_owned(), path.to_vec()));
            }
        }
        for (order, root, path) in &unwanted {
            self.changes.remove((repository.as_str(), root.as_str(), path.as_slice()))?;
            self.order.remove((repository.as_str(), *order))?;
        }
        Ok(unwanted.len())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn raise(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
        reach: Reach,
        seq: u64,
        now_ms: i64,
        rows: &mut RootRows,
    ) -> Outcome<()> {
        let fresh_scope = match reach {
            Reach::Exact => Scope::Exact,
            Reach::Deep => Scope::Deep { cursor: None, walk_seq: 0 },
        };
        let row = match self.get(repository, root, path)? {
            None => {
                rows.rows += 1;
                ChangeRow {
                    seq,
                    order: seq,
                    since_ms: now_ms,
                    scope: fresh_scope,
                    attempts: 0,
                    not_before_ms: 0,
                    failure: None,
                }
            }
            Some(old) => {
                // A deep row under way keeps its cursor: its walk began at an older number, so it starts anew
                // after its end, instead of never getting there while events keep coming.
                let scope = if matches!(old.scope, Scope::Deep { .. }) { old.scope } else { fresh_scope };
                ChangeRow { seq, scope, attempts: 0, not_before_ms: 0, failure: None, ..old }
            }
        };
        if matches!(row.scope, Scope::Deep { .. }) {
            rows.deep.entry(path.clone()).or_insert(true);
        }
        self.put(repository, root, path, &row)
    }

    /// Replaces all rows of a root by one deep row, which keeps the earliest place and age.
    pub(super) fn coarsen(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        seq: u64,
        now_ms: i64,
        rows: &mut RootRows,
    ) -> Outcome<()> {
        let mut since_ms = now_ms;
        let mut walking: Option<Scope> = None;
        let mut places = Vec::new();
        {
            let from: (&str, &str, &[u8]) = (repository.as_str(), root.as_str(), &[]);
            for entry in self.changes.range(from..)? {
                let (key, value) = entry?;
                let (row_repository, row_root, path) = key.value();
                if row_repository != repository.as_str() || row_root != root.as_str() {
                    break;
                }
                let row: ChangeRow = decode(value.value())?;
                since_ms = since_ms.min(row.since_ms);
                if path.is_empty() && matches!(row.scope, Scope::Deep { .. }) {
                    walking = Some(row.scope);
                }
                places.push((path.to_vec(), row.order));
            }
        }
        let first_place = places.iter().map(|(_, order)| *order).min().unwrap_or(seq);
        for (path, order) in &places {
            self.changes.remove((repository.as_str(), root.as_str(), path.as_slice()))?;
            self.order.remove((repository.as_str(), *order))?;
        }
        let under_way = rows.deep.get(&RelPath::root()).is_some_and(|untaken| !untaken);
        let scope = match walking {
            Some(scope) if under_way => scope,
            _ => Scope::Deep { cursor: None, walk_seq: 0 },
        };
        rows.rows = 1;
        rows.deep = BTreeMap::from([(RelPath::root(), !under_way)]);
        let row = ChangeRow {
            seq,
            order: first_place,
            since_ms,
            scope,
            attempts: 0,
            not_before_ms: 0,
            failure: None,
        };
        self.put(repository, root, &RelPath::root(), &row)
    }

    pub(super) fn settle_row(
        &mut self,
        repository: &RepositoryName,
        outcome: &RowOutcome,
        next_seq: &mut u64,
        now_ms: i64,
    ) -> Outcome<RowMark> {
        let RowOutcome { root, path, seq, verdict } = outcome;
        let Some(row) = self.get(repository, root, path)? else {
            return match verdict {
                RowVerdict::Again { not_before_ms, failure } => {
                    let number = *next_seq;
                    *next_seq += 1;
                    let row = ChangeRow {
                        seq: number,
                        order: number,
                        since_ms: now_ms,
                        scope: Scope::Exact,
                        attempts: 1,
                        not_before_ms: *not_before_ms,
                        failure: Some(failure.clone()),
                    };
                    self.put(repository, root, path, &row)?;
                    Ok(RowMark::New)
                }
                _ => Ok(RowMark::Unchanged),
            };
        };
        match verdict {
            RowVerdict::Walked { cursor: None, walk_seq } if row.seq == *walk_seq => {
                self.remove(repository, root, path, row.order)?;
                Ok(RowMark::Gone)
            }
            RowVerdict::Walked { cursor: None, .. } => {
                let scope = Scope::Deep { cursor: None, walk_seq: 0 };
                let row = ChangeRow { scope, not_before_ms: now_ms + REST_BETWEEN_WALKS_MS, ..row };
                self.requeue(repository, root, path, row, next_seq, now_ms)?;
                Ok(RowMark::DeepRestarts)
            }
            RowVerdict::Walked { cursor, walk_seq } => {
                let scope = Scope::Deep { cursor: cursor.clone(), walk_seq: *walk_seq };
                self.put(repository, root, path, &ChangeRow { scope, ..row })?;
                Ok(RowMark::Unchanged)
            }
            RowVerdict::Done if row.seq == *seq => {
                self.remove(repository, root, path, row.order)?;
                Ok(RowMark::Gone)
            }
            RowVerdict::Done => {
                self.requeue(repository, root, path, row, next_seq, now_ms)?;
                Ok(RowMark::Unchanged)
            }
            RowVerdict::Again { not_before_ms, failure } if row.seq == *seq || *seq == 0 => {
                let row = ChangeRow {
                    attempts: row.attempts.saturating_add(1),
                    not_before_ms: *not_before_ms,
                    failure: Some(failure.clone()),
                    ..row
                };
                self.put(repository, root, path, &row)?;
                Ok(RowMark::Unchanged)
            }
            RowVerdict::Again { .. } => Ok(RowMark::Unchanged),
        }
    }

    /// Moves a row that changed again to the end of the order: what it stood for before is in a commit now.
    fn requeue(
        &mut self,
        repository: &RepositoryName,
        root: &RootName,
        path: &RelPath,
        row: ChangeRow,
        next_seq: &mut u64,
        now_ms: i64,
    ) -> Outcome<()> {
        self.order.remove((repository.as_str(), row.order))?;
        let order = *next_seq;
        *next_seq += 1;
        self.put(repository, root, path, &ChangeRow { order, since_ms: now_ms, ..row })
    }
}
