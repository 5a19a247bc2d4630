//! Cancelling a long function from outside, and watching it work.
//!
//! A job is given one [`Progress`]; it calls [`Progress::check`] between steps. The same counters feed
//! progress bars and hang detection: a job whose [`Progress::ticks`] stands still is hung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    ticks: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
}

/// A handle shared by a job and whoever watches it; clones are the same thing.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

impl Progress {
    /// A fresh one, not cancelled, all counters zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to stop at its next check.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked for a stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Counts a step; fails with [`crate::error::Kind::Cancelled`] if a stop was asked for.
    pub fn check(&self) -> Result<()> {
        self.tick();
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Counts a step.
    pub fn tick(&self) {
        self.0.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one finished file of `bytes` bytes.
    pub fn file_done(&self, bytes: u64) {
        self.tick();
        self.0.files.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of a file that is not finished yet.
    pub fn bytes_done(&self, bytes: u64) {
        self.tick();
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Steps so far; only whether it moves has a meaning.
    pub fn ticks(&self) -> u64 {
        self.0.ticks.load(Ordering::Relaxed)
    }

    /// Files finished so far.
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }

    /// Bytes so far: of finished files, and of others where the job counts them as they pass.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}
