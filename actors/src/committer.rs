//! The committer: decides when a repository's queue becomes a commit, and walks each batch through its steps.
//!
//! Nudged by whoever queues, it commits when enough rows wait, when the oldest has waited long enough, when a
//! walk is to be done, or when somebody asks. A batch goes: take rows (queue) → build a pack (job) → stage
//! (queue, durable) → publish (job: pack in place, branch moved) → settle (queue, durable) → nudge the
//! pushers (`cycle.rs`). It starts by finishing or undoing what a crash left, before anything reads the repository
//! (`start.rs`), and starts so again when the repository turns out to be damaged. Between commits it keeps the
//! repository small (`house.rs`).

mod approval;
mod build;
mod cycle;
mod house;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use backupbot_core::clock;
use backupbot_core::error::{Error, Fate, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::prune::Prepared;
use backupbot_core::progress::Progress;
use git2::Oid;
use slog::{Logger, o, warn};
use tokio::sync::oneshot;

use self::cycle::{Cycle, CycleEnd};
use self::start::{Start, Started};
use crate::board::{Moment, RepositoryStatus};
use crate::housekeeping::Housekeeper;
use crate::job::{self, JobOutcome};
use crate::messages::{CommitUpTo, PauseChanged, Refusal, WaitingNow, Wake};
use crate::queue::Queue;
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;

/// The pause after a failed batch, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause while there is no room: that is cheap to ask for, and somebody may be making some just now.
const LONGEST_PAUSE_WITHOUT_ROOM: Duration = Duration::from_secs(10);
/// Failed batches in a row after which nobody is kept waiting for the next.
const PATIENCE: u32 = 4;
/// The rest after the whole repository was read and found sound, doubled each time up to the longest: what raised
/// the suspicion is somewhere else, and may stay.
const FIRST_REST: Duration = Duration::from_secs(600);
const LONGEST_REST: Duration = Duration::from_secs(24 * 3600);
/// So often is the repository replaced within this time at most.
const MANY: usize = 3;
const MANY_WITHIN: Duration = Duration::from_secs(600);
/// Between two looks whether a cancelled job has ended.
const LET_GO: Duration = Duration::from_millis(50);

struct Waiter {
    seq: u64,
    /// Whether a batch was taken after it came: what was postponed before has had its second chance.
    served: bool,
    though_rejected: bool,
    answer: oneshot::Sender<std::result::Result<Option<Oid>, Refusal>>,
}

/// The actor.
pub struct Committer {
    seat: Arc<RepositorySeat>,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
    ready: bool,
    at_work: bool,
    looked_in_vain: bool,
    paused: bool,
    tip: Option<Oid>,
    failures: u32,
    /// Whether it is not known how far the last batch came.
    is_unsure: bool,
    /// Why the last batch failed, if it did.
    trouble: Option<String>,
    /// Whether that is the encryption's.
    is_about_encryption: bool,
    /// Older commits in clear text, where that was accepted.
    clear_history: u64,
    last_look: WaitingNow,
    breathe_until: Option<Instant>,
    alarm: Option<SpawnHandle>,
    waiters: Vec<Waiter>,
    /// Who wants the quarantine to end.
    approvals: Vec<approval::Wish>,
    skips_listed: bool,
    housekeeper: Housekeeper,
    /// When the whole repository was last read without finding damage, and how long that counts.
    found_sound: Option<(Instant, Duration)>,
    /// When the repository was replaced lately.
    replaced: Vec<Instant>,
    /// Packs that may go as soon as no commit is in the making.
    prunable: Option<Prepared>,
    clock: clock::Watch,
    /// The wall clock was set back, to this, and the queue has not been told yet.
    clock_back_ms: Option<i64>,
}

impl Committer {
    /// A committer of the repository; `queue` is the present run of the queue.
    pub fn new(seat: Arc<RepositorySeat>, exit: ExitHandle, queue: Addr<Queue>) -> Self {
        let log =
            seat.common.log.new(o!("actor" => "committer", "repository" => seat.settings.name.to_string()));
        let housekeeper = Housekeeper::new(&exit, &log);
        Self {
            seat,
            exit,
            queue,
            log,
            ready: false,
            at_work: false,
            looked_in_vain: false,
            paused: false,
            tip: None,
            failures: 0,
            is_unsure: false,
            trouble: None,
            is_about_encryption: false,
            clear_history: 0,
            last_look: WaitingNow::default(),
            breathe_until: None,
            alarm: None,
            waiters: Vec::new(),
            approvals: Vec::new(),
            skips_listed: true,
            housekeeper,
            found_sound: None,
            replaced: Vec::new(),
            prunable: None,
            clock: clock::Watch::new(now_ms(), Instant::now()),
            clock_back_ms: None,
        }
    }

    /// Takes the first steps, at the start and whenever the repository is not what it was. A disk that is full, a
    /// database that cannot be written, a want of descriptors and a key that is away pass by: they are waited for here, where status
    /// tells of them. All else is the supervisor's.
    fn begin(&mut self, damage: Option<String>, ctx: &mut Context<Self>) {
        self.ready = false;
        self.prunable = None;
        self.seat.settled.set(false);
        if self.housekeeper.is_busy() {
            // It must not work on while the repository is replaced under it.
            self.housekeeper.cancel();
            ctx.run_later(LET_GO, |actor, ctx| actor.begin(damage, ctx));
            return;
        }
        let start = Start {
            seat: self.seat.clone(),
            exit: self.exit.clone(),
            queue: self.queue.clone(),
            log: self.log.clone(),
            damage,
        };
        ctx.spawn(wrap_future::<_, Self>(start.run()).map(|started, actor, ctx| {
            actor.seat.settled.set(true);
            actor.seat.nudge_pushers();
            actor.begun(started, ctx);
        }));
    }

    fn begun(&mut self, started: std::result::Result<Started, Trouble>, ctx: &mut Context<Self>) {
        match started {
            Ok(Started { tip, clear_history }) => {
                self.ready = true;
                self.tip = tip;
                self.clear_history = clear_history;
                self.keep_house(ctx);
                return self.work(ctx);
            }
            Err(Trouble::Failed(error))
                if matches!(
                    error.kind(),
                    Kind::DiskFull | Kind::Limit | Kind::Store | Kind::Io | Kind::EncryptionKey
                ) =>
            {
                let pause = self.no_commit(&error);
                ctx.run_later(pause, |actor, ctx| actor.begin(None, ctx));
                return;
            }
            Err(Trouble::Panicked(message)) => self.exit.panicked(message),
            Err(Trouble::QueueGone) => self.exit.failed("the queue is not running"),
            Err(Trouble::Failed(error)) => {
                self.trouble = Some(error.to_string());
                self.publish(&self.last_look.clone());
                self.exit.failed(error.to_string());
            }
        }
        ctx.stop();
    }

    /// Looks whether the repository is damaged, and has it replaced if it is; else goes on after `pause`.
    fn look_into(&mut self, reason: &str, pause: Duration, ctx: &mut Context<Self>) {
        self.at_work = true;
        let is_rested = |(at, rest): (Instant, Duration)| Instant::now() >= at + rest;
        let fully = self.found_sound.is_none_or(is_rested);
        warn!(self.log, "the repository is examined"; "because" => reason, "all of it" => fully);
        let (seat, exit) = (self.seat.clone(), self.exit.clone());
        let examined = async move {
            run_job(&exit, "examine", move |progress| start::examine(&seat, fully, progress)).await
        };
        ctx.spawn(wrap_future::<_, Self>(examined).map(move |examined, actor, ctx| {
            actor.at_work = false;
            match examined {
                Ok(Some(damage)) if actor.may_replace() => return actor.begin(Some(damage), ctx),
                Ok(Some(damage)) => {
                    actor.trouble = Some(format!(
                        "the repository is damaged again right after it was replaced ({damage}): check the disk; it is \
                         replaced again in {} minutes",
                        MANY_WITHIN.as_secs() / 60
                    ));
                    actor.publish(&actor.last_look.clone());
                    return actor.wake_after(MANY_WITHIN, ctx);
                }
                Ok(None) if fully => {
                    let rest = actor.found_sound.map_or(FIRST_REST, |(_, rest)| LONGEST_REST.min(rest * 2));
                    actor.found_sound = Some((Instant::now(), rest));
                }
                Ok(None) => {}
                Err(Trouble::Failed(error)) => {
                    warn!(actor.log, "the repository cannot be examined now"; "error" => %error);
                }
                Err(Trouble::Panicked(message)) => {
                    actor.exit.panicked(message);
                    return ctx.stop();
                }
                Err(Trouble::QueueGone) => {}
            }
            actor.wake_after(pause, ctx);
        }));
    }

    /// On a disk that loses what is written, replacing the repository again and again would help nobody.
    fn may_replace(&mut self) -> bool {
        let now = Instant::now();
        self.replaced.retain(|at| now.saturating_duration_since(*at) < MANY_WITHIN);
        self.replaced.push(now);
        self.replaced.len() <= MANY
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        if !self.ready || self.at_work {
            self.looked_in_vain = true;
            return;
        }
        if let Some(reason) = self.seat.suspicion.take() {
            return self.look_into(&reason, Duration::ZERO, ctx);
        }
        if let Some(wish) = self.approvals.pop() {
            return self.approve(wish, ctx);
        }
        if !self.housekeeper.is_busy()
            && let Some(prepared) = self.prunable.take()
        {
            return self.prune(prepared, ctx);
        }
        self.at_work = true;
        self.looked_in_vain = false;
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        self.waiters.retain(|waiter| !waiter.answer.is_closed());
        for waiter in &mut self.waiters {
            waiter.served = true;
        }
        if let Some(to_ms) = self.clock.went_back(now_ms(), Instant::now()) {
            // Of several jumps the furthest counts.
            self.clock_back_ms = Some(self.clock_back_ms.map_or(to_ms, |earlier| earlier.min(to_ms)));
        }
        let cycle = Cycle {
            seat: self.seat.clone(),
            exit: self.exit.clone(),
            queue: self.queue.clone(),
            log: self.log.clone(),
            eager: !self.waiters.is_empty(),
            though_rejected: self.waiters.iter().any(|waiter| waiter.though_rejected),
            list_skips: self.skips_listed,
            waited_for: self.waiters.iter().map(|waiter| waiter.seq).collect(),
            breathe_until: self.breathe_until,
            after_failure: self.is_unsure,
            clock_back_ms: self.clock_back_ms,
        };
        ctx.spawn(wrap_future::<_, Self>(cycle.run()).map(|end, actor, ctx| actor.cycle_ended(end, ctx)));
    }

    fn cycle_ended(&mut self, end: std::result::Result<CycleEnd, Trouble>, ctx: &mut Context<Self>) {
        self.at_work = false;
        match end {
            Ok(end) => {
                self.failures = 0;
                self.trouble = None;
                self.is_about_encryption = false;
                self.clock_back_ms = None;
                self.last_look = end.now.clone();
                self.breathe_until = end.breathe_until;
                self.skips_listed = end.has_skips;
                if end.tip.is_some() {
                    self.tip = end.tip;
                }
                self.clear_history = end.clear_history.unwrap_or(self.clear_history);
                self.paused = end.now.paused_since_ms.is_some();
                self.is_unsure &= self.paused;
                self.publish(&end.now);
                self.answer_waiters(&end);
                if end.committed {
                    self.keep_house(ctx);
                }
                let more =
                    end.committed || self.looked_in_vain || self.waiters.iter().any(|waiter| !waiter.served);
                let is_held = self.paused && !end.is_rejected;
                let unserved = !is_held && !self.waiters.is_empty() && end.now.waiting.ready > 0;
                if more || unserved {
                    ctx.notify(Wake);
                } else if let Some(pause) = end.look_again {
                    self.wake_after(pause, ctx);
                }
            }
            Err(Trouble::Panicked(message)) => {
                self.exit.panicked(message);
                ctx.stop();
            }
            Err(Trouble::QueueGone) => {
                self.exit.failed("the queue is not running");
                ctx.stop();
            }
            Err(Trouble::Failed(error)) => {
                if error.kind() == Kind::Internal {
                    warn!(self.log, "no commit for now"; "error" => %error);
                    self.exit.failed(error.to_string());
                    ctx.stop();
                    return;
                }
                let pause = self.no_commit(&error);
                match error.kind() {
                    // The stat cache may not belong to what the branch is now: only a start finds out.
                    Kind::RefMoved => {
                        self.ready = false;
                        ctx.run_later(pause, |actor, ctx| actor.begin(None, ctx));
                    }
                    Kind::Git | Kind::Io => self.look_into(&error.to_string(), pause, ctx),
                    _ => self.wake_after(pause, ctx),
                }
            }
        }
    }

    /// Tells everybody who may want to know that there is no commit for now; returns the pause before the next try.
    fn no_commit(&mut self, error: &Error) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.is_unsure = true;
        let longest = if error.kind() == Kind::DiskFull { LONGEST_PAUSE_WITHOUT_ROOM } else { LONGEST_PAUSE };
        let pause = longest.min(FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(6) - 1));
        let fate = error.fate();
        warn!(self.log, "no commit for now"; "error" => %error, "next try in" => ?pause,
              "needs somebody" => fate == Fate::Halt);
        self.trouble = Some(error.to_string());
        self.is_about_encryption = error.kind() == Kind::EncryptionKey;
        self.publish(&self.last_look.clone());
        if fate != Fate::Retry || self.failures >= PATIENCE {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(Refusal::NoCommit(error.to_string())));
            }
        }
        pause
    }

    fn answer_waiters(&mut self, end: &CycleEnd) {
        if end.now.paused_since_ms.is_some() {
            let refused = |waiter: &mut Waiter| !(waiter.though_rejected && end.is_rejected);
            for waiter in self.waiters.extract_if(.., refused) {
                let _ = waiter.answer.send(Err(Refusal::Paused));
            }
        }
        if let Some(reason) = &end.unavailable {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(Refusal::RootUnavailable(reason.clone())));
            }
            return;
        }
        let Some(settled) = end.settled_up_to else { return };
        let tip = self.tip;
        let (done, waiting) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter| waiter.served && waiter.seq <= settled);
        self.waiters = waiting;
        for waiter in done {
            let waiter: Waiter = waiter;
            let _ = waiter.answer.send(Ok(tip));
        }
    }

    fn wake_after(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        self.alarm = Some(ctx.run_later(pause, |actor, ctx| {
            actor.alarm = None;
            actor.work(ctx);
        }));
    }

    fn publish(&self, now: &WaitingNow) {
        self.seat.common.board.publish_repository(RepositoryStatus {
            name: self.seat.settings.name.clone(),
            paused: now.paused_since_ms.is_some(),
            paused_until: now
                .paused_until_ms
                .and_then(|ms| Moment::from_unix_seconds(ms.saturating_add(999) / 1000)),
            pending: now.waiting.rows as u64,
            commit: self.tip.map(|tip| tip.to_string()),
            trouble: self.trouble.clone(),
            is_encryption_in_the_way: self.is_about_encryption,
            clear_history: (self.clear_history > 0).then_some(self.clear_history),
            guard: Default::default(),
        });
    }
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point_of("actor:committer:started", self.seat.settings.name.as_str());
        self.publish(&WaitingNow::default());
        self.begin(None, ctx);
        self.seat.queued.wake(ctx);
    }
}

