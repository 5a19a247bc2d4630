//! Finding changes by looking: some subtrees of a root, again and again.
//!
//! In go the topmost directories that are to be polled, out come hints. A *pass* goes through all of them in
//! small steps, a directory at a time, and compares what each holds with the [`Listing`] of the pass before.
//! What has to stay true:
//!
//! - An entry is hinted only after it was recorded: whatever happens to it after the look is found by the next
//!   pass, and whoever obeys the hint looks later than we did. So what is new at and below a directory is
//!   hinted at one go when all of it is recorded.
//! - A directory that cannot be listed, or not to its end, keeps its last listing: nothing in it is taken for
//!   deleted. It is hinted when that begins and when it is over, so that the scan can say what is wrong.
//! - An entry whose last change is as recent as the clock is coarse may change again without looking different.
//!   It is hinted once more by the next pass.
//! - An entry that came and went between two passes was perhaps seen by who obeyed an earlier hint. Its
//!   directory's times tell, so the directory is hinted, and with it what is no longer in it.
//! - A barrier is passed by a complete pass that began after it was asked for.
//!
//! Memory: nine bytes and the name for an entry, about seventy bytes for a directory besides, and no path;
//! a directory is found by a keyed hash of its path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::listing::{Entry, Listing, Mark, pairs};
use super::look::Listed;
use super::pass::{Next, Pass, Place, SHORTEST_REST, Step, Visit, rest_after};
use crate::beneath::Look;
use crate::error::{Error, Result};
use crate::ignore::{IgnoreRules, Scope};
use crate::path::RelPath;
use crate::progress::Progress;
use crate::watch::Hint;
use crate::watch::place::RootPlace;

/// How long to leave alone what failed for lack of descriptors or memory.
const RETRY: Duration = Duration::from_secs(1);
/// What changed within this of our clock may change again and look the same: two seconds for coarse
/// clocks (FAT, old network file systems), three for a server's clock that is not quite ours.
const YOUNG_NS: i64 = 5_000_000_000;
/// Hints of one directory above which it is hinted as a whole.
const MOST_HINTS_OF_A_DIRECTORY: usize = 4096;
/// Hints after which a slice of a pass ends, so that they are handed on.
const ENOUGH_HINTS: usize = 4096;

/// Some subtrees of one root, as they were at the last pass.
pub(in crate::watch) struct Poller {
    pub(super) place: RootPlace,
    pub(super) one_file_system: bool,
    pub(super) rules: Arc<IgnoreRules>,
    /// The topmost polled directories; none lies within another.
    tops: BTreeMap<RelPath, Top>,
    /// What each directory held, by the hash of its path.
    known: HashMap<u64, Listing>,
    pub(super) key: RandomState,
    /// Directories that could not be listed, by the hash of their path.
    unreadable: HashSet<u64>,
    pass: Option<Pass>,
    /// Barriers for the next pass.
    asked: Vec<u64>,
    next_pass: Instant,
    retry_at: Option<Instant>,
    passes: u64,
    pub(super) shortest_rest: Duration,
    pub(super) young_ns: i64,
}

#[derive(Debug, Default)]
struct Top {
    /// What it was; none while it is not there, or nobody has looked.
    seen: Option<Mark>,
    /// What was at and below it at the last pass.
    counted: Counted,
}

/// How much is polled.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::watch) struct Counted {
    pub directories: usize,
    /// Entries that are not directories.
    pub files: usize,
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, more: Self) {
        self.directories += more.directories;
        self.files += more.files;
    }
}

impl Poller {
    /// A poller that polls nothing yet.
    pub fn new(root: &Path, rules: Arc<IgnoreRules>, one_file_system: bool) -> Result<Self> {
        Ok(Self {
            place: RootPlace::new(root)?,
            one_file_system,
            rules,
            tops: BTreeMap::new(),
            known: HashMap::new(),
            key: RandomState::new(),
            unreadable: HashSet::new(),
            pass: None,
            asked: Vec::new(),
            next_pass: Instant::now(),
            retry_at: None,
            passes: 0,
            shortest_rest: SHORTEST_REST,
            young_ns: YOUNG_NS,
        })
    }

    pub fn place(&self) -> &RootPlace {
        &self.place
    }

    pub fn place_mut(&mut self) -> &mut RootPlace {
        &mut self.place
    }

    /// Whether there is anything to poll.
    pub fn is_idle(&self) -> bool {
        self.tops.is_empty()
    }

