//! Against the real kernel. Every wait has a deadline and ends when what is waited for has come.

mod extremes;
mod wild;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    directory: TempDir,
    backend: InotifyBackend,
    hints: Vec<Hint>,
    tokens: u64,
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn changed(text: &str) -> Hint {
    Hint::Changed(path(text))
}

fn deep(text: &str) -> Hint {
    Hint::Deep(path(text))
}

fn started(prepare: impl FnOnce(&Path)) -> Fixture {
    started_with(&[], prepare)
}

fn started_with(patterns: &[&str], prepare: impl FnOnce(&Path)) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    prepare(&root);
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let (rules, _) = IgnoreRules::new(&root, &patterns, &[".backupbotignore".to_owned()], true);
    let sentinel = directory.path().join("sentinel");
    let mut backend = InotifyBackend::new(&root, Arc::new(rules), &sentinel, false).unwrap();
    backend.start(&Progress::new()).unwrap();
    Fixture { directory, backend, hints: Vec::new(), tokens: 0 }
}

impl Fixture {
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn at(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// All hints of what happened up to now.
    fn hints(&mut self) -> Vec<Hint> {
        self.tokens += 1;
        let token = self.tokens;
        self.backend.control().barrier(token).unwrap();
        self.wait_for(|hint| *hint == Hint::Barrier(token));
        let end = self.hints.iter().position(|hint| *hint == Hint::Barrier(token)).unwrap();
        let mut hints: Vec<Hint> = self.hints.drain(..=end).collect();
        hints.pop();
        // Hints may repeat: the kernel merges equal events only as long as nobody has read the first.
        let mut seen = Vec::new();
        hints.retain(|hint| {
            let is_first = !seen.contains(hint);
            seen.push(hint.clone());
            is_first
        });
        hints
    }

    fn wait_for(&mut self, wanted: impl Fn(&Hint) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !self.hints.iter().any(&wanted) {
            assert!(Instant::now() < end, "waited in vain, got {:?}", self.hints);
            self.backend.wait(Duration::from_secs(1), &mut self.hints).unwrap();
        }
    }

    /// The paths that have a watch, sorted.
    fn watched(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut stack = vec![RelPath::root()];
        while let Some(directory) = stack.pop() {
            let root = self.backend.root_watch.unwrap();
            if self.backend.table.find(root, &directory).is_none() {
                continue;
            }
            all.push(directory.to_string());
            let Ok(entries) = fs::read_dir(self.root().join(directory.as_os_path())) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().unwrap().is_dir()) {
                stack.push(directory.join(entry.file_name().as_encoded_bytes()));
            }
        }
        all.sort();
        all
    }

    /// Every directory that is known to the table is really there and told by its path.
    fn assert_watches(&mut self, expected: &[&str]) {
        self.hints();
        assert_eq!(self.watched(), expected);
        assert_eq!(self.backend.stats().watches, expected.len(), "watches of directories that are not there");
    }
}

fn covered(hints: &[Hint], wanted: &str) -> bool {
    let wanted = path(wanted);
    hints.iter().any(|hint| match hint {
        Hint::Changed(path) => *path == wanted,
        Hint::Deep(path) => wanted.is_within(path),
        Hint::Overflow => true,
        Hint::RootGone | Hint::Barrier(_) => false,
    })
}

