use super::*;
use crate::store::Store;
use crate::store::checkpoints::{Checkpoint, RowOutcome};
use crate::store::files::tests::look;
use crate::store::files::{FileDelta, FileRecord};

struct Bench {
    _scratch: tempfile::TempDir,
    store: Store,
    queue: QueueStore,
    repository: RepositoryName,
    root: RootName,
}

fn bench() -> Bench {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(scratch.path()).unwrap();
    let queue = store.queue().unwrap();
    Bench {
        _scratch: scratch,
        store,
        queue,
        repository: RepositoryName::new("documents").unwrap(),
        root: RootName::new("folder").unwrap(),
    }
}

fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes().to_vec()).unwrap()
}

fn at(path: &str) -> Cursor {
    Cursor { path: rel(path), entered: false }
}

impl Bench {
    fn add(&mut self, path: &str, reach: Reach) -> u64 {
        self.queue.enqueue(&self.repository, &self.root, &[(rel(path), reach)], 1000).unwrap()
    }

    fn take(&mut self) -> Vec<TakenRow> {
        self.queue.take(&self.repository, 2000, 500, false).unwrap()
    }

    fn settle(&mut self, rows: Vec<RowOutcome>) {
        let settlement = Settlement { rows, ..Settlement::default() };
        self.queue.settle(&self.repository, &settlement, 3000).unwrap();
    }

    fn done(&self, taken: &TakenRow) -> RowOutcome {
        self.outcome(taken, RowVerdict::Done)
    }

    fn outcome(&self, taken: &TakenRow, verdict: RowVerdict) -> RowOutcome {
        RowOutcome { root: taken.root.clone(), path: taken.path.clone(), seq: taken.row.seq, verdict }
    }

    fn rows(&self) -> usize {
        self.queue.row_count(&self.repository)
    }
}

#[test]
fn a_settled_row_is_gone_and_a_row_that_changed_meanwhile_stays() {
    let mut bench = bench();
    bench.add("a", Reach::Exact);
    bench.add("b", Reach::Exact);
    let taken = bench.take();
    assert_eq!(taken.len(), 2);
    let target = bench.add("b", Reach::Exact);
    let outcomes = taken.iter().map(|row| bench.done(row)).collect();
    bench.settle(outcomes);
    assert_eq!(bench.rows(), 1);
    assert_eq!(bench.take()[0].path, rel("b"));
    assert_eq!(
        bench.queue.unsettled_up_to(&bench.repository, target).unwrap(),
        1,
        "its last change is not settled"
    );
    assert_eq!(bench.queue.unsettled_up_to(&bench.repository, target - 1).unwrap(), 0, "the one before is");
}

#[test]
fn what_is_queued_of_a_root_that_is_gone_is_dropped_and_holds_no_flush() {
    let mut bench = bench();
    bench.add("a", Reach::Exact);
    let gone = RootName::new("gone").unwrap();
    let paths = [(rel("x"), Reach::Exact), (rel(""), Reach::Deep)];
    let target = bench.queue.enqueue(&bench.repository, &gone, &paths, 1).unwrap();
    let other = RepositoryName::new("other").unwrap();
    bench.queue.enqueue(&other, &gone, &paths, 1).unwrap();
    let (repository, root) = (bench.repository.clone(), bench.root.clone());
    assert_eq!(bench.queue.keep_only(&repository, std::slice::from_ref(&root)).unwrap(), 2);
    assert_eq!(bench.queue.keep_only(&repository, &[root]).unwrap(), 0);
    let taken = bench.take();
    assert_eq!(taken.iter().map(|row| row.path.to_string()).collect::<Vec<_>>(), ["a"]);
    let outcome = bench.done(&taken[0]);
    bench.settle(vec![outcome]);
    assert_eq!(bench.queue.unsettled_up_to(&repository, target).unwrap(), 0);
    assert_eq!((bench.queue.row_count(&repository), bench.queue.row_count(&other)), (0, 2));
    let target = bench.queue.enqueue(&repository, &gone, &paths, 1).unwrap();
    assert_eq!(bench.queue.unsettled_up_to(&repository, target).unwrap(), 2, "it may come back");
}

