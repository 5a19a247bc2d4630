//! One pass through everything that is polled: what is still to be done, and when the next one is due.
//!
//! The tops are taken one after the other, each with a stack of directories that are to be looked at. So a pass
//! can stop after every directory and go on later, and what it holds is bounded by the directories on the way to
//! the present one and their siblings.

use std::time::Duration;

use super::poller::Counted;
use crate::ignore::Scope;
use crate::path::RelPath;

/// The shortest rest between two passes.
pub(super) const SHORTEST_REST: Duration = Duration::from_secs(5);
/// The longest: with it, a pass and the debouncing, a change is still found and committed within a minute.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(30);
/// A rest lasts so many times the work before it: a pass takes at most 1/25, 4 %, of a core, until
/// [`LONGEST_REST`] cuts the rest short.
const REST_FACTOR: u32 = 24;

/// How long to rest after a pass that took `work`; `shortest` is at most [`LONGEST_REST`].
pub(super) fn rest_after(work: Duration, shortest: Duration) -> Duration {
    work.saturating_mul(REST_FACTOR).max(shortest).min(LONGEST_REST)
}

/// A pass that is under way.
pub(super) struct Pass {
    /// Barriers that its end passes.
    pub tokens: Vec<u64>,
    /// Tops that are still to come, the next one last.
    tops: Vec<RelPath>,
    /// The top that is being looked at, and what was seen there so far.
    current: Option<(RelPath, Counted)>,
    steps: Vec<Step>,
    pub worked: Duration,
    /// The first of all: everything is new and nothing is hinted.
    pub is_first: bool,
}

pub(super) enum Step {
    Visit(Visit),
    /// All at and below this directory is recorded: now it may be hinted.
    Tell(RelPath),
}

/// A directory that is to be looked at.
pub(super) struct Visit {
    pub place: Place,
    /// All in it is new and hinted with it.
    pub is_new: bool,
}

pub(super) enum Place {
    Top(RelPath),
    Below(Scope, Box<[u8]>),
}

impl Visit {
    pub fn path(&self) -> RelPath {
        match &self.place {
            Place::Top(path) => path.clone(),
            Place::Below(parent, name) => parent.directory().join(name),
        }
    }
}

/// What comes next.
pub(super) enum Next {
    Step(Step),
    /// This top is done, with so much at and below it.
    Done(RelPath, Counted),
    /// Everything is done.
    End,
}

impl Pass {
    /// A pass over `tops`, in this order.
    pub fn new(tops: impl DoubleEndedIterator<Item = RelPath>, tokens: Vec<u64>, is_first: bool) -> Self {
        let tops = tops.rev().collect();
        Self { tokens, tops, current: None, steps: Vec::new(), worked: Duration::ZERO, is_first }
    }

    pub fn next(&mut self) -> Next {
        if let Some(step) = self.steps.pop() {
            return Next::Step(step);
        }
        if let Some((top, counted)) = self.current.take() {
            return Next::Done(top, counted);
        }
        let Some(top) = self.tops.pop() else { return Next::End };
        self.current = Some((top.clone(), Counted::default()));
        Next::Step(Step::Visit(Visit { place: Place::Top(top), is_new: self.is_first }))
    }

    /// To be done before everything that is on the stack.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub fn count(&mut self, more: Counted) {
        if let Some((_, counted)) = &mut self.current {
            *counted += more;
        }
    }

    /// Leaves out a top that is no longer polled.
    pub fn drop_top(&mut self, top: &RelPath) {
        self.tops.retain(|waiting| waiting != top);
        if self.current.as_ref().is_some_and(|(current, _)| current == top) {
            self.current = None;
            self.steps.clear();
        }
    }
}