#[test]
fn every_kind_of_change_of_a_file_is_hinted_once_in_a_row() {
    let mut fixture = started(|root| fs::write(root.join("old"), "x").unwrap());
    assert_eq!(fixture.hints(), []);
    fs::write(fixture.at("new"), "content").unwrap();
    assert_eq!(fixture.hints(), [changed("new")]);
    fs::write(fixture.at("old"), "content").unwrap();
    assert_eq!(fixture.hints(), [changed("old")]);
    fs::rename(fixture.at("old"), fixture.at("renamed")).unwrap();
    assert_eq!(fixture.hints(), [changed("old"), changed("renamed")]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(fixture.at("new"), mode).unwrap();
    assert_eq!(fixture.hints(), [changed("new")]);
    symlink("somewhere", fixture.at("link")).unwrap();
    fs::remove_file(fixture.at("new")).unwrap();
    assert_eq!(fixture.hints(), [changed("link"), changed("new")]);
}

#[test]
fn a_file_held_open_is_hinted_while_it_is_written() {
    use std::io::Write;
    let mut fixture = started(|root| fs::write(root.join("log"), "x").unwrap());
    let mut log = fs::OpenOptions::new().append(true).open(fixture.at("log")).unwrap();
    for _ in 0..3 {
        log.write_all(b"line\n").unwrap();
        assert_eq!(fixture.hints(), [changed("log")]);
    }
}

#[test]
fn names_that_are_not_text_come_through() {
    use std::os::unix::ffi::OsStrExt;
    let mut fixture = started(|_| ());
    let name = std::ffi::OsStr::from_bytes(b"a\xff\n");
    fs::create_dir(fixture.root().join(name)).unwrap();
    fs::write(fixture.root().join(name).join("f"), "x").unwrap();
    fixture.hints();
    fs::write(fixture.root().join(name).join("g"), "x").unwrap();
    assert_eq!(fixture.hints(), [Hint::Changed(RelPath::new(&b"a\xff\n/g"[..]).unwrap())]);
}

#[test]
fn nothing_of_a_tree_made_at_one_go_is_missed() {
    let mut fixture = started(|_| ());
    let mut files = Vec::new();
    for top in 0..20 {
        let directory = format!("t{top}/a/b/c/d/e");
        fs::create_dir_all(fixture.at(&directory)).unwrap();
        for (number, above) in Path::new(&directory).ancestors().take(6).enumerate() {
            let file = format!("{}/f{number}", above.display());
            fs::write(fixture.at(&file), "x").unwrap();
            files.push(file);
        }
        // Sometimes the watcher is in between.
        if top % 3 == 0 {
            fixture.backend.wait(Duration::ZERO, &mut fixture.hints).unwrap();
        }
    }
    let hints = fixture.hints();
    for file in files {
        assert!(covered(&hints, &file), "{file} is missing");
    }
    assert_eq!(fixture.backend.stats().watches, 1 + 20 * 6);
    fs::write(fixture.at("t7/a/b/c/d/e/late"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("t7/a/b/c/d/e/late")]);
}

#[test]
fn a_tree_being_made_by_another_thread_is_hinted_whole() {
    let mut fixture = started(|_| ());
    let root = fixture.root();
    let maker = std::thread::spawn(move || {
        let mut files = Vec::new();
        for number in 0..300 {
            let directory = format!("x{}/y{}/z{number}", number % 3, number % 17);
            fs::create_dir_all(root.join(&directory)).unwrap();
            let file = format!("{directory}/f");
            fs::write(root.join(&file), "x").unwrap();
            if number % 10 == 0 {
                fs::rename(root.join(&directory), root.join(format!("m{number}"))).unwrap();
                files.push(format!("m{number}/f"));
            } else {
                files.push(file);
            }
        }
        files
    });
    while !maker.is_finished() {
        fixture.backend.wait(Duration::from_millis(1), &mut fixture.hints).unwrap();
    }
    let files = maker.join().unwrap();
    let hints = fixture.hints();
    for file in &files {
        assert!(covered(&hints, file), "{file} is missing");
        fs::write(fixture.at(file), "again").unwrap();
    }
    let hints = fixture.hints();
    for file in &files {
        assert!(hints.contains(&changed(file)), "{file} has no watch");
    }
}

#[test]
fn a_directory_moved_in_is_hinted_and_watched() {
    let mut fixture = started(|_| ());
    let outside = fixture.directory.path().join("outside");
    fs::create_dir_all(outside.join("a")).unwrap();
    fs::write(outside.join("a/f"), "x").unwrap();
    fs::rename(&outside, fixture.at("in")).unwrap();
    let hints = fixture.hints();
    assert!(covered(&hints, "in/a/f"), "{hints:?}");
    fs::write(fixture.at("in/a/g"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("in/a/g")]);
}

#[test]
fn a_directory_moved_out_is_hinted_and_no_longer_watched() {
    let mut fixture = started(|root| fs::create_dir_all(root.join("d/e")).unwrap());
    let outside = fixture.directory.path().join("outside");
    fs::rename(fixture.at("d"), &outside).unwrap();
    assert_eq!(fixture.hints(), [deep("d")]);
    fs::write(outside.join("e/f"), "x").unwrap();
    let end = Instant::now() + PATIENCE;
    while fixture.backend.stats().watches > 1 {
        assert!(Instant::now() < end);
        fixture.backend.wait(Duration::from_millis(100), &mut fixture.hints).unwrap();
    }
    assert_eq!(fixture.hints(), []);
    fixture.assert_watches(&[""]);
}

#[test]
fn after_a_rename_of_an_ancestor_events_have_the_new_path() {
    let mut fixture = started(|root| fs::create_dir_all(root.join("a/b/c")).unwrap());
    fs::create_dir(fixture.at("x")).unwrap();
    fs::rename(fixture.at("a"), fixture.at("x/y")).unwrap();
    let hints = fixture.hints();
    assert!(hints.contains(&deep("a")) && covered(&hints, "x/y/b/c/f"), "{hints:?}");
    fs::write(fixture.at("x/y/b/c/f"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("x/y/b/c/f")]);
    fixture.assert_watches(&["", "x", "x/y", "x/y/b", "x/y/b/c"]);
}

#[test]
fn directories_that_change_places_keep_their_watches() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("a/in-a")).unwrap();
        fs::create_dir_all(root.join("b/in-b")).unwrap();
    });
    fs::rename(fixture.at("a"), fixture.at("t")).unwrap();
    fs::rename(fixture.at("b"), fixture.at("a")).unwrap();
    fs::rename(fixture.at("t"), fixture.at("b")).unwrap();
    fs::create_dir(fixture.at("t")).unwrap();
    let hints = fixture.hints();
    for moved in ["a/in-b", "b/in-a"] {
        assert!(covered(&hints, moved), "{moved} in {hints:?}");
    }
    fs::write(fixture.at("a/in-b/f"), "x").unwrap();
    fs::write(fixture.at("b/in-a/f"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("a/in-b/f"), changed("b/in-a/f")]);
    fixture.assert_watches(&["", "a", "a/in-b", "b", "b/in-a", "t"]);
}

