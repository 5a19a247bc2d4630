//! The wall clock jumps by hours and years, forward and back, while the program runs and while it does not: nothing
//! panics, stands still, is hastened or lost.
//!
//! Only the program's clock jumps, by a library that is loaded before it (Debian: `faketime`); what the kernel says of
//! files stays true. What a jump of the kernel's own clock means for looks at files is tested beside the code
//! (`core/src/store/files.rs`), because no test may set the machine's clock.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::assert_clone_equals;
use crate::support::tree::write;
use crate::support::{SOON, eventually, skip};

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// There and back again, by hours and years; the first year of all (a kernel takes no earlier one); after 32 bits of
/// seconds.
const JUMPS: [i64; 11] = [HOUR, 0, -HOUR, 0, YEAR, 0, -YEAR, -56 * YEAR, 100 * YEAR, -20 * YEAR, 0];

/// The library, or that the test cannot be made here.
fn library() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        ["/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime"].map(PathBuf::from).to_vec();
    places.extend(
        fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("faketime")),
    );
    let found = places.iter().map(|place| place.join("libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        skip("clock jumps (libfaketime is not installed: Debian package faketime)");
    }
    found
}

/// A setup whose programs see a clock that the test sets.
struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    fn of(setup: &Setup) -> Option<Self> {
        let clock = Self { library: library()?, offset: setup.path("clock-offset") };
        clock.set(0);
        Some(clock)
    }

    /// Lets the program's clock be so many seconds ahead of the machine's.
    fn set(&self, seconds: i64) {
        // Replaced as a whole: the program must not read half of it.
        let draft = self.offset.with_extension("draft");
        fs::write(&draft, format!("{seconds:+}\n")).unwrap();
        fs::rename(draft, &self.offset).unwrap();
    }

    fn start(&self, setup: &Setup) -> Daemon {
        let daemon = setup.launch(&[
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]);
        daemon.serving();
        daemon
    }
}

fn has(setup: &Setup, expected: &str) -> Option<()> {
    (setup.remote().blob("main", "folder1/changing").as_deref() == Some(expected.as_bytes())).then_some(())
}

fn count(output: &str, word: &str) -> usize {
    output.matches(word).count()
}

