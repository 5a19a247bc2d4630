//! Against a real directory. A barrier makes a pass come at once, so nothing here waits for the clock.
//!
//! Tests that hold for every backend are scenarios: they get a started backend and its root, and nothing else.

mod extremes;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::pass::{LONGEST_REST, SHORTEST_REST, rest_after};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn changed(text: &str) -> Hint {
    Hint::Changed(path(text))
}

fn deep(text: &str) -> Hint {
    Hint::Deep(path(text))
}

struct Fixture {
    directory: TempDir,
    backend: PollBackend,
}

fn prepared(patterns: &[&str], prepare: impl FnOnce(&Path)) -> (TempDir, PollBackend) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    prepare(&root);
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let (rules, _) = IgnoreRules::new(&root, &patterns, &[".backupbotignore".to_owned()], true);
    let mut backend = PollBackend::new(&root, Arc::new(rules), false).unwrap();
    // Every file of a test is young; what that means has a test of its own.
    backend.poller.young_ns = 0;
    (directory, backend)
}

fn started(prepare: impl FnOnce(&Path)) -> Fixture {
    started_with(&[], prepare)
}

fn started_with(patterns: &[&str], prepare: impl FnOnce(&Path)) -> Fixture {
    let (directory, mut backend) = prepared(patterns, prepare);
    backend.start(&Progress::new()).unwrap();
    Fixture { directory, backend }
}

