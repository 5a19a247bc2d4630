//! Directories that misbehave: roots and mounts that come and go, depths and sizes beyond reason, links swapped
//! in, odd times. Whatever happens there, nothing is taken for deleted, nothing from outside gets in, and one
//! poison path never stops the others.

mod mounts;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup, is_root};
use crate::support::git::try_git;
use crate::support::metadata::{record, records};
use crate::support::tree::write;
use crate::support::{is_long, skip};

const CANARY: &str = "a canary of 41 bytes that must stay outside";

fn root_row(status: &Value) -> &Value {
    &status["repositories"][0]["roots"][0]
}

/// What status lists as skipped of the root, once it lists anything.
fn skipped(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status_when("something is skipped", |status| {
        root_row(status)["skipped"].as_u64().is_some_and(|number| number > 0)
    });
    root_row(&status)["skipped_files"].as_array().cloned().unwrap_or_default()
}

/// Every object of a repository, inflated, one after the other.
fn everything_in(repository: &Path) -> Vec<u8> {
    try_git(repository, &["cat-file", "--batch-all-objects", "--batch", "--unordered"]).stdout
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn a_root_that_is_not_what_it_was_deletes_nothing() {
    type Change = fn(&Setup);
    let changes: [(&str, Change); 4] = [
        ("moved away", |_| ()),
        ("an empty directory", |setup| fs::create_dir(setup.root()).unwrap()),
        ("a file", |setup| fs::write(setup.root(), CANARY).unwrap()),
        ("a link to somewhere else", |setup| {
            write(&setup.path("elsewhere"), "file", CANARY);
            symlink(setup.path("elsewhere"), setup.root()).unwrap();
        }),
    ];
    let setup = Setup::new();
    write(&setup.root(), "file", "precious");
    write(&setup.root(), "deep/file", "precious too");
    let daemon = setup.start();
    daemon.api().flush();
    let whole = setup.remote().tip("main").unwrap();
    for (what, change) in changes {
        fs::rename(setup.root(), setup.path("away")).unwrap();
        change(&setup);
        let status = daemon.status_when(what, |status| root_row(status)["state"] == "unavailable");
        assert!(root_row(&status)["reason"].is_string(), "{what}: {status:#}");
        daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "20s"})).problem(409);
        let _ = fs::remove_dir(setup.root());
        let _ = fs::remove_file(setup.root());
        fs::rename(setup.path("away"), setup.root()).unwrap();
        daemon.status_when("the root is back", |status| root_row(status)["state"] == "watching");
        daemon.api().flush();
        assert_eq!(setup.remote().tip("main").as_ref(), Some(&whole), "{what}: nothing was to be committed");
    }
    daemon.stop();
    setup.assert_all_is_well();
    assert!(!contains(&everything_in(&setup.remote().path), CANARY));
}

/// Makes `depth` directories below each other, each called `name`, and a file in the last.
fn dig(top: &Path, name: &str, depth: usize) {
    let mut at = rustix::fs::open(top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"found").unwrap();
}

#[test]
fn a_tree_a_thousand_deep_and_a_path_beyond_the_systems_limit_are_stored() {
    let setup = Setup::new();
    write(&setup.root(), "beside", "1");
    dig(&setup.root(), "d", 1000);
    let name = "long".repeat(50);
    let daemon = setup.start();
    daemon.api().flush();
    // Once as a part of the first scan, once as a change that events tell of.
    dig(&setup.root(), &name, 30);
    write(&setup.root(), "beside", "2");
    daemon.api().flush();
    daemon.stop();
    let remote = setup.remote();
    remote.assert_sound();
    for (name, depth) in [("d", 1000), (name.as_str(), 30)] {
        let path = format!("folder1/{}file", format!("{name}/").repeat(depth));
        assert_eq!(remote.blob("main", &path).as_deref(), Some(b"found".as_slice()), "{depth} deep");
    }
    assert_eq!(remote.blob("main", "folder1/beside").unwrap(), b"2");
    // The tree is too deep for the standard library's way of removing it by path.
    assert!(Command::new("rm").arg("-rf").arg(setup.root()).status().unwrap().success());
}

