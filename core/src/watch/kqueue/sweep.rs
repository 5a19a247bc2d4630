//! Comparing what has no descriptor, a little at a time.
//!
//! Everything that is compared is looked at in turn, one directory after the other, for a few milliseconds a
//! call, so that events are not kept waiting. Between two turns is a pause, the longer the longer the turn took:
//! comparing costs at most about a fiftieth of a processor, whatever the size of the tree. What differs is taken
//! off the record and its directory listed again, which finds it as new.

use std::time::{Duration, Instant};

use super::KqueueBackend;
use super::compare::Found;
use super::descriptors::fingerprint;
use super::tree::{DirectoryId, State};
use crate::error::Result;

/// Between two turns, at least.
const PAUSE: Duration = Duration::from_secs(10);
/// How many times longer than a turn the pause after it is.
const PAUSE_FACTOR: u32 = 50;
/// How long one call may take.
const SLICE: Duration = Duration::from_millis(20);

/// Where the turn is.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Directories still to be looked into in this turn.
    left: Vec<DirectoryId>,
    spent: Duration,
    next: Instant,
}

impl Sweep {
    pub fn new() -> Self {
        Self { left: Vec::new(), spent: Duration::ZERO, next: Instant::now() + PAUSE }
    }

    /// Lets the next turn begin at once.
    #[cfg(test)]
    pub fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// How long there is nothing to do.
    pub fn pause_left(&self, now: Instant) -> Duration {
        if self.left.is_empty() { self.next.saturating_duration_since(now) } else { Duration::ZERO }
    }
}

impl KqueueBackend {
    /// Goes on with the turn for a moment, or begins the next when it is time.
    pub(super) fn sweep_some(&mut self) -> Result<()> {
        let begun = Instant::now();
        if self.sweep.left.is_empty() {
            if begun < self.sweep.next {
                return Ok(());
            }
            self.sweep.left = self.tree.with_compared();
            self.sweep.spent = Duration::ZERO;
        }
        while begun.elapsed() < SLICE
            && let Some(id) = self.sweep.left.pop()
        {
            self.compare_stats(id)?;
        }
        self.sweep.spent += begun.elapsed();
        if self.sweep.left.is_empty() {
            self.sweep.next = Instant::now() + PAUSE.max(self.sweep.spent * PAUSE_FACTOR);
        }
        Ok(())
    }

    /// Looks at all of it at once.
    pub(super) fn sweep_all(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.sweep.left.clear();
        for id in self.tree.with_compared() {
            self.compare_stats(id)?;
        }
        self.sweep.next = Instant::now() + PAUSE.max(begun.elapsed() * PAUSE_FACTOR);
        Ok(())
    }

    /// Looks at the compared entries of one directory.
    fn compare_stats(&mut self, id: DirectoryId) -> Result<()> {
        let Some(path) = self.tree.path(id) else { return Ok(()) };
        let opened = match self.find(id, &path)? {
            Found::Open(opened) => opened,
            Found::Other | Found::Closed => {
                self.dirty.insert(id);
                return Ok(());
            }
        };
        for (name, entry) in self.tree.entries(id, |_, entry| matches!(entry.state, State::Compared(..))) {
            let State::Compared(before, _) = entry.state else { continue };
            if self.is_left(&entry) || fingerprint(&opened, &name) == Some(before) {
                continue;
            }
            self.dirty.insert(id);
            self.tree.make_unknown(id, &name);
        }
        Ok(())
    }
}