impl Fixture {
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn at(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    fn hints(&mut self) -> Vec<Hint> {
        hints_of(&mut self.backend)
    }

    /// Those hints that are not about a directory's own times, which change with every entry.
    fn entries(&mut self) -> Vec<Hint> {
        let root = self.root();
        let mut hints = self.hints();
        hints.retain(|hint| match hint {
            Hint::Changed(path) => {
                !root.join(path.as_os_path()).is_dir() || root.join(path.as_os_path()).is_symlink()
            }
            _ => true,
        });
        hints
    }
}

/// All hints of what happened up to now, sorted by path.
fn hints_of(backend: &mut dyn Backend) -> Vec<Hint> {
    const TOKEN: u64 = 4711;
    backend.control().barrier(TOKEN).unwrap();
    let mut hints = wait_for(backend, |hint| *hint == Hint::Barrier(TOKEN));
    assert_eq!(hints.pop(), Some(Hint::Barrier(TOKEN)), "a barrier is the last of its pass");
    hints.sort_by_key(|hint| format!("{hint:?}"));
    hints.dedup();
    hints
}

fn wait_for(backend: &mut dyn Backend, wanted: impl Fn(&Hint) -> bool) -> Vec<Hint> {
    let mut hints = Vec::new();
    let end = Instant::now() + PATIENCE;
    while !hints.iter().any(&wanted) {
        assert!(Instant::now() < end, "waited in vain, got {hints:?}");
        backend.wait(Duration::from_secs(1), &mut hints).unwrap();
    }
    hints
}

pub(in crate::watch) fn covered(hints: &[Hint], wanted: &str) -> bool {
    let wanted = path(wanted);
    hints.iter().any(|hint| match hint {
        Hint::Changed(path) => *path == wanted,
        Hint::Deep(path) => wanted.is_within(path),
        Hint::Overflow => true,
        Hint::RootGone | Hint::Barrier(_) => false,
    })
}

#[test]
fn every_kind_of_change_of_a_file_is_hinted_exactly() {
    let mut fixture = started(|root| {
        fs::write(root.join("old"), "x").unwrap();
        fs::write(root.join("still"), "x").unwrap();
    });
    assert_eq!(fixture.hints(), []);
    fs::write(fixture.at("new"), "content").unwrap();
    assert_eq!(fixture.entries(), [changed("new")]);
    fs::write(fixture.at("old"), "content").unwrap();
    assert_eq!(fixture.hints(), [changed("old")]);
    fs::rename(fixture.at("old"), fixture.at("renamed")).unwrap();
    assert_eq!(fixture.entries(), [changed("old"), changed("renamed")]);
    fs::set_permissions(fixture.at("new"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fixture.hints(), [changed("new")]);
    symlink("somewhere", fixture.at("link")).unwrap();
    fs::remove_file(fixture.at("new")).unwrap();
    assert_eq!(fixture.entries(), [changed("link"), changed("new")]);
    assert_eq!(fixture.hints(), []);
}

#[test]
fn a_file_of_the_same_size_and_time_is_hinted_when_it_is_another_one() {
    let mut fixture = started(|root| fs::write(root.join("f"), "one").unwrap());
    let time = fs::metadata(fixture.at("f")).unwrap().modified().unwrap();
    fs::write(fixture.at("g"), "two").unwrap();
    fs::File::options().write(true).open(fixture.at("g")).unwrap().set_modified(time).unwrap();
    fs::rename(fixture.at("g"), fixture.at("f")).unwrap();
    assert_eq!(fixture.entries(), [changed("f")]);
}

#[test]
fn a_file_that_changed_a_moment_ago_is_hinted_until_it_cannot_change_unseen() {
    let (_directory, mut backend) = prepared(&[], |root| fs::write(root.join("f"), "x").unwrap());
    backend.poller.young_ns = 3600 * 1_000_000_000;
    backend.start(&Progress::new()).unwrap();
    for _ in 0..2 {
        assert_eq!(hints_of(&mut backend), [changed("f")], "written within the hour");
    }
    backend.poller.young_ns = 0;
    assert_eq!(hints_of(&mut backend), [changed("f")], "once more, now that it is old enough");
    assert_eq!(hints_of(&mut backend), []);
}

#[test]
fn a_directory_that_is_new_is_hinted_whole_when_all_of_it_is_recorded() {
    let mut fixture = started(|_| ());
    fs::create_dir_all(fixture.at("a/b/c")).unwrap();
    fs::write(fixture.at("a/b/c/f"), "x").unwrap();
    assert_eq!(fixture.entries(), [deep("a")]);
    assert_eq!(fixture.hints(), []);
    fs::write(fixture.at("a/b/c/f"), "changed").unwrap();
    fs::create_dir(fixture.at("a/b/d")).unwrap();
    assert_eq!(fixture.entries(), [changed("a/b/c/f"), deep("a/b/d")]);
    assert_eq!(fixture.backend.stats().watches, 5);
}

#[test]
fn what_vanished_is_hinted_by_its_topmost_directory_and_forgotten() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("d/e/f")).unwrap();
        fs::write(root.join("d/e/f/g"), "x").unwrap();
        fs::create_dir(root.join("stays")).unwrap();
    });
    assert_eq!(fixture.backend.stats().watches, 5);
    fs::remove_dir_all(fixture.at("d")).unwrap();
    assert_eq!(fixture.entries(), [changed("d")]);
    assert_eq!(fixture.backend.stats().watches, 2);
    fs::create_dir_all(fixture.at("d/e")).unwrap();
    assert_eq!(fixture.entries(), [deep("d")]);
}

#[test]
fn directories_that_change_places_are_compared_entry_by_entry() {
    let mut fixture = started(|root| {
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir_all(root.join("b")).unwrap();
        fs::write(root.join("a/in-a"), "x").unwrap();
        fs::write(root.join("b/in-b"), "x").unwrap();
    });
    fs::rename(fixture.at("a"), fixture.at("t")).unwrap();
    fs::rename(fixture.at("b"), fixture.at("a")).unwrap();
    fs::rename(fixture.at("t"), fixture.at("b")).unwrap();
    let hints = fixture.entries();
    assert_eq!(hints, [changed("a/in-a"), changed("a/in-b"), changed("b/in-a"), changed("b/in-b")]);
}

