//! Watching by what the kernel tells where it tells, and by polling where it does not.
//!
//! All of a root is polled if its kind of file system does not tell of every change, or if what would tell cannot
//! be had or fails its test. Otherwise that watches, and what it leaves ([`Told::take_left`]) is polled: directories
//! beyond its limits, and those of which it is not told. A resync tries again what could not be had.
//!
//! One thread serves both: it reads events, looks at polled directories for a moment, and reads events again.
//! What goes from one to the other is hinted as a whole when the other has it in hand, so nothing falls between
//! them. A barrier passes what is told first, where more to poll may be learnt of, and then a complete pass.
//! What tells is inotify or kqueue (`inotify::left`, `kqueue::left`); nothing here knows which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Wanted;
use super::poll::{Counted, PollBackend, SLICE};
use super::{Backend, Control, Hint, WatchStats};
use crate::error::{Error, Kind, Result};
use crate::path::RelPath;
use crate::progress::Progress;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod told;

pub(super) use told::{Made, Means, Told, Tops, Why};

/// Places named in a sentence.
const NAMED: usize = 3;

/// Watches one root by whatever means there are.
pub(super) struct ComposedBackend<M: Means> {
    means: M,
    told: Option<M::Told>,
    /// Why all of the root is polled, while nothing tells.
    whole: Whole,
    poll: PollBackend,
    /// Hints of a resync, for the next wait.
    pending: Vec<Hint>,
    events: Vec<Hint>,
    /// What is polled and why, as of the pass with this number.
    reason: Option<String>,
    reason_of_pass: u64,
}

/// Why all of a root is polled.
#[derive(Debug)]
enum Whole {
    /// Its kind of file system does not tell of every change.
    Silent(String),
    /// There is not one watch to be had.
    NoWatch,
    /// What would tell does not work here, or is not to be had.
    Unusable(String),
}

impl<M: Means> ComposedBackend<M> {
    /// Prepares to watch by `means`; `wanted.choice` is not looked at.
    pub fn new(wanted: &Wanted<'_>, means: M) -> Result<Self> {
        let poll = PollBackend::new(wanted.root, wanted.rules.clone(), wanted.one_file_system)?;
        let mut composed = Self {
            means,
            told: None,
            whole: Whole::NoWatch,
            poll,
            pending: Vec::new(),
            events: Vec::new(),
            reason: None,
            reason_of_pass: 0,
        };
        composed.prepare_told()?;
        Ok(composed)
    }

    /// Makes what tells, if this root can be watched at all.
    fn prepare_told(&mut self) -> Result<()> {
        match self.means.make() {
            Ok(Made::Told(told)) => self.told = Some(told),
            Ok(Made::Silent(kind)) => self.whole = Whole::Silent(kind),
            Err(error) => self.poll_all_because(error)?,
        }
        Ok(())
    }

    /// Has the tree watched; if that cannot be, all of it is polled.
    fn start_told(&mut self, progress: &Progress) -> Result<()> {
        if let Some(told) = &mut self.told
            && let Err(error) = told.start(progress)
        {
            self.told = None;
            self.poll_all_because(error)?;
        }
        let control = self.told.as_ref().map(|told| told.control());
        self.poll.bell.set_companion(control);
        Ok(())
    }

    fn poll_all_because(&mut self, error: Error) -> Result<()> {
        if matches!(error.kind(), Kind::RootUnavailable | Kind::Cancelled) {
            return Err(error);
        }
        let is_want = self.means.is_want_of_watches(&error);
        self.whole = if is_want { Whole::NoWatch } else { Whole::Unusable(error.to_string()) };
        Ok(())
    }

    /// Has polled what is to be polled now. What no longer is has watches, or is gone: it is hinted, because
    /// nobody looked at it between its last pass and its watches.
    fn hand_over(&mut self, hints: &mut Vec<Hint>) {
        let Some(told) = &mut self.told else { return };
        let Some(left) = told.take_left() else { return };
        let dropped = self.poll.poller.set_tops(left.keys());
        hints.extend(dropped.into_iter().map(Hint::Deep));
        self.explain();
    }

    /// Puts into words what is polled and why.
    fn explain(&mut self) {
        self.reason_of_pass = self.poll.poller.passes();
        self.reason = match &self.told {
            None => Some(self.why_all()),
            Some(told) => self.why_left(told),
        };
    }

    fn why_all(&self) -> String {
        match &self.whole {
            Whole::Silent(kind) => format!(
                "all of it is polled every 5 to 30 seconds: {kind} does not tell of changes that are made elsewhere"
            ),
            Whole::NoWatch => {
                let all = self.poll.poller.counted(&RelPath::root());
                self.means.polled_for_want_of_watches(at_least_one(all), None)
            }
            Whole::Unusable(why) => format!("all of it is polled every 5 to 30 seconds: {why}"),
        }
    }

