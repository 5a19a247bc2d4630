//! What a crash, a lost cache or a commit that was taken back leave, and that it is made good.

use super::*;

#[test]
fn a_crash_before_the_branch_moves_replays_and_after_it_settles() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    bench.write("a", "two");
    bench.touch("a", Reach::Exact);
    for installed in [false, true] {
        let Built::Commit(staged, _) = bench.build() else { panic!("no commit") };
        bench.queue.stage(&bench.name, &staged).unwrap();
        if installed {
            pack::install_by_name(&bench.repository.pack_directory(), &staged.pack).unwrap();
        }
        assert_eq!(recover(&bench.repository, &staged).unwrap(), Recovered::Drop);
        assert_eq!(
            recover(&bench.repository, &staged).unwrap(),
            Recovered::Drop,
            "a second start is harmless"
        );
        bench.queue.unstage(&bench.name).unwrap();
        let left = fs::read_dir(bench.repository.pack_directory()).unwrap().count();
        assert_eq!(left, 2, "only the first pack and its index");
    }
    let Built::Commit(staged, _) = bench.build() else { panic!("no commit") };
    bench.queue.stage(&bench.name, &staged).unwrap();
    publish(&bench.repository, &staged, &Progress::new()).unwrap();
    assert_eq!(recover(&bench.repository, &staged).unwrap(), Recovered::Settle);
    bench.queue.settle(&bench.name, &staged.settlement, 3).unwrap();
    assert_eq!(bench.drain(), 0);
    bench.assert_clone_equals();
    assert_eq!(git(bench.repository.path(), &["rev-list", "--count", "main"]).trim(), "2");
}

#[test]
fn an_unpushed_commit_can_be_taken_back_and_comes_again() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let first = bench.repository.reference(BRANCH).unwrap().unwrap();
    bench.write("a", "two");
    bench.write("b", "new");
    bench.back_up();
    let second = bench.repository.reference(BRANCH).unwrap().unwrap();
    let roots = [bench.roots[0].name.clone()];
    let mut back = |confirmed: &[Oid]| {
        take_back(&bench.repository, &bench.name, BRANCH, first, confirmed, &roots, &mut bench.queue)
    };
    assert!(back(&[second]).is_err(), "what is pushed stays");
    back(&[first]).unwrap();
    assert_eq!(bench.repository.reference(BRANCH).unwrap(), Some(first));
    while bench.queue.row_count(&bench.name) > 0 {
        bench.step();
    }
    bench.assert_clone_equals();
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    assert_eq!(bench.repository.tree_of(tip).unwrap(), bench.repository.tree_of(second).unwrap());
}

#[test]
fn a_cache_made_from_the_tree_notices_what_is_gone_and_stores_nothing_twice() {
    let mut bench = bench();
    bench.write("keep", "one");
    bench.write("dir/gone", "two");
    bench.write("gone-dir/x", "three");
    bench.back_up();
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    assert_eq!(batch_of(&bench.repository, tip).unwrap(), 1);
    bench.queue.distrust_files(&bench.name).unwrap();
    let root = bench.roots[0].name.clone();
    let mut parts = Vec::new();
    rebuild_files(&bench.repository, tip, &root, &Progress::new(), &mut |part| {
        parts.push(part);
        Ok(())
    })
    .unwrap();
    for part in parts {
        let settlement = Settlement { files: vec![(root.clone(), part)], ..Settlement::default() };
        bench.queue.settle(&bench.name, &settlement, 1).unwrap();
    }
    fs::remove_file(bench.root().join("dir/gone")).unwrap();
    fs::remove_dir_all(bench.root().join("gone-dir")).unwrap();
    bench.queue.enqueue(&bench.name, &root, &[(RelPath::root(), Reach::Deep)], 1).unwrap();
    let (commit, summary) = bench.step();
    assert!(commit.is_some());
    assert_eq!((summary.added, summary.deleted), (0, 2), "{summary:?}");
    bench.assert_clone_equals();
}

#[test]
fn a_walk_that_could_not_begin_leaves_its_row_and_says_why() {
    let mut bench = bench();
    bench.write("a", "x");
    bench.touch("", Reach::Deep);
    let row = bench.queue.take(&bench.name, i64::MAX, 10, true).unwrap().remove(0);
    // Somebody else asks for the same walk meanwhile.
    bench.touch("", Reach::Deep);
    let seq = row.row.seq;
    let outcome = |verdict| RowOutcome { root: row.root.clone(), path: row.path.clone(), seq, verdict };
    let failure = crate::store::changes::Failure {
        reason: crate::store::changes::SkipReason::Unreadable,
        message: "the disk does not answer".to_owned(),
    };
    let walked = outcome(RowVerdict::Walked { cursor: None, walk_seq: seq });
    let mut settlement = Settlement { rows: vec![walked], ..Settlement::default() };
    override_outcomes(&mut settlement, vec![outcome(RowVerdict::Again { not_before_ms: 5, failure })]);
    bench.queue.settle(&bench.name, &settlement, 2).unwrap();
    assert_eq!(bench.queue.unsettled_up_to(&bench.name, seq).unwrap(), 1, "nothing of it is in a commit");
    bench.drain();
    bench.assert_clone_equals();
}