#[test]
fn a_change_of_kind_is_hinted_either_way() {
    let mut fixture = started(|root| {
        fs::write(root.join("file"), "x").unwrap();
        fs::create_dir_all(root.join("dir/below")).unwrap();
        symlink("dir", root.join("link")).unwrap();
    });
    fs::remove_file(fixture.at("file")).unwrap();
    fs::create_dir(fixture.at("file")).unwrap();
    fs::remove_dir_all(fixture.at("dir")).unwrap();
    fs::write(fixture.at("dir"), "x").unwrap();
    fs::remove_file(fixture.at("link")).unwrap();
    fs::create_dir(fixture.at("link")).unwrap();
    assert_eq!(fixture.entries(), [changed("dir"), deep("file"), deep("link")]);
    assert_eq!(fixture.backend.stats().watches, 3, "root, file, link");
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), "secret").unwrap();
    let mut fixture = started(|root| fs::create_dir(root.join("d")).unwrap());
    fs::remove_dir(fixture.at("d")).unwrap();
    symlink(outside.path(), fixture.at("d")).unwrap();
    assert_eq!(fixture.entries(), [changed("d")]);
    fs::write(outside.path().join("canary"), "changed").unwrap();
    assert_eq!(fixture.hints(), []);
    assert_eq!(fixture.backend.stats().watches, 1);
}

#[test]
fn names_that_are_not_text_come_through() {
    let mut fixture = started(|_| ());
    let name = std::ffi::OsStr::from_bytes(b"a\xff\n");
    fs::create_dir(fixture.root().join(name)).unwrap();
    fixture.hints();
    fs::write(fixture.root().join(name).join("g\u{1}"), "x").unwrap();
    assert_eq!(fixture.entries(), [Hint::Changed(RelPath::new(&b"a\xff\n/g\x01"[..]).unwrap())]);
}

#[test]
fn what_the_rules_leave_out_is_neither_hinted_nor_kept() {
    let mut fixture = started_with(&["cache/", "*.tmp"], |root| {
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        fs::create_dir_all(root.join("kept")).unwrap();
    });
    assert_eq!(fixture.backend.stats().watches, 2);
    fs::write(fixture.at("cache/deep/f"), "x").unwrap();
    fs::create_dir(fixture.at("kept/cache")).unwrap();
    fs::write(fixture.at("kept/cache/f"), "x").unwrap();
    fs::write(fixture.at("kept/f.tmp"), "x").unwrap();
    fs::write(fixture.at("kept/.DS_Store"), "x").unwrap();
    assert_eq!(fixture.entries(), []);
    fs::rename(fixture.at("kept/cache"), fixture.at("kept/treasure")).unwrap();
    assert_eq!(fixture.entries(), [deep("kept/treasure")]);
    fs::rename(fixture.at("kept/treasure"), fixture.at("cache/treasure")).unwrap();
    assert_eq!(fixture.entries(), [changed("kept/treasure")]);
    fs::write(fixture.at("cache/treasure/f"), "y").unwrap();
    assert_eq!(fixture.hints(), []);
}

#[test]
fn a_changed_ignore_file_is_obeyed_and_its_directory_hinted_whole() {
    let mut fixture = started_with(&["*.secret", ".backupbotignore"], |root| {
        fs::create_dir_all(root.join("d/a/deep")).unwrap();
        fs::create_dir_all(root.join("d/b")).unwrap();
        // The rules leave the file of rules itself out, and it counts all the same.
        fs::write(root.join("d/.backupbotignore"), "a\n").unwrap();
    });
    assert_eq!(fixture.backend.stats().watches, 3, "root, d, d/b");
    fs::write(fixture.at("d/.backupbotignore"), "b\n").unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    fixture.hints();
    assert_eq!(fixture.backend.stats().watches, 4, "root, d, d/a, d/a/deep");
    fs::write(fixture.at("d/b/f"), "x").unwrap();
    fs::write(fixture.at("d/a/deep/f"), "x").unwrap();
    assert_eq!(fixture.entries(), [changed("d/a/deep/f")]);
    fs::remove_file(fixture.at("d/.backupbotignore")).unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    fixture.hints();
    assert_eq!(fixture.backend.stats().watches, 5);
}

/// Permissions bind this thread from now on, whoever runs it.
#[cfg(target_os = "linux")]
fn obey_permissions() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
}