#[test]
fn a_directory_made_again_under_the_same_name_is_watched_even_while_the_old_one_is_open() {
    let mut fixture = started(|root| fs::create_dir_all(root.join("d/e")).unwrap());
    let _held = fs::File::open(fixture.at("d/e")).unwrap();
    for round in 0..5 {
        fs::remove_dir_all(fixture.at("d")).unwrap();
        fs::create_dir_all(fixture.at("d/e")).unwrap();
        let file = format!("d/e/f{round}");
        fs::write(fixture.at(&file), "x").unwrap();
        let hints = fixture.hints();
        assert!(covered(&hints, &file), "{hints:?}");
    }
    fs::write(fixture.at("d/e/g"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("d/e/g")]);
    fixture.assert_watches(&["", "d", "d/e"]);
}

#[test]
fn deleting_a_tree_hints_it_and_frees_its_watches() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "x").unwrap();
    });
    fs::remove_dir_all(fixture.at("d")).unwrap();
    let hints = fixture.hints();
    for gone in ["d/e/f", "d/e", "d"] {
        assert!(covered(&hints, gone), "{gone} in {hints:?}");
    }
    fixture.assert_watches(&[""]);
}

#[test]
fn a_link_to_a_directory_is_an_entry_and_nothing_behind_it_is_watched() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    let mut fixture = started(|root| symlink(outside.path(), root.join("before")).unwrap());
    symlink(outside.path(), fixture.at("after")).unwrap();
    assert_eq!(fixture.hints(), [changed("after")]);
    fs::write(outside.path().join("deep/f"), "x").unwrap();
    assert_eq!(fixture.hints(), []);
    fixture.assert_watches(&[""]);
}

