//! What other threads ask for, and how a backend ends.

use std::os::unix::fs::symlink;

use super::*;
use crate::error::Kind;

pub(super) fn a_barrier_comes_after_all_that_happened_before_it_under_load(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        for number in 0..8 {
            fs::create_dir(root.join(format!("d{number}"))).unwrap();
            fs::write(root.join(format!("d{number}/old")), "x").unwrap();
        }
    });
    let control = fixture.backend.control();
    let root = fixture.root();
    let writer = std::thread::spawn(move || {
        for token in 0..400u64 {
            let directory = root.join(format!("d{}/n{token}", token % 8));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("f"), "x").unwrap();
            fs::write(root.join(format!("f{token}")), "x").unwrap();
            fs::write(root.join(format!("d{}/old", token % 8)), format!("{token}")).unwrap();
            control.barrier(1000 + token).unwrap();
        }
    });
    fixture.wait_for(|hint| *hint == Hint::Barrier(1399));
    writer.join().unwrap();
    let mut barriers = 0;
    for (at, hint) in fixture.hints.iter().enumerate() {
        if let Hint::Barrier(token) = hint {
            let number = token - 1000;
            assert_eq!(number, barriers);
            barriers += 1;
            let before = &fixture.hints[..at];
            for file in [format!("f{number}"), format!("d{}/n{number}/f", number % 8)] {
                assert!(covered(before, &file), "{file} comes after its barrier");
            }
        }
    }
    assert_eq!(barriers, 400);
}

pub(super) fn many_barriers_at_once_are_all_answered(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let askers: Vec<_> = (0..4u64)
        .map(|asker| {
            let control = fixture.backend.control();
            std::thread::spawn(move || (0..100).for_each(|n| control.barrier(asker * 100 + n).unwrap()))
        })
        .collect();
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    fixture.hints();
    fixture.backend.control().barrier(9999).unwrap();
    fixture.wait_for(|hint| *hint == Hint::Barrier(9999));
    let mut fixture = suite.start(|_| ());
    (0..400).for_each(|token| fixture.backend.control().barrier(token).unwrap());
    fixture.wait_for(|hint| *hint == Hint::Barrier(399));
    assert_eq!(fixture.hints, (0..400).map(Hint::Barrier).collect::<Vec<_>>());
}

pub(super) fn the_waker_ends_a_wait_before_and_during_it(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let control = fixture.backend.control();
    let begin = Instant::now();
    control.wake();
    fixture.backend.wait(PATIENCE, &mut fixture.hints).unwrap();
    let (about_to_wait, is_about_to_wait) = std::sync::mpsc::channel();
    let waker = std::thread::spawn(move || {
        is_about_to_wait.recv().unwrap();
        control.wake();
    });
    about_to_wait.send(()).unwrap();
    fixture.backend.wait(PATIENCE, &mut fixture.hints).unwrap();
    waker.join().unwrap();
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(fixture.hints, []);
    fixture.backend.wait(Duration::from_millis(1), &mut fixture.hints).unwrap();
}

pub(super) fn a_cancelled_start_stops_and_a_resync_makes_it_good(suite: &Suite) {
    let mut fixture = suite.prepare(&[], false, |root| fs::create_dir_all(root.join("d")).unwrap());
    let progress = Progress::new();
    progress.cancel();
    assert_eq!(fixture.backend.start(&progress).unwrap_err().kind(), Kind::Cancelled);
    fixture.backend.resync(&Progress::new()).unwrap();
    fixture.assert_watches(&["", "d"]);
}

pub(super) fn a_resync_finds_what_is_there_and_keeps_what_is_watched(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), "x").unwrap();
    });
    fs::remove_dir_all(fixture.at("a/b")).unwrap();
    fs::create_dir_all(fixture.at("a/c/d")).unwrap();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.stats().watches, 4);
    fixture.hints();
    fixture.backend.resync(&Progress::new()).unwrap();
    fixture.assert_hinted(&[]);
    fixture.assert_watches(&["", "a", "a/c", "a/c/d"]);
}

pub(super) fn a_deleted_root_is_gone(suite: &Suite) {
    let mut fixture = suite.start(|root| fs::create_dir(root.join("d")).unwrap());
    fs::remove_dir_all(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
    fixture.hints.clear();
    assert_eq!(fixture.hints(), [], "barriers pass and nothing else is hinted");
}

pub(super) fn a_deleted_root_is_gone_even_while_somebody_holds_it_open(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let _held = fs::File::open(fixture.root()).unwrap();
    fs::remove_dir_all(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
}

pub(super) fn a_moved_root_is_gone(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    fs::rename(fixture.root(), fixture.directory.path().join("elsewhere")).unwrap();
    fs::create_dir(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
    assert_eq!(fixture.hints.iter().filter(|hint| **hint == Hint::RootGone).count(), 1);
}

pub(super) fn a_root_replaced_by_a_link_is_gone(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    fs::create_dir(fixture.outside()).unwrap();
    fs::remove_dir(fixture.root()).unwrap();
    symlink(fixture.outside(), fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
    fs::write(fixture.outside().join("canary"), "x").unwrap();
    fixture.hints.clear();
    assert_eq!(fixture.hints(), []);
}
