//! The runs of a child: the states it passes through, and how its end is told to the supervisor.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::board::Leak;
use crate::supervision::exit::Hold;
use crate::supervision::policy::{ExitReason, History};
use crate::supervision::spec::{ChildSpec, Probe, Strategy};
use crate::supervision::{ChildId, Ended, ExitHandle, Leash};

/// What is told about a generation.
pub(super) enum Event {
    Started(u64),
    Ended(u64, ExitReason),
    /// The last work of it has returned; always after `Ended`.
    Drained(u64),
    /// Somebody changed what should be.
    Changed,
}

/// A run that counts as the child's present one.
pub(super) struct Life {
    pub(super) leash: Leash,
    pub(super) _address: Box<dyn Any>,
    pub(super) probe: Option<Probe>,
    pub(super) has_started: bool,
    /// The probe's number at the last look that saw it move or idle, and when that was.
    pub(super) ticks: u64,
    pub(super) moved_at: Instant,
}

/// What follows when a run is over for good.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    Start { at: Instant, is_parked: bool },
    Nothing,
}

pub(super) enum Phase {
    Down(Next),
    Alive(Life),
    Stopping {
        life: Life,
        deadline: Instant,
    },
    /// The context is gone, a job of it is not.
    Draining {
        exit: ExitHandle,
        deadline: Instant,
        next: Next,
    },
}

impl Phase {
    pub(super) fn generation(&self) -> Option<u64> {
        match self {
            Phase::Down(_) => None,
            Phase::Alive(life) | Phase::Stopping { life, .. } => Some(life.leash.exit().generation()),
            Phase::Draining { exit, .. } => Some(exit.generation()),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Phase::Down(_))
    }
}

pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) rank: u32,
    pub(super) spec: ChildSpec,
    pub(super) history: History,
    pub(super) phase: Phase,
    /// Of the last run that was begun; 0: none.
    pub(super) generation: u64,
    /// Takes the place of `spec` when the present run is gone.
    pub(super) replacement: Option<ChildSpec>,
    pub(super) is_removed: bool,
}

impl Child {
    pub(super) fn runs(&self) -> bool {
        matches!(&self.phase, Phase::Alive(life) if life.has_started)
    }

    pub(super) fn is_changing(&self) -> bool {
        self.is_removed || self.replacement.is_some()
    }

    pub(super) fn blocks_the_rest(&self) -> bool {
        self.spec.strategy == Strategy::RestForOne && !self.runs()
    }
}

/// The generations that were given up and are not over. Shared with those who watch them end, so that a leak
/// still counts when the supervisor is gone.
pub(super) type GivenUp = Rc<RefCell<BTreeMap<u64, Leak>>>;

/// Tells the supervisor how a run ends, and keeps the supervisor's own run from counting as over before.
pub(super) async fn watch_over(
    exit: ExitHandle,
    ended: Ended,
    events: UnboundedSender<Event>,
    hold: Hold,
    given_up: GivenUp,
) {
    let generation = exit.generation();
    let reason = ended.await;
    exit.cancel_works();
    let _ = events.send(Event::Ended(generation, reason));
    exit.drained().await;
    drop(hold);
    given_up.borrow_mut().remove(&generation);
    let _ = events.send(Event::Drained(generation));
}
