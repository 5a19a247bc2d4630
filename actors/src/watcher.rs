//! The watcher of one root: events come in from its thread, settle down, and become rows of the queue.
//!
//! A thread of its own waits on the kernel and hands hints over in order. They rest in the debouncer until a
//! path is quiet or has waited long enough, and are then queued durably, in batches. Whatever could not be
//! queued stays here and is tried again. Besides, the whole root is queued at the start, after lost events,
//! when the root comes back, and every `rescan`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use backupbot_core::config as model;
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::path::RelPath;
use backupbot_core::progress::Progress;
use backupbot_core::scan::{Counts, WatchedRoot};
use backupbot_core::store::changes::Reach;
use backupbot_core::watch::debounce::Debouncer;
use backupbot_core::watch::{Backend, Control, Hint};
use slog::{Logger, info, o, warn};
use tokio::sync::{mpsc, oneshot};

use crate::board::{RootState, RootStatus, SkippedFile};
use crate::messages::{BarrierReached, Enqueue, Refusal, RootSeen};
use crate::queue::Queue;
use crate::seat::RepositorySeat;
use crate::supervision::ExitHandle;

/// How long the thread waits on the kernel before it looks around.
const WAIT: Duration = Duration::from_secs(5);
/// How often a root that is gone is looked for, and a queue that failed is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Hint batches between the thread and the actor; beyond them the thread waits and the kernel's queue fills.
const HANDOVER: usize = 64;
/// Failed attempts to queue, in a row, after which nobody is kept waiting for the next.
const PATIENCE: u32 = 3;
/// Unqueued paths kept; beyond them they become one deep row.
const MOST_UNSENT: usize = 50_000;

