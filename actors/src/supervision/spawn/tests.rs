//! How a single actor's end is told, with no supervisor about.

use std::sync::mpsc;

use actix::{AsyncContext, Handler, Message, WrapFuture};

use super::*;

struct Worker {
    exit: ExitHandle,
    panics_in_started: bool,
}

impl Worker {
    fn new(exit: ExitHandle) -> Self {
        Self { exit, panics_in_started: false }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        assert!(!self.panics_in_started, "no luck in started");
    }
}

#[derive(Message)]
#[rtype(result = "std::thread::ThreadId")]
struct WhichThread;

type MakeOrder = fn() -> Order;

#[derive(Message)]
#[rtype(result = "()")]
enum Order {
    PanicInHandler,
    PanicInFuture,
    GiveUp,
    StopSilently,
    Block(mpsc::Receiver<()>),
}

impl Handler<WhichThread> for Worker {
    type Result = actix::MessageResult<WhichThread>;

    fn handle(&mut self, _: WhichThread, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(std::thread::current().id())
    }
}

impl Handler<Order> for Worker {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Context<Self>) {
        match order {
            Order::PanicInHandler => panic!("no luck in a handler"),
            Order::PanicInFuture => {
                ctx.spawn(async { panic!("no luck in a future") }.into_actor(self));
            }
            Order::GiveUp => {
                self.exit.failed("no credentials");
                ctx.stop();
            }
            Order::StopSilently => ctx.stop(),
            Order::Block(until) => {
                let _work = self.exit.working("a disk that does not answer", &Progress::new());
                let _ = until.recv();
            }
        }
    }
}

fn start() -> Spawned<Worker> {
    spawn(ExitHandle::topmost(), Worker::new)
}

fn start_on_own_thread() -> Spawned<Worker> {
    spawn_on_own_thread(ExitHandle::topmost(), |exit| Ok(Worker::new(exit))).unwrap()
}

fn panicked_with(reason: &ExitReason, text: &str) -> bool {
    matches!(reason, ExitReason::Panicked(message) if message.contains(text))
}

#[actix::test]
async fn panics_everywhere_in_an_actor_are_told_as_such() {
    let spawned = spawn(ExitHandle::topmost(), |exit| Worker { exit, panics_in_started: true });
    let reason = spawned.ended.await;
    assert!(panicked_with(&reason, "no luck in started"), "{reason}");

    let orders: [(MakeOrder, &str); 2] =
        [(|| Order::PanicInHandler, "in a handler"), (|| Order::PanicInFuture, "in a future")];
    for start in [start, start_on_own_thread] {
        for (order, text) in orders {
            let spawned = start();
            let _ = spawned.address.send(order()).await;
            let reason = spawned.ended.await;
            assert!(panicked_with(&reason, text), "{reason}");
            assert!(!spawned.address.connected());
        }
    }
}

#[actix::test]
async fn a_given_reason_and_a_silent_stop_are_both_failures() {
    for start in [start, start_on_own_thread] {
        let spawned = start();
        spawned.address.do_send(Order::GiveUp);
        assert_eq!(spawned.ended.await, ExitReason::Failed("no credentials".into()));

        let spawned = start();
        spawned.address.do_send(Order::StopSilently);
        assert!(matches!(spawned.ended.await, ExitReason::Failed(_)));
    }
}

#[actix::test]
async fn asked_to_stop_an_actor_stops_without_a_message_of_its_own() {
    for start in [start, start_on_own_thread] {
        assert_eq!(start().stop(Duration::from_secs(60)).await, Ok(ExitReason::Stopped));
    }
}

#[actix::test]
async fn a_dropped_leash_stops_the_actor() {
    for start in [start, start_on_own_thread] {
        let Spawned { address, leash, ended, .. } = start();
        drop(leash);
        assert_eq!(ended.await, ExitReason::Stopped);
        assert!(!address.connected());
    }
}

#[actix::test]
async fn an_own_thread_is_another_thread_and_its_panic_hurts_nobody_else() {
    let bystander = start_on_own_thread();
    let other = start_on_own_thread();
    let thread = other.address.send(WhichThread).await.unwrap();
    assert_ne!(thread, std::thread::current().id());
    assert_ne!(thread, bystander.address.send(WhichThread).await.unwrap());

    let _ = other.address.send(Order::PanicInHandler).await;
    other.ended.await;
    assert!(bystander.address.send(WhichThread).await.is_ok());
}

#[actix::test]
async fn what_goes_wrong_while_building_on_an_own_thread_is_told() {
    let failing =
        spawn_on_own_thread::<Worker, _>(ExitHandle::topmost(), |_| Err("no database".into())).unwrap();
    assert_eq!(failing.ended.await, ExitReason::Failed("no database".into()));

    let panicking =
        spawn_on_own_thread::<Worker, _>(ExitHandle::topmost(), |_| panic!("bad database")).unwrap();
    let exit = panicking.leash.exit().clone();
    assert!(panicked_with(&panicking.ended.await, "bad database"));
    exit.drained().await;
}

#[actix::test]
async fn an_actor_that_blocks_its_thread_is_left_to_itself_at_the_deadline() {
    let (release, until) = mpsc::channel();
    let spawned = start_on_own_thread();
    let exit = spawned.leash.exit().clone();
    spawned.address.do_send(Order::Block(until));
    while !exit.probe().0 || exit.busy_with() == "starting" {
        tokio::task::yield_now().await;
    }

    let stopped = spawned.stop(Duration::from_millis(1)).await;
    assert_eq!(stopped, Err(StillRunning { busy_with: "a disk that does not answer".into() }));
    assert!(exit.is_abandoned());
    release.send(()).unwrap();
    exit.drained().await;
}

#[actix::test]
async fn an_actor_that_stops_itself_decides_when() {
    struct Careful(ExitHandle);
    impl Actor for Careful {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            use actix::ActorFutureExt;
            let requested = self.0.stop_requested().into_actor(self);
            ctx.spawn(requested.map(|(), actor, ctx| {
                actor.0.failed("last words");
                ctx.stop();
            }));
        }
    }
    let spawned = spawn(ExitHandle::topmost(), Careful);
    // Asked before it has even started.
    assert_eq!(spawned.stop(Duration::from_secs(60)).await, Ok(ExitReason::Failed("last words".into())));
}
