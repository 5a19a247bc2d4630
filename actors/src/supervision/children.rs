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

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use actix::{Actor, Context};
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::exit::{ChildId, ExitHandle, Hold, Leash};
use super::policy::{ExitReason, History, Verdict, decide};
use super::spec::{ChildSpec, ChildStart, Probe, Strategy};
use super::spawn::Ended;
use crate::board::{Board, ChildState, Leak, Moment};

/// More runs given up than this, and the process is better off with a new supervisor.
const LEAK_LIMIT: usize = 4;

/// How often within its `hang_after` a child's progress is looked at.
const LOOKS_PER_HANG: u32 = 4;

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

/// What is told about a generation.
enum Event {
    Started(u64),
    Ended(u64, ExitReason),
    /// The last work of it has returned; always after `Ended`.
    Drained(u64),
    /// Somebody changed what should be.
    Changed,
}

/// A run that counts as the child's present one.
struct Life {
    leash: Leash,
    _address: Box<dyn Any>,
    probe: Option<Probe>,
    has_started: bool,
    /// The probe's number at the last look that saw it move or idle, and when that was.
    ticks: u64,
    moved_at: Instant,
}

/// What follows when a run is over for good.
#[derive(Debug, Clone, Copy)]
enum Next {
    Start { at: Instant, is_parked: bool },
    Nothing,
}

enum Phase {
    Down(Next),
    Alive(Life),
    Stopping { life: Life, deadline: Instant },
    /// The context is gone, a job of it is not.
    Draining { exit: ExitHandle, deadline: Instant, next: Next },
}

impl Phase {
    fn generation(&self) -> Option<u64> {
        match self {
            Phase::Down(_) => None,
            Phase::Alive(life) | Phase::Stopping { life, .. } => Some(life.leash.exit().generation()),
            Phase::Draining { exit, .. } => Some(exit.generation()),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Phase::Down(_))
    }
}

struct Child {
    id: ChildId,
    rank: u32,
    spec: ChildSpec,
    history: History,
    phase: Phase,
    /// Of the last run that was begun; 0: none.
    generation: u64,
    /// Takes the place of `spec` when the present run is gone.
    replacement: Option<ChildSpec>,
    is_removed: bool,
}

impl Child {
    fn runs(&self) -> bool {
        matches!(&self.phase, Phase::Alive(life) if life.has_started)
    }

    fn is_changing(&self) -> bool {
        self.is_removed || self.replacement.is_some()
    }

    fn blocks_the_rest(&self) -> bool {
        self.spec.strategy == Strategy::RestForOne && !self.runs()
    }
}

enum Ending {
    Stop,
    Fail(String),
}

/// What remains to be done when every step has been taken.
enum Outlook {
    /// Something may have to be done at this time.
    Until(Instant),
    /// Only an event leads on.
    Quiet,
    /// All children are gone and the supervisor is to follow; it has its reason.
    Over,
}

/// The children of one supervisor; dropping it stops them all at once.
pub struct Children {
    exit: ExitHandle,
    board: Board,
    log: Logger,
    /// In start order; ranks never descend.
    children: Vec<Child>,
    given_up: BTreeMap<u64, Leak>,
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
            given_up: BTreeMap::new(),
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
        self.given_up.len()
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

    /// Starts a child that waits out its backoff or cool-off at once.
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
            Ending::Fail(why) => error!(self.log, "giving up"; "supervisor" => %self.exit.id(), "reason" => why),
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
        let of_generation = |generation| self.children.iter().position(|c| c.phase.generation() == Some(generation));
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
                if self.given_up.remove(&generation).is_some() {
                    info!(self.log, "a run that was given up has ended after all"; "generation" => generation);
                }
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

    fn advance(&mut self, now: Instant) -> Outlook {
        self.give_up_the_overdue(now);
        self.replace_the_hung(now);
        self.settle_changes(now);
        self.ask_to_stop(now);
        self.start_those_whose_turn_it_is(now);
        // A factory may just have failed once too often.
        self.ask_to_stop(now);

        if let Some(ending) = &self.ending
            && self.children.iter().all(|child| child.phase.is_gone())
        {
            match ending {
                Ending::Stop => self.exit.finished(),
                Ending::Fail(why) => self.exit.failed(why.as_str()),
            }
            return Outlook::Over;
        }
        let earliest = (0..self.children.len()).filter_map(|index| self.due(index, now)).min();
        earliest.map_or(Outlook::Quiet, Outlook::Until)
    }

    /// When time alone may change something about a child.
    fn due(&self, index: usize, now: Instant) -> Option<Instant> {
        let child = &self.children[index];
        match &child.phase {
            Phase::Down(Next::Start { at, .. }) if self.should_run(index) && self.is_clear(index) => Some(*at),
            Phase::Down(_) => None,
            Phase::Alive(_) => {
                let look_every = child.spec.hang_after? / LOOKS_PER_HANG;
                Some(later(now, look_every.max(Duration::from_millis(1))))
            }
            Phase::Stopping { deadline, .. } | Phase::Draining { deadline, .. } => Some(*deadline),
        }
    }

    fn should_run(&self, index: usize) -> bool {
        let child = &self.children[index];
        let has_finished = matches!(child.phase, Phase::Down(Next::Nothing));
        let is_blocked = self.children[..index].iter().any(Child::blocks_the_rest);
        self.ending.is_none() && !has_finished && !child.is_changing() && !is_blocked
    }

    /// Whether nothing stands in the way of starting a child that should run.
    fn is_clear(&self, index: usize) -> bool {
        self.children[index].spec.strategy == Strategy::OneForOne
            || self.children[index + 1..].iter().all(|child| child.phase.is_gone())
    }

