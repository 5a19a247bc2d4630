//! The pusher of one remote: brings it up to the branch's tip, and keeps trying as the retry law says.
//!
//! It only ever wants the newest commit. What it knows of the remote (confirmed commit, failures, when to try
//! again, why it is halted) is in the store, so a restart neither hastens nor forgets anything. A halted
//! pusher is a state, not a crash: the work goes to the rescue branch until somebody resumes it or the cause
//! has vanished.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use backupbot_core::clock;
use backupbot_core::config as model;
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::lfs::Pointer;
use backupbot_core::names::RemoteName;
use backupbot_core::progress::Progress;
use backupbot_core::push::courier::{Courier, Refusals};
use backupbot_core::push::delivery::{self, Delivery, Wanted};
use backupbot_core::push::large::{Brought, LargeDelivery};
use backupbot_core::transport::Notes;
use backupbot_core::transport::memory::Memory;
use git2::Oid;
use slog::{Logger, debug, error, info, o, warn};
use tokio::sync::oneshot;

use crate::board::{Moment, RemoteState, RemoteStatus};
use crate::health;
use crate::housekeeping::{Housekeeper, merge_in_remote};
use crate::job::{self, JobOutcome};
use crate::measure;
use crate::messages::{PushNow, Refusal, ResumeRemote, Wake};
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;
use crate::trail;

/// The pause after an attempt of which our own state could not be read or written, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Such attempts in a row after which nobody is kept waiting for the next.
const PATIENCE: u32 = 4;
/// Between two looks whether the committer has taken its first steps.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

struct Waiter {
    /// Whether an attempt began after it came.
    served: bool,
    answer: oneshot::Sender<std::result::Result<Oid, Refusal>>,
}

/// The actor.
pub struct Pusher {
    seat: Arc<RepositorySeat>,
    remote: model::Remote,
    exit: ExitHandle,
    log: Logger,
    at_work: bool,
    looked_in_vain: bool,
    resume: bool,
    /// Attempts in a row of which our own state could not be read or written.
    own_failures: u32,
    alarm: Option<SpawnHandle>,
    waiters: Vec<Waiter>,
    status: RemoteStatus,
    housekeeper: Housekeeper,
    /// What the last push learnt of the remote.
    memory: Memory,
    /// The large contents that it refused lately.
    refusals: Refusals,
}

impl Pusher {
    /// A pusher to `remote`.
    pub fn new(seat: Arc<RepositorySeat>, remote: model::Remote, exit: ExitHandle) -> Self {
        let log =
            seat.common.log.new(o!("actor" => "pusher", "repository" => seat.settings.name.to_string(),
                                         "remote" => remote.name.to_string()));
        let status = RemoteStatus {
            name: remote.name.clone(),
            state: RemoteState::Idle,
            reason: None,
            commit: None,
            last_success: None,
            unprotected_since: None,
            warnings: Vec::new(),
            messages: Vec::new(),
            token_expires: None,
        };
        let housekeeper = Housekeeper::new(&exit, &log);
        Self {
            seat,
            remote,
            exit,
            log,
            at_work: false,
            looked_in_vain: false,
            resume: false,
            own_failures: 0,
            alarm: None,
            waiters: Vec::new(),
            status,
            housekeeper,
            memory: Memory::default(),
            refusals: Refusals::default(),
        }
    }

