//! The children of one supervisor: starts them in order, restarts them by their policies, stops them in reverse.
//!
//! Nothing here waits. What happens to a child comes in as an [`Event`]; [`Children::advance`] then compares
//! what is with what should be, takes every step that can be taken now and says when time alone will allow the
//! next one. The rules, which hold after any event in any order:
//!
//! * A child should run unless it finished, is being removed or replaced, its supervisor is ending, or a
//!   rest-for-one child before it does not run.
//! * It is asked to stop once every child of a higher rank that should not run either is gone, and given up if
//!   it, or a job of it, outlives its deadline.
//! * It is started once its backoff is over and nothing of its last run is left but what was given up; a
//!   rest-for-one child also waits until all after it are gone.
//!
//! A run that was given up is a leak until it ends after all; too many leaks and the supervisor fails. Events
//! carry the generation, and those of a generation that no child has any more change nothing else.

mod pump;
mod run;
mod steps;

use std::time::Duration;

use actix::{Actor, Context};
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use self::run::{Child, Event, GivenUp, Next, Phase};
use super::exit::ExitHandle;
use super::policy::{ExitReason, History, Verdict, decide};
use super::spec::ChildSpec;
use crate::board::{Board, ChildState, Moment};

/// More runs given up than this, and the process is better off with a new supervisor.
const LEAK_LIMIT: usize = 4;

/// Stands for "never" where an absurdly long duration was configured.
const FAR_AWAY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// An actor that has children. It calls [`Children::attach`] in `started`; all else happens by itself.
pub trait Supervising: Actor<Context = Context<Self>> {
    /// Where it keeps them.
    fn children(&mut self) -> &mut Children;

    /// Called after each start, first or not, of the child `name`.
    fn child_started(&mut self, name: &str, ctx: &mut Context<Self>) {
        let _ = (name, ctx);
    }
}

enum Ending {
    Stop,
    Fail(String),
}

/// The children of one supervisor; dropping it stops them all at once.
pub struct Children {
    exit: ExitHandle,
    board: Board,
    log: Logger,
    /// In start order; ranks never descend.
    children: Vec<Child>,
    given_up: GivenUp,
    leak_limit: usize,
    ending: Option<Ending>,
    events: UnboundedSender<Event>,
    inbox: Option<UnboundedReceiver<Event>>,
}

impl Children {
    /// None yet. `exit` is the supervisor's own handle; its id becomes the prefix of theirs.
    pub fn new(exit: &ExitHandle, board: &Board, log: &Logger) -> Self {
        let (events, inbox) = unbounded_channel();
        Self {
            exit: exit.clone(),
            board: board.clone(),
            log: log.clone(),
            children: Vec::new(),
            given_up: GivenUp::default(),
            leak_limit: LEAK_LIMIT,
            ending: None,
            events,
            inbox: Some(inbox),
        }
    }

    /// Lets `limit` runs be given up without being over before the supervisor fails.
    pub fn leak_limit(mut self, limit: usize) -> Self {
        self.leak_limit = limit;
        self
    }

    /// Runs that were given up and are not over yet.
    pub fn leaked(&self) -> usize {
        self.given_up.borrow().len()
    }

    /// To be called in the supervisor's `started`; before it, nothing is started. Also takes over the
    /// supervisor's own stop: asked to, it stops its children in order first.
    pub fn attach<S: Supervising>(&mut self, ctx: &mut Context<S>) {
        if let Some(inbox) = self.inbox.take() {
            pump::attach(inbox, &self.exit, ctx);
        }
    }

    /// Starts a child in its turn. One of the same name is stopped first and replaced in its place.
    pub fn add(&mut self, spec: ChildSpec) {
        if let Some(present) = self.position(&spec.name) {
            let child = &mut self.children[present];
            child.is_removed = false;
            child.replacement = Some(spec);
            self.has_changed();
            return;
        }
        let highest = self.children.last().map(|child| child.rank);
        let rank = spec.rank.unwrap_or_else(|| highest.map_or(0, |highest| highest.saturating_add(1)));
        let place = self.children.partition_point(|child| child.rank <= rank);
        let next = Next::Start { at: Instant::now(), is_parked: false };
        let child = Child {
            id: self.exit.id().child(&spec.name),
            rank,
            spec,
            history: History::default(),
            phase: Phase::Down(next),
            generation: 0,
            replacement: None,
            is_removed: false,
        };
        self.children.insert(place, child);
        self.show(place);
        self.has_changed();
    }

    /// Stops a child and forgets it.
    pub fn remove(&mut self, name: &str) {
        if let Some(present) = self.position(name) {
            self.children[present].is_removed = true;
            self.children[present].replacement = None;
            self.has_changed();
        }
    }

    /// Starts a child that waits out its backoff or cool-off at once; a parked one stays on probation.
    pub fn retry(&mut self, name: &str) {
        let Some(present) = self.position(name) else { return };
        if let Phase::Down(Next::Start { at, is_parked }) = &mut self.children[present].phase {
            *at = Instant::now();
            *is_parked = false;
            self.show(present);
            self.has_changed();
        }
    }

