//! Watching a root: a backend tells where something changed, never what.
//!
//! Out come [`Hint`]s, which may be too many or repeated but never too few without saying so
//! ([`Hint::Overflow`], [`WatchStats::limited`]); [`debounce`] holds them until a path is quiet. One thread
//! calls [`Backend::wait`] in a loop; any other thread wakes it or asks for a barrier through [`Control`].

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::path::RelPath;
use crate::progress::Progress;

mod choice;
mod composed;
#[cfg(test)]
mod conformance;
pub mod debounce;
#[cfg(target_os = "linux")]
pub mod inotify;
#[cfg(target_os = "linux")]
mod kinds;
// On Linux only its bookkeeping is of use, to its tests.
#[cfg(any(test, not(target_os = "linux")))]
pub mod kqueue;
#[cfg(all(test, target_os = "linux"))]
mod namespace;
mod place;
pub mod poll;

pub use choice::{Wanted, open, polled_kind};

/// Where to look. Paths that the ignore rules leave out are not hinted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// This entry, and only itself: it was made, changed, or is gone. Where no directory is found any more,
    /// all below it is gone too, whether or not that was hinted; and whatever a directory no longer holds is
    /// gone from it.
    Changed(RelPath),
    /// This entry and everything below it, including what is no longer there.
    Deep(RelPath),
    /// Events were lost: everything.
    Overflow,
    /// The root was deleted, moved away, unmounted or replaced. The last hint of a backend: make a new one
    /// when the root is there again.
    RootGone,
    /// All that happened in watched and polled directories before [`Control::barrier`] was called with this
    /// number has been hinted; where [`WatchStats::unwatched`] is not zero, a scan has to see to the others.
    Barrier(u64),
}

/// How a backend is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Directories that are watched, or polled.
    pub watches: usize,
    /// Directories that are neither, because of a limit or because they cannot be read.
    pub unwatched: usize,
    /// Times that events were lost.
    pub overflows: u64,
    /// Sentences for people, while something is not as one would wish: what is polled or not watched, why, and
    /// the limit and the number needed if it is for want of watches.
    pub limited: Option<String>,
}

/// A way of watching.
pub trait Backend: Send {
    /// The word for status: what is in force now, such as `inotify`, `poll` or `inotify+poll`.
    fn name(&self) -> &'static str;

    /// Starts to watch the whole tree. What changes after this returned is hinted; what was there before is
    /// for a scan that starts afterwards. Counts directories in `progress`, by which it can be cancelled.
    fn start(&mut self, progress: &Progress) -> Result<()>;

    /// Watches directories that were missed, for lack of watches or of permission, and lets go of others.
    /// Whoever reconciles a root calls this first; it need not hint what it finds.
    fn resync(&mut self, progress: &Progress) -> Result<()>;

    /// Waits until there is something to hint, the waker was used or `timeout` is over, and adds to `hints`.
    /// May return without any hint at any time. After an error the hints that were added count all the same,
    /// the backend goes on and tries again what failed.
    fn wait(&mut self, timeout: Duration, hints: &mut Vec<Hint>) -> Result<()>;

    /// How it is doing.
    fn stats(&self) -> WatchStats;

    /// The handle for other threads.
    fn control(&self) -> Arc<dyn Control>;
}

/// What other threads may ask of a backend, whether or not somebody waits on it.
pub trait Control: Send + Sync {
    /// Makes the current call of [`Backend::wait`], or the next, return at once.
    fn wake(&self);

    /// Makes [`Hint::Barrier`] with `token` come after the hints of all that happened before this call. Fails
    /// if that cannot be, for example on a full disk; then no such hint comes.
    fn barrier(&self, token: u64) -> Result<()>;
}