    /// The remote's name.
    pub fn name(&self) -> &RemoteName {
        &self.remote.name
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.at_work {
            self.looked_in_vain = true;
            return;
        }
        if !self.seat.settled.may_push() {
            // A nudge comes when it may; the alarm is for a committer that never gets there.
            self.wake_after(LOOK_AGAIN, ctx);
            return;
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
        let eager = !self.waiters.is_empty() || self.resume;
        let resume = std::mem::take(&mut self.resume);
        debug!(self.log, "looking whether the remote lacks something"; "eager" => eager, "resume" => resume);
        let (seat, remote, exit) = (self.seat.clone(), self.remote.clone(), self.exit.clone());
        let memory = self.memory.clone();
        if eager {
            self.refusals.clear();
        }
        let refusals = self.refusals.clone();
        let board = self.seat.common.board.clone();
        let pushing = RemoteStatus { state: RemoteState::Pushing, ..self.status.clone() };
        let attempt = async move {
            job::run(&exit, "push", move |progress| {
                fault::point("actor:pusher:job");
                let guard = seat.common.store.reader().guard(&seat.settings.name)?;
                let branch = match &guard.quarantine {
                    Some(quarantine) => quarantine.branch.clone(),
                    None => seat.protected_branch()?,
                };
                let record = seat.common.store.remote(&seat.settings.name, &remote.name);
                let wanted = Wanted {
                    repository: &seat.path,
                    branch: &branch,
                    protected: guard.quarantine.as_ref().map(|it| it.protected_branch.as_str()),
                    moved_ms: guard.approval.map_or(0, |approval| approval.at_ms),
                    remote: &remote,
                    instance: &seat.common.instance,
                    retry: &seat.settings.retry,
                    eager,
                    resume,
                    refuses_clear_history: seat
                        .settings
                        .encryption
                        .as_ref()
                        .is_some_and(model::Encryption::refuses_clear_history),
                    memory: &memory,
                    now_ms: now_ms(),
                };
                let known = record.large();
                let courier = Courier {
                    remote: &remote,
                    remotes: &seat.settings.remotes,
                    repository: &seat.path,
                    branch: &branch,
                    known: &known,
                    refusals: &refusals,
                    now_ms: wanted.now_ms,
                    notes: Notes::default(),
                };
                let mut courier = Counted { courier, seat: &seat };
                let repository = seat.settings.name.clone();
                let delivery = delivery::deliver(
                    &wanted,
                    &record,
                    Some(&mut courier),
                    &mut || board.publish_remote(&repository, pushing.clone()),
                    progress,
                )?;
                trail::delivered(&seat, &remote, &branch, &delivery);
                Ok(delivery)
            })
            .await
        };
        ctx.spawn(
            wrap_future::<_, Self>(attempt).map(|outcome, actor, ctx| actor.attempt_ended(outcome, ctx)),
        );
    }

    fn attempt_ended(&mut self, outcome: JobOutcome<Delivery>, ctx: &mut Context<Self>) {
        self.at_work = false;
        match outcome {
            JobOutcome::Panicked(message) => {
                self.exit.panicked(format!("in push: {message}"));
                ctx.stop();
            }
            JobOutcome::Finished(result) => self.delivered(result, ctx),
        }
    }

    fn delivered(&mut self, result: Result<Delivery>, ctx: &mut Context<Self>) {
        let delivery = match result {
            Ok(delivery) => delivery,
            // Only our own store and repository fail here; trouble with the remote is in the delivery.
            Err(error) if matches!(error.kind(), Kind::DiskFull | Kind::Limit | Kind::Store | Kind::Io) => {
                if error.kind() == Kind::Io {
                    self.seat.suspect(&error.to_string());
                }
                self.wait_for_own_state(&error, ctx);
                return;
            }
            Err(error) => {
                if error.kind() == Kind::Git {
                    self.seat.suspect(&error.to_string());
                }
                self.exit.failed(error.to_string());
                ctx.stop();
                return;
            }
        };
        self.own_failures = 0;
        debug!(self.log, "looked"; "attempted" => delivery.attempted, "confirmed" => ?delivery.confirmed,
               "failures" => delivery.record.failures, "took" => ?delivery.took, "next_try_ms" => delivery.next_try_ms);
        self.count(&delivery);
        self.tell_room(&delivery);
        self.log_change(&delivery);
        if delivery.trouble == Some(Kind::Git) {
            // Whose objects cannot be read is told by looking at ours.
            self.seat
                .suspect(delivery.record.last_error.as_deref().unwrap_or("a push could not read an object"));
        }
        let moment = |ms: i64| Moment::from_unix_seconds(ms / 1000);
        self.status = RemoteStatus {
            name: self.remote.name.clone(),
            state: match (&delivery.record.halted, delivery.record.failures) {
                (Some(_), _) => RemoteState::Halted,
                (None, 0) => RemoteState::Idle,
                (None, _) => RemoteState::Backoff,
            },
            reason: match &delivery.record.halted {
                Some(halt) => Some(format!("{}: {}", halt.reason, halt.message)),
                None => delivery.record.last_error.clone(),
            },
            commit: delivery.confirmed.map(|oid| oid.to_string()),
            last_success: delivery.record.confirmed_at_ms.and_then(moment),
            unprotected_since: delivery.unprotected_since_ms.and_then(moment),
            // An attempt that was not made noticed nothing.
            warnings: if delivery.attempted {
                delivery.notes.warnings.clone()
            } else {
                self.status.warnings.clone()
            },
            // One that only read the remote hears nothing, and takes nothing back.
            messages: if delivery.attempted
                && (!delivery.notes.messages.is_empty() || delivery.sent.is_none_or(|sent| sent.objects > 0))
            {
                delivery.notes.messages.clone()
            } else {
                self.status.messages.clone()
            },
            token_expires: delivery.notes.token_expires_ms.and_then(moment).or(self.status.token_expires),
        };
        self.seat.common.board.publish_remote(&self.seat.settings.name, self.status.clone());
        self.answer_waiters(&delivery);
        if delivery.sent.is_some_and(|sent| sent.objects > 0) {
            self.keep_house(ctx);
        }
        let unserved = self.waiters.iter().any(|waiter| !waiter.served);
        if self.looked_in_vain || unserved || self.resume {
            ctx.notify(Wake);
        } else if let Some(at_ms) = delivery.next_try_ms {
            let pause =
                clock::left_until(at_ms, now_ms(), delivery::longest_pause(&self.seat.settings.retry));
            self.wake_after(pause, ctx);
        }
    }

    /// A disk that is full or fails passes by, and what was pushed is found again: nobody needs to be restarted.
    fn wait_for_own_state(&mut self, error: &Error, ctx: &mut Context<Self>) {
        self.own_failures = self.own_failures.saturating_add(1);
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(self.own_failures.min(6) - 1));
        warn!(self.log, "the attempt cannot be recorded, and is made again"; "error" => %error,
              "next try in" => ?pause);
        self.status.state = RemoteState::Backoff;
        self.status.reason = Some(error.to_string());
        self.seat.common.board.publish_remote(&self.seat.settings.name, self.status.clone());
        if self.own_failures >= PATIENCE {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(Refusal::NoCommit(error.to_string())));
            }
        }
        self.wake_after(pause, ctx);
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

    /// Every push makes a pack. Where the remote is a directory here and ours, nobody else would merge them.
    fn keep_house(&mut self, ctx: &mut Context<Self>) {
        let model::RemoteUrl::Local(path) = self.remote.url.clone() else { return };
        let (seat, remote) = (self.seat.clone(), self.remote.name.clone());
        let work = move |progress: &Progress| merge_in_remote(&seat, &remote, &path, progress);
        self.housekeeper.begin(ctx, |actor: &mut Self| &mut actor.housekeeper, work);
    }

    /// Whether the remote has room.
    fn tell_room(&self, delivery: &Delivery) {
        let (board, repository) = (&self.seat.common.board, &self.seat.settings.name);
        if delivery.trouble == Some(Kind::Quota) {
            let halted = delivery.record.halted.as_ref().map(|halt| halt.message.as_str());
            let said = halted.or(delivery.record.last_error.as_deref()).unwrap_or("there is no room left");
            board.lfs_refused(repository, &self.remote.name, Some(said));
        } else if delivery.is_verified {
            board.lfs_refused(repository, &self.remote.name, None);
        }
    }

    fn count(&self, delivery: &Delivery) {
        let (Some(tally), Some(took)) = (delivery.tally, delivery.took) else { return };
        let (repository, remote) = (&self.seat.settings.name, &self.remote.name);
        measure::push_ended(repository.as_str(), remote.as_str(), &tally, took);
        let Some(was_answered) = tally.was_answered else { return };
        let halted = delivery.record.halted.as_ref().map(|halt| halt.message.as_str());
        let trouble = halted.or(delivery.record.last_error.as_deref()).unwrap_or("the last push failed");
        let found = if was_answered { Ok(()) } else { Err(trouble) };
        self.seat.common.board.publish_health(
            health::reachability(repository, remote, found.map_err(str::to_owned)),
            Moment::now(),
        );
    }

    fn log_change(&self, delivery: &Delivery) {
        for warning in delivery.notes.warnings.iter().filter(|text| !self.status.warnings.contains(text)) {
            warn!(self.log, "this should be changed"; "warning" => warning);
        }
        for message in delivery.notes.messages.iter().filter(|text| !self.status.messages.contains(text)) {
            info!(self.log, "the remote says"; "message" => message);
        }
        if let Some(sent) = delivery.sent.filter(|sent| sent.restored > 0) {
            warn!(self.log, "the remote had lost objects, which were sent again: look at its disk";
                  "objects" => sent.restored);
        }
        // A remote that was only read, and is as it should be, is no news.
        if let Some(sent) = delivery.sent.filter(|sent| sent.objects > 0 || sent.large > 0) {
            info!(self.log, "pushed"; "commit" => delivery.confirmed.map(|oid| oid.to_string()),
                  "objects" => sent.objects, "large_objects" => sent.large, "bytes" => sent.bytes,
                  "took_ms" => delivery.took.map(|took| took.as_millis() as u64));
        }
        match (&delivery.record.halted, &delivery.record.last_error) {
            (Some(halt), _) if self.status.state != RemoteState::Halted => {
                error!(self.log, "halted"; "reason" => &halt.reason, "message" => &halt.message,
                       "rescue_branch" => &halt.rescue_branch);
            }
            (None, Some(error)) if delivery.record.failures > 0 && delivery.attempted => {
                warn!(self.log, "push failed"; "error" => error, "failures" => delivery.record.failures);
            }
            _ => {}
        }
    }

    fn answer_waiters(&mut self, delivery: &Delivery) {
        let halted = delivery.record.halted.as_ref();
        for waiter in std::mem::take(&mut self.waiters) {
            if !waiter.served {
                self.waiters.push(waiter);
            } else if let Some(halt) = halted {
                let _ = waiter.answer.send(Err(Refusal::Halted(halt.message.clone())));
            } else if let Some(confirmed) = delivery.confirmed
                && delivery.is_verified
            {
                let _ = waiter.answer.send(Ok(confirmed));
            } else {
                self.waiters.push(waiter);
            }
        }
    }
}

