//! Watching by looking: for file systems that do not tell of changes, and for what is beyond the limits of
//! those that do.
//!
//! The tree is compared with what it was at the pass before (`poller`), every 5 to 30 seconds: the longer a
//! pass takes the longer the rest, so that polling costs 4 % of a core at most as long as that leaves a change
//! found within half a minute. In between, the thread sleeps until somebody wakes it or asks for a barrier,
//! which makes the next pass come at once.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::place::ROOT_CHECK;
use super::{Backend, Control, Hint, WatchStats};
use crate::error::{Kind, Result};
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::progress::Progress;

mod listing;
mod look;
mod pass;
mod poller;
#[cfg(test)]
mod tests;

pub(super) use poller::Counted;
use poller::Poller;
#[cfg(test)]
pub(super) use tests::covered;

/// How long to look at directories before looking around: other threads' wishes, events of a companion.
pub(super) const SLICE: Duration = Duration::from_millis(20);

/// Watches one root by polling all of it.
pub struct PollBackend {
    pub(super) poller: Poller,
    pub(super) bell: Arc<Bell>,
}

impl PollBackend {
    /// Prepares to poll the directory `root` by `rules`. With `one_file_system`, mounts below the root are left
    /// out.
    pub fn new(root: &Path, rules: Arc<IgnoreRules>, one_file_system: bool) -> Result<Self> {
        let mut poller = Poller::new(root, rules, one_file_system)?;
        poller.set_tops([&RelPath::root()]);
        Ok(Self { poller, bell: Arc::default() })
    }

    /// Goes on with a pass if it is time, for a moment. That the root is gone is no failure but a hint.
    pub(super) fn look(&mut self, until: Instant, hints: &mut Vec<Hint>) -> Result<()> {
        if self.is_gone() || self.poller.is_idle() || self.poller.next_work() > Instant::now() {
            return Ok(());
        }
        let bell = Arc::clone(&self.bell);
        match self.poller.advance(until, || bell.is_wanted(), hints) {
            Err(error) if error.kind() == Kind::RootUnavailable && !self.poller.place().is_there() => {
                self.lose_root(hints);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Whether the root is lost.
    pub(super) fn is_gone(&self) -> bool {
        self.poller.place().is_gone()
    }

    /// Everything that was asked for passes: there is nothing left to look at.
    pub(super) fn lose_root(&mut self, hints: &mut Vec<Hint>) {
        self.poller.place_mut().lose(hints);
        hints.extend(self.poller.take_asked().into_iter().map(Hint::Barrier));
    }
}

impl Backend for PollBackend {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn start(&mut self, progress: &Progress) -> Result<()> {
        self.poller.record_all(progress)
    }

    fn resync(&mut self, progress: &Progress) -> Result<()> {
        // There is nothing to get back; only a start that was cancelled is made good.
        if self.poller.is_recording() { self.poller.record_all(progress) } else { Ok(()) }
    }

    fn wait(&mut self, timeout: Duration, hints: &mut Vec<Hint>) -> Result<()> {
        let from = hints.len();
        let end = Instant::now().checked_add(timeout);
        loop {
            for token in self.bell.take_tokens() {
                self.poller.ask(token);
            }
            if self.is_gone() || !self.poller.place().is_there() {
                self.lose_root(hints);
            }
            let now = Instant::now();
            self.look(end.map_or(now + SLICE, |end| end.min(now + SLICE)), hints)?;
            let now = Instant::now();
            if self.bell.take_wake() || hints.len() > from || end.is_some_and(|end| end <= now) {
                return Ok(());
            }
            let next =
                if self.is_gone() { now + ROOT_CHECK } else { self.poller.next_work().min(now + ROOT_CHECK) };
            self.bell.wait_until(end.map_or(next, |end| end.min(next)));
        }
    }

    fn stats(&self) -> WatchStats {
        WatchStats { watches: self.poller.known(), ..WatchStats::default() }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.bell) as Arc<dyn Control>
    }
}

/// What other threads want of the one that polls.
#[derive(Default)]
pub(super) struct Bell {
    wishes: Mutex<Wishes>,
    rung: Condvar,
}

#[derive(Default)]
struct Wishes {
    wake: bool,
    tokens: Vec<u64>,
    /// Woken as well: the polling thread may be waiting there.
    companion: Option<Arc<dyn Control>>,
}

impl Bell {
    /// Has wishes wake `companion` too.
    pub fn set_companion(&self, companion: Option<Arc<dyn Control>>) {
        self.wishes().companion = companion;
    }

    /// Whether somebody wants the thread to return.
    pub fn is_wanted(&self) -> bool {
        self.wishes().wake
    }

    /// Whether the thread was to return; it need not again.
    pub fn take_wake(&self) -> bool {
        std::mem::take(&mut self.wishes().wake)
    }

    /// The barriers that were asked for since the last call.
    pub fn take_tokens(&self) -> Vec<u64> {
        std::mem::take(&mut self.wishes().tokens)
    }

    /// Waits for a wish, until `end` at the latest.
    pub fn wait_until(&self, end: Instant) {
        let mut wishes = self.wishes();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if wishes.wake || !wishes.tokens.is_empty() || left.is_zero() {
                return;
            }
            wishes = match self.rung.wait_timeout(wishes, left) {
                Ok((wishes, _)) => wishes,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn ring(&self, wish: impl FnOnce(&mut Wishes)) {
        let mut wishes = self.wishes();
        wish(&mut wishes);
        let companion = wishes.companion.clone();
        drop(wishes);
        self.rung.notify_all();
        if let Some(companion) = companion {
            companion.wake();
        }
    }

    /// Whole at every moment between calls, so a panic of a holder leaves nothing half done.
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control for Bell {
    fn wake(&self) {
        self.ring(|wishes| wishes.wake = true);
    }

    fn barrier(&self, token: u64) -> Result<()> {
        self.ring(|wishes| wishes.tokens.push(token));
        Ok(())
    }
}
