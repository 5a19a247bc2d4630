//! A disk that fails: every kind of failure of every system call that the work makes, at every n-th call.
//!
//! The work is `once` on a small tree with a remote on a disk: from nothing, and after a change. Whatever fails,
//! the program may succeed only if the remote holds the tree, must otherwise say what failed and where, and must
//! leave everything so that the same command without a fault makes it good: the remote is the tree, both
//! repositories are sound, no commit repeats its parent's tree, nothing is left lying about, no file of the user
//! was touched, and no database was taken for damaged because a disk failed to read or write it.
//!
//! The quick tier takes a sample by a seed that it prints; the long tier takes every n. One case is run again by
//! `BACKUPBOT_TEST_FAULT=call:ERROR:n:stage` (`n+`: that call and all after it).

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, Setup};
use crate::support::lfs::{self, GitLfs};
use crate::support::strace::{self, Fault, When};
use crate::support::tree::{fingerprint, write};
use crate::support::{Random, SOON, eventually, is_long, seed, skip};

const fn fault(call: &'static str, error: &'static str) -> Fault {
    Fault { call, error }
}

/// A full disk, and one whose quota is reached.
const FULL: &[Fault] = &[
    fault("write", "ENOSPC"),
    fault("pwrite64", "ENOSPC"),
    fault("mkdir", "ENOSPC"),
    fault("openat", "ENOSPC"),
    fault("link", "ENOSPC"),
    fault("linkat", "ENOSPC"),
    fault("rename", "ENOSPC"),
    fault("ftruncate", "ENOSPC"),
    fault("pwrite64", "EDQUOT"),
    fault("write", "EDQUOT"),
];

/// A disk that loses what it is given, or cannot give it back.
const BROKEN: &[Fault] = &[
    fault("fsync", "EIO"),
    fault("fdatasync", "EIO"),
    fault("write", "EIO"),
    fault("pwrite64", "EIO"),
    fault("read", "EIO"),
    fault("pread64", "EIO"),
    fault("getdents64", "EIO"),
    fault("rename", "EIO"),
    fault("unlink", "EIO"),
];

/// A file system that was remounted read-only, as the system does after an error.
const READ_ONLY: &[Fault] = &[
    fault("openat", "EROFS"),
    fault("mkdir", "EROFS"),
    fault("rename", "EROFS"),
    fault("link", "EROFS"),
    fault("linkat", "EROFS"),
    fault("unlink", "EROFS"),
    fault("rmdir", "EROFS"),
];

/// No descriptors.
const LIMITS: &[Fault] = &[
    fault("openat", "EMFILE"),
    fault("openat", "ENFILE"),
    fault("openat2", "EMFILE"),
    fault("inotify_init1", "EMFILE"),
    fault("epoll_create1", "EMFILE"),
    fault("eventfd2", "EMFILE"),
    fault("socket", "EMFILE"),
    fault("inotify_add_watch", "ENOSPC"),
];

/// Signals, which interrupt whatever may block.
const INTERRUPTED: &[Fault] = &[
    fault("read", "EINTR"),
    fault("pread64", "EINTR"),
    fault("write", "EINTR"),
    fault("pwrite64", "EINTR"),
    fault("openat", "EINTR"),
    fault("openat2", "EINTR"),
    fault("fsync", "EINTR"),
    fault("fdatasync", "EINTR"),
    fault("ftruncate", "EINTR"),
    fault("getdents64", "EINTR"),
    fault("rename", "EINTR"),
    fault("flock", "EINTR"),
    fault("poll", "EINTR"),
    fault("ppoll", "EINTR"),
    fault("epoll_wait", "EINTR"),
    fault("statx", "EINTR"),
    fault("newfstatat", "EINTR"),
    fault("close", "EINTR"),
];

/// What is there before the call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing but the tree.
    First,
    /// A backup, and changes since.
    Later,
    /// Nothing but the tree, and most of it goes through Git LFS.
    Large,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::First => "first",
            Stage::Later => "later",
            Stage::Large => "large",
        }
    }
}

/// So long one run may take: the pauses after failures are part of it.
const ONE_RUN: Duration = Duration::from_secs(90);

