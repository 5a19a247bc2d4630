//! What the daemon inspects by itself, and `drill`: results, alerts, schedules that survive, and that nothing is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::http::served;
use crate::support::daemon::{Daemon, Setup, is_root};
use crate::support::git::git;
use crate::support::mount;
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::{picture, write};
use crate::support::web::Switches;
use crate::support::{SOON, eventually, skip};
use crate::verify::{document, ends, fill, flip, object_of};

/// A root with some of everything, backed up.
fn backed_up() -> Setup {
    let mut setup = Setup::new();
    quiet(&mut setup);
    fill(&setup);
    ends(&setup, 0, &["once"]);
    setup
}

/// Nothing on schedule but what a test asks for.
fn quiet(setup: &mut Setup) {
    setup.repository()["verify"] = json!("off");
    setup.repository()["drill"] = json!("off");
}

fn drills(setup: &Setup) -> Vec<Value> {
    let text = fs::read_to_string(setup.state().join("drills.json")).unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    document["drills"].as_array().cloned().unwrap_or_default()
}

fn repository(status: &Value) -> &Value {
    &status["repositories"][0]
}

fn has_alert(status: &Value) -> bool {
    status["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "verify_failed")
}

fn when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    daemon.status_when(what, holds)
}

/// Scratch directories that are there.
fn scratches(setup: &Setup) -> Vec<PathBuf> {
    let entries = ["drills", "verifying"].map(|name| setup.state().join(name));
    let entries = entries.iter().flat_map(fs::read_dir).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Every byte below a directory, by path.
fn bytes_of(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut all, mut pending) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(path) = pending.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    all.sort();
    all
}

