//! What is inotify's own; what it shares with others is in the conformance suite. Against the real kernel: every
//! wait has a deadline and ends when what is waited for has come.

mod extremes;

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
fn a_root_that_is_not_there_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("absent");
    let (rules, _) = IgnoreRules::new(&root, &[], &[], true);
    let error =
        InotifyBackend::new(&root, Arc::new(rules), &directory.path().join("s"), false).err().unwrap();
    assert_eq!(error.kind(), Kind::RootUnavailable);
    assert!(error.to_string().contains("absent"), "{error}");
}
