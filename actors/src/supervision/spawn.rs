//! The one file that starts actors: here, or on a thread of their own, and in both cases learns how they end.
//!
//! `Context::run` hands the actor to the runtime and forgets it; instead the context's future is made by hand,
//! wrapped so that it can be stopped from outside, and spawned as a task whose end tells a panic from a stop.
//! In goes the [`ExitHandle`] of a generation and a function that builds the actor, out comes a [`Spawned`]:
//! the address, the leash, and a future of the [`ExitReason`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::dev::channel::channel;
use actix::{Actor, ActorContext, Addr, Arbiter, Context};
use backupbot_core::progress::Progress;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::exit::{ExitHandle, Leash};
use super::place::Place;
use super::policy::ExitReason;

/// Completes when the actor's context is gone.
pub type Ended = Pin<Box<dyn Future<Output = ExitReason>>>;

/// actix' own default.
const MAILBOX_CAPACITY: usize = 16;

/// A started actor. It must be kept: dropping the leash stops the actor.
#[must_use = "dropping it stops the actor at once"]
pub struct Spawned<A: Actor> {
    /// Where to send messages.
    pub address: Addr<A>,
    /// The number of this run.
    pub generation: u64,
    /// Asks for a stop; stops when dropped.
    pub leash: Leash,
    /// How the run ends.
    pub ended: Ended,
}

impl<A: Actor> Spawned<A> {
    /// Makes this the run that is reached through `place`.
    pub fn at(self, place: &Place<A>) -> Self {
        place.take_by(self.address.clone());
        self
    }

    /// Asks the actor to stop and waits for it and its works, `within` at most; then it is cancelled and left
    /// to itself.
    pub async fn stop(self, within: Duration) -> Result<ExitReason, StillRunning> {
        let Self { leash, ended, address, .. } = self;
        leash.ask_to_stop();
        let drained = leash.exit().drained();
        let ended_and_drained = async {
            let reason = ended.await;
            drained.await;
            reason
        };
        let stopped = tokio::time::timeout(within, ended_and_drained).await;
        drop(address);
        stopped.map_err(|_| StillRunning { busy_with: leash.exit().busy_with() })
    }
}

/// An actor that did not stop in time and was left to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillRunning {
    /// What it would not stop doing.
    pub busy_with: String,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still busy with {}", self.busy_with)
    }
}

impl std::error::Error for StillRunning {}

/// Starts the actor that `build` makes on the present thread. A panic in `build` is the caller's.
pub fn spawn<A>(exit: ExitHandle, build: impl FnOnce(ExitHandle) -> A) -> Spawned<A>
where
    A: Actor<Context = Context<A>>,
{
    let actor = build(exit.clone());
    let leashed = Leashed::new(Context::new().into_future(actor), exit.clone());
    let address = leashed.actor.address();
    let task = actix::spawn(leashed);
    let leash = Leash::new(&exit);
    let generation = exit.generation();
    let ended: Ended = Box::pin(async move { reason_of(task.await, &exit) });
    Spawned { address, generation, leash, ended }
}

/// Starts the actor that `build` makes on a new thread with an event loop of its own, which the actor may
/// block. `build` runs there too, may block, and counts as work: if it never returns the actor is hung.
///
/// Fails if the operating system gives no thread. Must be called from within an actix system.
pub fn spawn_on_own_thread<A, B>(exit: ExitHandle, build: B) -> Result<Spawned<A>, String>
where
    A: Actor<Context = Context<A>>,
    B: FnOnce(ExitHandle) -> Result<A, String> + Send + 'static,
{
    let arbiter =
        Arbiter::try_new().map_err(|error| format!("cannot start a thread for {}: {error}", exit.id()))?;
    let (sender, receiver) = channel(MAILBOX_CAPACITY);
    let (report_end, end_reported) = oneshot::channel();

    let starting = exit.working("starting", &Progress::new());
    let inside = exit.clone();
    arbiter.spawn(async move {
        let run = inside.clone();
        // A task of its own, so that the one that reports outlives a panic.
        let task = actix::spawn(async move {
            match build(run.clone()) {
                Ok(actor) => {
                    let leashed = Leashed::new(Context::with_receiver(receiver).into_future(actor), run);
                    drop(starting);
                    leashed.await;
                }
                Err(why) => run.failed(why),
            }
        });
        let reason = reason_of(task.await, &inside);
        // Nobody listens to a run that was given up.
        let _ = report_end.send(reason);
        Arbiter::current().stop();
    });

    let leash = Leash::new(&exit);
    let generation = exit.generation();
    let ended: Ended = Box::pin(async move {
        let lost = || ExitReason::Panicked(format!("the thread of {} ended without a word", exit.id()));
        end_reported.await.unwrap_or_else(|_| lost())
    });
    Ok(Spawned { address: Addr::new(sender), generation, leash, ended })
}

fn reason_of(task_end: Result<(), JoinError>, exit: &ExitHandle) -> ExitReason {
    let Err(error) = task_end else { return exit.reason() };
    let id = error.id();
    match error.try_into_panic() {
        Ok(payload) => ExitReason::Panicked(super::describe_panic(payload.as_ref(), Some(id))),
        // Nobody aborts these tasks but a runtime that goes down.
        Err(_) => ExitReason::Stopped,
    }
}

/// An actor's context that its leash can stop.
struct Leashed<A: Actor<Context = Context<A>>> {
    actor: ContextFut<A, Context<A>>,
    exit: ExitHandle,
    /// `None` once it has completed.
    must_stop: Option<Pin<Box<dyn Future<Output = ()>>>>,
    is_started: bool,
}

impl<A: Actor<Context = Context<A>>> Leashed<A> {
    fn new(actor: ContextFut<A, Context<A>>, exit: ExitHandle) -> Self {
        let must_stop: Pin<Box<dyn Future<Output = ()>>> = Box::pin(exit.must_stop());
        Self { actor, exit, must_stop: Some(must_stop), is_started: false }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Leashed<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        // The actor first: in `started` it may take stopping into its own hands.
        if Pin::new(&mut self.actor).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.is_started {
            self.is_started = true;
            self.exit.mark_started();
        }
        let Some(must_stop) = &mut self.must_stop else { return Poll::Pending };
        if must_stop.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.must_stop = None;
        self.actor.ctx().stop();
        Pin::new(&mut self.actor).poll(cx)
    }
}

#[cfg(test)]
mod tests;
