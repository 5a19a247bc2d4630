//! Snapshots of real backups, and commits that another program made.

use std::fs;

use super::*;
use crate::snapshot::tests::{Bench, bench, git};

impl Bench {
    /// A backup of the whole root; the snapshot that it made.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.back_up();
        let tip = self.repository.reference("refs/heads/main").unwrap().unwrap();
        Snapshot::read(&self.repository, tip).unwrap()
    }
}

#[test]
fn a_snapshot_says_what_its_commit_says() {
    let mut bench = bench();
    bench.write("a", "1");
    bench.write("b", "2");
    let first = bench.snapshot();
    bench.write("b", "22");
    fs::remove_file(bench.root().join("a")).unwrap();
    let second = bench.snapshot();
    assert_eq!(first.counts, Some(Counts { added: 2, changed: 0, deleted: 0 }));
    assert_eq!(second.counts, Some(Counts { added: 0, changed: 1, deleted: 1 }));
    assert_eq!((first.bytes, second.bytes), (Some(2), Some(2)));
    assert_eq!((first.parents.len(), second.parents.as_slice()), (0, [first.id].as_slice()));
    assert_eq!(second.instance.as_deref(), Some("laptop"));
    assert_eq!(second.batch, first.batch.map(|number| number + 1));
    assert_eq!(second.watched, [RootName::new("folder").unwrap()]);
    assert_eq!(
        git(bench.repository.path(), &["log", "-1", "--format=%ct"]).trim(),
        second.time.as_second().to_string()
    );
    assert!(second.id.to_string().starts_with(&second.short_id()));
}

#[test]
fn a_commit_that_is_not_ours_is_a_snapshot_without_what_only_we_say() {
    let mut bench = bench();
    bench.write("a", "1");
    let ours = bench.snapshot();
    let tree = ours.tree.to_string();
    for message in
        ["", "backup of everything", "backup 2026: 1 added, 2 changed, 3 deleted", "backup x: 1 added"]
    {
        let arguments = ["-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", &tree, "-m", message];
        let made = git(bench.repository.path(), &arguments);
        let snapshot = Snapshot::read(&bench.repository, Oid::from_str(made.trim()).unwrap()).unwrap();
        assert_eq!((snapshot.counts, snapshot.batch, snapshot.instance), (None, None, None), "{message}");
        assert!(snapshot.watched.is_empty());
        assert_eq!(snapshot.tree, ours.tree);
    }
    assert!(Snapshot::read(&bench.repository, ours.tree).is_err());
}

#[test]
fn the_roots_of_a_snapshot_are_its_top_directories_but_ours_and_those_without_any_file() {
    let mut bench = bench();
    fs::create_dir_all(bench.root().join("empty")).unwrap();
    let snapshot = bench.snapshot();
    let roots = snapshot.roots(&bench.repository.objects().unwrap()).unwrap();
    assert_eq!(roots.len(), 1);
    assert_eq!((roots[0].name.as_str(), roots[0].place.files), ("folder", None));
    assert!(roots[0].place.metadata.is_some());
    bench.write("file", "1");
    let snapshot = bench.snapshot();
    let roots = snapshot.roots(&bench.repository.objects().unwrap()).unwrap();
    assert_eq!(roots.len(), 1);
    assert!(roots[0].place.files.is_some() && roots[0].place.metadata.is_some());
}