/// What the thread tells.
enum Told {
    Started(&'static str, Arc<dyn Control>),
    Hints(Vec<Hint>),
    /// Why some directories are not watched, if so, and how many.
    Limited(Option<String>, usize),
    Ended(Option<String>),
}

struct BarrierWaiter {
    token: Option<u64>,
    answer: oneshot::Sender<std::result::Result<u64, Refusal>>,
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
    /// Directories that no event comes from.
    unwatched: usize,
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
        };
        Self {
            debouncer: Debouncer::new(settings.debounce.quiet, settings.debounce.max),
            seat,
            settings,
            exit,
            queue,
            log,
            unsent: Vec::new(),
            sending: false,
            send_failures: 0,
            sent_seq: 0,
            control: None,
            stop_thread: Arc::default(),
            resync: Arc::default(),
            next_token: 1,
            barriers: Vec::new(),
            alarm: None,
            unwatched: 0,
            status,
            counted: Counts::default(),
        }
    }

    fn publish(&self) {
        self.seat.common.board.publish_root(&self.seat.settings.name, self.status.clone());
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

    fn thread_started(&mut self, backend: &'static str, control: Arc<dyn Control>, ctx: &mut Context<Self>) {
        self.status.backend = backend.to_owned();
        for waiter in &mut self.barriers {
            // The whole root is queued below: that proves as much as a sentinel does.
            waiter.token = request_barrier(control.as_ref(), &mut self.next_token).or(Some(0));
        }
        self.control = Some(control);
        self.set_state(RootState::Scanning, None);
        self.counted = Counts::default();
        self.take_due(vec![Hint::Deep(RelPath::root())], ctx);
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
                    self.take_due(vec![Hint::Deep(RelPath::root())], ctx);
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
    fn rescan(&mut self, ctx: &mut Context<Self>) {
        self.resync.store(true, Ordering::Relaxed);
        self.counted = Counts::default();
        self.take_due(vec![Hint::Deep(RelPath::root())], ctx);
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
        if self.unsent.len() > MOST_UNSENT {
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
                    actor.sent_seq = seq;
                    actor.send_failures = 0;
                    actor.seat.queued.nudge();
                    actor.send(ctx);
                }
                Ok(Err(error)) => {
                    warn!(actor.log, "changes cannot be queued now; they are kept here"; "error" => %error,
                          "paths" => paths.len());
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
    fn ignore_problem(&self) -> Option<String> {
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
                actor.rescan(ctx);
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
            Told::Started(backend, control) => self.thread_started(backend, control, ctx),
            Told::Hints(hints) => self.hinted(hints, ctx),
            Told::Limited(limited, unwatched) => {
                self.unwatched = unwatched;
                if self.status.state != RootState::Unavailable && self.status.reason != limited {
                    if let Some(limited) = &limited {
                        warn!(self.log, "part of the root is only compared at rescans"; "reason" => limited);
                    }
                    self.status.reason = limited;
                    self.publish();
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
    type Result = ResponseFuture<std::result::Result<u64, Refusal>>;

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
                if token.is_none() || self.unwatched > 0 || message.rescan {
                    // Where nobody watches, the only proof is to look at everything.
                    let due = self.debouncer.flush();
                    self.take_due(due, ctx);
                    self.rescan(ctx);
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

impl Handler<RootSeen> for Watcher {
    type Result = ();

    fn handle(&mut self, seen: RootSeen, _: &mut Self::Context) {
        if let Some((count, listed)) = seen.skipped {
            let listed: Vec<SkippedFile> = listed;
            self.status.skipped = count;
            self.status.skipped_files = listed;
        }
        if let Some((counts, is_complete)) = seen.walk {
            self.counted.add(&counts);
            if is_complete {
                self.status.files = self.counted.files;
                self.status.excluded_by_rules = self.counted.excluded_by_rules;
                self.status.excluded_by_system = self.counted.excluded_by_system;
                self.status.excluded_by_file_system = self.counted.excluded_by_file_system;
                self.counted = Counts::default();
            }
            if is_complete && self.control.is_some() {
                let problem = self.ignore_problem();
                self.set_state(RootState::Watching, problem);
            }
        }
        match seen.unavailable {
            Some(reason) => self.set_state(RootState::Unavailable, Some(reason)),
            None if self.status.state == RootState::Unavailable && self.control.is_some() => {
                self.set_state(RootState::Watching, None);
            }
            None => self.publish(),
        }
    }
}

/// The thread that waits on the kernel.
struct WatchThread {
    seat: Arc<RepositorySeat>,
    index: usize,
    stop: Arc<AtomicBool>,
    resync: Arc<AtomicBool>,
    tell: mpsc::Sender<Told>,
}

impl WatchThread {
    fn run(self, progress: &Progress, working: crate::supervision::WorkGuard) {
        let ended = match self.open(progress) {
            Ok(mut backend) => {
                let started = Told::Started(backend.name(), backend.control());
                drop(working);
                if self.tell.blocking_send(started).is_err() {
                    return;
                }
                self.watch(backend.as_mut(), progress)
            }
            Err(error) => Some(error.to_string()),
        };
        let _ = self.tell.blocking_send(Told::Ended(ended));
    }

    fn open(&self, progress: &Progress) -> Result<Box<dyn Backend>> {
        let root = &self.seat.roots[self.index];
        let files = self.seat.common.store.reader().files(&self.seat.settings.name)?;
        // Opened only to see that it is what it was: a descriptor that is kept would hide its deletion.
        drop(root.open(&files)?);
        root.rules.forget(&RelPath::root());
        let sentinels = self.seat.common.state_dir.join("sentinels");
        let own = sentinels.join(format!("{}--{}", self.seat.settings.name, root.name));
        std::fs::create_dir_all(&own).map_err(|error| Error::io("create", &own, error))?;
        let mut backend = open_backend(root, &self.seat.settings.roots[self.index], &own)?;
        backend.start(progress)?;
        Ok(backend)
    }

    /// Hands hints over until the root is gone or the actor is; returns why, if there is something to say.
    fn watch(&self, backend: &mut dyn Backend, progress: &Progress) -> Option<String> {
        let mut hints = Vec::new();
        let mut limited = (None, 0);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if self.resync.swap(false, Ordering::Relaxed)
                && let Err(error) = backend.resync(progress)
                && error.kind() == Kind::RootUnavailable
            {
                return Some(error.to_string());
            }
            if let Err(error) = backend.wait(WAIT, &mut hints) {
                // Events may have been lost with the error: look at everything.
                hints.push(Hint::Overflow);
                if error.kind() == Kind::RootUnavailable {
                    return Some(error.to_string());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let stats = backend.stats();
            let now_limited = (stats.limited, stats.unwatched);
            if now_limited != limited {
                limited = now_limited.clone();
                self.tell.blocking_send(Told::Limited(now_limited.0, now_limited.1)).ok()?;
            }
            if hints.is_empty() {
                continue;
            }
            let is_gone = hints.contains(&Hint::RootGone);
            self.tell.blocking_send(Told::Hints(std::mem::take(&mut hints))).ok()?;
            if is_gone {
                return None;
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn open_backend(root: &WatchedRoot, settings: &model::Root, sentinels: &Path) -> Result<Box<dyn Backend>> {
    use backupbot_core::watch::inotify::InotifyBackend;
    let backend = InotifyBackend::new(&root.path, root.rules.clone(), sentinels, settings.one_file_system)?;
    Ok(Box::new(backend))
}

#[cfg(not(target_os = "linux"))]
fn open_backend(root: &WatchedRoot, settings: &model::Root, _: &Path) -> Result<Box<dyn Backend>> {
    backupbot_core::watch::kqueue::raise_limit();
    let backend = backupbot_core::watch::kqueue::KqueueBackend::new(
        &root.path,
        root.rules.clone(),
        settings.one_file_system,
    )?;
    Ok(Box::new(backend))
}
