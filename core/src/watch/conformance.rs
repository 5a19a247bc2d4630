//! What every backend keeps to, told by the kernel or polling: one suite, run against each.
//!
//! A scenario is a function over a [`Suite`], which makes the backend; `scenarios!` makes a test of each scenario
//! for each backend, so a failure names both. Hints may repeat and may be coarser than need be, so scenarios ask
//! whether what changed is covered, and whether nothing is hinted that must not be. Every wait has a deadline
//! and ends when what is waited for has come.

mod asking;
mod entries;
mod kinds;
mod rules;
mod wild;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Backend, Hint};
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::progress::Progress;

const PATIENCE: Duration = Duration::from_secs(30);

/// A backend to be tried.
struct Suite {
    /// Makes one for a root, with a directory of its own outside of it, and `one_file_system` or not.
    make: fn(&Path, Arc<IgnoreRules>, &Path, bool) -> Box<dyn Backend>,
    /// The test that runs, as the test program knows it.
    test: &'static str,
    /// What changed a moment ago may be hinted again, because its stat could be the same after another change.
    repeats: bool,
}

/// Runs a scenario, which must hold, or must not if it is excepted.
fn try_out(scenario: &str, exceptions: &[(&str, &str)], run: impl FnOnce()) {
    let Some((_, why)) = exceptions.iter().find(|(excepted, _)| *excepted == scenario) else {
        run();
        return;
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(outcome.is_err(), "it holds, although it is said that it cannot: {why}");
    eprintln!("it fails, as it is said that it cannot hold: {why}");
}

/// Names every scenario. A backend for which one cannot hold says so, with the reason, where it is listed below:
/// there the scenario is run too, and has to fail.
macro_rules! scenarios {
    (@each $make:path, $repeats:literal, $exceptions:expr, $($area:ident { $($scenario:ident)* })*) => {
        /// What cannot hold, and why.
        const EXCEPTIONS: &[(&str, &str)] = $exceptions;

        $($(
            #[test]
            fn $scenario() {
                let test = concat!(module_path!(), "::", stringify!($scenario));
                let suite = super::Suite { make: $make, test, repeats: $repeats };
                super::try_out(stringify!($scenario), EXCEPTIONS, || super::$area::$scenario(&suite));
            }
        )*)*

        #[test]
        fn what_is_excepted_is_a_scenario() {
            let all = [$($(stringify!($scenario)),*),*];
            assert!(EXCEPTIONS.iter().all(|(scenario, _)| all.contains(scenario)));
        }
    };
    ($make:path, repeats: $repeats:literal $(, except: $($scenario:ident because $why:literal),+)?) => {
        scenarios! { @each $make, $repeats, &[$($((stringify!($scenario), $why)),+)?],
            entries {
                every_kind_of_change_of_a_file_is_hinted_and_nothing_else
                a_file_held_open_is_hinted_while_it_is_written
                what_is_undone_before_anybody_looks_is_hinted_by_its_directory_at_least
                names_of_all_bytes_and_the_longest_come_through
                nothing_of_a_tree_made_at_one_go_is_missed
                a_tree_being_made_by_another_thread_is_hinted_whole
                a_directory_moved_in_is_hinted_and_watched
                a_directory_moved_out_is_hinted_and_no_longer_watched
                a_file_moved_between_directories_is_hinted_at_both_places
                after_a_rename_of_an_ancestor_events_have_the_new_path
                directories_that_change_places_keep_their_watches
                a_directory_made_again_under_the_same_name_is_watched_even_while_the_old_one_is_open
                deleting_a_tree_hints_it_and_frees_its_watches
            }
            kinds {
                a_file_and_a_directory_change_places
                a_file_replaced_by_another_of_the_same_look_is_hinted
                a_link_to_a_directory_is_an_entry_and_nothing_behind_it_is_watched
                a_change_through_either_name_of_a_file_is_hinted_for_one_at_least
                pipes_and_sockets_are_hinted_and_never_waited_for
                the_mode_of_a_directory_is_hinted_and_a_closed_one_is_found_when_it_opens
            }
            rules {
                what_the_rules_leave_out_has_neither_watch_nor_hint
                a_changed_ignore_file_adjusts_the_watches_below_its_directory
                an_ignore_file_replaced_by_a_rename_counts_at_once
                a_moved_directory_takes_the_rules_of_its_new_place
                a_mount_below_the_root_is_left_out_where_that_is_asked_for
            }
            asking {
                a_barrier_comes_after_all_that_happened_before_it_under_load
                many_barriers_at_once_are_all_answered
                the_waker_ends_a_wait_before_and_during_it
                a_cancelled_start_stops_and_a_resync_makes_it_good
                a_resync_finds_what_is_there_and_keeps_what_is_watched
                a_deleted_root_is_gone
                a_deleted_root_is_gone_even_while_somebody_holds_it_open
                a_moved_root_is_gone
                a_root_replaced_by_a_link_is_gone
            }
            wild {
                whoever_obeys_the_hints_knows_the_tree_however_wildly_it_changes
                after_a_barrier_every_difference_from_before_is_covered
            }
        }
    };
}

#[cfg(target_os = "linux")]
mod inotify {
    fn make(
        root: &std::path::Path,
        rules: std::sync::Arc<crate::ignore::IgnoreRules>,
        own: &std::path::Path,
        one_file_system: bool,
    ) -> Box<dyn crate::watch::Backend> {
        use crate::watch::inotify::InotifyBackend;
        Box::new(InotifyBackend::new(root, rules, own, one_file_system).unwrap())
    }

    scenarios! { make, repeats: false }
}

mod kqueue {
    use crate::watch::kqueue::tests::make;

    scenarios! { make, repeats: true }
}

/// The same without descriptors for files: they are compared, which at a barrier must do as well.
mod kqueue_without_descriptors_for_files {
    use crate::watch::kqueue::tests::make_without_files as make;

    scenarios! { make, repeats: true }
}

/// With three descriptors: all the rest is polled.
mod kqueue_with_polling {
    use crate::watch::kqueue::left::tests::make;

    scenarios! { make, repeats: true, except:
    a_resync_finds_what_is_there_and_keeps_what_is_watched because "as for polling" }
}

mod poll {
    fn make(
        root: &std::path::Path,
        rules: std::sync::Arc<crate::ignore::IgnoreRules>,
        _: &std::path::Path,
        one_file_system: bool,
    ) -> Box<dyn crate::watch::Backend> {
        use crate::watch::poll::PollBackend;
        Box::new(PollBackend::new(root, rules, one_file_system).unwrap())
    }

    scenarios! { make, repeats: true, except:
    a_resync_finds_what_is_there_and_keeps_what_is_watched
        because "nothing can be missed that a resync would have to find: the next pass finds it" }
}

struct Fixture {
    repeats: bool,
    directory: TempDir,
    backend: Box<dyn Backend>,
    hints: Vec<Hint>,
    tokens: u64,
}

impl Suite {
    fn start(&self, prepare: impl FnOnce(&Path)) -> Fixture {
        self.start_with(&[], false, prepare)
    }

    fn start_with(&self, patterns: &[&str], one_file_system: bool, prepare: impl FnOnce(&Path)) -> Fixture {
        let mut fixture = self.prepare(patterns, one_file_system, prepare);
        fixture.backend.start(&Progress::new()).unwrap();
        fixture
    }

    fn prepare(&self, patterns: &[&str], one_file_system: bool, prepare: impl FnOnce(&Path)) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        prepare(&root);
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let (rules, _) = IgnoreRules::new(&root, &patterns, &[".backupbotignore".to_owned()], true);
        let own = directory.path().join("own");
        let backend = (self.make)(&root, Arc::new(rules), &own, one_file_system);
        Fixture { repeats: self.repeats, directory, backend, hints: Vec::new(), tokens: 0 }
    }
}

