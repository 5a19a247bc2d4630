//! A write storm: thousands of changes a second for as long as the tier allows. Memory stays bounded, the queue
//! coarsens instead of growing, and when the storm is over everything is there.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{Random, is_long, seed, skip};

/// Changes a second.
const RATE: u32 = 5_000;
/// What the program may hold at any time, in KiB, without the packs and indexes that it has mapped: those pages
/// are the system's to take back. A large batch needs some 30 MB for a moment, and the C library's allocator keeps
/// about as much for each thread that ever made one: this is room for all of them, and none for a leak.
const MOST_RESIDENT_KIB: u64 = 384 * 1024;
/// Rows a root's queue may hold before it coarsens (`WATERMARK`), and one.
const MOST_PENDING: u64 = 50_001;

/// A line of /proc/<pid>/status, in KiB.
fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("\n{text}\n").as_bytes());
}

/// One change among so many paths: mostly writes, some of them in the editors' way; removals and renames.
fn change(root: &Path, paths: usize, random: &mut Random) {
    let path = |number: usize| root.join(format!("storm/{:03}/f{number:06}", number % 300));
    let (one, other) = (path(random.below(paths)), path(random.below(paths)));
    match random.below(20) {
        0..14 => {
            let _ = fs::write(&one, random.next().to_le_bytes());
        }
        14..16 => {
            let beside = one.with_extension("new");
            let _ = fs::write(&beside, random.next().to_le_bytes());
            let _ = fs::rename(&beside, &one);
        }
        16..18 => {
            let _ = fs::remove_file(&one);
        }
        _ => {
            let _ = fs::rename(&one, &other);
        }
    }
}

/// Changes files at [`RATE`], or as near to it as the machine comes, for so long; returns how many changes there
/// were. Calls `look` ten times a second.
fn blow(root: &Path, paths: usize, lasts: Duration, random: &mut Random, mut look: impl FnMut()) -> u64 {
    /// Changes between two looks at the clock.
    const AT_ONCE: u64 = 50;
    let begin = Instant::now();
    let (mut changes, mut looked) = (0u64, 0u128);
    while begin.elapsed() < lasts {
        let due = begin.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
        if u128::from(changes) < due {
            (0..AT_ONCE).for_each(|_| change(root, paths, random));
            changes += AT_ONCE;
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
        let tenth = begin.elapsed().as_millis() / 100;
        if tenth != looked {
            looked = tenth;
            look();
        }
    }
    changes
}

/// Looks at the program's memory all the while, and says once a minute how it stands.
struct Watchman<'d> {
    daemon: &'d Daemon,
    begin: Instant,
    said: u64,
    looks: u64,
}

impl Watchman<'_> {
    fn look(&mut self) {
        let pid = self.daemon.pid();
        let own = memory(pid, "RssAnon");
        let said = self.begin.elapsed().as_secs() / 60;
        if said != self.said {
            self.said = said;
            let mapped = memory(pid, "RssFile");
            say(&format!("after {said} min: {own} KiB of its own, {mapped} KiB of mapped files"));
        }
        assert!(own < MOST_RESIDENT_KIB, "{own} KiB after {:?}", self.begin.elapsed());
        self.looks += 1;
        if self.looks.is_multiple_of(10) {
            let pending = self.daemon.api().status()["repositories"][0]["pending"].as_u64().unwrap();
            assert!(pending <= MOST_PENDING, "{pending} rows wait");
        }
    }
}

fn a_storm(setup: &Setup, lasts: Duration, paths: usize, test: &str) {
    let mut random = Random::new(seed(test));
    for number in 0..300 {
        fs::create_dir_all(setup.root().join(format!("storm/{number:03}"))).unwrap();
    }
    let daemon = setup.start();
    daemon.api().flush();
    let mut watchman = Watchman { daemon: &daemon, begin: Instant::now(), said: 0, looks: 0 };
    let changes = blow(&setup.root(), paths, lasts, &mut random, || watchman.look());
    let stilled = Instant::now();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "110s"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    watchman.look();
    say(&format!(
        "RESULT | a storm of {changes} changes in {lasts:?}, {} a second, among {paths} paths | peak memory {} KiB \
         with mapped files, all there {:.1?} after it |",
        changes / lasts.as_secs(),
        memory(daemon.pid(), "VmHWM"),
        stilled.elapsed()
    ));
    daemon.stop();
    setup.assert_all_is_well();
}

/// A storm is a mass change: nobody is to be asked about it here.
fn calm() -> Setup {
    let mut setup = Setup::new();
    setup.repository()["mass_change"] = json!({"policy": "off"});
    setup
}

#[test]
fn a_write_storm_is_weathered_within_bounds() {
    a_storm(&calm(), Duration::from_secs(12), 8_000, "a_write_storm_is_weathered_within_bounds");
}

#[test]
fn a_write_storm_of_ten_minutes_is_weathered_within_bounds() {
    if !is_long() {
        return skip("a write storm of ten minutes (long tier)");
    }
    // With the waits that users have: more changes than the debouncer holds arrive while it waits.
    let mut setup = calm();
    setup.repository()["roots"][0].as_object_mut().unwrap().remove("debounce");
    setup.repository().as_object_mut().unwrap().remove("batch");
    let test = "a_write_storm_of_ten_minutes_is_weathered_within_bounds";
    a_storm(&setup, Duration::from_secs(600), 120_000, test);
}

#[test]
fn a_queue_that_nobody_empties_coarsens_instead_of_growing() {
    if !is_long() {
        return skip("60,000 files into a paused queue (long tier)");
    }
    let setup = Setup::new();
    for number in 0..60 {
        write(&setup.root(), format!("{number:02}/first"), "x");
    }
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(daemon.api().post("/api/v1/pause", &json!({"repository": "documents"})).status, 200);
    let files = 60_000u64;
    let mut most = 0;
    let pending = || daemon.api().status()["repositories"][0]["pending"].as_u64().unwrap();
    for number in 0..files {
        write(&setup.root(), format!("{:02}/{number}", number % 60), number.to_le_bytes());
        if number % 2000 == 0 {
            most = most.max(pending());
        }
    }
    daemon.status_when("the queue is one row, or few", |status| {
        status["repositories"][0]["pending"].as_u64().is_some_and(|rows| rows < 1000)
    });
    say(&format!(
        "RESULT | {files} files into a paused queue | at most {most} rows seen, peak memory {} KiB |",
        memory(daemon.pid(), "VmHWM")
    ));
    assert!(most <= MOST_PENDING, "{most}");
    assert!(memory(daemon.pid(), "VmHWM") < MOST_RESIDENT_KIB);
    assert_eq!(daemon.api().post("/api/v1/resume", &json!({"repository": "documents"})).status, 200);
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "110s"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    daemon.stop();
    setup.assert_all_is_well();
}
