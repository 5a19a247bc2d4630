//! Against the real kernel, under limits that are lowered in a user namespace of the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::config::BackendChoice;
use crate::ignore::IgnoreRules;
use crate::watch::inotify::left::ByInotify;
use crate::watch::namespace::{is_inside, scratch_is_in_memory};
use crate::watch::{kinds, open};

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    directory: TempDir,
    backend: ComposedBackend<ByInotify>,
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn wanted<'a>(root: &'a Path, own_directory: &'a Path, choice: BackendChoice) -> Wanted<'a> {
    let (rules, _) = IgnoreRules::new(root, &[], &[".backupbotignore".to_owned()], true);
    Wanted { root, rules: Arc::new(rules), own_directory, one_file_system: false, choice }
}

fn open_by_inotify(wanted: &Wanted<'_>) -> ComposedBackend<ByInotify> {
    ComposedBackend::new(wanted, ByInotify::new(wanted)).unwrap()
}

fn started(prepare: impl FnOnce(&Path)) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (root, own) = (directory.path().join("root"), directory.path().join("sentinel"));
    fs::create_dir(&root).unwrap();
    prepare(&root);
    let mut backend = open_by_inotify(&wanted(&root, &own, BackendChoice::Auto));
    backend.start(&Progress::new()).unwrap();
    Fixture { directory, backend }
}

impl Fixture {
    fn at(&self, below: &str) -> PathBuf {
        self.directory.path().join("root").join(below)
    }

    /// All hints of what happened up to now.
    fn hints(&mut self) -> Vec<Hint> {
        const TOKEN: u64 = 4711;
        self.backend.control().barrier(TOKEN).unwrap();
        let mut hints = Vec::new();
        let end = Instant::now() + PATIENCE;
        while !hints.contains(&Hint::Barrier(TOKEN)) {
            assert!(Instant::now() < end, "waited in vain, got {hints:?}");
            self.backend.wait(Duration::from_secs(1), &mut hints).unwrap();
        }
        hints
    }

    /// Changes this and demands that it is hinted.
    fn assert_told_of(&mut self, file: &str) {
        fs::write(self.at(file), "x").unwrap();
        let hints = self.hints();
        assert!(crate::watch::poll::covered(&hints, file), "{file} in {hints:?}");
    }

    fn reason(&self) -> String {
        self.backend.stats().limited.unwrap_or_default()
    }
}

#[test]
fn where_nothing_is_wanting_all_of_it_is_watched() {
    let mut fixture = started(|root| fs::create_dir_all(root.join("a/b")).unwrap());
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("inotify", ""));
    assert_eq!(fixture.backend.stats().watches, 3);
    fixture.assert_told_of("a/b/f");
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.hints(), [Hint::Barrier(4711)]);
    let control = fixture.backend.control();
    let begin = Instant::now();
    control.wake();
    fixture.backend.wait(PATIENCE, &mut Vec::new()).unwrap();
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn what_is_beyond_the_limit_on_watches_is_polled_until_there_are_enough() {
    let test = "watch::composed::tests::what_is_beyond_the_limit_on_watches_is_polled_until_there_are_enough";
    if !is_inside(test, "echo 10 > /proc/sys/user/max_inotify_watches") {
        return;
    }
    let mut fixture = started(|root| {
        for number in 0..30 {
            fs::create_dir_all(root.join(format!("d{number:02}/below"))).unwrap();
        }
    });
    assert_eq!(fixture.backend.name(), "inotify+poll");
    let reason = fixture.reason();
    // Ten: the sentinel, the root and eight of sixty.
    assert!(
        reason.starts_with("52 directories are polled every 5 to 30 seconds instead of watched"),
        "{reason}"
    );
    assert!(reason.contains("user.max_inotify_watches = 10"), "{reason}");
    assert!(
        reason.contains(&format!("sysctl -w user.max_inotify_watches={}", 10 + 52 + 13 + 64)),
        "{reason}"
    );
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (61, 0));

    for number in 0..30 {
        fixture.assert_told_of(&format!("d{number:02}/f"));
        fixture.assert_told_of(&format!("d{number:02}/below/f"));
    }
    // A directory beyond the limit is made, moved, and goes; what holds one is moved too.
    fs::create_dir_all(fixture.at("new/deep/er")).unwrap();
    fixture.assert_told_of("new/deep/er/f");
    fixture.assert_told_of("new/deep/er/f");
    fs::rename(fixture.at("new"), fixture.at("d00/moved")).unwrap();
    fixture.assert_told_of("d00/moved/deep/er/g");
    fs::rename(fixture.at("d00"), fixture.at("e00")).unwrap();
    fixture.assert_told_of("e00/moved/deep/er/h");
    fs::remove_dir_all(fixture.at("e00")).unwrap();
    assert!(crate::watch::poll::covered(&fixture.hints(), "e00"));

    for number in 1..30 {
        fs::remove_dir_all(fixture.at(&format!("d{number:02}"))).unwrap();
    }
    fs::create_dir_all(fixture.at("last/one")).unwrap();
    fixture.hints();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("inotify", ""));
    assert_eq!(fixture.backend.stats().watches, 3);
    fixture.assert_told_of("last/one/f");
}