fn world(stage: Stage) -> Setup {
    let mut setup = Setup::new();
    if stage == Stage::Large {
        setup.repository()["lfs"] = serde_json::json!({"threshold": "100B"});
    }
    for number in 0..6 {
        write(
            &setup.root(),
            format!("d{}/file-{number}", number % 3),
            format!("content {number}\n").repeat(40),
        );
    }
    // Above what is read at one go.
    write(&setup.root(), "large", Random::new(7).bytes(1_200_000));
    std::os::unix::fs::symlink("large", setup.root().join("link")).unwrap();
    if stage == Stage::Later {
        let output = setup.run(&["once"]);
        assert!(output.status.success(), "{}", said(&output));
        write(&setup.root(), "d0/file-0", "changed");
        write(&setup.root(), "new/er", "new");
        fs::remove_file(setup.root().join("d1/file-1")).unwrap();
    }
    setup
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn once(setup: &Setup) -> Command {
    let config = setup.write_config();
    setup.command(&[
        "once".as_ref(),
        "--timeout".as_ref(),
        "40s".as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ])
}

/// Runs a command to its end and says how it ended; one that does not end is killed and fails the test.
fn run_to_end(mut command: Command, setup: &Setup) -> (Option<i32>, String) {
    let log = setup.path("faulty.log");
    let file = fs::File::create(&log).unwrap();
    let mut child =
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + ONE_RUN;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    fs::remove_file(log).unwrap();
    let Some(status) = status else { panic!("it did not end within {ONE_RUN:?}:\n{text}") };
    (status.code(), text)
}

/// Whether the process ended before the program's first own step: the loader could not load it.
fn was_not_loaded(code: Option<i32>, text: &str) -> bool {
    code == Some(127) || text.contains("error while loading shared libraries")
}

/// One run with a fault and one without.
fn fails_and_recovers(fault: Fault, when: When, stage: Stage) {
    let setup = world(stage);
    let lfs = GitLfs::new();
    let untouched = fingerprint(&setup.root());
    let (code, text) = run_to_end(strace::failing(&once(&setup), fault, when), &setup);
    match code {
        Some(0) if stage == Stage::Large => {
            lfs.large_files_of_equal_clone(&setup.remote().path, &setup.root());
        }
        Some(0) => setup.assert_clone_equals_root(),
        Some(3) => assert!(text.contains("folder1"), "what was skipped is named: {text}"),
        _ if was_not_loaded(code, &text) => {}
        Some(1 | 2 | 4 | 6) => {
            // libgit2 says it in its own words.
            let is_told = ["os error", "class=", "error:", "Too many open files", "not done"];
            assert!(
                is_told.iter().any(|words| text.contains(words)),
                "exit {code:?} says what failed: {text}"
            );
            assert!(text.contains('/'), "exit {code:?} says where: {text}");
        }
        _ => panic!("it ended with {code:?}: {text}"),
    }
    let set_aside: Vec<_> = fs::read_dir(setup.state())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("damaged"))
        .collect();
    assert!(set_aside.is_empty(), "a failing disk was taken for damage: {set_aside:?}: {text}");

    let (code, again) = run_to_end(once(&setup), &setup);
    assert_eq!(code, Some(0), "the second run: {again}\n--- after the first: {text}");
    match stage {
        Stage::Large => assert!(!lfs::assert_all_is_well(&setup, &lfs).is_empty()),
        _ => setup.assert_all_is_well(),
    }
    assert_eq!(fingerprint(&setup.root()), untouched, "a file of the user was touched");
}

fn title(fault: Fault, when: When, stage: Stage) -> String {
    format!("{}:{}:{when}:{}", fault.call, fault.error, stage.name())
}

/// `call:ERROR:n:stage` of one case to run by itself.
fn wanted() -> Option<String> {
    std::env::var("BACKUPBOT_TEST_FAULT").ok().filter(|text| !text.is_empty())
}

/// Runs the faults at every n-th call (long tier) or at `most` places (quick tier), and reports all that fail.
fn sweep(name: &str, faults: &[Fault], most: usize, when: fn(usize) -> When) {
    if let Some(reason) = strace::unusable() {
        skip(&format!("{name}: {reason} (Debian package strace)"));
        return;
    }
    let mut calls: Vec<&str> = faults.iter().map(|fault| fault.call).collect();
    calls.sort_unstable();
    calls.dedup();
    let mut cases = Vec::new();
    for stage in [Stage::First, Stage::Later, Stage::Large] {
        let setup = world(stage);
        let reach: BTreeMap<String, Vec<usize>> = strace::reach(&once(&setup), &calls, setup.scratch.path());
        for fault in faults {
            let numbers = reach.get(fault.call).cloned().unwrap_or_default();
            cases.extend(numbers.into_iter().map(|number| (*fault, when(number), stage)));
        }
    }
    // Failing for good takes all the patience there is, and neighbours differ little.
    let is_near = |when: &When| matches!(when, When::From(number) if number % 9 != 1);
    if is_long() {
        cases.retain(|(_, when, _)| !is_near(when));
    }
    if let Some(wanted) = wanted() {
        cases.retain(|(fault, when, stage)| title(*fault, *when, *stage) == wanted);
    } else if !is_long() {
        let mut random = Random::new(seed(name));
        // One of each fault first, so that none is left out; then anything.
        let mut chosen = Vec::new();
        for fault in faults {
            let of_fault: Vec<_> = cases.iter().filter(|case| case.0 == *fault).copied().collect();
            if !of_fault.is_empty() {
                chosen.push(of_fault[random.below(of_fault.len())]);
            }
        }
        while chosen.len() < most.min(cases.len()) {
            let case = cases[random.below(cases.len())];
            if !chosen.contains(&case) {
                chosen.push(case);
            }
        }
        chosen.truncate(most);
        cases = chosen;
    }
    let mut failures = Vec::new();
    let number = cases.len();
    for (fault, when, stage) in cases {
        let begun = Instant::now();
        let case = std::panic::AssertUnwindSafe(|| fails_and_recovers(fault, when, stage));
        if let Err(panic) = std::panic::catch_unwind(case) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failures.push(format!("{}: {}", title(fault, when, stage), text.unwrap_or_default()));
        }
        println!("{} took {:?}", title(fault, when, stage), begun.elapsed());
    }
    assert!(
        failures.is_empty(),
        "{name}: {} of {number} cases failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn a_full_disk_at_any_call_loses_nothing() {
    sweep("a full disk", FULL, 12, When::Nth);
}

