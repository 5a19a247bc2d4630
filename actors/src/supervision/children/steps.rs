//! The steps of [`Children::advance`], in the order in which they are taken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use slog::warn;
use tokio::time::Instant;

use super::run::{Child, Event, Life, Next, Phase, watch_over};
use super::{Children, Ending, later};
use crate::supervision::policy::{ExitReason, History};
use crate::supervision::spec::{ChildStart, Strategy};
use crate::supervision::{ExitHandle, describe_panic};

/// How often within its `hang_after` a child's progress is looked at.
const LOOKS_PER_HANG: u32 = 4;

/// What remains to be done when every step has been taken.
pub(super) enum Outlook {
    /// Something may have to be done at this time.
    Until(Instant),
    /// Only an event leads on.
    Quiet,
    /// All children are gone and the supervisor is to follow; it has its reason.
    Over,
}

impl Children {
    pub(super) fn advance(&mut self, now: Instant) -> Outlook {
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
            Phase::Down(Next::Start { at, .. }) if self.should_run(index) && self.is_clear(index) => {
                Some(*at)
            }
            Phase::Down(_) => None,
            Phase::Alive(_) => {
                let look_every = child.spec.hang_after? / LOOKS_PER_HANG;
                Some(later(now, look_every.max(Duration::from_millis(1))))
            }
            Phase::Stopping { deadline, .. } | Phase::Draining { deadline, .. } => Some(*deadline),
        }
    }

    pub(super) fn should_run(&self, index: usize) -> bool {
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
                Phase::Stopping { deadline, .. } if *deadline <= now => {
                    Next::Start { at: now, is_parked: false }
                }
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
        self.given_up.borrow_mut().insert(exit.generation(), self.board.leak());
        self.enter(index, Phase::Down(next));
        let leaked = self.leaked();
        if leaked > self.leak_limit {
            self.fail(format!("{leaked} runs were given up and still go on"));
        }
    }

    fn replace_the_hung(&mut self, now: Instant) {
        for index in 0..self.children.len() {
            let child = &mut self.children[index];
            let (Phase::Alive(life), Some(hang_after)) = (&mut child.phase, child.spec.hang_after) else {
                continue;
            };
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
            let reason =
                ExitReason::Hung(format!("no progress for {} s in {busy_with}", hang_after.as_secs()));
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
            let is_due =
                matches!(self.children[index].phase, Phase::Down(Next::Start { at, .. }) if at <= now);
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
                let life =
                    Life { leash, _address: address, probe, has_started: false, ticks: 0, moved_at: now };
                actix::spawn(watch_over(
                    exit,
                    ended,
                    self.events.clone(),
                    self.exit.hold(),
                    self.given_up.clone(),
                ));
                self.enter(index, Phase::Alive(life));
                return;
            }
            Ok(Err(why)) => ExitReason::Failed(why),
            Err(payload) => {
                let message = describe_panic(payload.as_ref(), tokio::task::try_id());
                ExitReason::Panicked(message)
            }
        };
        let next = self.judge(index, &failure, now);
        self.enter(index, Phase::Down(next));
    }
}
