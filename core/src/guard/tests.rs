//! The counting with a clock that is passed in, and the same from real commits.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::restores::Restores;
use super::*;
use crate::path::RelPath;
use crate::snapshot::tests::bench;
use crate::store::changes::Reach;

const MINUTE: i64 = 60;

fn limits() -> MassChange {
    MassChange { min_files: 10, ..MassChange::default() }
}

/// A root of `files` files with the contents 0, 1, 2, …, and what is done to it.
struct Root {
    window: Window,
    /// We do it ourselves.
    restores: bool,
    now: BTreeMap<u64, u64>,
}

impl Root {
    fn with(files: u64) -> Self {
        Self {
            window: Window::default(),
            restores: false,
            now: (0..files).map(|file| (file, file)).collect(),
        }
    }

    /// One commit at `at_s`: each path gets a content, or none.
    fn commit(&mut self, at_s: i64, changes: impl IntoIterator<Item = (u64, Option<u64>)>) -> Option<Loss> {
        let mut tally = Tally::default();
        let stored = |content: u64| {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&content.to_le_bytes());
            id
        };
        for (path, content) in changes {
            let before = match content {
                Some(content) => self.now.insert(path, content),
                None => self.now.remove(&path),
            };
            let name = RelPath::new(format!("f{path}")).unwrap();
            tally.note(&name, before.map(stored).as_ref(), content.map(stored).as_ref(), self.restores);
        }
        self.window.take(&tally, at_s);
        self.window.forget_before(at_s - 60 * MINUTE);
        let files = i64::try_from(self.now.len()).unwrap();
        self.window.may_hold(&limits()).then(|| self.window.judge(files, &limits())).flatten()
    }
}

#[test]
fn what_many_small_commits_take_adds_up_and_the_first_that_is_too_much_is_told() {
    let mut root = Root::with(100);
    for file in 0..49 {
        assert_eq!(root.commit(i64::try_from(file).unwrap(), [(file, Some(1000 + file))]), None);
    }
    let loss = root.commit(49, [(49, None)]).unwrap();
    assert_eq!((loss.lost, loss.of, loss.since_s), (50, 100, 0));
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut root = Root::with(100);
    for file in 0..100 {
        let at_s = i64::try_from(file).unwrap() * 2 * MINUTE;
        assert_eq!(root.commit(at_s, [(file, Some(1000 + file))]), None, "{file}");
    }
}

#[test]
fn moves_new_files_and_files_that_came_and_went_are_no_loss() {
    let mut root = Root::with(100);
    assert_eq!(
        root.commit(1, (0..100).map(|file| (file, None)).chain((0..100).map(|f| (500 + f, Some(f))))),
        None
    );
    // The same in two steps, the new places first.
    assert_eq!(root.commit(2, (0..100).map(|f| (700 + f, Some(f)))), None);
    assert_eq!(root.commit(3, (0..100).map(|f| (500 + f, None))), None);
    assert_eq!(root.commit(4, (0..1000).map(|f| (2000 + f, Some(5000 + f)))), None);
    assert_eq!(root.commit(5, (0..1000).map(|f| (2000 + f, Some(9000 + f)))), None, "new ones may change");
    assert_eq!(root.commit(6, (0..1000).map(|f| (2000 + f, None))), None, "and go");
    let loss = root.commit(7, (0..60).map(|f| (700 + f, None))).unwrap();
    assert_eq!((loss.lost, loss.of), (60, 100), "what stood there before still counts");
}

#[test]
fn a_file_that_is_written_again_and_again_counts_once() {
    let mut root = Root::with(20);
    for round in 0..50 {
        assert_eq!(
            root.commit(round, (0..9).map(|f| (f, Some(100 + f + 1000 * round.unsigned_abs())))),
            None
        );
    }
    assert_eq!(root.commit(60, (0..9).map(|f| (f, Some(f)))), None);
    assert!(root.commit(61, (0..10).map(|f| (f, Some(7777 + f)))).is_some());
}

#[test]
fn few_files_never_trigger() {
    let mut root = Root::with(9);
    assert_eq!(root.commit(1, (0..9).map(|f| (f, None))), None);
    let mut large = Root::with(1000);
    assert_eq!(large.commit(1, (0..499).map(|f| (f, None))), None);
    assert_eq!(large.commit(2, [(499, None)]).map(|loss| loss.lost), Some(500));
}

#[test]
fn a_root_that_was_almost_empty_is_compared_with_what_it_held_since() {
    let mut root = Root::with(3);
    assert_eq!(root.commit(1, (10..30).map(|f| (f, Some(f)))), None);
    assert_eq!(root.commit(2, (30..110).map(|f| (f, Some(f)))), None);
    // Copied and then deleted where they were: nothing is lost.
    assert_eq!(root.commit(3, (10..110).map(|f| (1000 + f, Some(f)))), None);
    assert_eq!(root.commit(4, (10..110).map(|f| (f, None))), None);
    assert_eq!(root.commit(5, (10..55).map(|f| (1000 + f, Some(9000 + f)))), None);
    let loss = root.commit(6, (55..70).map(|f| (1000 + f, Some(9000 + f)))).unwrap();
    assert_eq!((loss.lost, loss.of), (120, 203), "with their copies");
}

