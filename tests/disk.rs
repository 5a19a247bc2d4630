//! Disks that fill up: commits stop loudly before the last of the room is gone, pushes say why they fail, nothing
//! half-written stays, and everything goes on by itself when there is room again.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Setup, leftovers};
use crate::support::git::Judge;
use crate::support::mount::{Mount, memory};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually, skip};

const MIB: u64 = 1024 * 1024;

/// A world whose state directory is a file system of its own; `None`, announced, where that cannot be had.
fn with_small_state(what: &str, options: &str) -> Option<(Setup, Mount)> {
    let setup = Setup::new();
    match memory(&setup.state(), options) {
        Ok(mount) => Some((setup, mount)),
        Err(reason) => {
            skip(&format!("{what}: {reason}"));
            None
        }
    }
}

fn trouble(status: &Value) -> Option<&str> {
    status["repositories"][0]["trouble"].as_str()
}

fn remote<'s>(status: &'s Value, name: &str) -> &'s Value {
    let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
    remotes.iter().find(|remote| remote["name"] == name).unwrap()
}

#[test]
fn commits_stop_before_the_disk_of_the_state_is_full_and_resume_by_themselves() {
    let Some((setup, disk)) = with_small_state("a full state directory", "size=64m") else { return };
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let before = setup.remote().tip("main").unwrap();

    let alerts = daemon.api().status()["alerts"].clone();
    assert!(alerts.to_string().contains("disk_low"), "less than 1 GiB is a warning: {alerts}");

    let ballast = disk.fill(6 * MIB);
    write(&setup.root(), "file", "2");
    let status = daemon.status_when("commits have stopped", |status| trouble(status).is_some());
    let reason = trouble(&status).unwrap();
    for part in ["free", "make room", "state", "by themselves"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let alerts = status["alerts"].as_array().unwrap();
    assert!(alerts.iter().any(|alert| alert["name"] == "commit_failed"), "it is an alert: {status:#}");
    assert!(status["repositories"][0]["pending"].as_u64().unwrap() > 0, "the queue is kept: {status:#}");
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "30s"}));
    assert!(answer.problem(409)["detail"].as_str().unwrap().contains("make room"), "{}", answer.text());
    assert!(disk.free() > 4 * MIB, "what was left is left: {}", disk.free());
    assert_eq!(leftovers(&setup.state()), Vec::<std::path::PathBuf>::new());
    assert_eq!(setup.remote().tip("main").unwrap(), before);

    ballast.remove();
    eventually("commits go on by themselves", SOON, || {
        (setup.remote().blob("main", "folder1/file").as_deref() == Some(b"2")).then_some(())
    });
    daemon.status_when("the trouble is over", |status| trouble(status).is_none());
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_commit_that_does_not_fit_waits_and_smaller_ones_are_made() {
    let Some((setup, disk)) = with_small_state("a commit that does not fit", "size=64m") else { return };
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let ballast = disk.fill(16 * MIB);
    // Together they do not fit; one after the other the first ones do.
    for number in 0..4 {
        write(&setup.root(), format!("part-{number}"), Random::new(number).bytes(3 * MIB as usize));
    }
    let status = daemon.status_when("the rest waits", |status| {
        let root = &status["repositories"][0]["roots"][0];
        trouble(status).is_some() || root["skipped"].as_u64() > Some(0)
    });
    assert!(status.to_string().contains("make room"), "{status:#}");
    let names = ["part-0", "part-1", "part-2", "part-3"];
    let committed =
        names.iter().filter(|name| setup.local().blob("main", &format!("folder1/{name}")).is_some());
    assert!((1..4).contains(&committed.count()), "as many as fit");
    assert!(disk.free() > 7 * MIB, "the reserve is left: {}", disk.free());
    ballast.remove();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn commits_stop_when_the_inodes_are_gone_and_resume_by_themselves() {
    let Some((setup, disk)) = with_small_state("no inodes", "size=64m,nr_inodes=300") else { return };
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let taken = disk.path.join("taken");
    fs::create_dir(&taken).unwrap();
    for number in 0.. {
        if fs::File::create(taken.join(number.to_string())).is_err() {
            break;
        }
    }
    write(&setup.root(), "file", "2");
    let status = daemon.status_when("commits have stopped", |status| trouble(status).is_some());
    let reason = trouble(&status).unwrap();
    assert!(reason.contains("inodes") && reason.contains("remove files"), "{reason}");
    fs::remove_dir_all(&taken).unwrap();
    eventually("commits go on by themselves", SOON, || {
        (setup.remote().blob("main", "folder1/file").as_deref() == Some(b"2")).then_some(())
    });
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn once_on_a_full_disk_says_so_and_the_next_one_makes_it_good() {
    let Some((setup, disk)) = with_small_state("once on a full disk", "size=64m") else { return };
    write(&setup.root(), "file", "1");
    assert!(setup.run(&["once"]).status.success());
    let ballast = disk.fill(5 * MIB);
    write(&setup.root(), "file", "2");
    let output = setup.run(&["once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not everything is protected") && said.contains("make room"), "{said}");
    ballast.remove();
    assert!(setup.run(&["once"]).status.success());
    setup.assert_all_is_well();
}

#[test]
fn a_database_that_cannot_be_written_loses_no_change_and_comes_back() {
    let Some((setup, disk)) = with_small_state("a database on a full disk", "size=64m") else { return };
    // Below a directory that is new one row would do for all.
    for number in 0..50 {
        write(&setup.root(), format!("d{number}/file"), "1");
    }
    let mut daemon = setup.start();
    daemon.api().flush();
    let ballast = disk.fill(0);
    // So many rows that the database has to grow.
    for number in 0..6000 {
        write(&setup.root(), format!("d{}/a-file-with-a-rather-long-name-{number:05}", number % 50), "x");
    }
    eventually("the database refuses", SOON, || {
        daemon.output().contains("cannot be queued now").then_some(())
    });
    // Whoever asks is answered, and told.
    let status = daemon.status_when("the trouble is told", |status| trouble(status).is_some());
    assert!(trouble(&status).unwrap().contains("make room"), "{status:#}");
    assert!(daemon.ended().is_none());
    ballast.remove();
    eventually("everything is there by itself", Duration::from_secs(120), || {
        let name = "folder1/d49/a-file-with-a-rather-long-name-05999";
        setup.remote().blob("main", name).map(|_| ())
    });
    daemon.api().flush();
    let children = daemon.api().get("/api/v1/children").json();
    let queue =
        children["children"].as_array().unwrap().iter().find(|child| child["role"] == "queue").unwrap();
    assert_eq!(queue["restarts"], 0, "the queue opens the database again by itself: {queue}");
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_full_remote_is_told_retried_and_left_without_halves_while_others_go_on() {
    let mut setup = Setup::new();
    let disk = match memory(&setup.path("small"), "size=8m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a full remote: {reason}")),
    };
    let full = Judge::new(setup.path("small/documents.git"));
    let url = full.path.to_str().unwrap().to_owned();
    setup.repository()["remotes"].as_array_mut().unwrap().push(json!({"name": "full", "url": url}));
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let before = full.tip("main").unwrap();

    let ballast = disk.fill(64 * 1024);
    write(&setup.root(), "large", Random::new(1).bytes(2 * MIB as usize));
    let status = daemon.status_when("the remote is full", |status| {
        remote(status, "full")["state"] == "backoff" && remote(status, "usb")["state"] == "idle"
    });
    let reason = remote(&status, "full")["reason"].as_str().unwrap();
    assert!(reason.contains("small/documents.git") && reason.contains("make room"), "{reason}");
    eventually("the other remote goes on", SOON, || setup.remote().blob("main", "folder1/large"));
    assert_eq!(full.tip("main").unwrap(), before);
    eventually("nothing half-written is left between attempts", SOON, || {
        (leftovers(&disk.path).is_empty() && disk.free() > 32 * 1024).then_some(())
    });
    full.assert_sound();

    ballast.remove();
    eventually("it is pushed by itself", SOON, || full.blob("main", "folder1/large"));
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    full.assert_sound();
    assert_eq!(full.tip("main"), setup.remote().tip("main"));
}
