//! Jobs of an actor that nobody supervises.

use std::sync::mpsc;
use std::time::Duration;

use actix::{Handler, Message};
use backupbot_core::error::{Error, Kind};
use tokio::sync::oneshot;

use super::*;
use crate::supervision::{ExitReason, Spawned, spawn};

struct Counter {
    job: JobSlot,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

type Job = Box<dyn FnOnce(&Progress) -> Result<u32> + Send>;

/// Starts a job and tells of its outcome; `goes_on` after a panic.
#[derive(Message)]
#[rtype(result = "std::result::Result<(), Busy>")]
struct Run {
    job: Job,
    tell: oneshot::Sender<(JobOutcome<u32>, bool)>,
    goes_on: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct CancelIt;

impl Handler<Run> for Counter {
    type Result = std::result::Result<(), Busy>;

    fn handle(&mut self, run: Run, ctx: &mut Context<Self>) -> Self::Result {
        let Run { job, tell, goes_on } = run;
        if goes_on {
            return self.job.start_catching(ctx, "counting", job, |actor, outcome, _| {
                let _ = tell.send((outcome, actor.job.is_busy()));
            });
        }
        self.job.start(ctx, "counting", job, |actor, result, _| {
            let _ = tell.send((JobOutcome::Finished(result), actor.job.is_busy()));
        })
    }
}

impl Handler<CancelIt> for Counter {
    type Result = ();

    fn handle(&mut self, _: CancelIt, _: &mut Context<Self>) {
        self.job.cancel();
    }
}

fn counter() -> Spawned<Counter> {
    spawn(ExitHandle::topmost(), |exit| Counter { job: JobSlot::new(&exit) })
}

fn run(
    job: impl FnOnce(&Progress) -> Result<u32> + Send + 'static,
) -> (Run, oneshot::Receiver<(JobOutcome<u32>, bool)>) {
    let (tell, told) = oneshot::channel();
    (Run { job: Box::new(job), tell, goes_on: false }, told)
}

fn until_cancelled(progress: &Progress) -> Result<u32> {
    loop {
        progress.check()?;
        std::thread::yield_now();
    }
}

#[actix::test]
async fn the_outcome_of_a_job_is_delivered_to_an_actor_that_is_free_again() {
    let counter = counter();
    for _ in 0..2 {
        let (order, told) = run(|progress| {
            progress.check()?;
            Ok(7)
        });
        counter.address.send(order).await.unwrap().unwrap();
        let (outcome, is_busy) = told.await.unwrap();
        assert!(matches!(outcome, JobOutcome::Finished(Ok(7))), "{outcome:?}");
        assert!(!is_busy);
    }
    let (order, told) = run(|_| Err(Error::new(Kind::DiskFull, "no room")));
    counter.address.send(order).await.unwrap().unwrap();
    let (outcome, _) = told.await.unwrap();
    assert!(matches!(outcome, JobOutcome::Finished(Err(error)) if error.kind() == Kind::DiskFull));
}

#[actix::test]
async fn a_second_job_is_refused_while_one_is_in_flight() {
    let counter = counter();
    let (release, held) = mpsc::channel();
    let (first, first_told) = run(move |_| {
        let _ = held.recv();
        Ok(1)
    });
    counter.address.send(first).await.unwrap().unwrap();
    let (second, second_told) = run(|_| Ok(2));
    assert_eq!(counter.address.send(second).await.unwrap(), Err(Busy));
    assert!(second_told.await.is_err(), "never called");
    assert!(counter.leash.exit().probe().0);
    release.send(()).unwrap();
    assert!(matches!(first_told.await.unwrap().0, JobOutcome::Finished(Ok(1))));
    assert!(!counter.leash.exit().probe().0);
}

#[actix::test]
async fn a_cancelled_job_comes_back_as_such() {
    let counter = counter();
    let (order, told) = run(until_cancelled);
    counter.address.send(order).await.unwrap().unwrap();
    counter.address.send(CancelIt).await.unwrap();
    let (outcome, _) = told.await.unwrap();
    assert!(matches!(outcome, JobOutcome::Finished(Err(error)) if error.kind() == Kind::Cancelled));
}

#[actix::test]
async fn a_panicking_job_takes_its_actor_down() {
    let counter = counter();
    let (order, told) = run(|_| panic!("cannot count"));
    counter.address.send(order).await.unwrap().unwrap();
    assert!(told.await.is_err(), "never called");
    let reason = counter.ended.await;
    assert!(
        matches!(&reason, ExitReason::Panicked(text) if text.starts_with("in counting: cannot count")),
        "{reason}"
    );
}

#[actix::test]
async fn an_actor_may_go_on_after_its_job_panicked() {
    let counter = counter();
    let (order, told) = run(|_| panic!("cannot count"));
    counter.address.send(Run { goes_on: true, ..order }).await.unwrap().unwrap();
    let (outcome, is_busy) = told.await.unwrap();
    assert!(matches!(outcome, JobOutcome::Panicked(text) if text.starts_with("cannot count")));
    assert!(!is_busy && counter.address.connected());
}

#[actix::test]
async fn the_end_of_the_actor_cancels_the_job_and_waits_for_it() {
    let counter = counter();
    let (order, told) = run(until_cancelled);
    counter.address.send(order).await.unwrap().unwrap();
    assert_eq!(counter.stop(Duration::from_secs(60)).await, Ok(ExitReason::Stopped));
    assert!(told.await.is_err(), "nothing is delivered after the end");
}
