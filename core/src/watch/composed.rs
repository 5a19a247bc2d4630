//! Watching by inotify where events come, and by polling where they do not.
//!
//! All of a root is polled if its kind of file system does not tell of every change, if a test of inotify in a
//! directory of our own fails, or if there is no instance or not one watch to be had. Otherwise inotify watches,
//! and what it leaves (`inotify::left`) is polled: directories beyond the limit on watches, and mounts of a
//! kind that does not tell. A resync tries again what could not be had.
//!
//! One thread serves both: it reads events, looks at polled directories for a moment, and reads events again.
//! What goes from one to the other is hinted as a whole when the other has it in hand, so nothing falls between
//! them. A barrier passes inotify first, where it may learn of more to poll, and then a complete pass.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Wanted;
use super::inotify::InotifyBackend;
use super::inotify::left::Why;
use super::inotify::limits;
use super::kinds;
use super::poll::{PollBackend, SLICE};
use super::{Backend, Control, Hint, WatchStats};
use crate::error::{Error, Kind, Result};
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::progress::Progress;

#[cfg(test)]
mod tests;

/// How long a change of our own may take to be told. It takes microseconds where it works at all.
pub(super) const SELF_TEST: Duration = Duration::from_secs(2);
/// Places named in a sentence.
const NAMED: usize = 3;

/// Watches one root by whatever means there are.
pub struct ComposedBackend {
    root: PathBuf,
    rules: Arc<IgnoreRules>,
    own_directory: PathBuf,
    one_file_system: bool,
    inotify: Option<InotifyBackend>,
    /// Why all of the root is polled, while there is no inotify.
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
    /// inotify does not work here, or there is no instance to be had.
    Unusable(String),
}

impl Whole {
    fn of(error: &Error) -> Self {
        if limits::is_want_of_watches(error) { Self::NoWatch } else { Self::Unusable(error.to_string()) }
    }
}

impl ComposedBackend {
    /// Prepares to watch; `wanted.choice` is not looked at.
    pub fn new(wanted: &Wanted<'_>) -> Result<Self> {
        let poll = PollBackend::new(wanted.root, wanted.rules.clone(), wanted.one_file_system)?;
        let mut composed = Self {
            root: wanted.root.to_owned(),
            rules: wanted.rules.clone(),
            own_directory: wanted.own_directory.to_owned(),
            one_file_system: wanted.one_file_system,
            inotify: None,
            whole: Whole::NoWatch,
            poll,
            pending: Vec::new(),
            events: Vec::new(),
            reason: None,
            reason_of_pass: 0,
        };
        composed.prepare_inotify()?;
        Ok(composed)
    }

    /// Makes an instance and tests it, if this root can be watched at all.
    fn prepare_inotify(&mut self) -> Result<()> {
        if let Ok(Some(kind)) = kinds::silent_at(&self.root) {
            self.whole = Whole::Silent(kind);
            return Ok(());
        }
        let made =
            InotifyBackend::new(&self.root, self.rules.clone(), &self.own_directory, self.one_file_system);
        let tested = made.and_then(|mut inotify| {
            inotify.leave_what_is_not_watched();
            inotify.self_test(SELF_TEST)?;
            Ok(inotify)
        });
        match tested {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => self.poll_all_because(error)?,
        }
        Ok(())
    }

    /// Has inotify watch the tree; if it cannot, all of it is polled.
    fn start_inotify(&mut self, progress: &Progress) -> Result<()> {
        if let Some(inotify) = &mut self.inotify
            && let Err(error) = inotify.start(progress)
        {
            self.inotify = None;
            self.poll_all_because(error)?;
        }
        let control = self.inotify.as_ref().map(|inotify| inotify.control());
        self.poll.bell.set_companion(control);
        Ok(())
    }

    fn poll_all_because(&mut self, error: Error) -> Result<()> {
        if matches!(error.kind(), Kind::RootUnavailable | Kind::Cancelled) {
            return Err(error);
        }
        self.whole = Whole::of(&error);
        Ok(())
    }

    /// Has polled what is to be polled now. What no longer is has watches, or is gone: it is hinted, because
    /// nobody looked at it between its last pass and its watches.
    fn hand_over(&mut self, hints: &mut Vec<Hint>) {
        let Some(inotify) = &mut self.inotify else { return };
        let Some(left) = inotify.take_left() else { return };
        let dropped = self.poll.poller.set_tops(left.keys());
        hints.extend(dropped.into_iter().map(Hint::Deep));
        self.explain();
    }