/// Counts what is uploaded, and has it looked at how full the remote is then.
struct Counted<'c> {
    courier: Courier<'c>,
    seat: &'c RepositorySeat,
}

impl LargeDelivery for Counted<'_> {
    fn bring(&mut self, wanted: &[Pointer], progress: &Progress) -> Result<Brought> {
        let brought = self.courier.bring(wanted, progress)?;
        if brought.sent > 0 {
            let (repository, remote) = (&self.seat.settings.name, &self.courier.remote.name);
            measure::lfs_uploaded(repository.as_str(), remote.as_str(), brought.bytes);
            self.seat.uploaded.nudge();
        }
        Ok(brought)
    }
}

impl Actor for Pusher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:pusher:started");
        self.seat.common.board.publish_remote(&self.seat.settings.name, self.status.clone());
        let Some(committed) = self.seat.committed.get(&self.remote.name).cloned() else {
            self.exit.failed("the remote is not configured");
            ctx.stop();
            return;
        };
        committed.wake(ctx);
        ctx.notify(Wake);
    }
}

impl Handler<Wake> for Pusher {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        fault::point("actor:pusher:handle");
        self.work(ctx);
    }
}

impl Handler<ResumeRemote> for Pusher {
    type Result = ();

    fn handle(&mut self, _: ResumeRemote, ctx: &mut Self::Context) {
        self.resume = true;
        self.work(ctx);
    }
}

impl Handler<PushNow> for Pusher {
    type Result = ResponseFuture<std::result::Result<Oid, Refusal>>;

    fn handle(&mut self, _: PushNow, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.waiters.push(Waiter { served: false, answer });
        self.work(ctx);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(Refusal::NotRunning("the pusher was restarted".to_owned())))
        })
    }
}
