//! One blocking core function at a time, for an actor: started on the blocking pool, watched, cancelled.
//!
//! A handler never blocks; what blocks is a *job*, a plain function that is given a [`Progress`] and returns a
//! [`Result`]. An actor keeps one [`JobSlot`], so it has at most one job in flight. The outcome comes back as
//! a call on the actor, never after the actor's end. A job that panics takes its actor down with it, so that
//! the supervisor builds both anew. Dropping the slot, as every end of the actor does, cancels the job; until
//! it has returned or was given up, the supervisor does not start the next run.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context};
use backupbot_core::error::Result;
use backupbot_core::memory;
use backupbot_core::progress::Progress;

use crate::supervision::{ExitHandle, describe_panic};

/// Steps of its progress from which on a job counts as large.
const LARGE_JOB_TICKS: u64 = 2000;

/// How a job came back.
#[derive(Debug)]
pub enum JobOutcome<T> {
    /// It returned this.
    Finished(Result<T>),
    /// It panicked with this message.
    Panicked(String),
}

/// The slot already has a job in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job is already in flight")
    }
}

impl std::error::Error for Busy {}

/// Room for one job.
#[derive(Debug)]
pub struct JobSlot {
    exit: ExitHandle,
    is_busy: Rc<Cell<bool>>,
    /// That of the present or last job.
    progress: Progress,
}

impl JobSlot {
    /// An empty one; `exit` is the handle of the actor that keeps it.
    pub fn new(exit: &ExitHandle) -> Self {
        Self { exit: exit.clone(), is_busy: Rc::default(), progress: Progress::new() }
    }

    /// Whether a job is in flight. Already false when its outcome is delivered.
    pub fn is_busy(&self) -> bool {
        self.is_busy.get()
    }

    /// Asks the job in flight to stop; it still comes back, with the error that cancelling leads to.
    pub fn cancel(&self) {
        if self.is_busy() {
            self.progress.cancel();
        }
    }

    /// The progress of the job in flight.
    pub fn progress(&self) -> Option<&Progress> {
        self.is_busy().then_some(&self.progress)
    }

    /// Whether a job is in flight, and a number that stands still only if the job does.
    pub fn probe(&self) -> (bool, u64) {
        (self.is_busy(), self.progress.ticks())
    }

    /// Runs `work` on the blocking pool, then `done` on the actor with what it returned. If it panics, the
    /// actor ends as panicked and `done` is not called.
    pub fn start<A, T, W, D>(
        &mut self,
        ctx: &mut Context<A>,
        name: &str,
        work: W,
        done: D,
    ) -> std::result::Result<(), Busy>
    where
        A: Actor<Context = Context<A>>,
        T: Send + 'static,
        W: FnOnce(&Progress) -> Result<T> + Send + 'static,
        D: FnOnce(&mut A, Result<T>, &mut Context<A>) + 'static,
    {
        let exit = self.exit.clone();
        let job = name.to_owned();
        self.start_catching(ctx, name, work, move |actor, outcome, ctx| match outcome {
            JobOutcome::Finished(result) => done(actor, result, ctx),
            JobOutcome::Panicked(message) => {
                exit.panicked(format!("in {job}: {message}"));
                ctx.stop();
            }
        })
    }

    /// Like [`JobSlot::start`], but `done` is also told of a panic and the actor goes on.
    pub fn start_catching<A, T, W, D>(
        &mut self,
        ctx: &mut Context<A>,
        name: &str,
        work: W,
        done: D,
    ) -> std::result::Result<(), Busy>
    where
        A: Actor<Context = Context<A>>,
        T: Send + 'static,
        W: FnOnce(&Progress) -> Result<T> + Send + 'static,
        D: FnOnce(&mut A, JobOutcome<T>, &mut Context<A>) + 'static,
    {
        if self.is_busy.replace(true) {
            return Err(Busy);
        }
        self.progress = Progress::new();
        let progress = self.progress.clone();
        // Travels with the work, so that it ends when the work does, wherever the actor is by then.
        let in_flight = self.exit.working(name, &progress);
        let job = tokio::task::spawn_blocking(move || {
            let _in_flight = in_flight;
            labour(work, &progress)
        });
        let is_busy = self.is_busy.clone();
        let deliver = wrap_future::<_, A>(job).map(move |joined, actor, ctx| {
            is_busy.set(false);
            let outcome = outcome_of(joined);
            done(actor, outcome, ctx);
        });
        ctx.spawn(deliver);
        Ok(())
    }
}

/// Runs `work` on the blocking pool as a part of a longer sequence of steps; the sequence must have no other job
/// in flight. Dropping the future cancels the job.
pub async fn run<T, W>(exit: &ExitHandle, name: &str, work: W) -> JobOutcome<T>
where
    T: Send + 'static,
    W: FnOnce(&Progress) -> Result<T> + Send + 'static,
{
    let progress = Progress::new();
    let in_flight = exit.working(name, &progress);
    let cancel = CancelOnDrop(progress.clone());
    let job = tokio::task::spawn_blocking(move || {
        let _in_flight = in_flight;
        labour(work, &progress)
    });
    let joined = job.await;
    drop(cancel);
    outcome_of(joined)
}

/// What a large piece of work needed is not kept for a day on which nothing happens.
fn labour<T>(work: impl FnOnce(&Progress) -> Result<T>, progress: &Progress) -> Result<T> {
    let result = work(progress);
    if progress.ticks() >= LARGE_JOB_TICKS {
        memory::give_back();
    }
    result
}

struct CancelOnDrop(Progress);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn outcome_of<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> JobOutcome<T> {
    match joined {
        Ok(result) => JobOutcome::Finished(result),
        Err(error) => {
            let id = error.id();
            match error.try_into_panic() {
                Ok(payload) => JobOutcome::Panicked(describe_panic(payload.as_ref(), Some(id))),
                // Nobody aborts jobs but a runtime that goes down.
                Err(_) => JobOutcome::Finished(Err(backupbot_core::error::Error::cancelled())),
            }
        }
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests;
