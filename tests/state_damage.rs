//! Damaged state: whatever is found in the state directory, at a start or while running, it is set aside, made anew
//! from what remains, and told. No commit is lost that a remote has, none is made twice, and nothing is forced.

mod database;
mod repository;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{git, try_git};
use crate::support::scrape::Scrape;
use crate::support::tree::{corpus, write};
use crate::support::{Random, SOON, eventually, is_long, seed};

/// Everything set aside in the state directory whose name begins with `name`.
fn set_aside(setup: &Setup, name: &str) -> Vec<PathBuf> {
    let place = setup.state().join(name);
    let prefix = format!("{}.damaged-", place.file_name().unwrap().to_str().unwrap());
    let listing = fs::read_dir(place.parent().unwrap()).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listing
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

const DATABASE: &str = "state.redb";
const REPOSITORY: &str = "repos/documents.git";

/// A setup with a few pushed commits; the program is stopped.
fn with_history() -> Setup {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..4 {
        write(&setup.root(), format!("d{number}/file"), format!("version {number}"));
        write(&setup.root(), "changing", format!("version {number}"));
        daemon.api().flush();
    }
    daemon.stop();
    setup
}

/// Everything is well after a damage: the remote is the root, it kept what it had, nothing was made twice.
fn assert_recovered(setup: &Setup, daemon: Daemon, earlier: &str) {
    daemon.api().flush();
    let said = daemon.output();
    daemon.stop();
    println!("it said: {said}");
    setup.assert_all_is_well();
    assert!(setup.remote().is_ancestor(earlier, "main"), "the remote's history goes on");
    assert_eq!(setup.local().tip("main"), setup.remote().tip("main"));
    let references = setup.remote().references();
    assert!(!references.keys().any(|name| name.contains("rescue")), "{references:?}");
    // One more start has nothing to do and nothing to tell.
    let tip = setup.remote().tip("main");
    let daemon = setup.start();
    daemon.api().flush();
    assert!(!daemon.output().contains("damaged"), "{}", daemon.output());
    daemon.stop();
    assert_eq!(setup.remote().tip("main"), tip, "a second commit");
}

fn state_recovered(daemon: &Daemon) -> String {
    let status = daemon.status_when("the recovery is told", |status| {
        status["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "state_recovered")
    });
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "state_recovered").unwrap();
    alert["message"].as_str().unwrap().to_owned()
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn packs(setup: &Setup, ending: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(setup.state().join(REPOSITORY).join("objects/pack")).unwrap();
    let mut found: Vec<PathBuf> = listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|own| own == ending))
        .collect();
    found.sort();
    found
}

/// The pack here that holds the commit.
fn pack_of(setup: &Setup, commit: &str) -> PathBuf {
    let holds = |index: &PathBuf| git(&setup.local().path, &["show-index"], index).contains(commit);
    fn git(directory: &Path, arguments: &[&str], input: &Path) -> String {
        let output = std::process::Command::new("git")
            .args(arguments)
            .current_dir(directory)
            .stdin(fs::File::open(input).unwrap())
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
    packs(setup, "idx").into_iter().find(holds).unwrap().with_extension("pack")
}

#[test]
fn small_files_that_are_damaged_are_set_aside_said_and_counted() {
    const FILES: [&str; 6] = [
        "alerts.json",
        "verified.json",
        "drills.json",
        "inspections.json",
        "restore-jobs.json",
        "scrubs.json",
    ];
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    for file in FILES {
        fs::write(setup.state().join(file), "{\"half\": [").unwrap();
    }
    let daemon = setup.start();
    let status = daemon.status_when("it is said", |status| {
        let alerts = status["alerts"].as_array().unwrap().iter();
        alerts.filter(|alert| alert["name"] == "state_recovered").count() == FILES.len()
    });
    for file in FILES {
        let said = format!("{file} was damaged (");
        assert!(status["alerts"].to_string().contains(&said), "{file}: {status:#}");
        eventually("the log has it", SOON, || daemon.output().contains(&said).then_some(()));
        let kept = set_aside(&setup, file);
        assert_eq!(kept.len(), 1, "{file}: {kept:?}");
        assert_eq!(fs::read(&kept[0]).unwrap(), b"{\"half\": [");
    }
    let scrape = Scrape::of(&daemon);
    assert_eq!(scrape.value("state_recoveries_total", "kind=\"file\""), 6.0);
    assert!(setup.run(&["verify"]).status.success());
    daemon.stop();
    let daemon = setup.start();
    assert_eq!(Scrape::of(&daemon).value("state_recoveries_total", "kind=\"file\""), 0.0);
    daemon.stop();
}

#[test]
fn leftovers_of_old_crashes_are_swept() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let repository = setup.local().path;
    for leftover in [
        "refs/heads/main.lock",
        "HEAD.lock",
        "packed-refs.lock",
        "config.lock",
        "objects/pack/tmp_pack_bb_new_0123456789abcdef",
        "objects/pack/tmp_pack_XXAbcd",
        "objects/pack/tmp_idx_XXAbcd",
        "objects/pack/.tmp-17-pack-0123.pack",
        "objects/ab/tmp_obj_123456",
    ] {
        let path = repository.join(leftover);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "half").unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 24 * 3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    fs::create_dir_all(setup.state().join("repos/documents.git-state.unfinished/objects")).unwrap();
    fs::write(setup.state().join("state.redb.new"), "half").unwrap();
    write(&setup.root(), "changing", "meanwhile");
    assert_recovered(&setup, setup.start(), &before);
}

