//! A supervisor and its children, mostly in virtual time: the clock moves when everybody waits.

mod nested;
mod stalls;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use actix::{ActorContext, ActorFutureExt, Addr, AsyncContext, Handler, Message, WrapFuture};
use backupbot_core::error::Result;
use backupbot_core::progress::Progress;

use super::*;
use crate::board::ChildStatus;
use crate::job::JobSlot;
use crate::supervision::{
    Backoff, ChildId, ChildStart, ExitHandle, OnExceeded, Place, RestartPolicy, Spawned, lock, spawn,
    spawn_on_own_thread,
};

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order: `+name` a start, `-name` an end, `?name` a wish to stop.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn add(&self, mark: char, name: &str) {
        lock(&self.0).push(format!("{mark}{name}"));
    }

    fn take(&self) -> String {
        std::mem::take(&mut *lock(&self.0)).join(" ")
    }
}

struct Worker {
    exit: ExitHandle,
    name: &'static str,
    job: JobSlot,
    trace: Trace,
    received: u32,
    stop_takes: Duration,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.trace.add('-', self.name);
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.trace.add('+', self.name);
        if self.stop_takes.is_zero() {
            return;
        }
        let requested = self.exit.stop_requested().into_actor(self);
        ctx.spawn(requested.map(|(), worker, ctx| {
            worker.trace.add('?', worker.name);
            ctx.run_later(worker.stop_takes, |_, ctx| ctx.stop());
        }));
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct CountMessages;

type Job = Box<dyn FnOnce(&Progress) -> Result<()> + Send>;

type MakeOrder = fn() -> Order;

#[derive(Message)]
#[rtype(result = "()")]
enum Order {
    PanicInHandler,
    PanicInFuture,
    GiveUp,
    Finish,
    Run(Job),
    /// In the handler, so that the actor's thread blocks.
    Block(mpsc::Receiver<()>),
}

impl Handler<CountMessages> for Worker {
    type Result = u32;

    fn handle(&mut self, _: CountMessages, _: &mut Context<Self>) -> u32 {
        self.received += 1;
        self.received
    }
}

impl Handler<Order> for Worker {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Context<Self>) {
        match order {
            Order::PanicInHandler => panic!("in a handler"),
            Order::PanicInFuture => {
                ctx.spawn(async { panic!("in a future") }.into_actor(self));
            }
            Order::GiveUp => {
                self.exit.failed("gave up");
                ctx.stop();
            }
            Order::Finish => {
                self.exit.finished();
                ctx.stop();
            }
            Order::Run(job) => self.job.start(ctx, "work", job, |_, _, _| ()).unwrap(),
            Order::Block(until) => {
                let _work = self.exit.working("blocking", &Progress::new());
                let _ = until.recv();
            }
        }
    }
}

struct Boss {
    children: Children,
    started: Vec<String>,
}

impl Actor for Boss {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.children.attach(ctx);
    }
}

impl Supervising for Boss {
    fn children(&mut self) -> &mut Children {
        &mut self.children
    }

    fn child_started(&mut self, name: &str, _: &mut Context<Self>) {
        self.started.push(name.to_owned());
    }
}

/// Does something to the boss in its own context.
#[derive(Message)]
#[rtype(result = "()")]
struct Do(Box<dyn FnOnce(&mut Boss) + Send>);

impl Handler<Do> for Boss {
    type Result = ();

    fn handle(&mut self, order: Do, _: &mut Context<Self>) {
        (order.0)(self);
    }
}

/// A boss without children yet, and what is needed to make some and see what becomes of them.
struct Scene {
    boss: Spawned<Boss>,
    board: Board,
    trace: Trace,
}

impl Scene {
    fn new() -> Self {
        let board = Board::new();
        let kept = board.clone();
        let boss = spawn(ExitHandle::topmost(), move |exit| boss(&exit, &kept));
        Self { boss, board, trace: Trace::default() }
    }

    async fn with_boss(&self, act: impl FnOnce(&mut Boss) + Send + 'static) {
        self.boss.address.send(Do(Box::new(act))).await.unwrap();
    }

    async fn add(&self, spec: impl FnOnce() -> ChildSpec + Send + 'static) {
        self.with_boss(|boss| boss.children.add(spec())).await;
    }

    /// Adds a worker with a restart delay of a second; the place is where it can be reached.
    async fn add_worker(
        &self,
        name: &'static str,
        adapt: impl FnOnce(ChildSpec) -> ChildSpec + Send + 'static,
    ) -> Place<Worker> {
        let place = Place::new();
        let (trace, seat) = (self.trace.clone(), place.clone());
        self.add(move || adapt(worker(name, Duration::ZERO, trace, seat))).await;
        self.until_running(name).await;
        place
    }

