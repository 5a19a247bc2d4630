//! The watcher of one root: events come in from its thread, settle down, and become rows of the queue.
//!
//! A thread of its own (`thread`) waits on the kernel, or compares listings, and hands hints over in order. They
//! rest in the debouncer until a path is quiet or has waited long enough, and are then queued durably, in
//! batches. Whatever could not be queued stays here and is tried again. Besides, the whole root is queued at the
//! start, after lost events, when the root comes back, and every `rescan`.

mod counting;
mod seen;
mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use backupbot_core::config as model;
use backupbot_core::fault;
use backupbot_core::path::RelPath;
use backupbot_core::progress::Progress;
use backupbot_core::scan::Counts;
use backupbot_core::store::changes::Reach;
use backupbot_core::watch::debounce::Debouncer;
use backupbot_core::watch::{Control, Hint};
use slog::{Logger, debug, info, o, trace, warn};
use tokio::sync::{mpsc, oneshot};

use self::thread::{Standing, Told, WatchThread};
use crate::board::{RootState, RootStatus};
use crate::measure::Rescan;
use crate::messages::{BarrierReached, Enqueue, Refusal};
use crate::queue::Queue;
use crate::seat::RepositorySeat;
use crate::supervision::ExitHandle;

/// How often a root that is gone is looked for, and a queue that failed is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Hint batches between the thread and the actor; beyond them the thread waits and the kernel's queue fills.
const HANDOVER: usize = 64;
/// Failed attempts to queue, in a row, after which nobody is kept waiting for the next.
const PATIENCE: u32 = 3;
/// Unqueued paths kept; beyond them they become one deep row.
const MOST_UNSENT: usize = 50_000;

struct BarrierWaiter {
    token: Option<u64>,
    answer: oneshot::Sender<Result<u64, Refusal>>,
}

/// The actor.
pub struct Watcher {
    seat: Arc<RepositorySeat>,
    settings: model::Root,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
    debouncer: Debouncer,
    /// Due and not yet durable.
    unsent: Vec<(RelPath, Reach)>,
    /// When the first of these was first heard of, if events told.
    unsent_since: Option<Instant>,
    sending: bool,
    /// Attempts to queue that failed in a row.
    send_failures: u32,
    /// Everything hinted up to here is durable at this number.
    sent_seq: u64,
    control: Option<Arc<dyn Control>>,
    stop_thread: Arc<AtomicBool>,
    resync: Arc<AtomicBool>,
    next_token: u64,
    barriers: Vec<BarrierWaiter>,
    alarm: Option<SpawnHandle>,
    /// How the root is watched.
    standing: Standing,
    /// What is wrong with an ignore file, if so.
    ignore_problem: Option<String>,
    status: RootStatus,
    counted: Counts,
}

impl Watcher {
    /// A watcher of the root that `settings` describe; `queue` is the present run of the queue.
    pub fn new(
        seat: Arc<RepositorySeat>,
        settings: model::Root,
        exit: ExitHandle,
        queue: Addr<Queue>,
    ) -> Self {
        let log =
            seat.common.log.new(o!("actor" => "watcher", "repository" => seat.settings.name.to_string(),
                                         "root" => settings.name.to_string()));
        let status = RootStatus {
            name: settings.name.clone(),
            state: RootState::Starting,
            reason: None,
            backend: "none".to_owned(),
            files: 0,
            excluded_by_rules: 0,
            excluded_by_system: 0,
            excluded_by_file_system: 0,
            skipped: 0,
            skipped_files: Vec::new(),
            skipped_by_reason: BTreeMap::new(),
            watch_limited: None,
        };
        Self {
            debouncer: Debouncer::new(settings.debounce.quiet, settings.debounce.max),
            seat,
            settings,
            exit,
            queue,
            log,
            unsent: Vec::new(),
            unsent_since: None,
            sending: false,
            send_failures: 0,
            sent_seq: 0,
            control: None,
            stop_thread: Arc::default(),
            resync: Arc::default(),
            next_token: 1,
            barriers: Vec::new(),
            alarm: None,
            standing: Standing::default(),
            ignore_problem: None,
            status,
            counted: Counts::default(),
        }
    }

