//! The queue: the only writer of changes, checkpoints, staged commits, the stat cache and the pause marks.
//!
//! It runs on a thread of its own and may block on the database; every answer is given after the transaction is
//! durable. It decides nothing: what is queued, taken and settled is the others' word.
//!
//! When a transaction fails, the asker is told and tries again; whether it is on disk all the same is not known, so
//! the marks in memory are read anew before the next one. A database that is found damaged is given up here,
//! because only a start of the process makes it anew.

use actix::{Actor, ActorContext, Context, Handler};
use backupbot_core::error::Error;
use backupbot_core::fault;
use backupbot_core::path::RelPath;
use backupbot_core::progress::Progress;
use backupbot_core::snapshot::raw;
use backupbot_core::store::changes::Reach;
use backupbot_core::store::checkpoints::Pause;
use backupbot_core::store::guard::Approval;
use backupbot_core::store::{QueueStore, Store};

use crate::messages::{
    Answer, ClockWentBack, CountUnsettled, DistrustFiles, Enqueue, GuardNote, KeepOnly, LookAtWaiting,
    NoteOfGuard, SetPaused, Settle, Stage, TakeBatch, Unstage, WaitingNow,
};
use crate::seat::{Seats, now_ms};
use crate::supervision::ExitHandle;
use backupbot_core::names::RootName;
use backupbot_core::store::changes::TakenRow;

/// The actor.
pub struct Queue {
    exit: ExitHandle,
    store: Store,
    /// Absent after a failed transaction.
    tables: Option<QueueStore>,
    seats: Seats,
}

impl Queue {
    /// Loads the queue's tables; blocks, so it is called on the queue's own thread.
    pub fn build(exit: ExitHandle, store: &Store, seats: Seats) -> Result<Self, Error> {
        fault::point("actor:queue:build");
        let tables = match store.queue() {
            Err(error) if store.is_damaged() => return Err(error),
            // A disk that is full or failing now is asked again with the first message.
            tables => tables.ok(),
        };
        Ok(Self { exit, store: store.clone(), tables, seats })
    }

    /// Blocks on the database where supervision can see it.
    fn blocking<T>(
        &mut self,
        ctx: &mut Context<Self>,
        name: &str,
        work: impl FnOnce(&mut QueueStore) -> Answer<T>,
    ) -> Answer<T> {
        let _working = self.exit.working(name, &Progress::new());
        fault::point("actor:queue:handle");
        let answer = match &mut self.tables {
            Some(tables) => work(tables),
            None => self.store.queue().and_then(|tables| work(self.tables.insert(tables))),
        };
        if let Err(error) = &answer {
            self.tables = None;
            if self.store.is_damaged() {
                self.exit.failed(error.to_string());
                ctx.stop();
            }
        }
        answer
    }
}

impl Actor for Queue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:queue:started");
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<Enqueue> for Queue {
    type Result = Answer<u64>;

    fn handle(&mut self, message: Enqueue, ctx: &mut Self::Context) -> Self::Result {
        fault::point("queue:before-enqueue");
        let seq = self.blocking(ctx, "enqueue", |store| {
            store.enqueue(&message.repository, &message.root, &message.paths, now_ms())
        })?;
        fault::point("queue:enqueued");
        Ok(seq)
    }
}

impl Handler<LookAtWaiting> for Queue {
    type Result = Answer<WaitingNow>;

    fn handle(&mut self, message: LookAtWaiting, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "look", |store| {
            let pause = store.reader().pause(&message.repository, now_ms())?;
            Ok(WaitingNow {
                waiting: store.waiting(&message.repository, now_ms(), message.up_to)?,
                paused_since_ms: pause.map(|pause| pause.since_ms),
                paused_until_ms: pause.and_then(|pause| pause.until_ms),
                highest_seq: store.highest_seq(),
            })
        })
    }
}

impl Handler<TakeBatch> for Queue {
    type Result = Answer<Vec<TakenRow>>;

    fn handle(&mut self, message: TakeBatch, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "take", |store| {
            store.take(&message.repository, now_ms(), message.most, message.eager)
        })
    }
}

impl Handler<Stage> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: Stage, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "stage", |store| match &message.opens {
            Some(quarantine) => store.stage_opening(&message.repository, &message.staged, quarantine),
            None => store.stage(&message.repository, &message.staged),
        })
    }
}

impl Handler<Settle> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: Settle, ctx: &mut Self::Context) -> Self::Result {
        fault::point("queue:before-settle");
        self.blocking(ctx, "settle", |store| {
            store.settle(&message.repository, &message.settlement, now_ms())
        })?;
        fault::point("queue:settled");
        Ok(())
    }
}

impl Handler<Unstage> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: Unstage, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "unstage", |store| store.unstage(&message.0))
    }
}

impl Handler<DistrustFiles> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: DistrustFiles, ctx: &mut Self::Context) -> Self::Result {
        let seat = self.seats.now().into_iter().find(|seat| seat.settings.name == message.0);
        let roots: Vec<RootName> =
            seat.iter().flat_map(|seat| seat.roots.iter().map(|root| root.name.clone())).collect();
        self.blocking(ctx, "distrust", |store| {
            store.distrust_files(&message.0)?;
            for root in &roots {
                store.enqueue(&message.0, root, &[(RelPath::root(), Reach::Deep)], now_ms())?;
            }
            Ok(())
        })
    }
}

impl Handler<KeepOnly> for Queue {
    type Result = Answer<usize>;

    fn handle(&mut self, message: KeepOnly, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "drop", |store| store.keep_only(&message.repository, &message.roots))
    }
}

impl Handler<ClockWentBack> for Queue {
    type Result = Answer<usize>;

    fn handle(&mut self, message: ClockWentBack, ctx: &mut Self::Context) -> Self::Result {
        let to_ns = message.to_ms.saturating_mul(1_000_000);
        self.blocking(ctx, "forget proofs", |store| store.clock_went_back(&message.repository, to_ns))
    }
}

impl Handler<SetPaused> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: SetPaused, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "pause", |store| {
            let pause = message.paused.then(|| Pause { since_ms: now_ms(), until_ms: message.until_ms });
            store.set_pause(&message.repository, pause)
        })
    }
}

impl Handler<NoteOfGuard> for Queue {
    type Result = Answer<()>;

    fn handle(&mut self, message: NoteOfGuard, ctx: &mut Self::Context) -> Self::Result {
        let name = &message.repository;
        let is_end = matches!(message.note, GuardNote::End(_));
        self.blocking(ctx, "note of guard", |store| match &message.note {
            GuardNote::CountSince(root, commit) => store.count_since(name, root, raw(*commit)),
            GuardNote::CountOnly(roots) => store.count_only(name, roots),
            GuardNote::Tell(seen) => store.tell_mass_change(name, seen),
            GuardNote::End(commit) => {
                store.end_quarantine(name, &Approval { commit: raw(*commit), at_ms: now_ms() })
            }
            GuardNote::Reopen(quarantine) => store.reopen_quarantine(name, quarantine),
            GuardNote::Reject => store.reject_quarantine(name, now_ms()),
        })?;
        if is_end {
            fault::point("approve:recorded");
        }
        Ok(())
    }
}

impl Handler<CountUnsettled> for Queue {
    type Result = Answer<usize>;

    fn handle(&mut self, message: CountUnsettled, ctx: &mut Self::Context) -> Self::Result {
        self.blocking(ctx, "count", |store| store.unsettled_up_to(&message.repository, message.up_to))
    }
}
