//! A write storm: thousands of changes a second for as long as the tier allows. Memory stays bounded, the queue
//! coarsens instead of growing, and when the storm is over everything is there.

use std::collections::VecDeque;
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
/// What the program may hold at any time, in KiB. It is a debug build; the release takes less.
const MOST_RESIDENT_KIB: u64 = 256 * 1024;
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

/// Changes files at [`RATE`] until `end`; returns how many changes there were. Calls `look` ten times a second.
fn blow(root: &Path, paths: usize, lasts: Duration, random: &mut Random, mut look: impl FnMut()) -> u64 {
    let begin = Instant::now();
    let (mut changes, mut looked) = (0u64, 0u128);
    while begin.elapsed() < lasts {
        let due = begin.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
        while u128::from(changes) < due {
            change(root, paths, random);
            changes += 1;
        }
        let tenth = begin.elapsed().as_millis() / 100;
        if tenth != looked {
            looked = tenth;
            look();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    changes
}

fn assert_bounded(daemon: &Daemon, latest: &mut VecDeque<u64>) {
    let resident = memory(daemon.pid(), "VmRSS");
    latest.push_back(resident);
    if latest.len() > 100 {
        latest.pop_front();
    }
    assert!(resident < MOST_RESIDENT_KIB, "{resident} KiB resident, before that {latest:?}");
}

fn a_storm(setup: &Setup, lasts: Duration, paths: usize, test: &str) {
    let mut random = Random::new(seed(test));
    for number in 0..300 {
        fs::create_dir_all(setup.root().join(format!("storm/{number:03}"))).unwrap();
    }
    let daemon = setup.start();
    daemon.api().flush();
    let mut latest = VecDeque::new();
    let mut looks = 0;
    let changes = blow(&setup.root(), paths, lasts, &mut random, || {
        assert_bounded(&daemon, &mut latest);
        looks += 1;
        if looks % 10 == 0 {
            let pending = daemon.api().status()["repositories"][0]["pending"].as_u64().unwrap();
            assert!(pending <= MOST_PENDING, "{pending} rows wait");
        }
    });
    say(&format!("the storm is over after {changes} changes, {latest:?} KiB resident"));
    let stilled = Instant::now();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "110s"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    say(&format!(
        "RESULT | a storm of {changes} changes in {lasts:?} among {paths} paths | peak memory {} KiB, all there \
         {:.1?} after it |",
        memory(daemon.pid(), "VmHWM"),
        stilled.elapsed()
    ));
    assert!(memory(daemon.pid(), "VmHWM") < MOST_RESIDENT_KIB);
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_write_storm_is_weathered_within_bounds() {
    a_storm(&Setup::new(), Duration::from_secs(12), 8_000, "a_write_storm_is_weathered_within_bounds");
}

#[test]
fn a_write_storm_of_ten_minutes_is_weathered_within_bounds() {
    if !is_long() {
        return skip("a write storm of ten minutes (long tier)");
    }
    // With the waits that users have: more changes than the debouncer holds arrive while it waits.
    let mut setup = Setup::new();
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
