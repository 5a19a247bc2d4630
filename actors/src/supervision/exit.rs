//! What an actor and its supervisor share about one run of the actor, its *generation*.
//!
//! The actor holds an [`ExitHandle`]: through it the actor says why it ends before it calls `ctx.stop()`, hears
//! that it is asked to stop, and says what it is busy with. The supervisor holds the [`Leash`] of the same
//! generation: it asks for the stop, and if the leash is dropped the actor is stopped at once, so that nothing
//! outlives its supervisor. Works in flight are counted here, because a generation has only truly ended when
//! the last job it started has returned.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backupbot_core::progress::Progress;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::lock;
use super::policy::ExitReason;

/// The full name of a child: its supervisor's, a slash, its own; children of the topmost one have no slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(pub String);

impl ChildId {
    /// The id of the child `name` of this supervisor.
    pub fn child(&self, name: &str) -> ChildId {
        if self.0.is_empty() { ChildId(name.to_owned()) } else { ChildId(format!("{}/{name}", self.0)) }
    }

    /// Whether this is `ancestor` itself or stands somewhere below it.
    pub fn is_within(&self, ancestor: &ChildId) -> bool {
        match self.0.strip_prefix(&ancestor.0) {
            Some(rest) => ancestor.0.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "root" } else { &self.0 })
    }
}

/// How urgently a generation was asked to stop; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Not,
    Asked,
    Now,
}

#[derive(Default)]
struct Works {
    begun: u64,
    in_flight: Vec<(u64, String, Progress)>,
}

struct Shared {
    id: ChildId,
    generation: u64,
    reason: Mutex<Option<ExitReason>>,
    stop: watch::Sender<Stop>,
    stops_itself: AtomicBool,
    works: Mutex<Works>,
    /// Works and holds together: at zero, nothing of this generation runs outside its context.
    outstanding: watch::Sender<usize>,
    on_started: Box<dyn Fn(u64) + Send + Sync>,
}

/// An actor's side of its supervision; clones are the same thing.
#[derive(Clone)]
pub struct ExitHandle(Arc<Shared>);

impl fmt::Debug for ExitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.0.id, self.0.generation)
    }
}

impl ExitHandle {
    /// For the topmost actor of a tree, which nobody restarts.
    pub fn topmost() -> Self {
        Self::new(ChildId(String::new()), |_| ())
    }