/// Elsewhere these tests are for an ordinary user.
#[cfg(not(target_os = "linux"))]
fn obey_permissions() {}

#[test]
fn a_directory_that_cannot_be_read_keeps_what_is_known_of_it() {
    obey_permissions();
    let mut fixture = started(|root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
    });
    fs::set_permissions(fixture.at("d"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    assert_eq!(fixture.hints(), [], "told once");
    fs::set_permissions(fixture.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(fixture.hints().contains(&deep("d")));
    assert_eq!(fixture.hints(), []);
}

#[test]
fn a_barrier_waits_for_a_whole_pass_that_began_after_it() {
    let mut fixture = started(|root| {
        for number in 0..200 {
            fs::create_dir(root.join(format!("d{number:03}"))).unwrap();
        }
    });
    let mut hints = Vec::new();
    // A pass is under way: some directories were looked at.
    fixture.backend.poller.ask(1);
    let control = fixture.backend.control();
    control.wake();
    fixture.backend.wait(Duration::ZERO, &mut hints).unwrap();
    assert_eq!(hints, []);
    for number in 0..200 {
        fs::write(fixture.at(&format!("d{number:03}/f")), "x").unwrap();
    }
    control.barrier(2).unwrap();
    let end = Instant::now() + PATIENCE;
    while !hints.contains(&Hint::Barrier(2)) {
        assert!(Instant::now() < end);
        fixture.backend.wait(Duration::from_secs(1), &mut hints).unwrap();
    }
    let own = hints.iter().position(|hint| *hint == Hint::Barrier(2)).unwrap();
    assert!(hints.iter().position(|hint| *hint == Hint::Barrier(1)).unwrap() < own);
    for number in 0..200 {
        assert!(covered(&hints[..own], &format!("d{number:03}/f")), "directory {number}");
    }
}

#[test]
fn many_barriers_of_many_threads_are_all_answered() {
    let mut fixture = started(|_| ());
    let askers: Vec<_> = (0..4u64)
        .map(|asker| {
            let control = fixture.backend.control();
            std::thread::spawn(move || (0..100).for_each(|n| control.barrier(asker * 100 + n).unwrap()))
        })
        .collect();
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    let mut tokens: Vec<u64> = wait_for(&mut fixture.backend, |hint| *hint == Hint::Barrier(399))
        .into_iter()
        .filter_map(|hint| if let Hint::Barrier(token) = hint { Some(token) } else { None })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..400).collect::<Vec<_>>());
}

#[test]
fn passes_come_by_themselves() {
    let mut fixture = started(|_| ());
    fixture.backend.poller.shortest_rest = Duration::from_millis(1);
    fixture.hints();
    fs::write(fixture.at("f"), "x").unwrap();
    wait_for(&mut fixture.backend, |hint| *hint == changed("f"));
}

#[test]
fn the_rest_grows_with_the_work_within_its_bounds() {
    let rest = |milliseconds| rest_after(Duration::from_millis(milliseconds), SHORTEST_REST);
    assert_eq!(rest(0), SHORTEST_REST);
    assert_eq!(rest(100), SHORTEST_REST);
    assert_eq!(rest(500), Duration::from_secs(12));
    assert_eq!(rest(1_000_000), LONGEST_REST);
    assert_eq!(rest_after(Duration::MAX, SHORTEST_REST), LONGEST_REST);
}

#[test]
fn the_waker_ends_a_wait_before_and_during_it() {
    let mut fixture = started(|_| ());
    fixture.hints();
    let control = fixture.backend.control();
    let begin = Instant::now();
    let mut hints = Vec::new();
    control.wake();
    fixture.backend.wait(PATIENCE, &mut hints).unwrap();
    let (about_to_wait, is_about_to_wait) = std::sync::mpsc::channel();
    let waker = std::thread::spawn(move || {
        is_about_to_wait.recv().unwrap();
        control.wake();
    });
    about_to_wait.send(()).unwrap();
    fixture.backend.wait(PATIENCE, &mut hints).unwrap();
    waker.join().unwrap();
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(hints, []);
}

