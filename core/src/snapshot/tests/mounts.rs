//! Mounts that went away, alone or with the directories above them. That something was mounted is only recorded here:
//! tests/hostile/mounts.rs has real ones.

use std::collections::BTreeSet;

use super::*;
use crate::store::changes::SkipReason;
use crate::store::files::FileDelta;

impl Bench {
    /// From now on it is recorded that something was mounted on these directories.
    fn were_mounts(&mut self, directories: &[&str]) {
        let files = self.store.reader().files(&self.name).unwrap();
        let root = self.roots[0].name.clone();
        let put = |directory: &&str| {
            let path = RelPath::new(directory.as_bytes().to_vec()).unwrap();
            let mut record = files.get(&root, &path).unwrap().unwrap();
            record.look.is_mount = true;
            FileDelta::Put(path, Box::new(record))
        };
        let deltas = directories.iter().map(put).collect();
        let settlement = Settlement { files: vec![(root.clone(), deltas)], ..Settlement::default() };
        self.queue.settle(&self.name, &settlement, 1).unwrap();
    }

    /// Everything in the last commit below the root.
    fn stored(&self) -> BTreeSet<String> {
        let listed = git(self.repository.path(), &["ls-tree", "-r", "--name-only", "HEAD", "folder/"]);
        listed.lines().map(|path| path.trim_start_matches("folder/").to_owned()).collect()
    }

    /// The directories of which rows say that they are not mounted.
    fn unmounted(&mut self) -> Vec<String> {
        let rows = self.queue.take(&self.name, i64::MAX, 10_000, true).unwrap();
        let is_unmounted = |row: &TakenRow| {
            row.row.failure.as_ref().is_some_and(|failure| failure.reason == SkipReason::Unmounted)
        };
        rows.iter().filter(|row| is_unmounted(row)).map(|row| row.path.to_string()).collect()
    }
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

/// Two mounts below `a`, one of them in another's directory, and files beside them at every height.
fn with_two_mounts() -> Bench {
    let mut bench = bench();
    for path in [
        "a/b/on it",
        "a/b/sub/on it too",
        "a/beside",
        "a/beside-dir/deep/file",
        "a/c/beside",
        "a/c/d/e/on it",
        "a/c/d/nested/beside",
        "a/c/f/no mount",
        "a-sibling/file",
        "outside",
    ] {
        bench.write(path, path);
    }
    bench.back_up();
    bench.were_mounts(&["a/b", "a/c/d/e"]);
    bench
}

#[test]
fn what_is_below_a_mount_stays_when_a_directory_above_goes_with_it_and_all_else_goes() {
    let kept = set(&["a/b/on it", "a/b/sub/on it too", "a/c/d/e/on it", "a-sibling/file", "outside"]);
    for (path, reach) in [("", Reach::Deep), ("", Reach::Exact), ("a", Reach::Deep), ("a", Reach::Exact)] {
        let mut bench = with_two_mounts();
        fs::remove_dir_all(bench.root().join("a")).unwrap();
        bench.touch(path, reach);
        assert!(bench.step().0.is_some());
        assert_eq!(bench.stored(), kept, "by {path:?} {reach:?}");
        assert_eq!(bench.unmounted(), ["a/b", "a/c/d/e"], "by {path:?} {reach:?}");
        // Neither its rows nor a rescan nor a late event of a file below find any more.
        for (path, reach) in [("", Reach::Deep), ("a/b/on it", Reach::Exact), ("a", Reach::Exact)] {
            bench.touch(path, reach);
            assert_eq!(bench.step().0, None, "{path:?}");
        }
        assert_eq!(bench.stored(), kept);
        bench.fsck();
    }
}

#[test]
fn one_file_in_a_directory_that_was_a_mount_says_that_it_is_meant() {
    let mut bench = with_two_mounts();
    fs::remove_dir_all(bench.root().join("a")).unwrap();
    bench.touch("", Reach::Deep);
    bench.step();
    bench.write("a/b/new", "x");
    bench.touch("a", Reach::Deep);
    bench.step();
    assert_eq!(bench.stored(), set(&["a/b/new", "a/c/d/e/on it", "a-sibling/file", "outside"]));
    assert_eq!(bench.unmounted(), ["a/c/d/e"]);
    bench.write("a/c/d/e/on it", "mounted again");
    bench.back_up();
    bench.assert_clone_equals();
}

#[test]
fn a_mount_with_nothing_on_it_and_one_that_is_no_longer_one_hold_nothing_back() {
    let mut bench = bench();
    bench.write("a/beside", "x");
    bench.write("a/b/file", "x");
    fs::create_dir(bench.root().join("a/empty")).unwrap();
    bench.back_up();
    bench.were_mounts(&["a/empty", "a/b"]);
    // Compared and found to be a directory like any other.
    bench.touch("a/b", Reach::Exact);
    bench.drain();
    fs::remove_dir_all(bench.root().join("a")).unwrap();
    bench.write("other", "x");
    bench.back_up();
    bench.assert_clone_equals();
}

#[test]
fn a_file_where_a_directory_with_a_mount_was_takes_its_place() {
    let mut bench = with_two_mounts();
    fs::remove_dir_all(bench.root().join("a")).unwrap();
    bench.write("a", "a file now");
    bench.back_up();
    bench.assert_clone_equals();
}