    /// A fresh generation of `id`; `on_started` is called with its number once its actor has started.
    pub(crate) fn new(id: ChildId, on_started: impl Fn(u64) + Send + Sync + 'static) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Shared {
            id,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1,
            reason: Mutex::new(None),
            stop: watch::Sender::new(Stop::Not),
            stops_itself: AtomicBool::new(false),
            works: Mutex::default(),
            outstanding: watch::Sender::new(0),
            on_started: Box::new(on_started),
        }))
    }

    /// Whose run this is.
    pub fn id(&self) -> &ChildId {
        &self.0.id
    }

    /// The number of this run: unique in the process, larger than that of every run before it. Messages that
    /// may arrive late carry it, so that those of an old run can be told apart.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Says why the actor is about to call `ctx.stop()`; the first reason given counts.
    pub fn failed(&self, why: impl Into<String>) {
        self.give_reason(ExitReason::Failed(why.into()));
    }

    /// Says that the actor is about to stop because a part of it panicked.
    pub fn panicked(&self, message: impl Into<String>) {
        self.give_reason(ExitReason::Panicked(message.into()));
    }

    /// Says that the actor is about to stop because its work is done; it is not started again.
    pub fn finished(&self) {
        self.give_reason(ExitReason::Stopped);
    }

    fn give_reason(&self, reason: ExitReason) {
        lock(&self.0.reason).get_or_insert(reason);
    }

    /// The reason the context ended without a panic.
    pub(crate) fn reason(&self) -> ExitReason {
        if let Some(reason) = lock(&self.0.reason).take() {
            return reason;
        }
        if self.is_asked_to_stop() {
            return ExitReason::Stopped;
        }
        // A part of a backup that goes missing without a word is a failure, whatever it meant by it.
        ExitReason::Failed("it ended unasked and gave no reason".to_owned())
    }

    /// Completes when the supervisor asks for a stop. An actor that calls this, at the latest in `started`,
    /// stops itself when it is ready to; one that never does is stopped between two messages.
    pub fn stop_requested(&self) -> impl Future<Output = ()> + 'static {
        self.0.stops_itself.store(true, Ordering::Relaxed);
        self.stop_reaches(|stop, _| stop >= Stop::Asked)
    }

    /// Completes when the context has to be stopped from outside.
    pub(crate) fn must_stop(&self) -> impl Future<Output = ()> + 'static {
        self.stop_reaches(|stop, stops_itself| stop == Stop::Now || (stop == Stop::Asked && !stops_itself))
    }

    fn stop_reaches(&self, enough: fn(Stop, bool) -> bool) -> impl Future<Output = ()> + 'static {
        let shared = self.0.clone();
        async move {
            let mut stop = shared.stop.subscribe();
            // The sender lives in `shared`, so this can't fail.
            let _ = stop.wait_for(|stop| enough(*stop, shared.stops_itself.load(Ordering::Relaxed))).await;
        }
    }

    /// Whether a stop was asked for, or the supervisor has given this run up.
    pub fn is_asked_to_stop(&self) -> bool {
        *self.0.stop.borrow() >= Stop::Asked
    }

    /// Whether this run was given up or is stopped by force: it must not write any more.
    pub fn is_abandoned(&self) -> bool {
        *self.0.stop.borrow() == Stop::Now
    }

    fn request(&self, urgency: Stop) {
        self.0.stop.send_if_modified(|stop| {
            let more_urgent = urgency > *stop;
            *stop = urgency.max(*stop);
            more_urgent
        });
    }

    /// Says that the actor is busy with `name` until the guard is dropped: hang detection watches `progress`,
    /// a restart waits for the end, and giving this run up cancels it. Jobs do this by themselves; an actor
    /// that blocks its own thread does it around each blocking stretch.
    #[must_use = "the work counts as ended when the guard is dropped"]
    pub fn working(&self, name: impl Into<String>, progress: &Progress) -> WorkGuard {
        let key = {
            let mut works = lock(&self.0.works);
            works.begun += 1;
            let key = works.begun;
            works.in_flight.push((key, name.into(), progress.clone()));
            key
        };
        if self.is_abandoned() {
            progress.cancel();
        }
        WorkGuard { hold: self.hold(), key }
    }

    /// Keeps this generation from counting as ended, without being work of its own.
    pub(crate) fn hold(&self) -> Hold {
        self.0.outstanding.send_modify(|outstanding| *outstanding += 1);
        Hold(self.clone())
    }

    /// Completes when no work of this generation is left.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + 'static {
        let shared = self.0.clone();
        async move {
            let mut outstanding = shared.outstanding.subscribe();
            let _ = outstanding.wait_for(|outstanding| *outstanding == 0).await;
        }
    }

    /// Asks every work in flight to stop.
    pub(crate) fn cancel_works(&self) {
        for (_, _, progress) in &lock(&self.0.works).in_flight {
            progress.cancel();
        }
    }

    /// Whether something is in flight, and a number that stands still only if nothing moves.
    pub fn probe(&self) -> (bool, u64) {
        let works = lock(&self.0.works);
        let steps = works.in_flight.iter().map(|(_, _, progress)| progress.ticks());
        // Ended works take their ticks along, so what was begun must outweigh them.
        (!works.in_flight.is_empty(), steps.fold(works.begun << 32, u64::wrapping_add))
    }

    /// The names of the works in flight, for a person.
    pub(crate) fn busy_with(&self) -> String {
        let works = lock(&self.0.works);
        let names: Vec<&str> = works.in_flight.iter().map(|(_, name, _)| name.as_str()).collect();
        if names.is_empty() { "its own work".to_owned() } else { names.join(", ") }
    }

    pub(crate) fn mark_started(&self) {
        (self.0.on_started)(self.0.generation);
    }
}