    fn publish(&self) {
        self.seat.common.board.publish_root(&self.seat.settings.name, self.status.clone());
    }

    /// The root can be looked at; what is to be said of it is how it is watched and what is wrong with its rules.
    fn set_available(&mut self, state: RootState) {
        let sentences: Vec<&str> =
            [&self.ignore_problem, &self.standing.reason].into_iter().flatten().map(String::as_str).collect();
        let reason = (!sentences.is_empty()).then(|| sentences.join("; "));
        self.set_state(state, reason);
    }

    fn set_state(&mut self, state: RootState, reason: Option<String>) {
        let is_news = self.status.state != state;
        if is_news && state == RootState::Unavailable {
            warn!(self.log, "the root is unavailable; its last version is kept"; "reason" => reason.as_deref());
        } else if is_news && self.status.state == RootState::Unavailable {
            info!(self.log, "the root is back");
        }
        self.status.state = state;
        self.status.reason = reason;
        self.publish();
    }

    fn start_thread(&mut self, ctx: &mut Context<Self>) {
        self.stop_thread = Arc::default();
        self.control = None;
        let Some(index) = self.seat.roots.iter().position(|root| root.name == self.settings.name) else {
            self.exit.failed("the root is not configured");
            ctx.stop();
            return;
        };
        let (tell, mut told) = mpsc::channel(HANDOVER);
        let thread = WatchThread {
            seat: self.seat.clone(),
            index,
            stop: self.stop_thread.clone(),
            resync: self.resync.clone(),
            tell,
        };
        let progress = Progress::new();
        let working = self.exit.working("starting to watch", &progress);
        let named = std::thread::Builder::new().name(format!("watch-{}", self.settings.name));
        let spawned = named.spawn(move || thread.run(&progress, working));
        if let Err(error) = spawned {
            self.exit.failed(format!("cannot start a thread to watch {}: {error}", self.settings.name));
            ctx.stop();
            return;
        }
        let own = ctx.address();
        ctx.spawn(wrap_future(async move {
            // Waiting for each answer keeps the order and lets the thread feel when the actor is slow.
            while let Some(message) = told.recv().await {
                if own.send(FromThread(message)).await.is_err() {
                    return;
                }
            }
            let _ = own.send(FromThread(Told::Ended(None))).await;
        }));
    }

    fn thread_started(&mut self, standing: Standing, control: Arc<dyn Control>, ctx: &mut Context<Self>) {
        self.ignore_problem = None;
        self.note(standing);
        for waiter in &mut self.barriers {
            // The whole root is queued below: that proves as much as a sentinel does.
            waiter.token = request_barrier(control.as_ref(), &mut self.next_token).or(Some(0));
        }
        self.control = Some(control);
        let is_first = self.status.state == RootState::Starting;
        if !is_first {
            self.set_available(RootState::Scanning);
        }
        self.counted = Counts::default();
        self.compare_all(if is_first { Rescan::Start } else { Rescan::Returned }, ctx);
    }

    /// Takes in how the root is watched. The words may change at every pass, so only news are logged.
    fn note(&mut self, standing: Standing) {
        let is_news = standing.backend != self.standing.backend
            || standing.reason.is_some() != self.standing.reason.is_some();
        if is_news && let Some(reason) = &standing.reason {
            warn!(self.log, "the root is not watched as a whole"; "backend" => standing.backend, "reason" => reason);
        } else if is_news && self.standing.reason.is_some() {
            info!(self.log, "the root is watched as a whole again"; "backend" => standing.backend);
        }
        self.status.backend = standing.backend.to_owned();
        self.status.watch_limited = standing.reason.clone();
        self.standing = standing;
    }

    fn thread_ended(&mut self, reason: Option<String>, ctx: &mut Context<Self>) {
        self.control = None;
        let reason = reason.unwrap_or_else(|| "it was deleted, moved away or unmounted".to_owned());
        for waiter in self.barriers.drain(..) {
            let _ = waiter.answer.send(Err(Refusal::RootUnavailable(reason.clone())));
        }
        self.set_state(RootState::Unavailable, Some(reason));
        ctx.run_later(LOOK_AGAIN, |actor, ctx| actor.start_thread(ctx));
    }