    fn why_left(&self, told: &M::Told) -> Option<String> {
        let mut sentences = Vec::new();
        let mut unwatched = Counted::default();
        let mut silent = Vec::new();
        for (top, why) in told.left() {
            match why {
                Why::NoWatch => unwatched += at_least_one(self.poll.poller.counted(top)),
                Why::Silent(kind) => silent.push(format!("{top} ({kind})")),
            }
        }
        if unwatched.directories > 0 {
            sentences.push(self.means.polled_for_want_of_watches(unwatched, Some(told)));
        }
        if !silent.is_empty() {
            let more = silent.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = silent.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            sentences.push(format!("polled every 5 to 30 seconds, because {}: {named}{more}", M::SILENCE));
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    /// Hands barriers to what tells. One that cannot be marked, on a full disk, is passed by looking at everything.
    fn ask_told(told: &M::Told, tokens: Vec<u64>, hints: &mut Vec<Hint>) {
        for token in tokens {
            if told.control().barrier(token).is_err() {
                hints.extend([Hint::Overflow, Hint::Barrier(token)]);
            }
        }
    }

    /// Hands on what was told. Barriers still have to pass what is polled.
    fn take_events(&mut self, hints: &mut Vec<Hint>) {
        let mut events = std::mem::take(&mut self.events);
        self.hand_over(hints);
        for hint in events.drain(..) {
            match hint {
                Hint::Barrier(token) if self.poll.poller.is_idle() || self.poll.is_gone() => {
                    hints.push(Hint::Barrier(token));
                }
                Hint::Barrier(token) => self.poll.poller.ask(token),
                Hint::RootGone => self.poll.lose_root(hints),
                other => hints.push(other),
            }
        }
        self.events = events;
    }
}

/// One that was not looked at yet counts as itself.
fn at_least_one(counted: Counted) -> Counted {
    Counted { directories: counted.directories.max(1), ..counted }
}

impl<M: Means> Backend for ComposedBackend<M> {
    fn name(&self) -> &'static str {
        match &self.told {
            None => "poll",
            Some(_) if self.poll.poller.is_idle() => M::ALONE,
            Some(_) => M::WITH_POLLING,
        }
    }

    fn start(&mut self, progress: &Progress) -> Result<()> {
        self.start_told(progress)?;
        // What is handed over here is for the scan that follows.
        self.hand_over(&mut Vec::new());
        if self.told.is_some() && self.poll.poller.polls(&RelPath::root()) {
            self.poll.poller.set_tops([]);
        }
        self.poll.start(progress)?;
        self.explain();
        Ok(())
    }

    fn resync(&mut self, progress: &Progress) -> Result<()> {
        let mut hints = Vec::new();
        if let Some(told) = &mut self.told {
            told.resync(progress)?;
        } else {
            self.prepare_told()?;
            self.start_told(progress)?;
            if self.told.is_some() {
                hints.extend(self.poll.poller.set_tops([]).into_iter().map(Hint::Deep));
            }
        }
        self.hand_over(&mut hints);
        self.poll.resync(progress)?;
        self.explain();
        self.pending.append(&mut hints);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, hints: &mut Vec<Hint>) -> Result<()> {
        let from = hints.len();
        hints.append(&mut self.pending);
        let end = Instant::now().checked_add(timeout);
        loop {
            let now = Instant::now();
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
            let Some(told) = &mut self.told else {
                let waited = self.poll.wait(if hints.len() > from { Duration::ZERO } else { left }, hints);
                if self.reason_of_pass != self.poll.poller.passes() {
                    self.explain();
                }
                return waited;
            };
            Self::ask_told(told, self.poll.bell.take_tokens(), hints);
            let until_pass = if self.poll.poller.is_idle() || self.poll.is_gone() {
                left
            } else {
                self.poll.poller.next_work().saturating_duration_since(now)
            };
            let pause = if hints.len() > from { Duration::ZERO } else { left.min(until_pass) };
            let waited = told.wait(pause, &mut self.events);
            self.take_events(hints);
            waited?;
            self.poll.look(Instant::now() + SLICE, hints)?;
            if self.reason_of_pass != self.poll.poller.passes() {
                self.explain();
            }
            let is_over = end.is_some_and(|end| end <= Instant::now());
            if self.poll.bell.take_wake() || hints.len() > from || is_over {
                return Ok(());
            }
        }
    }

    fn stats(&self) -> WatchStats {
        let polled = self.poll.stats();
        let told = self.told.as_ref().map(Backend::stats).unwrap_or_default();
        WatchStats {
            watches: told.watches + polled.watches,
            unwatched: told.unwatched,
            overflows: told.overflows,
            // Where something is polled for want of watches, that sentence tells of everything that is wanting.
            limited: self.reason.clone().or(told.limited),
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        self.poll.control()
    }
}
