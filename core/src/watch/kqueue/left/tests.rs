//! Kqueue with polling of what it leaves. What every backend keeps to is in the conformance suite, which runs with
//! this one too; here is what goes from one to the other and back, and what is said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::budget::Budget;
use super::super::control::Asker;
#[cfg(target_os = "linux")]
use super::super::simulated::Simulated as TestKernel;
#[cfg(not(target_os = "linux"))]
use super::super::system::System as TestKernel;
use super::*;
use crate::config::BackendChoice;
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::watch::composed::ComposedBackend;
use crate::watch::{Backend, Hint, Wanted};

const PATIENCE: Duration = Duration::from_secs(30);

/// For the conformance suite: of descriptors there are three, so that most directories get none.
pub fn make(
    root: &Path,
    rules: Arc<IgnoreRules>,
    own_directory: &Path,
    one_file_system: bool,
) -> Box<dyn Backend> {
    let wanted = Wanted { root, rules, own_directory, one_file_system, choice: BackendChoice::Auto };
    Box::new(composed(&wanted, pool_of(3), Vec::new()))
}

/// So many descriptors, up to 192.
fn pool_of(descriptors: u64) -> Arc<Pool> {
    Pool::with_limit(64 + descriptors)
}

/// On a kernel that cannot watch what has these inodes.
#[cfg_attr(not(target_os = "linux"), allow(unused_mut, unused_variables))]
fn composed(wanted: &Wanted<'_>, pool: Arc<Pool>, refused: Vec<u64>) -> ComposedBackend<ByKqueue> {
    let (root, rules, one_file_system) =
        (wanted.root.to_owned(), wanted.rules.clone(), wanted.one_file_system);
    let make = move |pool| {
        let (asker, woken) = Asker::new()?;
        let mut kernel = TestKernel::new(woken).unwrap();
        #[cfg(target_os = "linux")]
        kernel.refused.clone_from(&refused);
        KqueueBackend::on(Box::new(kernel), asker, pool, &root, rules.clone(), one_file_system)
    };
    ComposedBackend::new(wanted, ByKqueue::of(pool, Box::new(make))).unwrap()
}

struct Fixture {
    directory: TempDir,
    backend: ComposedBackend<ByKqueue>,
}

fn started(pool: Arc<Pool>, fill: impl FnOnce(&Path) -> Vec<u64>) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (root, own) = (directory.path().join("root"), directory.path().join("own"));
    fs::create_dir(&root).unwrap();
    let refused = fill(&root);
    let (rules, _) = IgnoreRules::new(&root, &[], &[".backupbotignore".to_owned()], true);
    let wanted = Wanted {
        root: &root,
        rules: Arc::new(rules),
        own_directory: &own,
        one_file_system: false,
        choice: BackendChoice::Auto,
    };
    let mut backend = composed(&wanted, pool, refused);
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

fn thirty(root: &Path) -> Vec<u64> {
    for number in 0..30 {
        fs::create_dir_all(root.join(format!("d{number:02}/below"))).unwrap();
        fs::write(root.join(format!("d{number:02}/below/f")), "x").unwrap();
    }
    Vec::new()
}

#[test]
fn what_is_beyond_the_budget_is_polled_until_there_is_enough() {
    let mut fixture = started(pool_of(10), thirty);
    assert_eq!(fixture.backend.name(), "kqueue+poll");
    let reason = fixture.reason();
    // Ten: the root and nine of sixty.
    assert!(
        reason.starts_with("51 directories are polled every 5 to 30 seconds instead of watched, "),
        "{reason}"
    );
    let needed = reason.split("at least ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let needed: u64 = needed.parse().unwrap();
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (61, 0));

    for number in 0..30 {
        fixture.assert_told_of(&format!("d{number:02}/f"));
        fixture.assert_told_of(&format!("d{number:02}/below/f"));
    }
    // A directory beyond the budget is made, moved, and goes; what holds one is moved too.
    fs::create_dir_all(fixture.at("new/deep/er")).unwrap();
    fixture.assert_told_of("new/deep/er/f");
    fixture.assert_told_of("new/deep/er/f");
    fs::rename(fixture.at("new"), fixture.at("d00/moved")).unwrap();
    fixture.assert_told_of("d00/moved/deep/er/g");
    fs::rename(fixture.at("d00"), fixture.at("e00")).unwrap();
    fixture.assert_told_of("e00/moved/deep/er/h");
    fs::remove_dir_all(fixture.at("e00")).unwrap();
    assert!(crate::watch::poll::covered(&fixture.hints(), "e00"));

    for number in 2..30 {
        fs::remove_dir_all(fixture.at(&format!("d{number:02}"))).unwrap();
    }
    fixture.hints();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.name(), "kqueue");
    assert_eq!(fixture.backend.stats().watches, 3, "the root and twice one");
    fixture.assert_told_of("d01/below/g");

    // The limit that the sentence names is enough for the tree that it was said of.
    let fixture = started(Pool::with_limit(needed), thirty);
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("kqueue", ""));
}