    fn hinted(&mut self, hints: Vec<Hint>, ctx: &mut Context<Self>) {
        let now = Instant::now();
        for hint in hints {
            match hint {
                Hint::Barrier(token) => self.barrier_reached(token, ctx),
                Hint::RootGone => {}
                Hint::Overflow => {
                    warn!(self.log, "the kernel lost events; the whole root is compared");
                    self.count_overflow();
                    self.compare_all(Rescan::Overflow, ctx);
                }
                hint => {
                    if let Some(due) = self.debouncer.observe(hint, now) {
                        self.take_due(vec![due], ctx);
                    }
                }
            }
        }
        self.set_alarm(ctx);
    }

    fn barrier_reached(&mut self, token: u64, ctx: &mut Context<Self>) {
        if self.barriers.iter().any(|waiter| waiter.token.is_some_and(|waited| waited <= token)) {
            let due = self.debouncer.flush();
            for waiter in &mut self.barriers {
                if waiter.token.is_some_and(|waited| waited <= token) {
                    waiter.token = Some(0);
                }
            }
            self.take_due(due, ctx);
            self.send(ctx);
        }
    }

    /// Queues the whole root, after having the backend watch what it missed.
    fn rescan(&mut self, reason: Rescan, ctx: &mut Context<Self>) {
        self.resync.store(true, Ordering::Relaxed);
        if let Some(control) = &self.control {
            control.wake();
        }
        self.counted = Counts::default();
        self.compare_all(reason, ctx);
    }

    fn take_due(&mut self, due: Vec<Hint>, ctx: &mut Context<Self>) {
        for hint in due {
            match hint {
                Hint::Changed(path) => self.unsent.push((path, Reach::Exact)),
                Hint::Deep(path) => self.unsent.push((path, Reach::Deep)),
                Hint::Overflow => self.unsent.push((RelPath::root(), Reach::Deep)),
                Hint::RootGone | Hint::Barrier(_) => {}
            }
        }
        if let Some(since) = self.debouncer.take_given_since() {
            self.unsent_since = Some(self.unsent_since.map_or(since, |earlier| earlier.min(since)));
        }
        if self.unsent.len() > MOST_UNSENT {
            self.count(Rescan::Coarsened);
            self.unsent = vec![(RelPath::root(), Reach::Deep)];
        }
        self.send(ctx);
    }

    /// Queues what is due, one transaction at a time.
    fn send(&mut self, ctx: &mut Context<Self>) {
        if self.sending {
            return;
        }
        if self.unsent.is_empty() {
            self.answer_barriers();
            return;
        }
        self.sending = true;
        let paths = std::mem::take(&mut self.unsent);
        let since = self.unsent_since.take();
        for (path, reach) in &paths {
            trace!(self.log, "changed"; "path" => %path, "reach" => ?reach);
        }
        fault::point("watcher:before-enqueue");
        let message = Enqueue {
            repository: self.seat.settings.name.clone(),
            root: self.settings.name.clone(),
            paths: paths.clone(),
        };
        let queue = self.queue.clone();
        let answer = async move { queue.send(message).await };
        ctx.spawn(wrap_future::<_, Self>(answer).map(move |answer, actor, ctx| {
            actor.sending = false;
            match answer {
                Ok(Ok(seq)) => {
                    debug!(actor.log, "queued"; "paths" => paths.len(), "seq" => ?seq);
                    actor.sent_seq = seq;
                    actor.send_failures = 0;
                    actor.queued(since);
                    actor.seat.queued.nudge();
                    actor.send(ctx);
                }
                Ok(Err(error)) => {
                    warn!(actor.log, "changes cannot be queued now; they are kept here"; "error" => %error,
                          "paths" => paths.len());
                    actor.unsent_since = since.or(actor.unsent_since);
                    let mut kept = paths;
                    kept.append(&mut actor.unsent);
                    actor.unsent = kept;
                    actor.send_failures = actor.send_failures.saturating_add(1);
                    if actor.send_failures >= PATIENCE {
                        for waiter in actor.barriers.drain(..) {
                            let _ = waiter.answer.send(Err(Refusal::NoCommit(error.to_string())));
                        }
                    }
                    ctx.run_later(LOOK_AGAIN, |actor, ctx| actor.send(ctx));
                }
                Err(_) => {
                    // The next run starts with the whole root, so nothing is lost with this one.
                    actor.exit.failed("the queue is not running");
                    ctx.stop();
                }
            }
        }));
    }

