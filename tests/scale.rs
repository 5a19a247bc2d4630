//! Many files, large files, large directories. The long tier needs `BACKUPBOT_TEST_LONG=1` and some patience.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::tree::{Churn, corpus, write};
use crate::support::{Random, is_long, seed, skip};

/// One line of results, in a form that docs/performance.md can take.
fn result(what: &str, value: impl std::fmt::Display) {
    let now = std::process::Command::new("date").arg("-u").arg("+%Y-%m-%dT%H:%M:%SZ").output().unwrap();
    let line = format!("RESULT | {} | {what} | {value} |\n", String::from_utf8_lossy(&now.stdout).trim());
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The largest resident size of a process so far, from the kernel.
fn peak_memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}

fn flush_within(setup: &Setup, timeout: &str) -> Duration {
    let started = Instant::now();
    let daemon = setup.start();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": timeout}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let took = started.elapsed();
    result("peak memory", peak_memory(daemon.pid()));
    daemon.stop();
    took
}

#[test]
fn five_thousand_files_come_back() {
    let setup = Setup::new();
    corpus(&setup.root(), 5_000, &mut Random::new(seed("five_thousand_files_come_back")));
    let took = flush_within(&setup, "120s");
    result("first backup of 5,000 files", format!("{took:.1?}"));
    setup.assert_all_is_well();
}

/// Bytes of metadata objects, uncompressed, that a commit added.
fn new_metadata(repository: &Path, commit: &str) -> u64 {
    let parent = format!("^{commit}~1");
    let listed = git(repository, &["rev-list", "--objects", commit, &parent, "--", ".backupbot"]);
    let mut bytes = 0;
    for line in listed.lines() {
        let Some((object, path)) = line.split_once(' ') else { continue };
        if path.starts_with(".backupbot") {
            bytes += git(repository, &["cat-file", "-s", object]).trim().parse::<u64>().unwrap();
        }
    }
    bytes
}

#[test]
fn one_change_in_a_large_directory_writes_little_metadata() {
    let files = if is_long() { 100_000 } else { 20_000 };
    let setup = Setup::new();
    for number in 0..files {
        fs::write(
            setup.root().join(format!("a-file-with-an-ordinary-name-{number:06}.txt")),
            format!("{number}"),
        )
        .unwrap();
    }
    let daemon = setup.start();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "110s"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for number in [0, files / 2, files - 1] {
        write(&setup.root(), format!("a-file-with-an-ordinary-name-{number:06}.txt"), "changed");
        daemon.api().flush();
        let bytes = new_metadata(&setup.remote().path, "main");
        assert!((1..64 * 1024).contains(&bytes), "{bytes} bytes of metadata for one file among {files}");
        result(&format!("metadata for one change among {files} files"), format!("{bytes} bytes"));
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_storm_of_events_loses_nothing() {
    let setup = Setup::new();
    let daemon = setup.start();
    daemon.api().flush();
    // More than the kernel's queue holds.
    for number in 0..12_000 {
        let directory = format!("storm/{:03}", number % 200);
        write(&setup.root(), format!("{directory}/{number}"), "x");
    }
    daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "110s"}));
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn the_projects_own_checkout_is_protected() {
    let source = env!("CARGO_MANIFEST_DIR");
    if !Path::new(source).join(".git").exists() {
        return skip("the project's own checkout (these sources are not one)");
    }
    let mut setup = Setup::new();
    let project = setup.root().join("project");
    git(&setup.root(), &["clone", "--quiet", "--no-hardlinks", source, project.to_str().unwrap()]);
    setup.repository()["roots"][0]["ignore"] = json!(["/project/target/"]);
    flush_within(&setup, "120s");
    setup.assert_all_is_well();
    assert!(setup.remote().blob("main", "folder1/project/_bb_.git/HEAD").is_some());
    assert!(setup.remote().blob("main", "folder1/project/Cargo.toml").is_some());
}

#[test]
fn a_hundred_thousand_files_come_back() {
    if !is_long() {
        return skip("100,000 files (long tier)");
    }
    let setup = Setup::new();
    corpus(&setup.root(), 100_000, &mut Random::new(seed("a_hundred_thousand_files_come_back")));
    let took = flush_within(&setup, "600s");
    result("first backup of 100,000 files", format!("{took:.1?}"));
    let took = flush_within(&setup, "600s");
    result("start and flush of 100,000 unchanged files", format!("{took:.1?}"));
    setup.assert_all_is_well();
}

#[test]
fn a_million_files_come_back() {
    if !is_long() {
        return skip("1,000,000 files (long tier)");
    }
    let setup = Setup::new();
    for number in 0..1_000_000u32 {
        let directory = setup.root().join(format!("{:03}/{:02}", number % 500, number / 500 % 40));
        if number < 500 * 40 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("{number}")), number.to_le_bytes()).unwrap();
    }
    let took = flush_within(&setup, "3600s");
    result("first backup of 1,000,000 files", format!("{took:.1?}"));
    setup.assert_all_is_well();
}

#[test]
fn a_file_of_five_gigabytes_comes_back() {
    if !is_long() {
        return skip("a file of 5 GB (long tier)");
    }
    let setup = Setup::new();
    let mut random = Random::new(5);
    let block = random.bytes(1 << 20);
    let mut file = fs::File::create(setup.root().join("large")).unwrap();
    for number in 0..5u64 * 1024 {
        file.write_all(&number.to_le_bytes()).unwrap();
        file.write_all(&block[8..]).unwrap();
    }
    drop(file);
    let took = flush_within(&setup, "3600s");
    result("first backup of one file of 5 GiB", format!("{took:.1?}"));
    setup.assert_all_is_well();
}

#[test]
fn an_hour_of_churn_ends_in_an_exact_clone() {
    if !is_long() {
        return skip("an hour of churn (long tier)");
    }
    let setup = Setup::new();
    let seed = seed("an_hour_of_churn_ends_in_an_exact_clone");
    corpus(&setup.root(), 2_000, &mut Random::new(seed));
    let daemon = setup.start();
    daemon.api().flush();
    let early = peak_memory(daemon.pid());
    let churn = Churn::start(&setup.root(), seed, Duration::from_millis(20));
    let end = Instant::now() + Duration::from_secs(3600);
    while Instant::now() < end {
        daemon.api().flush();
        std::thread::sleep(Duration::from_secs(30));
    }
    let changes = churn.changes();
    churn.stop();
    daemon.api().flush();
    result(
        "an hour of churn",
        format!("{changes} changes, peak memory {early} -> {}", peak_memory(daemon.pid())),
    );
    daemon.stop();
    setup.assert_all_is_well();
}