#[test]
fn a_sparse_file_of_a_terabyte_is_skipped_with_its_reason_and_stops_nobody() {
    let setup = Setup::new();
    let huge = fs::File::create(setup.root().join("huge")).unwrap();
    if huge.set_len(1 << 40).is_err() {
        return skip("no sparse files of a terabyte here");
    }
    write(&setup.root(), "beside", "1");
    let daemon = setup.start();
    let flushed = daemon.api().flush();
    assert_eq!(setup.remote().blob("main", "folder1/beside").unwrap(), b"1");
    let listed = flushed["repositories"][0]["skipped"].as_array().unwrap();
    let is_told =
        |skip: &&Value| skip["path"] == "huge" && skip["reason"].as_str().unwrap().contains("1.0 TiB");
    assert!(listed.iter().any(|skip| is_told(&skip)), "{flushed:#}");
    assert!(skipped(&daemon).iter().any(|skip| is_told(&skip)));
    let why = setup.run(&["why", setup.root().join("huge").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("limits.repository_size"), "{why:?}");

    huge.set_len(100).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn times_long_ago_and_far_ahead_are_kept() {
    let setup = Setup::new();
    let times: [(&str, i64, i64); 4] = [
        ("epoch", 0, 0),
        ("before", -14_182_940, 1),
        ("2106", 4_294_967_296, 5),
        ("2300", 10_413_792_000, 9),
    ];
    for (name, seconds, nanoseconds) in times {
        write(&setup.root(), name, name);
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let both = Timestamps { last_access: time, last_modification: time };
        let path = setup.root().join(name);
        rustix::fs::utimensat(rustix::fs::CWD, &path, &both, rustix::fs::AtFlags::empty()).unwrap();
    }
    let daemon = setup.start();
    daemon.api().flush();
    let tip = setup.remote().tip("main");
    // A file with a time ahead of the clock is never proven unchanged, and must not make a commit each time.
    daemon.api().flush();
    assert_eq!(setup.remote().tip("main"), tip);
    daemon.stop();
    setup.assert_all_is_well();
    let clone = setup.path("clone");
    setup.remote().clone_to(&clone, "main");
    let records = records(&clone, "folder1", "");
    for (name, mtime) in
        [("epoch", "0.000000000"), ("before", "-14182939.999999999"), ("2106", "4294967296.000000005")]
    {
        assert_eq!(record(&records, name)["mtime"], mtime, "{name}");
    }
}

#[test]
fn a_directory_swapped_for_a_link_lets_nothing_from_outside_in() {
    let setup = Setup::new();
    let outside = setup.path("outside");
    for number in 0..20 {
        write(&outside, format!("file{number}"), format!("{CANARY} {number}"));
        write(&setup.root(), format!("dir/file{number}"), format!("inside {number}"));
    }
    let (root, stop) = (setup.root(), Arc::new(AtomicBool::new(false)));
    let swapper = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                fs::rename(root.join("dir"), root.join("aside")).unwrap();
                symlink(&outside, root.join("dir")).unwrap();
                std::thread::sleep(Duration::from_micros(300));
                fs::remove_file(root.join("dir")).unwrap();
                fs::rename(root.join("aside"), root.join("dir")).unwrap();
                std::thread::sleep(Duration::from_micros(300));
                swaps += 1;
            }
            swaps
        }
    });
    let daemon = setup.start();
    let until = Instant::now() + Duration::from_secs(if is_long() { 120 } else { 5 });
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        for file in 0..20 {
            let _ =
                fs::write(setup.root().join(format!("aside/file{file}")), format!("inside {number} {file}"));
        }
        daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "2s"}));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 100, "there was a race to lose");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    for judge in [setup.remote(), setup.local()] {
        assert!(!contains(&everything_in(&judge.path), CANARY), "something from outside got in");
    }
}