    /// An ignore file that cannot be obeyed leaves nothing out; whoever wrote it must hear of it.
    fn look_for_ignore_problems(&self) -> Option<String> {
        let problems =
            self.seat.root(&self.settings.name).map(|root| root.rules.problems()).unwrap_or_default();
        for problem in &problems {
            warn!(self.log, "an ignore file is not obeyed, so nothing is left out by it"; "reason" => &problem.reason);
        }
        problems.into_iter().next().map(|problem| problem.reason)
    }

    fn answer_barriers(&mut self) {
        let seq = self.sent_seq;
        let (reached, waiting) =
            std::mem::take(&mut self.barriers).into_iter().partition(|waiter| waiter.token == Some(0));
        self.barriers = waiting;
        for waiter in reached {
            let waiter: BarrierWaiter = waiter;
            let _ = waiter.answer.send(Ok(seq));
        }
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        if let Some(detected) = self.seat.detected.get(&self.settings.name) {
            detected.store(self.debouncer.len() as u64, Ordering::Relaxed);
        }
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        let Some(deadline) = self.debouncer.next_deadline() else { return };
        let pause = deadline.saturating_duration_since(Instant::now());
        self.alarm = Some(ctx.run_later(pause, |actor, ctx| {
            actor.alarm = None;
            let due = actor.debouncer.take_due(Instant::now());
            actor.count_coarsened(&due);
            actor.take_due(due, ctx);
            actor.set_alarm(ctx);
        }));
    }
}

fn request_barrier(control: &dyn Control, next_token: &mut u64) -> Option<u64> {
    let token = *next_token;
    *next_token += 1;
    control.barrier(token).is_ok().then_some(token)
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop_thread.store(true, Ordering::Relaxed);
        if let Some(control) = &self.control {
            control.wake();
        }
    }
}

impl Actor for Watcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:watcher:started");
        self.publish();
        self.start_thread(ctx);
        ctx.run_interval(self.settings.rescan, |actor, ctx| {
            if actor.control.is_some() {
                actor.rescan(Rescan::Schedule, ctx);
            }
        });
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct FromThread(Told);

impl Handler<FromThread> for Watcher {
    type Result = ();

    fn handle(&mut self, message: FromThread, ctx: &mut Self::Context) {
        fault::point("actor:watcher:handle");
        match message.0 {
            Told::Started(standing, control) => self.thread_started(standing, control, ctx),
            Told::Hints(hints) => self.hinted(hints, ctx),
            Told::Standing(standing) => {
                self.note(standing);
                if self.status.state != RootState::Unavailable {
                    self.set_available(self.status.state);
                }
            }
            Told::Ended(reason) => {
                if !self.stop_thread.swap(true, Ordering::Relaxed) {
                    self.thread_ended(reason, ctx);
                }
            }
        }
    }
}

impl Handler<BarrierReached> for Watcher {
    type Result = ResponseFuture<Result<u64, Refusal>>;

    fn handle(&mut self, message: BarrierReached, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        match (&self.control, self.status.state) {
            (None, RootState::Unavailable) => {
                let reason = self.status.reason.clone().unwrap_or_default();
                return Box::pin(async move { Err(Refusal::RootUnavailable(reason)) });
            }
            (None, _) => self.barriers.push(BarrierWaiter { token: None, answer }),
            (Some(control), _) => {
                let token = request_barrier(control.as_ref(), &mut self.next_token);
                self.barriers.push(BarrierWaiter { token: token.or(Some(0)), answer });
                if token.is_none() || self.standing.unwatched > 0 || message.rescan {
                    // Where nobody watches, the only proof is to look at everything.
                    let due = self.debouncer.flush();
                    self.take_due(due, ctx);
                    self.rescan(Rescan::Request, ctx);
                }
            }
        }
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(Refusal::NotRunning("the watcher was restarted".to_owned())))
        })
    }
}