    fn give_up_the_overdue(&mut self, now: Instant) {
        for index in 0..self.children.len() {
            let next = match &self.children[index].phase {
                Phase::Stopping { deadline, .. } if *deadline <= now => Next::Start { at: now, is_parked: false },
                Phase::Draining { deadline, next, .. } if *deadline <= now => *next,
                _ => continue,
            };
            self.give_up(index, next);
        }
    }

    fn give_up(&mut self, index: usize, next: Next) {
        let child = &self.children[index];
        let exit = match &child.phase {
            Phase::Alive(life) | Phase::Stopping { life, .. } => {
                life.leash.abandon();
                life.leash.exit()
            }
            Phase::Draining { exit, .. } => exit,
            Phase::Down(_) => return,
        };
        warn!(self.log, "given up"; "child" => %child.id, "busy_with" => exit.busy_with());
        self.given_up.insert(exit.generation(), self.board.leak());
        self.enter(index, Phase::Down(next));
        if self.given_up.len() > self.leak_limit {
            self.fail(format!("{} runs were given up and still go on", self.given_up.len()));
        }
    }

    fn replace_the_hung(&mut self, now: Instant) {
        for index in 0..self.children.len() {
            let child = &mut self.children[index];
            let (Phase::Alive(life), Some(hang_after)) = (&mut child.phase, child.spec.hang_after) else { continue };
            let seen = match &life.probe {
                Some(probe) => probe(),
                None => Some(life.leash.exit().probe()),
            };
            let stands_still = seen.is_some_and(|(is_busy, ticks)| is_busy && ticks == life.ticks);
            if !stands_still {
                life.ticks = seen.map_or(life.ticks, |(_, ticks)| ticks);
                life.moved_at = now;
                continue;
            }
            if now.saturating_duration_since(life.moved_at) < hang_after {
                continue;
            }
            let busy_with = life.leash.exit().busy_with();
            let reason = ExitReason::Hung(format!("no progress for {} s in {busy_with}", hang_after.as_secs()));
            let next = self.judge(index, &reason, now);
            self.give_up(index, next);
        }
    }

    /// Removes and replaces those whose last run is gone.
    fn settle_changes(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.children.len() {
            let child = &mut self.children[index];
            if !child.phase.is_gone() || !child.is_changing() {
                index += 1;
                continue;
            }
            if let Some(spec) = child.replacement.take() {
                child.spec = spec;
                child.history = History::default();
                self.board.forget_children_of(&child.id);
                self.enter(index, Phase::Down(Next::Start { at: now, is_parked: false }));
                index += 1;
                continue;
            }
            let removed = self.children.remove(index);
            self.board.forget_child(&removed.id);
        }
    }

    fn ask_to_stop(&mut self, now: Instant) {
        let mut last_rank_on_its_way = None;
        for index in (0..self.children.len()).rev() {
            let rank = self.children[index].rank;
            let is_its_turn = last_rank_on_its_way.is_none_or(|last| last == rank);
            if self.should_run(index) || self.children[index].phase.is_gone() {
                continue;
            }
            if !is_its_turn {
                return;
            }
            last_rank_on_its_way = Some(rank);
            let child = &mut self.children[index];
            if !matches!(child.phase, Phase::Alive(_)) {
                continue;
            }
            let gone = Phase::Down(Next::Nothing);
            if let Phase::Alive(life) = std::mem::replace(&mut child.phase, gone) {
                life.leash.ask_to_stop();
                let deadline = later(now, child.spec.stop_within);
                self.enter(index, Phase::Stopping { life, deadline });
            }
        }
    }

    fn start_those_whose_turn_it_is(&mut self, now: Instant) {
        for index in 0..self.children.len() {
            let is_due = matches!(self.children[index].phase, Phase::Down(Next::Start { at, .. }) if at <= now);
            if is_due && self.should_run(index) && self.is_clear(index) {
                self.start(index, now);
            }
        }
    }

    fn start(&mut self, index: usize, now: Instant) {
        let events = self.events.clone();
        let child = &mut self.children[index];
        let exit = ExitHandle::new(child.id.clone(), move |generation| {
            let _ = events.send(Event::Started(generation));
        });
        child.generation = exit.generation();
        child.history.started(now.into_std());
        self.board.child_starts(&child.id, &child.spec.role, exit.generation());

        let factory = &mut child.spec.factory;
        let failure = match catch_unwind(AssertUnwindSafe(|| factory(exit.clone()))) {
            Ok(Ok(ChildStart { leash, ended, probe, address })) => {
                let life = Life { leash, _address: address, probe, has_started: false, ticks: 0, moved_at: now };
                actix::spawn(watch_over(exit, ended, self.events.clone(), self.exit.hold()));
                self.enter(index, Phase::Alive(life));
                return;
            }
            Ok(Err(why)) => ExitReason::Failed(why),
            Err(payload) => {
                let message = super::describe_panic(payload.as_ref(), tokio::task::try_id());
                ExitReason::Panicked(message)
            }
        };
        let next = self.judge(index, &failure, now);
        self.enter(index, Phase::Down(next));
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

/// Tells the supervisor how a run ends, and keeps the supervisor's own run from counting as over before.
async fn watch_over(exit: ExitHandle, ended: Ended, events: UnboundedSender<Event>, hold: Hold) {
    let generation = exit.generation();
    let reason = ended.await;
    exit.cancel_works();
    let _ = events.send(Event::Ended(generation, reason));
    exit.drained().await;
    drop(hold);
    let _ = events.send(Event::Drained(generation));
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