#[test]
fn rows_come_out_in_the_order_they_came_in_even_when_touched_again() {
    let mut bench = bench();
    for path in ["z", "m", "a"] {
        bench.add(path, Reach::Exact);
    }
    bench.add("z", Reach::Exact);
    let order: Vec<_> = bench.take().into_iter().map(|row| row.path.to_string()).collect();
    assert_eq!(order, ["z", "m", "a"]);
}

#[test]
fn an_untaken_deep_row_absorbs_and_a_taken_one_does_not() {
    let mut bench = bench();
    bench.add("d", Reach::Deep);
    bench.add("d/x", Reach::Exact);
    bench.add("dd", Reach::Exact);
    assert_eq!(bench.rows(), 2);
    let taken = bench.take();
    assert_eq!(taken.len(), 2);
    bench.add("d/y", Reach::Exact);
    assert_eq!(bench.rows(), 3, "the walk may have passed d/y already");
}

#[test]
fn a_batch_takes_many_deep_rows_but_none_within_another() {
    let mut bench = bench();
    for path in ["a/b", "c", "a-z", "e/f/g"] {
        bench.add(path, Reach::Deep);
    }
    // Those came first, so these do not absorb them.
    for path in ["a", "e"] {
        bench.add(path, Reach::Deep);
    }
    let taken = |rows: &[TakenRow]| -> Vec<String> {
        rows.iter().map(|row| String::from_utf8(row.path.as_bytes().to_vec()).unwrap()).collect()
    };
    let first = bench.take();
    assert_eq!(taken(&first), ["a/b", "c", "a-z", "e/f/g"]);
    let walked = |row: &TakenRow| RowVerdict::Walked { cursor: None, walk_seq: row.row.seq };
    let outcomes = first.iter().map(|row| bench.outcome(row, walked(row))).collect();
    bench.settle(outcomes);
    bench.add("a/b", Reach::Deep);
    bench.add("a-y", Reach::Deep);
    assert_eq!(taken(&bench.take()), ["a", "e", "a-y"]);
    assert_eq!(bench.queue.take(&bench.repository, 2000, 1, false).unwrap().len(), 1);
}

#[test]
fn a_deep_row_keeps_its_cursor_and_restarts_when_it_changed_during_its_walk() {
    let mut bench = bench();
    bench.add("", Reach::Deep);
    let taken = bench.take().remove(0);
    let walk_seq = taken.row.seq;
    bench.add("", Reach::Deep);
    bench.settle(vec![bench.outcome(&taken, RowVerdict::Walked { cursor: Some(at("k")), walk_seq })]);
    let again = bench.take().remove(0);
    assert_eq!(again.row.scope, Scope::Deep { cursor: Some(at("k")), walk_seq });
    bench.settle(vec![bench.outcome(&again, RowVerdict::Walked { cursor: None, walk_seq })]);
    assert!(bench.take().is_empty(), "it rests first");
    let anew = bench.queue.take(&bench.repository, 60_000, 500, false).unwrap().remove(0);
    assert_eq!(anew.row.scope, Scope::Deep { cursor: None, walk_seq: 0 });
    let walk_seq = anew.row.seq;
    bench.settle(vec![bench.outcome(&anew, RowVerdict::Walked { cursor: None, walk_seq })]);
    assert_eq!(bench.rows(), 0);
}

#[test]
fn above_the_watermark_a_roots_rows_become_one_deep_row() {
    let mut bench = bench();
    let paths: Vec<_> = (0..=WATERMARK).map(|n| (rel(&format!("f{n}")), Reach::Exact)).collect();
    bench.queue.enqueue(&bench.repository, &bench.root, &paths, 1000).unwrap();
    assert_eq!(bench.rows(), 1);
    let taken = bench.take();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].path.is_root());
    assert_eq!(taken[0].row.scope, Scope::Deep { cursor: None, walk_seq: 0 });
}