    /// Puts into words what is polled and why.
    fn explain(&mut self) {
        self.reason_of_pass = self.poll.poller.passes();
        let poller = &self.poll.poller;
        let Some(left) = self.inotify.as_ref().and_then(InotifyBackend::left) else {
            self.reason = Some(match &self.whole {
                Whole::Silent(kind) => format!(
                    "all of it is polled every 5 to 30 seconds: {kind} does not tell of changes that are made \
                     elsewhere"
                ),
                Whole::NoWatch => {
                    limits::polled_for_want_of_watches(poller.directories(&RelPath::root()).max(1))
                }
                Whole::Unusable(why) => format!("all of it is polled every 5 to 30 seconds: {why}"),
            });
            return;
        };
        let mut sentences = Vec::new();
        let unwatched = left.iter().filter(|(_, why)| **why == Why::NoWatch);
        // One that was not looked at yet counts as itself.
        let unwatched: usize = unwatched.map(|(top, _)| poller.directories(top).max(1)).sum();
        if unwatched > 0 {
            sentences.push(limits::polled_for_want_of_watches(unwatched));
        }
        let silent: Vec<String> = left
            .iter()
            .filter_map(|(top, why)| match why {
                Why::Silent(kind) => Some(format!("{top} ({kind})")),
                Why::NoWatch => None,
            })
            .collect();
        if !silent.is_empty() {
            let more = silent.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = silent.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            sentences.push(format!(
                "polled every 5 to 30 seconds, because such file systems do not tell of changes that are made \
                 elsewhere: {named}{more}"
            ));
        }
        self.reason = (!sentences.is_empty()).then(|| sentences.join("; "));
    }

    /// Hands barriers to inotify. One that cannot be marked, on a full disk, is passed by looking at everything.
    fn ask_inotify(inotify: &InotifyBackend, tokens: Vec<u64>, hints: &mut Vec<Hint>) {
        for token in tokens {
            if inotify.control().barrier(token).is_err() {
                hints.extend([Hint::Overflow, Hint::Barrier(token)]);
            }
        }
    }

    /// Hands on what inotify told. Barriers still have to pass what is polled.
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

impl Backend for ComposedBackend {
    fn name(&self) -> &'static str {
        match &self.inotify {
            None => "poll",
            Some(_) if self.poll.poller.is_idle() => "inotify",
            Some(_) => "inotify+poll",
        }
    }

    fn start(&mut self, progress: &Progress) -> Result<()> {
        self.start_inotify(progress)?;
        // What is handed over here is for the scan that follows.
        self.hand_over(&mut Vec::new());
        if self.inotify.is_some() && self.poll.poller.polls(&RelPath::root()) {
            self.poll.poller.set_tops([]);
        }
        self.poll.start(progress)?;
        self.explain();
        Ok(())
    }

    fn resync(&mut self, progress: &Progress) -> Result<()> {
        let mut hints = Vec::new();
        if let Some(inotify) = &mut self.inotify {
            inotify.resync(progress)?;
        } else {
            self.prepare_inotify()?;
            self.start_inotify(progress)?;
            if self.inotify.is_some() {
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
            let Some(inotify) = &mut self.inotify else {
                let waited = self.poll.wait(if hints.len() > from { Duration::ZERO } else { left }, hints);
                if self.reason_of_pass != self.poll.poller.passes() {
                    self.explain();
                }
                return waited;
            };
            Self::ask_inotify(inotify, self.poll.bell.take_tokens(), hints);
            let until_pass = if self.poll.poller.is_idle() || self.poll.is_gone() {
                left
            } else {
                self.poll.poller.next_work().saturating_duration_since(now)
            };
            let pause = if hints.len() > from { Duration::ZERO } else { left.min(until_pass) };
            let waited = inotify.wait(pause, &mut self.events);
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
        let watched = self.inotify.as_ref().map(Backend::stats).unwrap_or_default();
        WatchStats {
            watches: watched.watches + polled.watches,
            unwatched: watched.unwatched,
            overflows: watched.overflows,
            limited: self.reason.clone(),
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        self.poll.control()
    }
}