#[test]
fn a_directory_that_gets_its_watch_is_hinted_once_more() {
    let test = "watch::composed::tests::a_directory_that_gets_its_watch_is_hinted_once_more";
    if !is_inside(test, "echo 2 > /proc/sys/user/max_inotify_watches") {
        return;
    }
    let mut fixture = started(|root| fs::create_dir_all(root.join("d/e")).unwrap());
    assert_eq!(fixture.backend.name(), "inotify+poll");
    fs::write("/proc/sys/user/max_inotify_watches", "100").unwrap();
    // Nobody has looked at this change when the watch comes.
    fs::write(fixture.at("d/e/f"), "x").unwrap();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.name(), "inotify");
    let hints = fixture.hints();
    assert!(hints.contains(&Hint::Deep(path("d"))), "{hints:?}");
}

#[test]
fn without_an_instance_all_of_it_is_polled_until_there_is_one() {
    let test = "watch::composed::tests::without_an_instance_all_of_it_is_polled_until_there_is_one";
    if !is_inside(test, "echo 0 > /proc/sys/user/max_inotify_instances") {
        return;
    }
    let mut fixture = started(|root| fs::create_dir_all(root.join("a/b")).unwrap());
    assert_eq!(fixture.backend.name(), "poll");
    let reason = fixture.reason();
    assert!(reason.starts_with("all of it is polled every 5 to 30 seconds: cannot watch"), "{reason}");
    assert!(reason.contains("sysctl -w user.max_inotify_instances=1"), "{reason}");
    assert!(reason.contains("fs.inotify.max_user_instances"), "{reason}");
    fixture.assert_told_of("f");
    fixture.assert_told_of("a/b/f");
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.name(), "poll");

    fs::write("/proc/sys/user/max_inotify_instances", "8").unwrap();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("inotify", ""));
    assert!(fixture.hints().contains(&Hint::Deep(RelPath::root())));
    fixture.assert_told_of("a/b/f");
    // Of the old instance's waker and of the new one's, the thread waits on the right one.
    let control = fixture.backend.control();
    let waker = std::thread::spawn(move || control.wake());
    let begin = Instant::now();
    fixture.backend.wait(PATIENCE, &mut Vec::new()).unwrap();
    waker.join().unwrap();
    assert!(begin.elapsed() < PATIENCE);
    fs::remove_dir_all(fixture.at("")).unwrap();
    assert!(fixture.hints().contains(&Hint::RootGone));
}

#[test]
fn without_one_watch_all_of_it_is_polled() {
    let test = "watch::composed::tests::without_one_watch_all_of_it_is_polled";
    if !is_inside(test, "echo 0 > /proc/sys/user/max_inotify_watches") {
        return;
    }
    for watches in ["0", "1"] {
        fs::write("/proc/sys/user/max_inotify_watches", watches).unwrap();
        let mut fixture = started(|root| fs::create_dir_all(root.join("a/b")).unwrap());
        assert_eq!(fixture.backend.name(), "poll");
        let reason = fixture.reason();
        assert!(reason.starts_with("3 directories are polled every 5 to 30 seconds"), "{reason}");
        assert!(reason.contains(&format!("user.max_inotify_watches = {watches}")), "{reason}");
        fixture.assert_told_of("a/b/f");
    }
}