/// Ends a work when dropped; see [`ExitHandle::working`].
#[derive(Debug)]
pub struct WorkGuard {
    hold: Hold,
    key: u64,
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        lock(&self.hold.0.0.works).in_flight.retain(|(key, _, _)| *key != self.key);
    }
}

/// See [`ExitHandle::hold`].
#[derive(Debug)]
pub(crate) struct Hold(ExitHandle);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.outstanding.send_modify(|outstanding| *outstanding = outstanding.saturating_sub(1));
    }
}

/// The supervisor's side: who drops it stops the actor at once.
#[derive(Debug)]
pub struct Leash(ExitHandle);

impl Leash {
    pub(crate) fn new(exit: &ExitHandle) -> Self {
        Self(exit.clone())
    }

    /// The other side of this leash.
    pub fn exit(&self) -> &ExitHandle {
        &self.0
    }

    /// Asks the actor to stop when it can.
    pub fn ask_to_stop(&self) {
        self.0.request(Stop::Asked);
    }

    /// Cancels what the actor is doing and stops it as soon as it yields; nobody needs to wait for that.
    pub fn abandon(&self) {
        self.0.request(Stop::Now);
        self.0.cancel_works();
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(id: &str) -> ExitHandle {
        ExitHandle::new(ChildId(id.into()), |_| ())
    }

    #[test]
    fn a_child_id_knows_its_ancestors_by_whole_names() {
        let documents = ChildId("documents".into());
        assert!(documents.child("committer").is_within(&documents));
        assert!(documents.is_within(&documents));
        assert!(documents.is_within(&ChildId(String::new())));
        assert!(!ChildId("documents2".into()).is_within(&documents));
    }

    #[test]
    fn every_run_has_a_larger_generation_whoever_runs() {
        assert!(handle("a").generation() < handle("a").generation());
    }

    #[test]
    fn an_end_without_request_or_reason_is_a_failure() {
        let silent = handle("a");
        assert!(matches!(silent.reason(), ExitReason::Failed(_)));

        let asked = handle("a");
        Leash::new(&asked).ask_to_stop();
        assert_eq!(asked.reason(), ExitReason::Stopped);

        let explained = handle("a");
        explained.failed("first");
        explained.failed("second");
        assert_eq!(explained.reason(), ExitReason::Failed("first".into()));
    }

    #[test]
    fn the_probe_moves_with_every_step_and_every_new_work() {
        let exit = handle("a");
        assert!(!exit.probe().0);
        let progress = Progress::new();
        let work = exit.working("commit", &progress);
        let (busy, before) = exit.probe();
        assert!(busy);
        assert_eq!(exit.busy_with(), "commit");
        progress.tick();
        assert_ne!(exit.probe().1, before);
        drop(work);
        assert!(!exit.probe().0);
    }

    #[test]
    fn giving_a_run_up_cancels_what_runs_and_what_comes_later() {
        let exit = handle("a");
        let leash = Leash::new(&exit);
        let running = Progress::new();
        let _work = exit.working("commit", &running);
        drop(leash);
        assert!(running.is_cancelled() && exit.is_abandoned());
        let late = Progress::new();
        let _late_work = exit.working("push", &late);
        assert!(late.is_cancelled());
    }

    #[actix::test]
    async fn a_run_is_drained_when_the_last_work_is_over() {
        let exit = handle("a");
        exit.drained().await;
        let work = exit.working("commit", &Progress::new());
        let drained = actix::spawn(exit.drained());
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(work);
        drained.await.unwrap();
    }
}
