//! Children that stand still, and jobs and threads that outlive them.

use super::*;

#[actix::test]
async fn a_stalled_child_is_replaced_and_counted_as_a_leak_until_its_job_returns() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec.hang_after(Some(60 * SECOND))).await;
    let first = present(&place);
    let (job, release) = deaf_job();
    first.send(Order::Run(job)).await.unwrap();

    // A blocking job keeps the virtual clock from moving by itself.
    tokio::time::advance(30 * SECOND).await;
    settle().await;
    assert!(first.connected(), "not yet");
    for _ in 0..8 {
        tokio::time::advance(10 * SECOND).await;
        settle().await;
    }
    assert!(!first.connected());
    let row = scene.until_restarted("a", 1).await;
    assert_eq!(row.last_exit.unwrap().reason, "hung: no progress for 60 s in work");
    assert_eq!(present(&place).send(CountMessages).await, Ok(1));
    assert_eq!(scene.board.leaked(), 1);

    release.send(()).unwrap();
    scene.board.wait_for(|board| (board.leaked() == 0).then_some(())).await;
    settle().await;
    let row = scene.until_running("a").await;
    assert_eq!(row.restarts, 1, "the late end of the old run changes nothing");
}

#[actix::test]
async fn a_probe_of_its_own_decides_whether_a_child_is_hung() {
    tokio::time::pause();
    let scene = Scene::new();
    let is_stuck = Arc::new(AtomicBool::new(false));
    let (trace, seen) = (scene.trace.clone(), is_stuck.clone());
    let factory = move |exit| {
        let (trace, seen) = (trace.clone(), seen.clone());
        let build = |exit: ExitHandle| {
            let job = JobSlot::new(&exit);
            Worker { exit, name: "a", job, trace, received: 0, stop_takes: Duration::ZERO }
        };
        let start = ChildStart::from(spawn(exit, build));
        Ok(start.probe(move || Some((seen.load(Ordering::Relaxed), 7))))
    };
    scene.add(move || ChildSpec::new("worker", "a", factory).hang_after(Some(60 * SECOND))).await;
    scene.until_running("a").await;
    tokio::time::sleep(600 * SECOND).await;
    is_stuck.store(true, Ordering::Relaxed);
    tokio::time::sleep(90 * SECOND).await;
    is_stuck.store(false, Ordering::Relaxed);
    let row = scene.until_restarted("a", 1).await;
    assert_eq!(row.last_exit.unwrap().reason, "hung: no progress for 60 s in its own work");
    assert_eq!(scene.board.leaked(), 0, "it could be stopped");
}

#[actix::test]
async fn a_job_that_makes_progress_is_not_hung_however_long_it_takes() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec.hang_after(Some(60 * SECOND))).await;
    let (step, steps) = mpsc::channel::<()>();
    let (stepped, has_stepped) = mpsc::channel::<()>();
    let job = move |progress: &Progress| {
        while steps.recv().is_ok() {
            progress.check()?;
            stepped.send(()).unwrap();
        }
        Ok(())
    };
    present(&place).send(Order::Run(Box::new(job))).await.unwrap();
    for _ in 0..30 {
        step.send(()).unwrap();
        has_stepped.recv().unwrap();
        tokio::time::advance(20 * SECOND).await;
        settle().await;
    }
    drop(step);
    assert_eq!(scene.until_running("a").await.restarts, 0);
}

#[actix::test]
async fn a_restart_waits_for_the_job_of_the_last_run_but_not_for_ever() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec.stop_within(20 * SECOND)).await;
    let (job, release) = deaf_job();
    present(&place).send(Order::Run(job)).await.unwrap();
    present(&place).do_send(Order::PanicInHandler);
    settle().await;
    tokio::time::advance(10 * SECOND).await;
    settle().await;
    assert!(place.address().is_none(), "its job may still write");
    release.send(()).unwrap();
    scene.until_restarted("a", 1).await;
    assert_eq!(scene.board.leaked(), 0);

    let (job, release) = deaf_job();
    present(&place).send(Order::Run(job)).await.unwrap();
    present(&place).do_send(Order::PanicInHandler);
    settle().await;
    tokio::time::advance(21 * SECOND).await;
    scene.until_restarted("a", 2).await;
    assert_eq!(scene.board.leaked(), 1);
    drop(release);
    scene.board.wait_for(|board| (board.leaked() == 0).then_some(())).await;
}

#[actix::test]
async fn a_thread_that_blocks_is_replaced_and_its_late_end_ignored() {
    let scene = Scene::new();
    let place = Place::<Worker>::new();
    let (trace, seat) = (scene.trace.clone(), place.clone());
    let factory = move |exit| {
        let trace = trace.clone();
        let build = |exit: ExitHandle| {
            let job = JobSlot::new(&exit);
            Ok(Worker { exit, name: "queue", job, trace, received: 0, stop_takes: Duration::ZERO })
        };
        Ok(spawn_on_own_thread(exit, build)?.at(&seat))
    };
    let quick = Backoff { first: Duration::ZERO, factor: 1.0, max: Duration::ZERO, jitter: 0.0 };
    let policy = RestartPolicy { backoff: quick, ..policy(3, OnExceeded::Escalate) };
    let hang_after = Some(Duration::from_millis(20));
    scene.add(move || ChildSpec::new("queue", "queue", factory).policy(policy).hang_after(hang_after)).await;
    scene.until_running("queue").await;

    let first = present(&place);
    let (release, until) = mpsc::channel();
    first.do_send(Order::Block(until));
    let row = scene.until_restarted("queue", 1).await;
    assert!(row.last_exit.unwrap().reason.contains("in blocking"));
    assert_eq!(present(&place).send(CountMessages).await, Ok(1));
    assert_eq!(scene.board.leaked(), 1);

    release.send(()).unwrap();
    scene.board.wait_for(|board| (board.leaked() == 0).then_some(())).await;
    assert_eq!(present(&place).send(CountMessages).await, Ok(2), "the new run is untouched");
    assert!(!first.connected(), "the old run has ended when it could");
}

#[actix::test]
async fn too_many_leaks_fail_the_supervisor() {
    tokio::time::pause();
    let scene = Scene::new();
    scene.with_boss(|boss| boss.children.leak_limit = 1).await;
    let place = scene.add_worker("a", |spec| spec.stop_within(SECOND)).await;
    let mut releases = Vec::new();
    for times in 1..=2 {
        let (job, release) = deaf_job();
        releases.push(release);
        present(&place).send(Order::Run(job)).await.unwrap();
        present(&place).do_send(Order::PanicInHandler);
        settle().await;
        tokio::time::advance(2 * SECOND).await;
        settle().await;
        assert_eq!(scene.board.leaked(), times);
        if times == 1 {
            scene.until_restarted("a", 1).await;
        }
    }
    assert_eq!(scene.boss.ended.await, ExitReason::Failed("2 runs were given up and still go on".into()));
}