#[test]
fn what_a_restore_puts_back_is_there_again_and_what_it_takes_away_is_not_missed() {
    let mut root = Root::with(100);
    assert!(root.commit(1, (0..100).map(|f| (f, Some(1000 + f)))).is_some());
    root.restores = true;
    for file in 0..100 {
        root.commit(2, [(file, Some(file))]);
    }
    root.restores = false;
    assert_eq!(root.commit(3, [(500, Some(500))]), None);
    root.restores = true;
    assert_eq!(root.commit(4, (0..100).map(|f| (f, None))), None);
    root.restores = false;
    assert_eq!(root.commit(5, [(501, Some(501))]), None);
}

#[test]
fn very_many_commits_are_remembered_in_bounded_memory_and_none_is_forgotten() {
    let mut root = Root::with(4_000);
    let mut found = None;
    for file in 0..2_000 {
        found = root.commit(i64::try_from(file / 3).unwrap(), [(file, Some(20_000 + file))]);
        assert_eq!(found.is_some(), file == 1_999, "{file}");
    }
    assert_eq!(found.map(|loss| loss.lost), Some(2_000));
}

#[test]
fn the_commits_tell_after_a_restart_what_the_memory_knew() {
    let mut bench = bench();
    for file in 0..40 {
        bench.write(&format!("d{}/f{file}", file % 4), format!("content {file}"));
    }
    bench.back_up();
    let begins = bench.repository.reference("refs/heads/main").unwrap().unwrap();
    let root = bench.roots[0].name.clone();
    let since = BTreeMap::from([(root.clone(), begins)]);
    for file in 0..10 {
        bench.write(&format!("d{}/f{file}", file % 4), format!("rewritten {file}"));
        bench.touch(&format!("d{}/f{file}", file % 4), Reach::Exact);
        bench.drain();
    }
    fs::rename(bench.root().join("d3"), bench.root().join("moved")).unwrap();
    fs::remove_dir_all(bench.root().join("d2")).unwrap();
    bench.write("new", "new");
    bench.back_up();
    let tip = bench.repository.reference("refs/heads/main").unwrap().unwrap();
    let read = |start_s, since: &BTreeMap<RootName, Oid>| {
        past::read(&bench.repository, tip, start_s, since, &Restores::default(), &Progress::new()).unwrap()
    };
    let limits = MassChange { share: 0.1, ..limits() };
    let windows = read(0, &since);
    // Ten of d2's and seven that were rewritten elsewhere; what moved is not lost.
    let loss = windows[&root].judge(31, &limits).unwrap();
    assert_eq!((loss.lost, loss.of), (18, 40));
    assert!(!read(i64::MAX - 1, &since)[&root].may_hold(&limits), "nothing lies in the window");
    let from_now = BTreeMap::from([(root.clone(), tip)]);
    assert!(!read(0, &from_now)[&root].may_hold(&limits), "it counts from now on only");
}

#[test]
fn a_restore_in_place_is_no_loss_and_what_somebody_else_does_to_its_files_is() {
    let mut bench = bench();
    bench.write("file", "old");
    bench.back_up();
    let snapshot = bench.repository.reference("refs/heads/main").unwrap().unwrap();
    let stored = crate::tree::lookup(
        &bench.repository.objects().unwrap(),
        bench.repository.tree_of(snapshot).unwrap(),
        b"folder/file",
    );
    let stored = raw(stored.unwrap().unwrap().oid);
    let journals = bench.scratch.path().join("restores");
    let identity = crate::restore::marker::Identity {
        repository: "documents".to_owned(),
        snapshot: snapshot.to_string(),
        selection: Vec::new(),
    };
    let head = crate::restore::journal::Head { identity, before: snapshot.to_string(), started_ms: 5 };
    let mut journal = crate::restore::journal::begin(&journals, head).unwrap();
    for path in ["file", "deleted"] {
        let step = crate::restore::Step {
            root: bench.roots[0].name.clone(),
            path: RelPath::new(path).unwrap(),
            kind: crate::beneath::EntryKind::File,
            action: crate::restore::Action::Write,
            bytes: 0,
        };
        journal.note(&step).unwrap();
    }
    let hour = Duration::from_secs(3600);
    let restores = Restores::read(&journals, "documents", hour, None);
    let did = |path: &str, stands: Option<&[u8; 20]>| {
        restores.did(&bench.repository, &bench.roots[0].name, &RelPath::new(path).unwrap(), stands).unwrap()
    };
    assert!(did("file", Some(&stored)) && did("deleted", None));
    assert!(!did("file", None) && !did("file", Some(&[7; 20])) && !did("deleted", Some(&stored)));
    assert!(!did("other", None), "the restore did not touch it");
    let of_others = Restores::read(&journals, "pictures", hour, None);
    assert!(
        !of_others
            .did(&bench.repository, &bench.roots[0].name, &RelPath::new("deleted").unwrap(), None)
            .unwrap()
    );
}