#[test]
fn a_failed_row_waits_its_time_is_listed_and_does_not_hold_a_flush() {
    let mut bench = bench();
    let target = bench.add("locked", Reach::Exact);
    let taken = bench.take().remove(0);
    let failure = Failure { reason: SkipReason::Unreadable, message: "permission denied".to_owned() };
    let verdict = RowVerdict::Again { not_before_ms: 9000, failure: failure.clone() };
    bench.settle(vec![bench.outcome(&taken, verdict)]);
    assert!(bench.take().is_empty());
    assert_eq!(bench.queue.take(&bench.repository, 2000, 500, true).unwrap().len(), 1);
    assert_eq!(bench.queue.unsettled_up_to(&bench.repository, target).unwrap(), 0);
    let (count, listed) = bench.store.reader().skipped(&bench.repository, 10).unwrap();
    assert_eq!((count, listed[0].failure.clone()), (1, failure));
    let waiting = bench.queue.waiting(&bench.repository, 2000, 500).unwrap();
    assert_eq!((waiting.ready, waiting.next_ready_ms), (0, Some(9000)));
    bench.add("locked", Reach::Exact);
    assert_eq!(bench.take()[0].row.failure, None, "a new change is a new chance");
}

#[test]
fn a_walk_that_finds_an_unreadable_path_makes_its_row() {
    let mut bench = bench();
    let failure = Failure { reason: SkipReason::Unreadable, message: "permission denied".to_owned() };
    let outcome = RowOutcome {
        root: bench.root.clone(),
        path: rel("d/locked"),
        seq: 0,
        verdict: RowVerdict::Again { not_before_ms: 9000, failure },
    };
    bench.settle(vec![outcome]);
    assert_eq!(bench.store.reader().skipped(&bench.repository, 10).unwrap().0, 1);
    assert_eq!(bench.rows(), 1);
}

#[test]
fn everything_is_still_there_after_opening_again() {
    let mut bench = bench();
    bench.add("a", Reach::Exact);
    bench.add("d", Reach::Deep);
    let highest = bench.queue.highest_seq();
    let repository = bench.repository.clone();
    drop(bench.queue);
    let mut queue = bench.store.queue().unwrap();
    assert_eq!(queue.row_count(&repository), 2);
    assert_eq!(queue.highest_seq(), highest);
    queue.set_paused(&repository, Some(77)).unwrap();
    assert_eq!(bench.store.reader().paused_since(&repository).unwrap(), Some(77));
    let until = Pause { since_ms: 78, until_ms: Some(1_000) };
    queue.set_pause(&repository, Some(until)).unwrap();
    let at = |now_ms| bench.store.reader().pause(&repository, now_ms).unwrap();
    assert_eq!((at(999), at(1_000)), (Some(until), None), "it ends by itself");
    queue.set_paused(&repository, Some(77)).unwrap();
    assert_eq!(at(i64::MAX), Some(Pause { since_ms: 77, until_ms: None }), "a later pause forgets the end");
}

#[test]
fn removing_a_tree_removes_its_records_and_no_neighbours() {
    let mut bench = bench();
    let record = |n: u8| {
        Box::new(FileRecord {
            look: look(1, 1),
            recorded_ns: 0,
            stored: [n; 20],
            checksum: [0; 32],
            is_pointer: false,
        })
    };
    let paths = ["d", "d/a", "d/e/f", "d-1", "d-1/x", "dd", "c"];
    let deltas = paths.iter().map(|path| FileDelta::Put(rel(path), record(1))).collect();
    let checkpoint = Some(Checkpoint { commit: [1; 20], at_ms: 5, batch: 1 });
    let settlement = Settlement { rows: vec![], files: vec![(bench.root.clone(), deltas)], checkpoint };
    bench.queue.settle(&bench.repository, &settlement, 1).unwrap();
    let remove = vec![FileDelta::RemoveTree(rel("d"))];
    let settlement = Settlement { rows: vec![], files: vec![(bench.root.clone(), remove)], checkpoint: None };
    bench.queue.settle(&bench.repository, &settlement, 2).unwrap();
    let view = bench.store.reader().files(&bench.repository).unwrap();
    let left: Vec<_> =
        paths.iter().filter(|path| view.get(&bench.root, &rel(path)).unwrap().is_some()).copied().collect();
    assert_eq!(left, ["d-1", "d-1/x", "dd", "c"]);
    let children: Vec<_> = view.children(&bench.root, &RelPath::root()).unwrap();
    assert_eq!(
        children.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>(),
        [b"c" as &[u8], b"d-1", b"dd"]
    );
    assert_eq!(bench.store.reader().checkpoint(&bench.repository).unwrap().unwrap().batch, 1);
    bench.queue.distrust_files(&bench.repository).unwrap();
    assert!(!bench.store.reader().files(&bench.repository).unwrap().has_any(&bench.root).unwrap());
}