    /// The names of the children that are not being removed, in start order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.children.iter().filter(|child| !child.is_removed).map(|child| child.spec.name.as_str())
    }

    /// Whether the child `name` has started and not ended.
    pub fn is_running(&self, name: &str) -> bool {
        self.position(name).is_some_and(|present| self.children[present].runs())
    }

    /// Stops all children in reverse order, then the supervisor, which is not started again.
    pub fn shut_down(&mut self) {
        self.end(Ending::Stop);
    }

    /// Stops all children in reverse order, then the supervisor, which has failed because of `why`.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.end(Ending::Fail(why.into()));
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_some() {
            return;
        }
        match &ending {
            Ending::Stop => info!(self.log, "stopping"; "supervisor" => %self.exit.id()),
            Ending::Fail(why) => {
                error!(self.log, "giving up"; "supervisor" => %self.exit.id(), "reason" => why)
            }
        }
        self.ending = Some(ending);
        self.has_changed();
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.children.iter().position(|child| child.spec.name == name)
    }

    fn has_changed(&self) {
        // Without a receiver the supervisor is gone, and then nothing needs to change.
        let _ = self.events.send(Event::Changed);
    }

    /// Takes notice of `event`; returns the index of a child that has just started.
    fn handle(&mut self, event: Event, now: Instant) -> Option<usize> {
        let of_generation =
            |generation| self.children.iter().position(|c| c.phase.generation() == Some(generation));
        match event {
            Event::Changed => None,
            Event::Started(generation) => {
                let index = of_generation(generation)?;
                let Phase::Alive(life) = &mut self.children[index].phase else { return None };
                life.has_started = true;
                self.show(index);
                Some(index)
            }
            Event::Ended(generation, reason) => {
                let index = of_generation(generation)?;
                self.ended(index, &reason, now);
                None
            }
            Event::Drained(generation) => {
                // It may have been given up between its end and this message.
                self.given_up.borrow_mut().remove(&generation);
                let index = of_generation(generation)?;
                if let Phase::Draining { next, .. } = self.children[index].phase {
                    self.enter(index, Phase::Down(next));
                }
                None
            }
        }
    }

    fn ended(&mut self, index: usize, reason: &ExitReason, now: Instant) {
        let child = &self.children[index];
        let (exit, deadline, was_asked_to) = match &child.phase {
            Phase::Alive(life) => (life.leash.exit().clone(), later(now, child.spec.stop_within), false),
            Phase::Stopping { life, deadline } => (life.leash.exit().clone(), *deadline, true),
            Phase::Down(_) | Phase::Draining { .. } => return,
        };
        // One that was about to be stopped has only come before its turn; often it fell over the sibling
        // whose end is the cause, and that is not its failure.
        let next = if was_asked_to || !self.should_run(index) {
            self.board.child_ended(&child.id, reason);
            info!(self.log, "stopped"; "child" => %child.id, "reason" => %reason);
            Next::Start { at: now, is_parked: false }
        } else {
            self.judge(index, reason, now)
        };
        self.enter(index, Phase::Draining { exit, deadline, next });
    }

    /// Asks the restart law about an exit that nobody asked for.
    fn judge(&mut self, index: usize, reason: &ExitReason, now: Instant) -> Next {
        let child = &mut self.children[index];
        self.board.child_ended(&child.id, reason);
        let verdict = decide(&child.spec.policy, &mut child.history, reason, now.into_std(), random());
        let id = child.id.to_string();
        match verdict {
            Verdict::Restart { after } => {
                warn!(self.log, "restarting"; "child" => id, "reason" => %reason, "after" => ?after);
                Next::Start { at: later(now, after), is_parked: false }
            }
            Verdict::Park { retry_after } => {
                error!(self.log, "parked"; "child" => id, "reason" => %reason, "retry_after" => ?retry_after);
                Next::Start { at: later(now, retry_after), is_parked: true }
            }
            Verdict::Escalate => {
                self.fail(format!("{id} failed too often, last {reason}"));
                Next::Nothing
            }
            Verdict::Done => {
                info!(self.log, "finished"; "child" => id);
                Next::Nothing
            }
        }
    }

    fn enter(&mut self, index: usize, phase: Phase) {
        self.children[index].phase = phase;
        self.show(index);
    }

    fn show(&self, index: usize) {
        let child = &self.children[index];
        let state = match &child.phase {
            Phase::Alive(life) if life.has_started => ChildState::Running,
            Phase::Alive(_) => ChildState::Starting,
            Phase::Stopping { .. } => ChildState::Stopping,
            Phase::Down(_) | Phase::Draining { .. } if self.ending.is_some() => ChildState::Stopped,
            Phase::Down(next) | Phase::Draining { next, .. } => match next {
                Next::Start { at, is_parked } => waiting_state(*at, *is_parked),
                Next::Nothing => ChildState::Stopped,
            },
        };
        self.board.child_is(&child.id, &child.spec.role, state);
    }
}

fn waiting_state(at: Instant, is_parked: bool) -> ChildState {
    let wait = at.saturating_duration_since(Instant::now());
    let until = Moment::now().later_by(wait);
    match (is_parked, wait.is_zero()) {
        (true, _) => ChildState::Parked { until },
        (false, false) => ChildState::Backoff { until },
        (false, true) => ChildState::Starting,
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &self.children {
            self.board.child_is_orphaned(&child.id, child.generation);
        }
    }
}

fn later(from: Instant, duration: Duration) -> Instant {
    from.checked_add(duration).unwrap_or_else(|| from + FAR_AWAY)
}

/// A number from 0 to 1; half-way if the operating system has none to give.
fn random() -> f64 {
    getrandom::u64().map_or(0.5, |bits| bits as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests;