#[test]
fn a_disk_that_loses_data_at_any_call_is_made_good() {
    sweep("a broken disk", BROKEN, 14, When::Nth);
}

#[test]
fn a_disk_that_becomes_read_only_at_any_call_loses_nothing() {
    sweep("a read-only disk", READ_ONLY, 8, When::Nth);
}

#[test]
fn a_want_of_descriptors_at_any_call_loses_nothing() {
    sweep("no descriptors", LIMITS, 12, When::Nth);
}

#[test]
fn a_signal_at_any_call_is_no_failure() {
    sweep("signals", INTERRUPTED, 18, When::Nth);
}

/// A disk that does not come back: the run has to end, with what failed and where.
const FOR_GOOD: &[Fault] = &[
    fault("pwrite64", "ENOSPC"),
    fault("openat", "ENOSPC"),
    fault("fsync", "EIO"),
    fault("fdatasync", "EIO"),
    fault("pread64", "EIO"),
    fault("rename", "EROFS"),
    fault("openat", "EMFILE"),
];

#[test]
fn a_disk_that_fails_for_good_is_told_and_loses_nothing() {
    sweep("a disk that fails for good", FOR_GOOD, 7, When::From);
}

#[test]
fn a_slow_disk_delays_commits_and_answers_nobody_late() {
    if let Some(reason) = strace::unusable() {
        skip(&format!("a slow disk: {reason} (Debian package strace)"));
        return;
    }
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let config = setup.write_config();
    let command = setup.command(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let traced = strace::slow(&command, "fsync,fdatasync", 300_000);
    let slow = Daemon::spawn_traced(traced, &setup);
    let api = slow.api();
    for number in 2..4 {
        write(&setup.root(), "file", number.to_string());
        let asked = Instant::now();
        assert_eq!(api.try_raw("GET", "/livez", &[("Host", &api.address)], b"").unwrap().status, 200);
        api.status();
        assert!(asked.elapsed() < Duration::from_secs(3), "status waits for the disk: {:?}", asked.elapsed());
        eventually("the commit is at the remote", SOON, || {
            (setup.remote().blob("main", "folder1/file") == Some(number.to_string().into_bytes()))
                .then_some(())
        });
    }
    slow.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_database_that_breaks_while_it_is_used_ends_the_process_and_is_rebuilt() {
    if let Some(reason) = strace::unusable() {
        skip(&format!("a database that breaks: {reason} (Debian package strace)"));
        return;
    }
    let setup = Setup::new();
    write(&setup.root(), "file", "0");
    let config = setup.write_config();
    let command = setup.command(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
    // Far enough for a first backup; from then on nothing is written any more.
    let traced = strace::failing(&command, fault("fdatasync", "EIO"), When::From(40));
    let mut daemon = Daemon::spawn_traced(traced, &setup);
    daemon.api();
    let mut number = 0;
    eventually("the database fails", SOON, || {
        number += 1;
        write(&setup.root(), "file", number.to_string());
        std::thread::sleep(Duration::from_millis(100));
        daemon.output().contains("state.redb").then_some(())
    });
    // Until now everything is waited for, by the same process.
    daemon.api().status();
    let complete = setup.remote().tip("main");
    fs::write(setup.state().join("state.redb"), "this was a database").unwrap();
    let status = daemon.end(Duration::from_secs(120));
    assert_eq!(status.code(), Some(6), "{}", daemon.output());

    let daemon = setup.start();
    daemon.api().flush();
    assert!(daemon.output().contains("set aside"), "{}", daemon.output());
    daemon.stop();
    setup.assert_all_is_well();
    if let Some(complete) = complete {
        assert!(setup.remote().is_ancestor(&complete, "main"), "{complete} was complete and is lost");
    }
}