#[test]
fn a_deep_row_of_an_earlier_run_absorbs_nothing() {
    let mut bench = bench();
    bench.add("", Reach::Deep);
    let taken = bench.take().remove(0);
    let mut queue = bench.store.queue().unwrap();
    queue.enqueue(&bench.repository, &bench.root, &[(rel(""), Reach::Deep)], 2000).unwrap();
    let walk_seq = taken.row.seq;
    let rows = vec![bench.outcome(&taken, RowVerdict::Walked { cursor: None, walk_seq })];
    queue.settle(&bench.repository, &Settlement { rows, ..Settlement::default() }, 3000).unwrap();
    assert_eq!(
        queue.row_count(&bench.repository),
        1,
        "what changed since that walk is still to be looked at"
    );
}

#[test]
fn what_fails_again_and_again_stands_in_nobodys_way_when_everything_is_taken() {
    let mut bench = bench();
    let failure = Failure { reason: SkipReason::Unmounted, message: "not mounted".to_owned() };
    bench.add("disk", Reach::Deep);
    bench.add("locked", Reach::Exact);
    let again = RowVerdict::Again { not_before_ms: 200_000, failure };
    let fail = |bench: &mut Bench, taken: &[TakenRow]| {
        let failing = taken.iter().filter(|row| !row.path.is_root() && row.path != rel("new"));
        bench.settle(failing.map(|row| bench.outcome(row, again.clone())).collect());
    };
    let taken = bench.take();
    fail(&mut bench, &taken);
    bench.add("new", Reach::Exact);
    bench.add("", Reach::Deep);
    for _ in 0..3 {
        let taken = bench.queue.take(&bench.repository, 2000, 1, true).unwrap();
        let paths: Vec<String> = taken.iter().map(|row| row.path.to_string()).collect();
        assert_eq!(paths, ["new", ""], "the walk and the change that nobody has looked at");
        fail(&mut bench, &taken);
    }
    let taken = bench.queue.take(&bench.repository, 2000, 2, true).unwrap();
    assert!(taken.iter().any(|row| row.path == rel("locked")), "it is tried where there is room");
}

#[test]
fn a_clock_that_jumps_neither_holds_a_postponed_row_back_nor_hastens_another() {
    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
    let mut bench = bench();
    bench.add("a", Reach::Exact);
    let taken = bench.take();
    let failure = Failure { reason: SkipReason::Unreadable, message: "no".to_owned() };
    let not_before_ms = 2000 + 300_000;
    let again = bench.outcome(&taken[0], RowVerdict::Again { not_before_ms, failure });
    bench.settle(vec![again]);
    let ready = |queue: &mut QueueStore, now_ms: i64| {
        let waiting = queue.waiting(&RepositoryName::new("documents").unwrap(), now_ms, 10).unwrap();
        let taken = queue.take(&RepositoryName::new("documents").unwrap(), now_ms, 10, false).unwrap().len();
        assert_eq!(waiting.ready, taken);
        waiting.ready == 1
    };
    assert!(!ready(&mut bench.queue, 2000), "five minutes are waited for");
    assert!(!ready(&mut bench.queue, not_before_ms - 1));
    assert!(ready(&mut bench.queue, not_before_ms));
    assert!(ready(&mut bench.queue, 2000 - YEAR_MS), "a year is not");
    assert!(ready(&mut bench.queue, 2000 + YEAR_MS));
    assert!(ready(&mut bench.queue, 0) == (not_before_ms > 300_000));
}