#[test]
fn what_the_rules_leave_out_has_neither_watch_nor_hint() {
    let mut fixture = started_with(&["cache/", "*.tmp"], |root| {
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        fs::create_dir_all(root.join("kept")).unwrap();
    });
    fs::write(fixture.at("cache/deep/f"), "x").unwrap();
    fs::create_dir(fixture.at("kept/cache")).unwrap();
    fs::write(fixture.at("kept/cache/f"), "x").unwrap();
    fs::write(fixture.at("kept/f.tmp"), "x").unwrap();
    fs::write(fixture.at("kept/.DS_Store"), "x").unwrap();
    assert_eq!(fixture.hints(), []);
    fs::rename(fixture.at("kept/cache"), fixture.at("kept/treasure")).unwrap();
    assert!(covered(&fixture.hints(), "kept/treasure/f"));
    fs::rename(fixture.at("kept/treasure"), fixture.at("cache/treasure")).unwrap();
    assert_eq!(fixture.hints(), [deep("kept/treasure")]);
    fs::write(fixture.at("cache/treasure/f"), "y").unwrap();
    fixture.backend.wait(Duration::from_millis(100), &mut fixture.hints).unwrap();
    assert_eq!(fixture.hints(), []);
    fixture.assert_watches(&["", "kept"]);
}

#[test]
fn a_changed_ignore_file_adjusts_the_watches_below_its_directory() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("d/a/deep")).unwrap();
        fs::create_dir_all(root.join("d/b")).unwrap();
        fs::write(root.join("d/.backupbotignore"), "a\n").unwrap();
    });
    fixture.assert_watches(&["", "d", "d/b"]);
    fs::write(fixture.at("d/.backupbotignore"), "b\n").unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    fixture.assert_watches(&["", "d", "d/a", "d/a/deep"]);
    fs::write(fixture.at("d/b/f"), "x").unwrap();
    fs::write(fixture.at("d/a/deep/f"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("d/a/deep/f")]);
    fs::remove_file(fixture.at("d/.backupbotignore")).unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    fixture.assert_watches(&["", "d", "d/a", "d/a/deep", "d/b"]);
}

#[test]
fn a_moved_directory_takes_the_rules_of_its_new_place() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("free/x")).unwrap();
        fs::create_dir_all(root.join("strict")).unwrap();
        fs::write(root.join("strict/.backupbotignore"), "x/\n").unwrap();
    });
    fs::create_dir(fixture.at("free/sub")).unwrap();
    fs::rename(fixture.at("free/x"), fixture.at("free/sub/x")).unwrap();
    fixture.assert_watches(&["", "free", "free/sub", "free/sub/x", "strict"]);
    fs::rename(fixture.at("free/sub"), fixture.at("strict/sub")).unwrap();
    fixture.assert_watches(&["", "free", "strict", "strict/sub"]);
    fs::rename(fixture.at("strict/sub"), fixture.at("sub")).unwrap();
    assert!(covered(&fixture.hints(), "sub/x"));
    fixture.assert_watches(&["", "free", "strict", "sub", "sub/x"]);
}