#[test]
fn the_clock_jumps_while_the_program_runs() {
    let setup = Setup::new();
    let Some(clock) = Clock::of(&setup) else { return };
    let daemon = clock.start(&setup);
    for (number, jump) in JUMPS.into_iter().enumerate() {
        clock.set(jump);
        // By itself, and asked for.
        let text = format!("by itself {number}");
        write(&setup.root(), "changing", &text);
        let since = Instant::now();
        eventually(&format!("a change after a jump to {jump:+} s"), SOON, || has(&setup, &text));
        println!("jump to {jump:+} s: {:?}", since.elapsed());
        write(&setup.root(), "changing", format!("flushed {number}"));
        daemon.api().flush();
        has(&setup, &format!("flushed {number}")).unwrap();
        daemon.api().status();
    }
    let said = daemon.output();
    assert!(!said.contains("panicked") && !said.contains("restarting"), "{said}");
    assert!(count(&said, "clock was set back") >= 4, "{said}");
    assert!(count(&said, "\"msg\":\"committed\"") <= 3 * JUMPS.len(), "nothing is committed in a hurry");
    assert_eq!(count(&said, "push failed"), 0);
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn the_clock_jumps_between_two_runs() {
    let setup = Setup::new();
    let Some(clock) = Clock::of(&setup) else { return };
    for (number, jump) in JUMPS.into_iter().enumerate() {
        clock.set(jump);
        let text = format!("run {number}");
        write(&setup.root(), "changing", &text);
        let daemon = clock.start(&setup);
        eventually(&format!("a start at {jump:+} s"), SOON, || has(&setup, &text));
        daemon.api().flush();
        // Every other time it has no chance to say that it stops.
        if number % 2 == 0 { daemon.stop() } else { daemon.kill() }
    }
    let daemon = clock.start(&setup);
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_backoff_from_another_time_is_no_reason_to_wait_or_to_storm() {
    let mut setup = Setup::new();
    let Some(clock) = Clock::of(&setup) else { return };
    setup.config["shutdown_grace"] = json!("1s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    setup.repository()["retry"] = json!({"first": "1s", "max": "4s"});
    write(&setup.root(), "file", "x");
    let daemon = clock.start(&setup);
    let backoff = |status: &serde_json::Value| status["repositories"][0]["remotes"][0]["state"] == "backoff";
    daemon.status_when("backoff", backoff);
    for jump in [YEAR, 0, -YEAR, YEAR, -YEAR] {
        clock.set(jump);
        std::thread::sleep(Duration::from_millis(600));
    }
    std::thread::sleep(Duration::from_secs(6));
    let attempts = count(&daemon.output(), "push failed");
    assert!((2..=14).contains(&attempts), "{attempts} attempts in about ten seconds");
    clock.set(-2 * YEAR);
    fs::remove_file(setup.path("disk")).unwrap();
    fs::create_dir(setup.path("disk")).unwrap();
    let since = Instant::now();
    daemon.status_when("it is reached by itself", |status| {
        status["repositories"][0]["remotes"][0]["state"] == "idle"
            && setup.path("disk/documents.git/HEAD").exists()
    });
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    daemon.stop();
    assert_clone_equals(&setup.path("disk/documents.git"), "main", &[("folder1", &setup.root())], |_| false);
}

#[test]
fn a_long_backoff_that_was_written_under_another_clock_ends_at_the_next_start() {
    let mut setup = Setup::new();
    let Some(clock) = Clock::of(&setup) else { return };
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    setup.repository()["retry"] = json!({"first": "1h", "max": "2h"});
    write(&setup.root(), "file", "x");
    clock.set(YEAR);
    let daemon = clock.start(&setup);
    daemon.status_when("backoff", |status| status["repositories"][0]["remotes"][0]["state"] == "backoff");
    daemon.kill();
    fs::remove_file(setup.path("disk")).unwrap();
    clock.set(0);
    let daemon = clock.start(&setup);
    eventually("it is tried at once", SOON, || setup.path("disk/documents.git/HEAD").exists().then_some(()));
    daemon.api().flush();
    daemon.stop();
}

#[test]
fn a_branch_named_after_the_date_follows_the_clock_there_and_back_and_misses_nothing() {
    let mut setup = Setup::new();
    let Some(clock) = Clock::of(&setup) else { return };
    setup.repository()["branch"] = json!("year-{date:%Y}");
    setup.repository()["tags"] = json!({"every": "day", "name": "day-%Y-%m-%d"});
    write(&setup.root(), "always", "there");
    let mut daemon = clock.start(&setup);
    let mut branches = Vec::new();
    for (number, jump) in [0, YEAR, 0, 3 * YEAR, -YEAR, YEAR, 0].into_iter().enumerate() {
        clock.set(jump);
        write(&setup.root(), format!("file-{number}"), "new");
        write(&setup.root(), "changing", number.to_string());
        daemon.api().flush();
        let references = setup.remote().references();
        let name = references.keys().find(|name| {
            name.starts_with("refs/heads/year-")
                && setup.remote().blob(name, "folder1/changing").as_deref()
                    == Some(number.to_string().as_bytes())
        });
        let branch = name.unwrap_or_else(|| panic!("{number}: {references:?}"));
        let branch = branch.strip_prefix("refs/heads/").unwrap().to_owned();
        assert_clone_equals(&setup.remote().path, &branch, &[("folder1", &setup.root())], |_| false);
        branches.push(branch);
        if number % 3 == 2 {
            daemon.stop();
            daemon = clock.start(&setup);
        }
    }
    daemon.stop();
    assert_eq!(branches[0], branches[2]);
    assert_eq!(branches[0], branches[6]);
    assert_ne!(branches[0], branches[1]);
    setup.remote().assert_sound();
    setup.local().assert_sound();
    setup.remote().assert_tidy(&branches[6]);
    assert!(!setup.remote().references().keys().any(|name| name.contains("rescue")));
}