#[test]
fn a_root_that_is_deleted_moved_or_replaced_is_gone_and_barriers_pass() {
    let deeds: [fn(&Path); 3] = [
        |root| fs::remove_dir_all(root).unwrap(),
        |root| fs::rename(root, root.with_file_name("elsewhere")).unwrap(),
        |root| {
            fs::rename(root, root.with_file_name("elsewhere")).unwrap();
            fs::create_dir(root).unwrap();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let mut fixture = started(|root| fs::write(root.join("f"), "x").unwrap());
        fixture.hints();
        let _held = fs::File::open(fixture.root()).unwrap();
        deed(&fixture.root());
        let control = fixture.backend.control();
        control.barrier(7).unwrap();
        let mut hints = wait_for(&mut fixture.backend, |hint| *hint == Hint::Barrier(7));
        control.barrier(8).unwrap();
        hints.extend(wait_for(&mut fixture.backend, |hint| *hint == Hint::Barrier(8)));
        assert_eq!(hints, [Hint::RootGone, Hint::Barrier(7), Hint::Barrier(8)], "deed {number}");
    }
}

#[test]
fn a_root_that_goes_is_noticed_between_passes() {
    let mut fixture = started(|_| ());
    fixture.hints();
    fs::remove_dir(fixture.root()).unwrap();
    wait_for(&mut fixture.backend, |hint| *hint == Hint::RootGone);
}

#[test]
fn a_root_that_is_not_there_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("absent");
    let (rules, _) = IgnoreRules::new(&root, &[], &[], true);
    let error = PollBackend::new(&root, Arc::new(rules), false).err().unwrap();
    assert_eq!(error.kind(), Kind::RootUnavailable);
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn a_cancelled_start_stops_and_says_so_and_is_made_good() {
    let (directory, mut backend) = prepared(&[], |root| fs::create_dir_all(root.join("d/e")).unwrap());
    let progress = Progress::new();
    progress.cancel();
    assert_eq!(backend.start(&progress).unwrap_err().kind(), Kind::Cancelled);
    backend.resync(&Progress::new()).unwrap();
    assert_eq!(backend.stats().watches, 3);
    fs::write(directory.path().join("root/d/e/f"), "x").unwrap();
    assert!(hints_of(&mut backend).contains(&changed("d/e/f")));
}

#[test]
fn only_the_given_subtrees_are_polled_and_a_new_one_is_hinted_whole() {
    let (directory, mut backend) = prepared(&[], |root| {
        fs::create_dir_all(root.join("a/x")).unwrap();
        fs::create_dir_all(root.join("b/y/z")).unwrap();
        fs::create_dir(root.join("c")).unwrap();
    });
    let root = directory.path().join("root");
    assert_eq!(backend.poller.set_tops([&path("a/x"), &path("c")]), [RelPath::root()]);
    backend.start(&Progress::new()).unwrap();
    for place in ["f", "a/f", "a/x/f", "b/y/f", "c/f"] {
        fs::write(root.join(place), "x").unwrap();
    }
    let hints = hints_of(&mut backend);
    assert_eq!(hints, [changed("a/x"), changed("a/x/f"), changed("c"), changed("c/f")]);
    assert_eq!(backend.poller.set_tops([&path("b/y"), &path("c")]), [path("a/x")]);
    fs::write(root.join("a/x/f"), "y").unwrap();
    assert_eq!(hints_of(&mut backend), [deep("b/y")]);
    assert_eq!(backend.poller.counted(&path("b/y")).directories, 2);
    assert_eq!(backend.stats().watches, 3);
    fs::remove_dir_all(root.join("c")).unwrap();
    assert_eq!(hints_of(&mut backend), [changed("c")]);
    assert_eq!(hints_of(&mut backend), []);
    fs::create_dir(root.join("c")).unwrap();
    assert_eq!(hints_of(&mut backend), [deep("c")]);
    backend.poller.set_tops([]);
    assert_eq!(backend.stats().watches, 0);
}