#[test]
fn lost_events_are_admitted_barriers_pass_and_missed_directories_get_their_watch() {
    let mut fixture = started(|root| fs::create_dir(root.join("stale")).unwrap());
    for number in 0..9000 {
        fs::write(fixture.at(&format!("f{number}")), "x").unwrap();
    }
    fs::create_dir_all(fixture.at("missed/deep")).unwrap();
    fs::remove_dir(fixture.at("stale")).unwrap();
    let hints = fixture.hints();
    assert!(hints.contains(&Hint::Overflow));
    assert_eq!(fixture.backend.stats().overflows, 1);
    fixture.assert_watches(&["", "missed", "missed/deep"]);
    fs::write(fixture.at("missed/deep/f"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("missed/deep/f")]);
}

#[test]
fn a_barrier_comes_after_all_that_happened_before_it_under_load() {
    let mut fixture = started(|root| {
        for number in 0..8 {
            fs::create_dir(root.join(format!("d{number}"))).unwrap();
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

#[test]
fn many_barriers_at_once_are_all_answered() {
    let mut fixture = started(|_| ());
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
    let mut fixture = started(|_| ());
    (0..400).for_each(|token| fixture.backend.control().barrier(token).unwrap());
    fixture.wait_for(|hint| *hint == Hint::Barrier(399));
    assert_eq!(fixture.hints, (0..400).map(Hint::Barrier).collect::<Vec<_>>());
}

#[test]
fn a_barrier_survives_the_removal_of_the_sentinels_directory() {
    let mut fixture = started(|_| ());
    let own = fixture.directory.path().join("sentinel");
    fixture.backend.control().barrier(5).unwrap();
    fs::remove_dir_all(&own).unwrap();
    fixture.wait_for(|hint| *hint == Hint::Barrier(5));
    let end = Instant::now() + PATIENCE;
    while !own.exists() {
        assert!(Instant::now() < end);
        fixture.backend.wait(Duration::from_millis(10), &mut fixture.hints).unwrap();
    }
    fixture.hints();
    fs::rename(&own, fixture.directory.path().join("elsewhere")).unwrap();
    while !own.exists() {
        assert!(Instant::now() < end);
        fixture.backend.wait(Duration::from_millis(10), &mut fixture.hints).unwrap();
    }
    fixture.hints();
}

#[test]
fn a_deleted_root_is_gone() {
    let mut fixture = started(|root| fs::create_dir(root.join("d")).unwrap());
    fs::remove_dir_all(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
    fixture.hints.clear();
    assert_eq!(fixture.hints(), [], "barriers pass and nothing else is hinted");
}

#[test]
fn a_deleted_root_is_gone_even_while_somebody_holds_it_open() {
    let mut fixture = started(|_| ());
    let _held = fs::File::open(fixture.root()).unwrap();
    fs::remove_dir_all(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
}

#[test]
fn a_moved_root_is_gone() {
    let mut fixture = started(|_| ());
    fs::rename(fixture.root(), fixture.directory.path().join("elsewhere")).unwrap();
    fs::create_dir(fixture.root()).unwrap();
    fixture.wait_for(|hint| *hint == Hint::RootGone);
    assert_eq!(fixture.hints.iter().filter(|hint| **hint == Hint::RootGone).count(), 1);
}

#[test]
fn a_root_that_is_not_there_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("absent");
    let (rules, _) = IgnoreRules::new(&root, &[], &[], true);
    let error =
        InotifyBackend::new(&root, Arc::new(rules), &directory.path().join("s"), false).err().unwrap();
    assert_eq!(error.kind(), Kind::RootUnavailable);
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn the_waker_ends_a_wait_before_and_during_it() {
    let mut fixture = started(|_| ());
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

#[test]
fn a_cancelled_start_stops_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("d")).unwrap();
    let (rules, _) = IgnoreRules::new(&root, &[], &[], true);
    let mut backend =
        InotifyBackend::new(&root, Arc::new(rules), &directory.path().join("s"), false).unwrap();
    let progress = Progress::new();
    progress.cancel();
    assert_eq!(backend.start(&progress).unwrap_err().kind(), Kind::Cancelled);
    backend.resync(&Progress::new()).unwrap();
    assert_eq!(backend.stats().watches, 2);
}