/// Mounts a file system in memory.
fn mount(at: &Path) {
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status().unwrap();
    assert!(mounted.success());
}

#[test]
fn where_one_file_system_is_asked_for_a_mount_is_neither_watched_nor_polled() {
    let test =
        "watch::composed::tests::where_one_file_system_is_asked_for_a_mount_is_neither_watched_nor_polled";
    if scratch_is_in_memory(test) || !is_inside(test, "true") {
        return;
    }
    kinds::PRETEND_SILENT.set(Some((0x0102_1994, "NFS")));
    let directory = tempfile::tempdir().unwrap();
    let (root, own) = (directory.path().join("root"), directory.path().join("own"));
    fs::create_dir_all(root.join("share")).unwrap();
    mount(&root.join("share"));
    fs::create_dir(root.join("share/d")).unwrap();
    for (choice, name) in [(BackendChoice::Auto, "inotify"), (BackendChoice::Poll, "poll")] {
        let wanted = Wanted { one_file_system: true, ..wanted(&root, &own, choice) };
        let mut backend = open(&wanted).unwrap();
        backend.start(&Progress::new()).unwrap();
        assert_eq!((backend.name(), backend.stats().watches), (name, 1));
    }
}

#[test]
fn a_mount_that_does_not_tell_is_polled_below_a_root_that_does() {
    let test = "watch::composed::tests::a_mount_that_does_not_tell_is_polled_below_a_root_that_does";
    if scratch_is_in_memory(test) || !is_inside(test, "true") {
        return;
    }
    // A file system in memory stands for a network's.
    kinds::PRETEND_SILENT.set(Some((0x0102_1994, "NFS")));
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("local/share")).unwrap();
        mount(&root.join("local/share"));
        fs::create_dir(root.join("local/share/d")).unwrap();
    });
    assert_eq!(fixture.backend.name(), "inotify+poll");
    assert!(fixture.reason().ends_with("made elsewhere: local/share (NFS)"), "{}", fixture.reason());
    assert_eq!(fixture.backend.told.as_ref().unwrap().stats().watches, 2, "root and local");
    fixture.assert_told_of("local/share/d/f");
    fixture.assert_told_of("local/f");

    // Forced inotify says what it cannot do; a root that is itself such a mount is polled as a whole.
    let (root, own) = (fixture.at(""), fixture.directory.path().join("other"));
    let mut forced = open(&wanted(&root, &own, BackendChoice::Inotify)).unwrap();
    forced.start(&Progress::new()).unwrap();
    let said = forced.stats().limited.unwrap();
    assert!(said.starts_with("parts of the root are on NFS"), "{said}");
    let share = fixture.at("local/share");
    let said = open(&wanted(&share, &own, BackendChoice::Inotify)).unwrap().stats().limited.unwrap();
    assert!(said.starts_with("`backend: inotify` is forced, but NFS does not tell"), "{said}");
    let mut whole = open(&wanted(&share, &own, BackendChoice::Auto)).unwrap();
    whole.start(&Progress::new()).unwrap();
    assert_eq!(whole.name(), "poll");
    let said = whole.stats().limited.unwrap();
    assert!(said.starts_with("all of it is polled every 5 to 30 seconds: NFS does not tell"), "{said}");
}

#[test]
fn what_the_configuration_says_is_done_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (root, own) = (directory.path().join("root"), directory.path().join("own"));
    fs::create_dir(&root).unwrap();
    for (choice, name) in
        [(BackendChoice::Auto, "inotify"), (BackendChoice::Inotify, "inotify"), (BackendChoice::Poll, "poll")]
    {
        let mut backend = open(&wanted(&root, &own, choice)).unwrap();
        backend.start(&Progress::new()).unwrap();
        assert_eq!((backend.name(), backend.stats().limited), (name, None));
    }
    let error = open(&wanted(&root, &own, BackendChoice::Kqueue)).err().unwrap();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("macOS and BSD"), "{error}");
}
