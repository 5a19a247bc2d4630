//! What a batch takes of the queue, and what a committer has to know before it takes anything.
//!
//! In go a repository and the time, out come rows in the order in which they came, or their numbers. Rows that failed
//! and wait for another attempt are taken only if asked for, and after all others.

use std::collections::{BTreeMap, BTreeSet};

use super::{ChangeRow, QueueStore, Scope, TakenRow};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;
use crate::store::{CHANGES, ORDER, decode};

/// What waits in a repository's queue, as far as a committer needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Rows that may be taken now, counted up to the asked-for number.
    pub ready: usize,
    /// Whether one of them is deep.
    pub deep: bool,
    /// Rows in the repository's queue altogether.
    pub rows: usize,
    /// Since when the oldest of them waits, Unix milliseconds.
    pub oldest_since_ms: Option<i64>,
    /// When the next postponed row may be taken, Unix milliseconds.
    pub next_ready_ms: Option<i64>,
}

/// What a batch may still take: exact rows, and deep ones of which none lies within another, which would only find the
/// same again.
#[derive(Debug, Clone)]
struct Room {
    exact: usize,
    walks: usize,
    tops: BTreeMap<RootName, BTreeSet<RelPath>>,
}

impl Room {
    fn new(most: usize) -> Self {
        Self { exact: most, walks: most, tops: BTreeMap::new() }
    }

    /// Whether there is room for a row; it is taken then.
    fn has_for(&mut self, row: &ChangeRow, root: &RootName, path: &RelPath) -> bool {
        let left = match row.scope {
            Scope::Exact => &mut self.exact,
            Scope::Deep { .. } => &mut self.walks,
        };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        matches!(row.scope, Scope::Exact) || self.is_apart(root, path)
    }

    /// Whether a walk meets no other one of this batch.
    fn is_apart(&mut self, root: &RootName, path: &RelPath) -> bool {
        let tops = self.tops.entry(root.clone()).or_default();
        let mut above = Some(path.clone());
        while let Some(top) = above {
            if tops.contains(&top) {
                return false;
            }
            above = top.parent();
        }
        // No name begins with a NUL, so whatever lies below comes at once after this.
        if tops.range(path.join(b"\0")..).next().is_some_and(|top| top.is_within(path)) {
            return false;
        }
        tops.insert(path.clone())
    }
}

impl QueueStore {
    /// Looks at what could be taken now, counting at most `up_to` rows.
    pub fn waiting(&self, repository: &RepositoryName, now_ms: i64, up_to: usize) -> Result<Waiting> {
        self.store.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let order = transaction.open_table(ORDER)?;
            let mut waiting = Waiting { rows: self.row_count(repository), ..Waiting::default() };
            for entry in order.range((repository.as_str(), 0)..=(repository.as_str(), u64::MAX))? {
                let (_, place) = entry?;
                let (root, path) = place.value();
                let Some(value) = changes.get((repository.as_str(), root, path))? else { continue };
                let row: ChangeRow = decode(value.value())?;
                if row.is_postponed(now_ms) {
                    let earliest =
                        waiting.next_ready_ms.map_or(row.not_before_ms, |at| at.min(row.not_before_ms));
                    waiting.next_ready_ms = Some(earliest);
                    continue;
                }
                waiting.ready += 1;
                waiting.deep |= matches!(row.scope, Scope::Deep { .. });
                waiting.oldest_since_ms =
                    Some(waiting.oldest_since_ms.map_or(row.since_ms, |since| since.min(row.since_ms)));
                if waiting.ready >= up_to {
                    break;
                }
            }
            Ok(waiting)
        })
    }

    /// Takes the rows that have waited longest: at most `most` exact ones and as many deep ones. `eager` takes postponed
    /// rows too, after all others: what fails again and again must not stand in anybody's way. Nothing is written: a
    /// row leaves the queue only by [`QueueStore::settle`].
    pub fn take(
        &mut self,
        repository: &RepositoryName,
        now_ms: i64,
        most: usize,
        eager: bool,
    ) -> Result<Vec<TakenRow>> {
        let taken = self.store.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let order = transaction.open_table(ORDER)?;
            let (mut taken, mut postponed) = (Vec::new(), Vec::new());
            let mut room = Room::new(most);
            let mut room_postponed = room.clone();
            for entry in order.range((repository.as_str(), 0)..=(repository.as_str(), u64::MAX))? {
                let (_, place) = entry?;
                let (root, path) = place.value();
                let Some(value) = changes.get((repository.as_str(), root, path))? else { continue };
                let row: ChangeRow = decode(value.value())?;
                let is_postponed = row.is_postponed(now_ms);
                if is_postponed && !eager {
                    continue;
                }
                let (room, chosen) = if is_postponed {
                    (&mut room_postponed, &mut postponed)
                } else {
                    (&mut room, &mut taken)
                };
                let (Ok(root), Ok(path)) = (RootName::new(root), RelPath::new(path)) else { continue };
                if room.has_for(&row, &root, &path) {
                    chosen.push(TakenRow { root, path, row });
                }
            }
            postponed.retain(|row| room.has_for(&row.row, &row.root, &row.path));
            taken.append(&mut postponed);
            Ok(taken)
        })?;
        for row in taken.iter().filter(|row| matches!(row.row.scope, Scope::Deep { .. })) {
            if let Some(rows) = self.roots.get_mut(&(repository.clone(), row.root.clone())) {
                rows.deep.insert(row.path.clone(), false);
            }
        }
        Ok(taken)
    }

    /// Rows of changes up to `seq` that have been neither settled nor found unreadable: 0 means that every
    /// change queued up to then is in a commit or is listed as skipped.
    pub fn unsettled_up_to(&self, repository: &RepositoryName, seq: u64) -> Result<usize> {
        self.store.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let order = transaction.open_table(ORDER)?;
            let mut count = 0;
            for entry in order.range((repository.as_str(), 0)..=(repository.as_str(), u64::MAX))? {
                let (_, place) = entry?;
                let (root, path) = place.value();
                let Some(value) = changes.get((repository.as_str(), root, path))? else { continue };
                let row: ChangeRow = decode(value.value())?;
                // A row that changed while its batch was out stands at a later place, for the same change.
                let is_covered = row.order <= seq || row.seq <= seq;
                count += usize::from(is_covered && row.failure.is_none());
            }
            Ok(count)
        })
    }
}