impl Handler<Wake> for Committer {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        fault::point("actor:committer:handle");
        self.work(ctx);
    }
}

impl Handler<PauseChanged> for Committer {
    type Result = ();

    fn handle(&mut self, _: PauseChanged, ctx: &mut Self::Context) {
        self.work(ctx);
    }
}

impl Handler<CommitUpTo> for Committer {
    type Result = ResponseFuture<std::result::Result<Option<Oid>, Refusal>>;

    fn handle(&mut self, message: CommitUpTo, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let though_rejected = message.though_rejected;
        self.waiters.push(Waiter { seq: message.seq, served: false, though_rejected, answer });
        self.work(ctx);
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(Refusal::NotRunning("the committer was restarted".to_owned())))
        })
    }
}

/// Why a sequence of steps ended early.
enum Trouble {
    Failed(Error),
    Panicked(String),
    QueueGone,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error)
    }
}

impl From<actix::MailboxError> for Trouble {
    fn from(_: actix::MailboxError) -> Self {
        Trouble::QueueGone
    }
}

async fn run_job<T: Send + 'static>(
    exit: &ExitHandle,
    name: &str,
    work: impl FnOnce(&Progress) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Trouble> {
    match job::run(exit, name, work).await {
        JobOutcome::Finished(result) => Ok(result?),
        JobOutcome::Panicked(message) => Err(Trouble::Panicked(format!("in {name}: {message}"))),
    }
}