impl Fixture {
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
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
        hints
    }

    fn wait_for(&mut self, wanted: impl Fn(&Hint) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !self.hints.iter().any(&wanted) {
            assert!(Instant::now() < end, "waited in vain, got {:?}", self.hints);
            self.backend.wait(Duration::from_secs(1), &mut self.hints).unwrap();
        }
    }

    /// What happened up to now is exactly this: every path covered, and nothing hinted beside them.
    fn assert_hinted(&mut self, paths: &[&str]) {
        let hints = self.hints();
        for path in paths {
            assert!(covered(&hints, path), "{path} is missing in {hints:?}");
        }
        for hint in &hints {
            let (Hint::Changed(hinted) | Hint::Deep(hinted)) = hint else { panic!("{hint:?}") };
            // That some entry came or went is true of its directory too, and costs whoever looks little.
            if *hint == Hint::Changed(hinted.clone()) && self.root().join(hinted.as_os_path()).is_dir() {
                continue;
            }
            // An ignore file is repeated as all that it decides on.
            let is_deep = *hint == Hint::Deep(hinted.clone());
            let repeated = if is_deep { hinted.join(b".backupbotignore") } else { hinted.clone() };
            if self.repeats && self.is_young(&repeated) {
                continue;
            }
            assert!(paths.contains(&hinted.to_string().as_str()), "{hint:?} beside {paths:?}");
        }
    }

    fn is_young(&self, path: &RelPath) -> bool {
        use std::os::unix::fs::MetadataExt;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        let there = fs::symlink_metadata(self.root().join(path.as_os_path()));
        there.is_ok_and(|there| now - there.ctime() < 6)
    }

    /// These directories are watched and no others: as many are counted, and a file made in each is hinted.
    fn assert_watches(&mut self, directories: &[&str]) {
        self.hints();
        let end = Instant::now() + PATIENCE;
        // What left the tree may be let go of a moment later.
        while self.backend.stats().watches != directories.len() && Instant::now() < end {
            self.backend.wait(Duration::from_millis(30), &mut self.hints).unwrap();
        }
        assert_eq!(self.backend.stats().watches, directories.len(), "{directories:?}");
        self.hints();
        let probes: Vec<PathBuf> =
            directories.iter().map(|directory| self.at(directory).join("probe")).collect();
        probes.iter().for_each(|probe| fs::write(probe, "x").unwrap());
        let hints = self.hints();
        for probe in &probes {
            let below = probe.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
            assert!(covered(&hints, &below), "no watch sees {below}: {hints:?}");
        }
        probes.iter().for_each(|probe| fs::remove_file(probe).unwrap());
        self.hints();
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn covers(hint: &Hint, wanted: &RelPath) -> bool {
    match hint {
        Hint::Changed(path) => path == wanted,
        Hint::Deep(path) => wanted.is_within(path),
        Hint::Overflow => true,
        Hint::RootGone | Hint::Barrier(_) => false,
    }
}

/// Whether whoever obeys `hint` knows of `wanted`: where no directory is any more, all below it is gone with it.
fn accounts_for(root: &Path, hint: &Hint, wanted: &RelPath) -> bool {
    match hint {
        Hint::Changed(above) if wanted.is_within(above) => {
            let found = fs::symlink_metadata(root.join(above.as_os_path()));
            above == wanted || !found.is_ok_and(|found| found.is_dir())
        }
        other => covers(other, wanted),
    }
}

fn covered(hints: &[Hint], wanted: &str) -> bool {
    let wanted = path(wanted);
    hints.iter().any(|hint| covers(hint, &wanted))
}