    /// Waits, a day of virtual time at most, until the row of the child is as wanted.
    async fn until(&self, id: &str, wanted: impl Fn(&ChildStatus) -> bool) -> ChildStatus {
        let id = ChildId(id.to_owned());
        let waiting = self.board.wait_for(|board| board.child(&id).filter(&wanted));
        match tokio::time::timeout(24 * 3600 * SECOND, waiting).await {
            Ok(row) => row,
            Err(_) => panic!("{id} never came to that, it is {:?}", self.board.child(&id)),
        }
    }

    async fn until_running(&self, id: &str) -> ChildStatus {
        self.until(id, |row| row.state == ChildState::Running).await
    }

    async fn until_restarted(&self, id: &str, times: u64) -> ChildStatus {
        self.until(id, |row| row.state == ChildState::Running && row.restarts == times).await
    }
}

fn boss(exit: &ExitHandle, board: &Board) -> Boss {
    let log = Logger::root(slog::Discard, slog::o!());
    Boss { children: Children::new(exit, board, &log), started: Vec::new() }
}

fn worker(name: &'static str, stop_takes: Duration, trace: Trace, place: Place<Worker>) -> ChildSpec {
    let factory = move |exit| {
        let trace = trace.clone();
        let build = |exit: ExitHandle| {
            let job = JobSlot::new(&exit);
            Worker { exit, name, job, trace, received: 0, stop_takes }
        };
        Ok(spawn(exit, build).at(&place))
    };
    ChildSpec::new("worker", name, factory).policy(policy(5, OnExceeded::Escalate))
}

fn policy(intensity: u32, on_exceeded: OnExceeded) -> RestartPolicy {
    let backoff = Backoff { first: SECOND, factor: 1.0, max: SECOND, jitter: 0.0 };
    RestartPolicy { intensity, window: 60 * SECOND, backoff, on_exceeded }
}

fn parking(spec: ChildSpec) -> ChildSpec {
    spec.policy(policy(1, OnExceeded::Park { cool_off: 300 * SECOND }))
}

fn present(place: &Place<Worker>) -> Addr<Worker> {
    place.address().unwrap()
}

/// A job that stands still until it is released, whatever it is asked.
fn deaf_job() -> (Job, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel::<()>();
    let job = move |_: &Progress| {
        let _ = held.recv();
        Ok(())
    };
    (Box::new(job), release)
}

/// Lets everything happen that can happen without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn whatever_a_child_panics_in_it_comes_back_with_fresh_state_and_mailbox() {
    tokio::time::pause();
    let orders: [(MakeOrder, &str); 4] = [
        (|| Order::PanicInHandler, "panicked: in a handler"),
        (|| Order::PanicInFuture, "panicked: in a future"),
        (|| Order::Run(Box::new(|_| panic!("in a job"))), "panicked: in work: in a job"),
        (|| Order::GiveUp, "failed: gave up"),
    ];
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec).await;
    for (times, (order, expected)) in (1..).zip(orders) {
        let old = present(&place);
        assert!(old.send(CountMessages).await.is_ok());
        old.do_send(order());
        // Either answered by the old run or lost with its mailbox: the next run must not count it.
        old.do_send(CountMessages);
        let row = scene.until_restarted("a", times).await;
        let reason = row.last_exit.unwrap().reason;
        assert!(reason.starts_with(expected), "{reason}");
        assert!(!old.connected());
        assert_eq!(present(&place).send(CountMessages).await, Ok(1), "fresh state");
    }
    assert_eq!(scene.board.restarts_by_role()["worker"], 4);
    scene.with_boss(|boss| assert_eq!(boss.started, ["a"; 5])).await;
}

#[actix::test]
async fn a_panic_in_started_is_followed_by_a_restart() {
    struct Unlucky(Arc<AtomicBool>);
    impl Actor for Unlucky {
        type Context = Context<Self>;
        fn started(&mut self, _: &mut Context<Self>) {
            assert!(self.0.swap(true, Ordering::Relaxed), "no luck in started");
        }
    }
    tokio::time::pause();
    let scene = Scene::new();
    let has_panicked = Arc::new(AtomicBool::new(false));
    let factory = move |exit| Ok(spawn(exit, |_| Unlucky(has_panicked.clone())));
    scene.add(move || ChildSpec::new("unlucky", "a", factory)).await;
    let row = scene.until_restarted("a", 1).await;
    assert!(row.last_exit.unwrap().reason.contains("no luck in started"));
}