#[test]
fn hooks_in_the_repository_are_not_run() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let canary = setup.path("canary");
    for repository in [setup.local().path, setup.remote().path] {
        fs::create_dir_all(repository.join("hooks")).unwrap();
        for hook in
            ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "pre-auto-gc"]
        {
            let path = repository.join("hooks").join(hook);
            fs::write(&path, format!("#!/bin/sh\ntouch {}\nexit 1\n", canary.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    write(&setup.root(), "changing", "with hooks");
    assert_recovered(&setup, setup.start(), &before);
    assert!(!canary.exists());
}

#[test]
fn alternates_are_not_obeyed() {
    let setup = with_history();
    // The planted store has what was taken away here; nothing must be found in it.
    let stolen = setup.path("stolen");
    fs::create_dir_all(stolen.join("objects/pack")).unwrap();
    for ending in ["pack", "idx"] {
        for path in packs(&setup, ending) {
            fs::rename(&path, stolen.join("objects/pack").join(path.file_name().unwrap())).unwrap();
        }
    }
    let line = format!("{}\n", stolen.join("objects").display());
    fs::write(setup.local().path.join("objects/info/alternates"), line).unwrap();
    let before = setup.remote().tip("main").unwrap();
    assert_recovered(&setup, setup.start(), &before);
    assert!(!setup.local().path.join("objects/info/alternates").exists());
    fs::remove_dir_all(&stolen).unwrap();
    setup.local().assert_sound();
}

#[test]
fn what_is_set_aside_is_bounded() {
    let setup = with_history();
    for _ in 0..4 {
        fs::write(setup.local().path.join("HEAD"), "").unwrap();
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
    }
    assert_eq!(set_aside(&setup, REPOSITORY).len(), 2);
    setup.assert_all_is_well();
    for aside in set_aside(&setup, REPOSITORY) {
        assert!(
            try_git(&aside, &["cat-file", "-e", "HEAD"]).status.code() != Some(0),
            "it is as it was found"
        );
    }
}

#[test]
fn a_lost_state_with_a_damaged_remote_goes_on_all_the_same() {
    let mut setup = with_history();
    setup.config["shutdown_grace"] = serde_json::json!("1s");
    let theirs = setup.remote().tip("main").unwrap();
    fs::remove_dir_all(setup.state()).unwrap();
    // The oldest history there cannot be read any more, the branch can.
    let first = setup.remote().history("main").last().unwrap().id.clone();
    let listing = fs::read_dir(setup.remote().path.join("objects/pack")).unwrap();
    let indexes: Vec<PathBuf> = listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|own| own == "idx"))
        .collect();
    let holds = |index: &&PathBuf| {
        let shown = std::process::Command::new("git")
            .arg("show-index")
            .current_dir(&setup.remote().path)
            .stdin(fs::File::open(index).unwrap())
            .output();
        String::from_utf8(shown.unwrap().stdout).unwrap().contains(&first)
    };
    let index = indexes.iter().find(holds).unwrap();
    rewrite(&index.with_extension("pack"), |bytes| {
        let end = bytes.len() - 20;
        bytes[12..end].iter_mut().for_each(|byte| *byte ^= 0x55);
    });
    let daemon = setup.start();
    eventually("a commit is made here", SOON, || setup.local().tip("main"));
    daemon.status_when("the remote says what is wrong", |status| {
        status["repositories"][0]["remotes"][0]["state"] != "idle"
    });
    assert_eq!(setup.remote().tip("main"), Some(theirs), "nothing is forced");
    daemon.stop_or_fail();
    setup.local().assert_sound();
}
