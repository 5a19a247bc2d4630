//! Supervisors below supervisors.

use super::*;

/// A supervisor below the topmost one, with one worker that it does not forgive anything.
fn nested(board: Board, trace: Trace, place: Place<Worker>) -> ChildSpec {
    let factory = move |exit| {
        let (trace, place) = (trace.clone(), place.clone());
        let build = |exit: ExitHandle| {
            let mut boss = boss(&exit, &board);
            let strict = policy(0, OnExceeded::Escalate);
            boss.children.add(worker("committer", Duration::ZERO, trace, place).policy(strict));
            boss
        };
        Ok(spawn(exit, build))
    };
    let delay = policy(1, OnExceeded::Park { cool_off: 300 * SECOND });
    ChildSpec::new("repository", "documents", factory).policy(delay).stop_within(30 * SECOND)
}

#[actix::test]
async fn a_supervisor_that_fails_is_restarted_with_its_children_and_parked_when_it_goes_on() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = Place::new();
    let (board, trace, seat) = (scene.board.clone(), scene.trace.clone(), place.clone());
    scene.add_worker("sibling", |spec| spec).await;
    scene.add(move || nested(board, trace, seat)).await;
    scene.until_running("documents/committer").await;

    present(&place).do_send(Order::GiveUp);
    let row = scene.until_restarted("documents", 1).await;
    let reason = row.last_exit.unwrap().reason;
    assert_eq!(reason, "failed: documents/committer failed too often, last failed: gave up");
    scene.until_restarted("documents/committer", 1).await;

    present(&place).do_send(Order::PanicInFuture);
    scene.until("documents", |row| matches!(row.state, ChildState::Parked { .. })).await;
    let row = scene.until("documents/committer", |row| row.state == ChildState::Stopped).await;
    assert_eq!(row.restarts, 1);
    assert_eq!(scene.until_running("sibling").await.restarts, 0);
    scene.until_restarted("documents", 2).await;

    scene.with_boss(|boss| boss.children.remove("documents")).await;
    let id = ChildId("sibling".into());
    scene.board.wait_for(|board| board.children().iter().all(|row| row.id == id).then_some(())).await;
}

#[actix::test]
async fn the_restart_of_a_supervisor_waits_for_the_jobs_of_its_old_children() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = Place::new();
    let (board, trace, seat) = (scene.board.clone(), scene.trace.clone(), place.clone());
    scene.add(move || nested(board, trace, seat)).await;
    scene.until_running("documents/committer").await;
    let (job, release) = deaf_job();
    present(&place).send(Order::Run(job)).await.unwrap();
    present(&place).do_send(Order::GiveUp);
    settle().await;
    // The committer is given up after 10 s, and with that its supervisor is over.
    tokio::time::advance(11 * SECOND).await;
    settle().await;
    let row = scene.board.child(&ChildId("documents".into())).unwrap();
    assert!(row.last_exit.is_some());
    tokio::time::advance(10 * SECOND).await;
    settle().await;
    let row = scene.board.child(&ChildId("documents".into())).unwrap();
    assert_eq!(row.restarts, 0, "the old committer's job may still write");
    release.send(()).unwrap();
    scene.until_restarted("documents/committer", 1).await;
    assert_eq!(scene.board.leaked(), 0);
}

#[actix::test]
async fn children_do_not_outlive_a_supervisor_that_panics() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = scene.add_worker("a", |spec| spec).await;
    let child = present(&place);
    scene.boss.address.do_send(Do(Box::new(|_| panic!("a bad supervisor"))));
    assert!(matches!(scene.boss.ended.await, ExitReason::Panicked(_)));
    settle().await;
    assert!(!child.connected());
    assert_eq!(scene.board.children()[0].state, ChildState::Stopped);
}

#[actix::test]
async fn asked_to_stop_the_topmost_supervisor_takes_the_whole_tree_with_it() {
    tokio::time::pause();
    let scene = Scene::new();
    let place = Place::new();
    let (board, trace, seat) = (scene.board.clone(), scene.trace.clone(), place.clone());
    scene.add_worker("queue", ChildSpec::rest_for_one).await;
    scene.add(move || nested(board, trace, seat)).await;
    scene.until_running("documents/committer").await;
    assert_eq!(scene.boss.stop(60 * SECOND).await, Ok(ExitReason::Stopped));
    assert_eq!(scene.trace.take(), "+queue +committer -committer -queue");
    assert!(scene.board.children().iter().all(|row| row.state == ChildState::Stopped));
}