    /// Polls these from now on, and what was polled before and is not among them no longer. A new one is
    /// hinted as a whole as soon as it is recorded. None may lie within another. Returns those that were dropped.
    pub fn set_tops<'t>(&mut self, tops: impl IntoIterator<Item = &'t RelPath>) -> Vec<RelPath> {
        let wanted: BTreeSet<&RelPath> = tops.into_iter().collect();
        let dropped: Vec<RelPath> = self.tops.keys().filter(|top| !wanted.contains(top)).cloned().collect();
        for top in &dropped {
            self.tops.remove(top);
            self.forget(top);
            if let Some(pass) = &mut self.pass {
                pass.drop_top(top);
            }
        }
        for top in wanted {
            if !self.tops.contains_key(top) {
                self.tops.insert(top.clone(), Top::default());
                self.next_pass = Instant::now();
            }
        }
        dropped
    }

    /// Whether `top` is one of the topmost polled directories.
    pub fn polls(&self, top: &RelPath) -> bool {
        self.tops.contains_key(top)
    }

    /// Passes that came to their end so far.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// What was at and below `top` at its last pass.
    pub fn counted(&self, top: &RelPath) -> Counted {
        self.tops.get(top).map_or(Counted::default(), |top| top.counted)
    }

    /// Directories that were listed.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Bytes of memory that the listings take, as far as they can be counted from here.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let slot = size_of::<(u64, Listing)>() + 1;
        self.known.capacity() * 8 / 7 * slot
            + self.known.values().map(|listing| listing.bytes() + 8).sum::<usize>()
    }

    /// Has a complete pass begin after now, at once, and passes this barrier at its end.
    pub fn ask(&mut self, token: u64) {
        self.asked.push(token);
    }

    /// Gives up all barriers that were asked for.
    pub fn take_asked(&mut self) -> Vec<u64> {
        let mut asked = self.pass.as_mut().map(|pass| std::mem::take(&mut pass.tokens)).unwrap_or_default();
        asked.append(&mut self.asked);
        asked
    }

    /// When [`Poller::advance`] next has something to do; a time in the past: now.
    pub fn next_work(&self) -> Instant {
        let now = Instant::now();
        let wanted = if self.pass.is_some() || !self.asked.is_empty() { now } else { self.next_pass };
        self.retry_at.map_or(wanted, |retry_at| wanted.max(retry_at))
    }

    /// Whether [`Poller::record_all`] was not finished.
    pub fn is_recording(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.is_first)
    }

    /// Records everything without a hint.
    pub fn record_all(&mut self, progress: &Progress) -> Result<()> {
        self.pass = None;
        self.begin(Instant::now(), true);
        let root = self.place.open()?;
        let mut hints = Vec::new();
        while self.step(root.as_fd(), &mut hints)? {
            progress.check()?;
            hints.clear();
        }
        self.finish(&mut hints);
        Ok(())
    }

    /// Goes on with the pass, or begins one, until `until`, until `stop` says so or there are many hints; looks
    /// at one directory at least.
    pub fn advance(&mut self, until: Instant, stop: impl Fn() -> bool, hints: &mut Vec<Hint>) -> Result<()> {
        let begun = Instant::now();
        self.retry_at = None;
        if self.pass.is_none() {
            self.begin(begun, false);
        }
        let outcome = self.advance_until(until, stop, hints);
        if let Some(pass) = &mut self.pass {
            pass.worked += begun.elapsed();
        }
        match outcome {
            Ok(true) => self.finish(hints),
            Ok(false) => {}
            Err(_) => self.retry_at = Some(Instant::now() + RETRY),
        }
        outcome.map(|_| ())
    }

    /// Whether the pass came to its end.
    fn advance_until(
        &mut self,
        until: Instant,
        stop: impl Fn() -> bool,
        hints: &mut Vec<Hint>,
    ) -> Result<bool> {
        let root = self.place.open()?;
        loop {
            if !self.step(root.as_fd(), hints)? {
                return Ok(true);
            }
            if hints.len() >= ENOUGH_HINTS || stop() || Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn begin(&mut self, now: Instant, is_first: bool) {
        self.next_pass = now;
        let tokens = std::mem::take(&mut self.asked);
        self.pass = Some(Pass::new(self.tops.keys().cloned(), tokens, is_first));
    }

    fn finish(&mut self, hints: &mut Vec<Hint>) {
        let Some(pass) = self.pass.take() else { return };
        hints.extend(pass.tokens.into_iter().map(Hint::Barrier));
        self.passes += 1;
        self.next_pass = Instant::now() + rest_after(pass.worked, self.shortest_rest);
    }

    /// Does one step; false if there is none left.
    fn step(&mut self, root: BorrowedFd<'_>, hints: &mut Vec<Hint>) -> Result<bool> {
        let Some(pass) = &mut self.pass else { return Ok(false) };
        match pass.next() {
            Next::Step(Step::Tell(path)) => hints.push(Hint::Deep(path)),
            Next::Step(Step::Visit(visit)) => {
                if let Err(error) = self.visit(root, &visit, hints) {
                    // Nothing of it was done: it is tried again.
                    self.push(Step::Visit(visit));
                    return Err(error);
                }
            }
            Next::Done(top, counted) => {
                if let Some(top) = self.tops.get_mut(&top) {
                    top.counted = counted;
                }
            }
            Next::End => return Ok(false),
        }
        Ok(true)
    }

    /// Looks at one directory. Fails only for lack of descriptors or memory, before anything was done.
    fn visit(&mut self, root: BorrowedFd<'_>, visit: &Visit, hints: &mut Vec<Hint>) -> Result<()> {
        let path = visit.path();
        let opened = match self.open(root, &path)? {
            Listed::Entries(opened, look) => Some((opened, look)),
            Listed::Elsewhere => return Ok(()),
            // What its parent says of it is settled by the next pass.
            Listed::Gone if matches!(visit.place, Place::Below(..)) => return Ok(()),
            Listed::Gone => None,
            Listed::Unreadable => {
                self.cannot_list(&path, visit.is_new, hints);
                return Ok(());
            }
        };
        let scope = self.scope_of(visit);
        let Some((opened, look)) = opened.filter(|_| scope.verdict().is_included()) else {
            self.top_is_gone(&path, hints);
            return Ok(());
        };
        let entries = match self.list(opened.as_fd(), &scope) {
            Ok(entries) => entries,
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                return Err(Error::io("list", &self.shown(&path), errno));
            }
            Err(_) => {
                self.cannot_list(&path, visit.is_new, hints);
                return Ok(());
            }
        };
        if let Some(pass) = &mut self.pass {
            let files = entries.iter().filter(|entry| !entry.mark.is_directory()).count();
            pass.count(Counted { directories: 1, files });
        }
        let is_readable_again = self.unreadable.remove(&self.hash(&path));
        let mut is_new = visit.is_new;
        let is_first = self.pass.as_ref().is_some_and(|pass| pass.is_first);
        if let Place::Top(_) = visit.place {
            is_new |= self.see_top(&path, &look, hints);
        }
        if (is_new && !visit.is_new || is_readable_again) && !is_first {
            self.push(Step::Tell(path.clone()));
        }
        self.record(&path, &scope, &entries, is_new, hints);
        Ok(())
    }

    /// Compares a directory with what it held, hints what differs and says which directories come next.
    fn record(
        &mut self,
        path: &RelPath,
        scope: &Scope,
        entries: &[Entry],
        is_new: bool,
        hints: &mut Vec<Hint>,
    ) {
        let slot = self.hash(path);
        let before = self.known.remove(&slot);
        let from = hints.len();
        let mut rules_changed = false;
        for pair in pairs(before.as_ref(), entries) {
            let differs = pair.differs();
            let child = || path.join(pair.name);
            if differs && self.rules.is_ignore_file(pair.name) && before.is_some() {
                rules_changed = true;
            }
            if pair.was_directory() {
                self.forget(&child());
            }
            let starts = pair.is_new_directory() && !is_new;
            let is_shown = !(pair.before.is_none_or(Mark::is_hidden) && pair.now.is_none_or(Mark::is_hidden));
            if starts {
                self.push(Step::Tell(child()));
            } else if differs && is_shown && !is_new && hints.len() - from <= MOST_HINTS_OF_A_DIRECTORY {
                hints.push(Hint::Changed(child()));
            }
            if pair.now.is_some_and(Mark::is_directory) {
                let place = Place::Below(scope.clone(), pair.name.into());
                self.push(Step::Visit(Visit { place, is_new: is_new || starts }));
            }
        }
        if rules_changed {
            self.rules.forget(path);
        }
        if !is_new && (rules_changed || hints.len() - from > MOST_HINTS_OF_A_DIRECTORY) {
            hints.truncate(from);
            hints.push(Hint::Deep(path.clone()));
        }
        self.known.insert(slot, Listing::pack(entries));
    }

    fn push(&mut self, step: Step) {
        if let Some(pass) = &mut self.pass {
            pass.push(step);
        }
    }

    /// Notes what a top is; true if it was not there at the last look.
    fn see_top(&mut self, path: &RelPath, look: &Look, hints: &mut Vec<Hint>) -> bool {
        let mark = Mark::of(look, &self.key);
        let Some(top) = self.tops.get_mut(path) else { return false };
        let before = top.seen.replace(mark);
        let is_other = before.is_some_and(|before| !mark.proves_unchanged_since(before));
        if is_other && !self.pass.as_ref().is_some_and(|pass| pass.is_first) {
            hints.push(Hint::Changed(path.clone()));
        }
        before.is_none()
    }

    fn top_is_gone(&mut self, path: &RelPath, hints: &mut Vec<Hint>) {
        let Some(top) = self.tops.get_mut(path) else { return };
        if top.seen.take().is_some() {
            hints.push(Hint::Changed(path.clone()));
            self.forget(path);
        }
    }

    fn cannot_list(&mut self, path: &RelPath, is_new: bool, hints: &mut Vec<Hint>) {
        let is_news = self.unreadable.insert(self.hash(path));
        if is_news && !is_new {
            hints.push(Hint::Deep(path.clone()));
        }
    }

    /// Drops what is known of a directory and of all below it.
    fn forget(&mut self, path: &RelPath) {
        let mut pending = vec![path.clone()];
        while let Some(path) = pending.pop() {
            let slot = self.hash(&path);
            self.unreadable.remove(&slot);
            if let Some(listing) = self.known.remove(&slot) {
                let directories = listing.entries().filter(|(_, mark)| mark.is_directory());
                pending.extend(directories.map(|(name, _)| path.join(name)));
            }
        }
    }

    fn hash(&self, path: &RelPath) -> u64 {
        self.key.hash_one(path.as_bytes())
    }
}
