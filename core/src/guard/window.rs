//! What was done to one root within the window, and how much of it is lost.
//!
//! A file is counted by its content, not by its path: a step says how many more or fewer files have a content after it
//! than before. Over the window these add up to the difference between the root now and at the window's start, so a
//! file that was moved counts for nothing, one that was written ten times counts once, and one that came and went not
//! at all. What is missing in the sum is what was deleted or rewritten.
//!
//! A root that held fewer than `min_files` at the window's start could never lose that many of them. It is compared with
//! each state that it had since: whoever sets up a backup and fills the directory then is guarded too.
//!
//! Memory is bounded: neighbouring steps are merged, and of very many new contents those of the oldest steps are
//! forgotten, which at worst makes a move of these files look like a loss.

use std::collections::{HashMap, VecDeque};

use super::tally::{Tally, Turned};
use crate::config::MassChange;
use crate::error::Result;

/// Steps that are kept; then neighbours are merged.
const MOST_STEPS: usize = 512;
/// Contents that are kept in all steps together; then the new ones of the oldest steps are forgotten.
const MOST_CONTENTS: usize = 250_000;

/// How much of a root is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Files that were deleted or rewritten.
    pub lost: u64,
    /// Files that there were.
    pub of: u64,
    /// Since when, Unix seconds.
    pub since_s: i64,
}

/// What one commit, or several neighbouring ones, did.
#[derive(Debug, Clone, Default)]
struct Step {
    at_s: i64,
    files: i64,
    /// How many files more have this content; never zero.
    contents: Vec<(u64, i32)>,
}

impl Step {
    fn new(at_s: i64, files: i64, changes: impl Iterator<Item = (u64, i32)>) -> Self {
        let mut sums: HashMap<u64, i32> = HashMap::new();
        for (content, more) in changes {
            let sum = sums.entry(content).or_default();
            *sum = sum.saturating_add(more);
        }
        let contents = sums.into_iter().filter(|(_, more)| *more != 0).collect();
        Self { at_s, files, contents }
    }

    fn is_empty(&self) -> bool {
        self.files == 0 && self.contents.is_empty()
    }

    fn and(self, later: Self) -> Self {
        let changes = self.contents.into_iter().chain(later.contents);
        Self::new(self.at_s.max(later.at_s), self.files.saturating_add(later.files), changes)
    }

    fn taken_away(&self) -> u64 {
        self.contents.iter().map(|(_, more)| u64::from(more.min(&0).unsigned_abs())).sum()
    }
}

/// What was done to a root within the window, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Window {
    steps: VecDeque<Step>,
    /// Files that the root has now, once somebody has counted them.
    files: Option<i64>,
}

impl Window {
    /// Takes what was done at `at_s`, Unix seconds, after everything that is known. Whether that was anything.
    ///
    /// What is excused changes the state that the root is compared with: a content that goes is not missed, and one that
    /// comes is missed if it goes.
    pub fn take(&mut self, tally: &Tally, at_s: i64) -> bool {
        self.files = self.files.map(|files| files.saturating_add(tally.files()));
        let (mut files, mut changes) = (0, Vec::new());
        let mut change = |content: u64, more: i32| {
            files += i64::from(more);
            changes.push((content, more));
        };
        for (before, after) in tally.counted() {
            before.into_iter().for_each(|content| change(content, -1));
            after.into_iter().for_each(|content| change(content, 1));
        }
        self.excuse(tally);
        let step = Step::new(at_s, files, changes.into_iter());
        if step.is_empty() {
            return false;
        }
        self.push(step);
        true
    }

    /// Makes what is excused undone in the steps where it was done: a content that goes never came, and one that comes
    /// never went. What no step knows changes the state before all of them.
    fn excuse(&mut self, tally: &Tally) {
        let mut excused = tally.excused().peekable();
        if excused.peek().is_none() {
            return;
        }
        let mut sums = self.sums();
        let mut undone: HashMap<u64, i32> = HashMap::new();
        for (before, after) in excused {
            let changes = [before.map(|content| (content, -1)), after.map(|content| (content, 1))];
            for (content, more) in changes.into_iter().flatten() {
                let sum = sums.entry(content).or_default();
                if sum.signum() == -i64::from(more) {
                    *sum += i64::from(more);
                    *undone.entry(content).or_default() += more;
                }
            }
        }
        for step in self.steps.iter_mut().rev() {
            let files = &mut step.files;
            step.contents.retain_mut(|(content, more)| {
                let Some(left) = undone.get_mut(content).filter(|left| left.signum() == -more.signum())
                else {
                    return true;
                };
                let undoing = left.signum() * left.abs().min(more.abs());
                *left -= undoing;
                *more += undoing;
                *files += i64::from(undoing);
                *more != 0
            });
        }
    }