#[test]
fn a_directory_that_gets_its_descriptor_is_hinted_once_more() {
    let pool = pool_of(3);
    let mut others = Budget::new(pool.clone());
    assert!(others.take_directory() && others.take_directory());
    let mut fixture = started(pool, |root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        Vec::new()
    });
    assert_eq!(fixture.backend.name(), "kqueue+poll");
    drop(others);
    // Nobody has looked at this change when the descriptor comes.
    fs::write(fixture.at("d/e/f"), "x").unwrap();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.name(), "kqueue");
    let hints = fixture.hints();
    assert!(hints.contains(&Hint::Deep(RelPath::new("d").unwrap())), "{hints:?}");
}

#[test]
fn a_polled_directory_is_not_hinted_as_a_whole_for_an_entry() {
    let mut fixture = started(pool_of(1), |root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        Vec::new()
    });
    for number in 0..3 {
        fs::write(fixture.at(&format!("d/f{number}")), "x").unwrap();
        let hints = fixture.hints();
        assert!(hints.contains(&Hint::Changed(RelPath::new(format!("d/f{number}")).unwrap())), "{hints:?}");
        assert!(!hints.iter().any(|hint| matches!(hint, Hint::Deep(_))), "{hints:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_kernel_cannot_watch_is_polled() {
    use std::os::unix::fs::MetadataExt;
    let mut fixture = started(pool_of(100), |root| {
        thirty(root);
        vec![fs::metadata(root.join("d07")).unwrap().ino()]
    });
    assert_eq!(fixture.backend.name(), "kqueue+poll");
    assert_eq!(
        fixture.reason(),
        "polled every 5 to 30 seconds, because the kernel cannot watch such directories: d07 (refused)"
    );
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (61, 0));
    fixture.assert_told_of("d07/below/g");
    fixture.assert_told_of("d08/below/g");
    fs::remove_dir_all(fixture.at("d07")).unwrap();
    fixture.hints();
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("kqueue", ""));
}

#[test]
fn files_beyond_the_budget_are_told_of_with_and_without_polled_directories() {
    let pool = pool_of(40);
    let mut others = Budget::new(pool.clone());
    assert!((0..38).all(|_| others.take_directory()));
    let mut fixture = started(pool, |root| {
        fs::create_dir(root.join("d")).unwrap();
        (0..50).for_each(|number| fs::write(root.join(format!("d/f{number}")), "x").unwrap());
        (0..50).for_each(|number| fs::write(root.join(format!("g{number}")), "x").unwrap());
        Vec::new()
    });
    // The root and `d` have the two that are left.
    let reason = fixture.reason();
    assert!(reason.starts_with("100 files are not watched, and compared every few seconds"), "{reason}");
    fs::create_dir(fixture.at("e")).unwrap();
    fixture.hints();
    assert_eq!(fixture.backend.name(), "kqueue+poll");
    let reason = fixture.reason();
    assert!(reason.starts_with("1 directory is polled"), "{reason}");
    assert!(reason.contains("100 files are not watched"), "{reason}");
    drop(others);
    fixture.assert_told_of("e/f");
    fixture.assert_told_of("d/f7");
}

#[test]
fn without_one_descriptor_all_of_it_is_polled_until_there_is_one() {
    let pool = pool_of(10);
    let mut others = Budget::new(pool.clone());
    assert!((0..10).all(|_| others.take_directory()));
    let mut fixture = started(pool, |root| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        Vec::new()
    });
    assert_eq!(fixture.backend.name(), "poll");
    let reason = fixture.reason();
    assert!(reason.starts_with("3 directories are polled every 5 to 30 seconds"), "{reason}");
    fixture.assert_told_of("a/b/f");
    drop(others);
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!((fixture.backend.name(), fixture.reason().as_str()), ("kqueue", ""));
    assert!(fixture.hints().contains(&Hint::Deep(RelPath::root())));
    fixture.assert_told_of("a/b/g");
    fs::remove_dir_all(fixture.at("")).unwrap();
    assert!(fixture.hints().contains(&Hint::RootGone));
}