#[test]
fn ten_thousand_ignore_patterns_are_obeyed() {
    let mut setup = Setup::new();
    let patterns: Vec<String> = (0..5_000).map(|number| format!("*.left-out-{number}")).collect();
    setup.repository()["roots"][0]["ignore"] = json!(patterns);
    let of_the_tree: Vec<String> = (0..5_000).map(|number| format!("/dir/name-{number}.*")).collect();
    write(&setup.root(), ".backupbotignore", of_the_tree.join("\n"));
    for number in 0..200 {
        write(&setup.root(), format!("dir/name-{number}.x"), "out");
        write(&setup.root(), format!("dir/f.left-out-{number}"), "out");
        write(&setup.root(), format!("dir/in-{number}"), "in");
    }
    let daemon = setup.start();
    daemon.api().flush();
    let status = daemon.api().status();
    assert_eq!(root_row(&status)["excluded_by_rules"], 400, "{status:#}");
    daemon.stop();
    crate::support::git::assert_clone_equals(
        &setup.remote().path,
        "main",
        &[("folder1", &setup.root())],
        |path| path.starts_with(b"dir/name-") || path.starts_with(b"dir/f.left-out-"),
    );
}

#[test]
fn a_directory_of_very_many_entries_is_protected() {
    let entries = if is_long() { 200_000 } else { 20_000 };
    let setup = Setup::new();
    let crowded = setup.root().join("crowded");
    fs::create_dir(&crowded).unwrap();
    for number in 0..entries {
        fs::write(crowded.join(format!("entry-{number}")), (number % 1000).to_string()).unwrap();
    }
    let daemon = setup.start();
    daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "600s"}));
    for number in (0..entries).step_by(entries / 10) {
        fs::write(crowded.join(format!("entry-{number}")), "changed").unwrap();
        fs::remove_file(crowded.join(format!("entry-{}", number + 1))).unwrap();
    }
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

/// Names that differ only in case or in Unicode's normal form are different files where the file system says so.
#[test]
fn renames_in_case_only_and_twins_in_normal_form_are_kept_apart() {
    let setup = Setup::new();
    let root = setup.root();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    write(&root, "Readme", "one");
    write(&root, composed, "composed");
    write(&root, decomposed, "decomposed");
    if fs::read_dir(&root).unwrap().count() != 3 {
        return skip("this file system takes these names for the same");
    }
    let daemon = setup.start();
    daemon.api().flush();
    fs::rename(root.join("Readme"), root.join("README")).unwrap();
    fs::rename(root.join(decomposed), root.join("aside")).unwrap();
    fs::rename(root.join(composed), root.join(decomposed)).unwrap();
    daemon.api().flush();
    write(&root, "readme", "another");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    assert!(setup.remote().blob("main", "folder1/Readme").is_none());
}

#[test]
fn bare_repositories_and_work_trees_inside_are_protected_whole() {
    let setup = Setup::new();
    let (bare, tree) = (setup.root().join("bare.git"), setup.root().join("tree"));
    let git = |at: &Path, arguments: &[&str]| crate::support::git::git(at, arguments);
    git(&setup.root(), &["init", "-q", "--bare", "bare.git"]);
    git(&setup.root(), &["clone", "-q", "bare.git", "tree"]);
    write(&tree, "source", "1");
    git(&tree, &["add", "."]);
    git(&tree, &["commit", "-q", "-m", "first"]);
    git(&tree, &["push", "-q", "origin", "HEAD:refs/heads/main"]);
    git(&tree, &["worktree", "add", "-q", "../beside", "-b", "other"]);
    // What looks like our own: markers, metadata, a lock of Git's.
    write(&setup.root(), ".backupbot/format", "99");
    write(&setup.root(), ".backupbot/meta/folder1/_bb_meta", "not metadata");
    write(&setup.root(), "_bb_meta/3f", "not a shard");
    write(&setup.root(), "pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    write(&setup.root(), "crypt", b"\0GITCRYPT\0and so on");
    git(&setup.path("."), &["init", "-q", "--bare", "remote/documents.git"]);
    git(&setup.remote().path, &["config", "receive.fsckObjects", "true"]);
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    let stored = setup.remote().blob("main", "folder1/bare.git/HEAD").unwrap();
    assert_eq!(stored, fs::read(bare.join("HEAD")).unwrap());
    assert!(setup.remote().blob("main", "folder1/beside/_bb_.git").is_some());
}
