//! The open database, and how it comes back after its file failed.
//!
//! After a failed read, write or sync redb refuses everything else: what of its last transaction is on disk is
//! not known to it either, and memory may hold what the disk has lost. The truth is what opening the file again
//! finds there, so that is what happens, at the next use and then after growing pauses, with the check of the
//! whole file that every unclean end is followed by. Nothing is set aside or made anew while the process runs: a
//! file that is damaged, or gone, stays closed, and [`Handle::is_damaged`] tells whoever writes it to give up, so
//! that the next start rebuilds it loudly.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::Database;

use super::open::{self, Reopened};
use super::{Inner, Outcome, store_error_at};
use crate::error::{Error, Kind, Result};

/// The pause before the file is opened a second time within [`STEADY`]; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Attempts in a row, some five minutes, after which a disk that fails to give the file is taken for damage: a
/// start, which follows, tries once more and rebuilds.
const PATIENCE: u32 = 30;
/// A database that served so long is taken for well.
const STEADY: Duration = Duration::from_secs(60);

/// The database, open or waiting to be opened again.
#[derive(Debug)]
pub(super) struct Handle {
    path: PathBuf,
    cache_bytes: usize,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// Absent while it is closed.
    database: Option<Database>,
    /// Goes up with each opening: an error speaks of the opening that it happened in.
    opening: u64,
    opened_at: Instant,
    pause: Duration,
    not_before: Instant,
    /// Attempts in a row to open it again that the disk refused.
    refused: u32,
    /// Why it is closed.
    kind: Kind,
    why: String,
    is_damaged: bool,
}

impl Handle {
    pub(super) fn new(path: PathBuf, cache_bytes: usize, database: Database) -> Self {
        let state = State {
            database: Some(database),
            opening: 0,
            opened_at: Instant::now(),
            pause: Duration::ZERO,
            not_before: Instant::now(),
            refused: 0,
            kind: Kind::Store,
            why: String::new(),
            is_damaged: false,
        };
        Self { path, cache_bytes, state: RwLock::new(state) }
    }

    /// Uses the database, opening it again first if it had to be closed.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Result<T> {
        let (outcome, opening) = {
            let state = self.opened()?;
            let Some(database) = &state.database else { return Err(state.refusal()) };
            (catch_unwind(AssertUnwindSafe(|| work(database))), state.opening)
        };
        let outcome = outcome.unwrap_or_else(|panic| {
            // Holes in the file end so. What the panic left in memory must not be used again.
            self.close(opening, &Error::new(Kind::Store, "using the state database ended in a panic"));
            resume_unwind(panic)
        });
        outcome.map_err(|inner| {
            let is_unusable = ends_an_opening(&inner);
            let error = store_error_at(inner, &self.path);
            if is_unusable {
                self.close(opening, &error);
            }
            error
        })
    }

    /// Whether the file was found damaged or gone when it was opened again: only a start makes it anew.
    pub(super) fn is_damaged(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).is_damaged
    }

    /// With the database in it, unless somebody closes it in the same moment.
    fn opened(&self) -> Result<RwLockReadGuard<'_, State>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.database.is_some() {
            return Ok(state);
        }
        drop(state);
        self.open_again()?;
        Ok(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn open_again(&self) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.database.is_some() {
            return Ok(());
        }
        if state.is_damaged || Instant::now() < state.not_before {
            return Err(state.refusal());
        }
        match open::open_again(&self.path, self.cache_bytes) {
            Reopened::Open(database) => {
                state.database = Some(*database);
                state.opening += 1;
                state.opened_at = Instant::now();
                state.refused = 0;
                Ok(())
            }
            Reopened::NotNow(error) => {
                state.rest(&error);
                if state.kind != Kind::DiskFull {
                    state.refused += 1;
                    state.is_damaged = state.refused >= PATIENCE;
                }
                Err(state.refusal())
            }
            Reopened::Damaged(why) => {
                state.is_damaged = true;
                state.kind = Kind::Store;
                state.why =
                    format!("{} was found damaged when it was opened again ({why})", self.path.display());
                Err(state.refusal())
            }
        }
    }

    fn close(&self, opening: u64, error: &Error) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.opening != opening || state.database.is_none() {
            return;
        }
        // Dropping it gives back the file's lock, which opening again needs.
        state.database = None;
        if state.opened_at.elapsed() >= STEADY {
            state.pause = Duration::ZERO;
        }
        state.rest(error);
    }
}

impl State {
    /// The file is not opened before a pause is over; the first time there is none.
    fn rest(&mut self, error: &Error) {
        // In use by somebody else for now is no reason to call a person: that is a matter of starting.
        self.kind = if error.kind() == Kind::InUse { Kind::Store } else { error.kind() };
        self.why = error.to_string();
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }

    fn refusal(&self) -> Error {
        Error::new(self.kind, self.why.clone())
    }
}

/// Whether nothing can be done with this opening of the file any more, or nothing in it believed.
fn ends_an_opening(inner: &Inner) -> bool {
    use redb::Error as Redb;
    matches!(
        inner,
        Inner::Database(
            Redb::Io(_)
                | Redb::PreviousIo
                | Redb::DatabaseClosed
                | Redb::Corrupted(_)
                | Redb::LockPoisoned(_)
        )
    )
}

#[cfg(test)]
mod tests;