#[actix::test]
async fn a_factory_that_fails_or_panics_is_judged_like_its_child() {
    tokio::time::pause();
    let scene = Scene::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let trace = scene.trace.clone();
    let factory = move |exit: ExitHandle| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => Err("no credentials yet".to_owned()),
        1 => panic!("a bad factory"),
        _ => {
            let job = JobSlot::new(&exit);
            let trace = trace.clone();
            Ok(spawn(exit, |exit| Worker {
                exit,
                name: "a",
                job,
                trace,
                received: 0,
                stop_takes: Duration::ZERO,
            }))
        }
    };
    scene.add(move || ChildSpec::new("worker", "a", factory)).await;
    let row = scene.until("a", |row| matches!(row.state, ChildState::Backoff { .. })).await;
    assert_eq!(row.last_exit.unwrap().reason, "failed: no credentials yet");
    let row = scene.until_restarted("a", 2).await;
    assert!(row.last_exit.unwrap().reason.starts_with("panicked: a bad factory"));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[actix::test]
async fn a_child_that_finished_is_not_started_again() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec).await;
    present(&place).do_send(Order::Finish);
    scene.until("a", |row| row.state == ChildState::Stopped).await;
    tokio::time::sleep(24 * 3600 * SECOND).await;
    assert_eq!(scene.trace.take(), "+a -a");
}

#[actix::test]
async fn a_restart_waits_for_its_delay() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec).await;
    let failed_at = Instant::now();
    present(&place).do_send(Order::GiveUp);
    scene.until("a", |row| matches!(row.state, ChildState::Backoff { .. })).await;
    assert!(place.address().is_none());
    scene.until_restarted("a", 1).await;
    assert!(failed_at.elapsed() >= SECOND);
    assert!(failed_at.elapsed() < 2 * SECOND);
}

#[actix::test]
async fn a_child_that_fails_too_often_is_parked_and_its_siblings_go_on() {
    tokio::time::pause();
    let scene = Scene::new();
    let bad = scene.add_worker("bad", parking).await;
    let good = scene.add_worker("good", parking).await;
    present(&bad).do_send(Order::GiveUp);
    scene.until_restarted("bad", 1).await;
    present(&bad).do_send(Order::PanicInHandler);
    scene.until("bad", |row| matches!(row.state, ChildState::Parked { .. })).await;

    let parked_at = Instant::now();
    tokio::time::sleep(299 * SECOND).await;
    assert!(bad.address().is_none());
    assert_eq!(present(&good).send(CountMessages).await, Ok(1));
    scene.until_restarted("bad", 2).await;
    assert!(parked_at.elapsed() >= 300 * SECOND, "retried after the cool-off");
    assert_eq!(scene.board.child(&ChildId("good".into())).unwrap().restarts, 0);

    present(&bad).do_send(Order::GiveUp);
    scene.until("bad", |row| matches!(row.state, ChildState::Parked { .. })).await;
    scene.with_boss(|boss| boss.children.retry("bad")).await;
    let retried_at = Instant::now();
    scene.until_restarted("bad", 3).await;
    assert!(retried_at.elapsed() < SECOND, "retried on request");
}

#[actix::test]
async fn one_failure_too_many_fails_the_supervisor_after_its_other_children_stopped() {
    tokio::time::pause();
    let scene = Scene::new();
    let bad = scene.add_worker("bad", |spec| spec.policy(policy(1, OnExceeded::Escalate))).await;
    scene.add_worker("good", |spec| spec).await;
    present(&bad).do_send(Order::GiveUp);
    scene.until_restarted("bad", 1).await;
    present(&bad).do_send(Order::GiveUp);
    let reason = scene.boss.ended.await;
    assert_eq!(reason, ExitReason::Failed("bad failed too often, last failed: gave up".into()));
    assert_eq!(scene.trace.take(), "+bad +good -bad +bad -bad -good");
    assert!(scene.board.children().iter().all(|row| row.state == ChildState::Stopped));
}

#[actix::test]
async fn after_a_rest_for_one_child_the_rest_is_stopped_in_reverse_and_started_in_order() {
    tokio::time::pause();
    let scene = Scene::new();
    scene.add_worker("before", |spec| spec).await;
    let queue = scene.add_worker("queue", ChildSpec::rest_for_one).await;
    let next = scene.add_worker("next", |spec| spec).await;
    scene.add_worker("last", |spec| spec).await;
    assert_eq!(scene.trace.take(), "+before +queue +next +last");

    present(&queue).do_send(Order::PanicInHandler);
    scene.until_restarted("last", 1).await;
    assert_eq!(scene.trace.take(), "-queue -last -next +queue +next +last");

    present(&next).do_send(Order::PanicInHandler);
    scene.until_restarted("next", 2).await;
    assert_eq!(scene.trace.take(), "-next +next", "an ordinary child concerns nobody else");
    scene
        .with_boss(|boss| {
            assert_eq!(boss.children.names().collect::<Vec<_>>(), ["before", "queue", "next", "last"])
        })
        .await;
}