fn problems(answer: &Value) -> Vec<String> {
    let problems = answer["drills"][0]["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_drill_restores_from_a_path_and_touches_nothing() {
    let setup = backed_up();
    let (root, local, remote) = (setup.root(), setup.local().path, setup.remote().path);
    let before = (picture(&root, |_| false), bytes_of(&local), bytes_of(&remote));
    let (said, complained) = ends(&setup, 0, &["drill", "--whole"]);
    assert!(said.contains("all is as it was") && said.contains("6 files"), "{said}{complained}");
    assert!(said.contains("with what is here"), "{said}");
    let answer = document(&setup, 0, &["drill", "--sample", "2"]);
    let drill = &answer["drills"][0]["drill"];
    assert_eq!(
        (&drill["files"], &drill["way"], &drill["sample"]),
        (&json!(2), &json!("in_place"), &json!("2 files"))
    );
    assert_eq!((picture(&root, |_| false), bytes_of(&local), bytes_of(&remote)), before);
    assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
    assert_eq!(drills(&setup).len(), 2);
    let page = ends(&setup, 0, &["status"]).0;
    assert!(
        page.contains("remote usb: drill ") && page.contains("2 files restored, all as it was"),
        "{page}"
    );
    for wrong in [
        &["drill", "--remote", "nowhere"][..],
        &["drill", "--sample", "0"],
        &["drill", "--sample", "1", "--whole"],
    ] {
        ends(&setup, 2, wrong);
    }
    fs::rename(&remote, setup.path("unplugged")).unwrap();
    let (_, complained) = ends(&setup, 1, &["drill"]);
    assert!(complained.contains("no result"), "{complained}");
    assert_eq!(drills(&setup).len(), 2, "not reached is no result");
}

#[test]
fn damage_on_the_remote_alone_is_named_and_only_the_same_files_take_it_back() {
    let setup = backed_up();
    let remote = setup.remote().path;
    let packs = remote.join("objects/pack");
    let sound = bytes_of(&packs);
    flip(&remote, &[object_of(&remote, "folder1/large")]);
    let answer = document(&setup, 3, &["drill", "--whole"]);
    assert_eq!(problems(&answer), ["folder1/large"], "{answer:#}");
    ends(&setup, 0, &["verify"]);
    let status = document(&setup, 0, &["status"]);
    assert!(has_alert(&status), "{status:#}");
    // The one that found it is repeated.
    let again = document(&setup, 3, &["drill"]);
    assert_eq!(again["drills"][0]["drill"]["sample"], "whole");
    for (path, bytes) in sound {
        fs::write(path, bytes).unwrap();
    }
    ends(&setup, 0, &["drill", "--sample", "1"]);
    assert!(has_alert(&document(&setup, 0, &["status"])), "one file proves little");
    ends(&setup, 0, &["drill"]);
    assert!(!has_alert(&document(&setup, 0, &["status"])));
}

#[test]
fn a_server_over_http_is_drilled_in_parts_or_whole_and_its_damage_is_named() {
    let Some((mut setup, mut web)) = served(&Switches::default()) else { return };
    quiet(&mut setup);
    fill(&setup);
    ends(&setup, 0, &["once"]);
    let remote = setup.remote().path;
    for (in_parts, way) in [("false", "whole"), ("true", "parts")] {
        git(&remote, &["config", "uploadpack.allowFilter", in_parts]);
        git(&remote, &["config", "uploadpack.allowAnySHA1InWant", in_parts]);
        let answer = document(&setup, 0, &["drill", "--sample", "3"]);
        let drill = &answer["drills"][0]["drill"];
        assert_eq!(
            (&drill["way"], &drill["files"], &drill["is_here"]),
            (&json!(way), &json!(3), &json!(true))
        );
        assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
    }
    flip(&remote, &[object_of(&remote, "folder1/large")]);
    let answer = document(&setup, 3, &["drill", "--whole"]);
    assert_eq!(problems(&answer), ["folder1/large"], "{answer:#}");
    web.down();
    ends(&setup, 1, &["drill"]);
    assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
    assert_eq!(drills(&setup).len(), 3);
}

#[test]
fn a_server_over_ssh_is_verified_and_drilled() {
    let mut setup = Setup::new();
    quiet(&mut setup);
    let sshd = Sshd::start(setup.scratch.path());
    let (key, known_hosts) = (setup.path("key"), setup.path("known"));
    make_key(&key, "ed25519", "");
    sshd.let_in(&key, "");
    fs::write(&known_hosts, sshd.known_hosts_line("ed25519") + "\n").unwrap();
    let far = setup.path("far.git");
    git(setup.scratch.path(), &["init", "-q", "--bare", far.to_str().unwrap()]);
    let credentials =
        json!({"ssh_key_file": key.to_str().unwrap(), "known_hosts_file": known_hosts.to_str().unwrap()});
    setup.repository()["remotes"] =
        json!([{"name": "nas", "url": sshd.url(far.to_str().unwrap()), "credentials": credentials}]);
    fill(&setup);
    ends(&setup, 0, &["once"]);
    let verified = document(&setup, 0, &["verify", "--remote", "nas"]);
    assert_eq!(verified["report"]["verified_files"], 6, "{verified:#}");
    let answer = document(&setup, 0, &["drill", "--remote", "nas", "--whole"]);
    assert_eq!(answer["drills"][0]["drill"]["files"], 6, "{answer:#}");
    git(&far, &["config", "uploadpack.allowFilter", "true"]);
    git(&far, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    flip(&far, &[object_of(&far, "folder1/large")]);
    assert_eq!(problems(&document(&setup, 3, &["drill", "--whole"])), ["folder1/large"]);
    ends(&setup, 3, &["verify", "--remote", "nas"]);
    assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
}

#[test]
fn the_daemon_finds_a_flipped_byte_raises_the_alarm_and_clears_it_when_it_is_mended() {
    let mut setup = backed_up();
    setup.repository()["verify"] = json!({"sample": "100%", "every": "1s", "full_every": "1h"});
    let daemon = setup.start();
    when(&daemon, "it was verified", |status| {
        repository(status)["verified"][0]["problems"] == 0
            && repository(status)["inspections"][0]["next"].is_string()
    });
    let local = setup.local().path;
    flip(&local, &[object_of(&local, "folder1/large")]);
    eventually("the damage is found", SOON, || {
        daemon.output().contains("is not what was backed up").then_some(())
    });
    // It is mended from the remote, and then found to be well.
    when(&daemon, "the alarm is over", |status| {
        !has_alert(status) && repository(status)["verified"][0]["problems"] == 0
    });
    daemon.api().flush();
    daemon.stop();
    setup.local().assert_sound();
}

#[test]
fn the_alarm_stays_while_it_is_not_mended() {
    let mut setup = backed_up();
    // Damage that nobody can mend: no remote has it.
    setup.repository()["remotes"] = json!([]);
    setup.repository()["verify"] = json!({"every": "1s"});
    let local = setup.local().path;
    let status = {
        let daemon = setup.start();
        flip(&local, &[object_of(&local, "folder1/large")]);
        let status = when(&daemon, "an alarm", has_alert);
        daemon.stop_or_fail();
        status
    };
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "verify_failed").unwrap();
    assert_eq!(alert["severity"], "critical");
    assert!(has_alert(&document(&setup, 0, &["status"])), "it outlives the daemon");
}

#[test]
fn the_daemon_rehearses_with_each_remote_and_tells_what_failed_and_what_comes_next() {
    let mut setup = backed_up();
    setup.repository()["drill"] = json!({"every": "1s", "sample": "100%"});
    let (root, local) = (setup.root(), setup.local().path);
    let before = (picture(&root, |_| false), bytes_of(&local));
    let daemon = setup.start();
    when(&daemon, "a drill", |status| repository(status)["drills"][0]["problems"] == 0);
    let remote = setup.remote().path;
    flip(&remote, &[object_of(&remote, "folder1/large")]);
    // A drill that looked while the pack was being written found more than that; it is repeated.
    when(&daemon, "an alarm with the name", |status| {
        let named = repository(status)["drills"][0]["named"].as_array();
        has_alert(status)
            && named.is_some_and(|named| {
                named.len() == 1 && named[0].as_str().unwrap().starts_with("folder1/large")
            })
    });
    let away = setup.path("unplugged");
    fs::rename(&remote, &away).unwrap();
    let status = when(&daemon, "attempts are told", |status| {
        let place = &repository(status)["inspections"][0];
        place["attempts"].as_u64() > Some(1)
            && place["reason"].as_str().is_some_and(|why| why.contains("nothing at"))
    });
    assert!(has_alert(&status), "out of reach is not well");
    let page = ends(&setup, 0, &["status"]).0;
    assert!(page.contains("remote usb: next drill ") || page.contains("is going on"), "{page}");
    daemon.stop_or_fail();
    assert_eq!(picture(&root, |_| false), before.0);
    assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
}

#[test]
fn a_paused_repository_is_inspected_all_the_same() {
    let mut setup = backed_up();
    ends(&setup, 0, &["pause"]);
    setup.repository()["verify"] = json!({"every": "1s"});
    setup.repository()["drill"] = json!({"every": "1s"});
    let daemon = setup.start();
    when(&daemon, "both were done", |status| {
        repository(status)["verified"].is_array() && repository(status)["drills"].is_array()
    });
    daemon.stop();
}

#[test]
fn a_schedule_survives_a_restart() {
    let mut setup = backed_up();
    setup.repository()["verify"] = json!({"every": "1h"});
    setup.repository()["drill"] = json!({"every": "2h"});
    let next = |status: &Value| {
        let places = repository(status)["inspections"].as_array().unwrap();
        places.iter().map(|place| place["next"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let known =
        |status: &Value| repository(status)["inspections"].as_array().is_some_and(|places| places.len() == 2);
    let daemon = setup.start();
    let first = next(&when(&daemon, "it is known what comes next", known));
    daemon.stop();
    let notes = fs::read(setup.state().join("inspections.json")).unwrap();
    let daemon = setup.start();
    let second = next(&when(&daemon, "it is known what comes next", known));
    daemon.stop();
    assert_eq!(fs::read(setup.state().join("inspections.json")).unwrap(), notes);
    // To the second, in which the answer was made.
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first[..15], second[..15], "{first} {second}");
    }
    // A result of a command counts as well as one of its own.
    ends(&setup, 0, &["verify"]);
    let daemon = setup.start();
    let third =
        when(&daemon, "the command's result counts", |status| known(status) && next(status)[0] > second[0]);
    daemon.stop();
    assert!(repository(&third)["inspections"][0]["last_good"].is_string());
}

#[cfg(feature = "fault-points")]
#[test]
fn killed_at_any_moment_nothing_is_left_and_nothing_was_touched() {
    for point in ["inspect:attempt-noted", "drill:begun", "drill:fetched", "drill:restored"] {
        let mut setup = backed_up();
        setup.repository()["drill"] = json!({"every": "1s", "sample": "100%"});
        let before = (picture(&setup.root(), |_| false), bytes_of(&setup.remote().path));
        setup.launch(&[("BACKUPBOT_FAULT", &format!("{point}=kill"))]).dies_by_itself(point);
        let was_left = scratches(&setup).len();
        assert_eq!(was_left, usize::from(point != "inspect:attempt-noted"), "{point}");
        setup.repository()["drill"] = json!("off");
        let daemon = setup.start();
        eventually("what was left is gone", SOON, || scratches(&setup).is_empty().then_some(()));
        daemon.stop();
        assert_eq!((picture(&setup.root(), |_| false), bytes_of(&setup.remote().path)), before, "{point}");
        setup.repository()["drill"] = json!({"every": "1s", "sample": "100%"});
        let daemon = setup.start();
        when(&daemon, "it is made again", |status| repository(status)["drills"][0]["problems"] == 0);
        daemon.stop();
        write(&setup.root(), "later", "x");
        ends(&setup, 0, &["once"]);
        setup.assert_all_is_well();
    }
}

#[test]
fn without_room_a_drill_is_skipped_with_its_reason_and_made_when_there_is_room() {
    let Some((mut setup, _web)) = served(&Switches::default()) else { return };
    quiet(&mut setup);
    let mount = match mount::memory(&setup.state(), "size=64m,mode=700") {
        Ok(mount) => mount,
        Err(why) => return skip(&why),
    };
    fill(&setup);
    let noise: Vec<u8> = (0..6_000_000u64)
        .flat_map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..2].to_vec())
        .collect();
    write(&setup.root(), "noise", noise);
    ends(&setup, 0, &["once"]);
    setup.repository()["drill"] = json!({"every": "1s", "sample": "100%"});
    let ballast = mount.fill(10 << 20);
    let daemon = setup.start();
    let status = when(&daemon, "it is skipped", |status| {
        repository(status)["inspections"][0]["reason"]
            .as_str()
            .is_some_and(|why| why.starts_with("skipped: "))
    });
    let reason = repository(&status)["inspections"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("whole snapshot") && reason.contains("make room"), "{reason}");
    assert!(!has_alert(&status) && drills(&setup).is_empty());
    ballast.remove();
    when(&daemon, "it is made", |status| repository(status)["drills"][0]["problems"] == 0);
    daemon.stop();
}

#[test]
fn an_ordinary_user_can_make_drills_of_files_and_directories_that_nobody_may_write() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let mut setup = Setup::new();
    quiet(&mut setup);
    setup.as_nobody = true;
    fill(&setup);
    let root = setup.root();
    for (path, mode) in [("large", 0o400), ("a", 0o500), ("notes", 0o555)] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    ends(&setup, 0, &["once"]);
    let (said, _) = ends(&setup, 0, &["drill", "--whole"]);
    assert!(said.contains("6 files"), "{said}");
    assert_eq!(scratches(&setup), Vec::<PathBuf>::new());
}