    /// How many files the root has now; `count` goes through all of them, once.
    pub fn files(&mut self, count: impl FnOnce() -> Result<i64>) -> Result<i64> {
        let files = match self.files {
            Some(files) => files,
            None => count()?,
        };
        self.files = Some(files);
        Ok(files)
    }

    /// How many files more than at the window's start have each content.
    fn sums(&self) -> HashMap<u64, i64> {
        let mut sums: HashMap<u64, i64> = HashMap::new();
        for (content, more) in self.steps.iter().flat_map(|step| &step.contents) {
            *sums.entry(*content).or_default() += i64::from(*more);
        }
        sums
    }

    fn push(&mut self, step: Step) {
        self.steps.push_back(step);
        if self.steps.len() > MOST_STEPS {
            let mut merged = VecDeque::with_capacity(MOST_STEPS);
            while let Some(first) = self.steps.pop_front() {
                match self.steps.pop_front() {
                    Some(second) => merged.push_back(first.and(second)),
                    None => merged.push_back(first),
                }
            }
            self.steps = merged;
        }
        let mut held: usize = self.steps.iter().map(|step| step.contents.len()).sum();
        for step in &mut self.steps {
            if held <= MOST_CONTENTS {
                break;
            }
            let before = step.contents.len();
            step.contents.retain(|(_, more)| *more < 0);
            step.contents.shrink_to_fit();
            held -= before - step.contents.len();
        }
    }

    /// Everything was brought into another form: what was done before is told of the same contents as they are stored now.
    pub fn turn(&mut self, turned: &Turned) {
        for step in &mut self.steps {
            let contents = std::mem::take(&mut step.contents);
            let contents = contents.into_iter().map(|(content, more)| (turned.now(content), more));
            *step = Step::new(step.at_s, step.files, contents);
        }
    }

    /// Forgets what was done at or before `start_s`, Unix seconds.
    pub fn forget_before(&mut self, start_s: i64) {
        while self.steps.front().is_some_and(|step| step.at_s <= start_s) {
            self.steps.pop_front();
        }
    }

    /// How many files were taken away, step by step.
    pub fn taken_away(&self) -> u64 {
        self.steps.iter().map(Step::taken_away).sum()
    }

    /// Whether enough was taken away for a loss; cheap, and too often yes.
    pub fn may_hold(&self, limits: &MassChange) -> bool {
        self.taken_away() >= limits.min_files
    }

    /// The loss, if it is one by `limits`, of a root that has `files` files now.
    pub fn judge(&self, files: i64, limits: &MassChange) -> Option<Loss> {
        let at_start = files.saturating_sub(self.steps.iter().map(|step| step.files).sum());
        let is_old = at_start >= i64::try_from(limits.min_files).unwrap_or(i64::MAX);
        // Most of the time this is all: no more can be lost than was taken away.
        is_loss(self.taken_away(), if is_old { at_start } else { files }, 0, limits)?;
        let sums = self.sums();
        if is_old {
            let lost = sums.values().map(|sum| sum.min(&0).unsigned_abs()).sum();
            return is_loss(lost, at_start, self.steps.front()?.at_s, limits);
        }
        self.judge_since_each_step(files, &sums, limits)
    }

    /// The largest loss against the state before one of the steps. A content that there is more of than at the window's
    /// start still stands somewhere in the root, so it is not lost; and while a root grows, a state with few files must not
    /// make the loss of these few a large share.
    fn judge_since_each_step(
        &self,
        files: i64,
        sums: &HashMap<u64, i64>,
        limits: &MassChange,
    ) -> Option<Loss> {
        let missing = |content: u64, since: i64| {
            if sums.get(&content).is_some_and(|sum| *sum > 0) { 0 } else { since.min(0).unsigned_abs() }
        };
        let mut since: HashMap<u64, i64> = HashMap::new();
        let (mut lost, mut stood) = (0u64, files);
        let mut worst: Option<Loss> = None;
        for step in self.steps.iter().rev() {
            stood = stood.saturating_sub(step.files);
            for (content, more) in &step.contents {
                let sum = since.entry(*content).or_default();
                lost = lost.saturating_sub(missing(*content, *sum));
                *sum += i64::from(*more);
                lost = lost.saturating_add(missing(*content, *sum));
            }
            let found = is_loss(lost, stood.max(files), step.at_s, limits);
            if let Some(found) = found
                && worst.is_none_or(|worst| worst.lost < found.lost)
            {
                worst = Some(found);
            }
        }
        worst
    }
}

fn is_loss(lost: u64, of: i64, since_s: i64, limits: &MassChange) -> Option<Loss> {
    let of = u64::try_from(of).unwrap_or(0);
    // Files beyond 2^53 are nobody's.
    let is_large = lost >= limits.min_files && lost as f64 >= limits.share * of as f64;
    is_large.then_some(Loss { lost, of, since_s })
}