#[actix::test]
async fn followers_of_a_rest_for_one_child_stay_down_while_it_does() {
    tokio::time::pause();
    let scene = Scene::new();
    let queue = scene.add_worker("queue", |spec| parking(spec).rest_for_one()).await;
    scene.add_worker("next", |spec| spec).await;
    present(&queue).do_send(Order::GiveUp);
    scene.until_restarted("next", 1).await;
    present(&queue).do_send(Order::GiveUp);
    scene.until("queue", |row| matches!(row.state, ChildState::Parked { .. })).await;
    tokio::time::sleep(200 * SECOND).await;
    scene.with_boss(|boss| assert!(!boss.children.is_running("next"))).await;
    let row = scene.until_restarted("next", 2).await;
    assert_eq!(row.last_exit.unwrap().reason, "stopped", "not counted as its failure");
}

#[actix::test]
async fn children_are_stopped_one_after_the_other_in_reverse() {
    tokio::time::pause();
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        let trace = scene.trace.clone();
        scene.add(move || worker(name, 3 * SECOND, trace, Place::new())).await;
        scene.until_running(name).await;
    }
    scene.trace.take();
    assert_eq!(scene.boss.stop(60 * SECOND).await, Ok(ExitReason::Stopped));
    assert_eq!(scene.trace.take(), "?c -c ?b -b ?a -a");
}

#[actix::test]
async fn children_of_one_rank_stop_together_and_ranks_decide_the_order() {
    tokio::time::pause();
    let scene = Scene::new();
    for (name, rank) in [("watcher", 30), ("gitea", 20), ("committer", 10), ("nas", 20)] {
        let trace = scene.trace.clone();
        scene.add(move || worker(name, 3 * SECOND, trace, Place::new()).rank(rank)).await;
        scene.until_running(name).await;
    }
    scene.trace.take();
    let asked_at = Instant::now();
    assert_eq!(scene.boss.stop(60 * SECOND).await, Ok(ExitReason::Stopped));
    let order = scene.trace.take();
    assert!(order.starts_with("?watcher -watcher ?nas ?gitea "), "{order}");
    assert!(order.ends_with(" ?committer -committer"), "{order}");
    assert!(asked_at.elapsed() < 10 * SECOND, "three ranks, three seconds each");
}

#[actix::test]
async fn a_child_that_does_not_stop_in_time_is_given_up_and_the_others_still_stop() {
    tokio::time::pause();
    let scene = Scene::new();
    scene.add_worker("first", |spec| spec).await;
    let trace = scene.trace.clone();
    scene.add(move || worker("slow", 3600 * SECOND, trace, Place::new()).stop_within(5 * SECOND)).await;
    scene.until_running("slow").await;
    scene.trace.take();
    let asked_at = Instant::now();
    assert_eq!(scene.boss.stop(60 * SECOND).await, Ok(ExitReason::Stopped));
    assert!(asked_at.elapsed() >= 5 * SECOND && asked_at.elapsed() < 6 * SECOND);
    assert!(scene.trace.take().starts_with("?slow "));
    assert_eq!(scene.board.leaked(), 0, "the context was stopped by force and is over");
}

#[actix::test]
async fn a_removed_child_is_stopped_and_forgotten_and_an_added_one_replaces_its_namesake() {
    tokio::time::pause();
    let scene = Scene::new();
    scene.add_worker("a", |spec| spec).await;
    scene.add_worker("b", |spec| spec).await;
    let first = scene.until_running("a").await.generation;
    scene.trace.take();

    let trace = scene.trace.clone();
    scene.add(move || worker("a", Duration::ZERO, trace, Place::new())).await;
    scene.until("a", |row| row.state == ChildState::Running && row.generation > first).await;
    assert_eq!(scene.trace.take(), "-a +a");

    scene.with_boss(|boss| boss.children.remove("a")).await;
    let id = ChildId("a".into());
    scene.board.wait_for(|board| board.child(&id).is_none().then_some(())).await;
    assert_eq!(scene.trace.take(), "-a");
    scene.with_boss(|boss| assert_eq!(boss.children.names().collect::<Vec<_>>(), ["b"])).await;
}
