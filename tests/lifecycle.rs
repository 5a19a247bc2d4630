//! Start, stop and the state directory: one process at a time, nothing left behind, nothing lost on the way out,
//! and a root that goes away is not a deletion.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

#[test]
fn a_second_process_leaves_at_once_and_names_the_first() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    for verb in ["run", "once"] {
        let started = Instant::now();
        let output = setup.run(&[verb]);
        assert!(started.elapsed() < Duration::from_secs(5), "{verb}: {:?}", started.elapsed());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{verb}: {said}");
        assert!(said.contains(&daemon.pid().to_string()), "{verb} names the holder: {said}");
    }
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn the_lock_of_a_killed_process_does_not_hold_the_next_one() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.kill();
    assert!(setup.state().join("daemon.json").exists());
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert!(!setup.state().join("daemon.json").exists(), "an orderly stop takes the address away");
    setup.assert_all_is_well();
}

#[test]
fn what_a_crash_left_behind_is_swept() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let local = setup.local().path;
    let halves = [
        local.join("refs/heads/main.lock"),
        local.join("HEAD.lock"),
        local.join("packed-refs.lock"),
        local.join("objects/pack/tmp_pack_bb_new_77"),
    ];
    for half in &halves {
        fs::create_dir_all(half.parent().unwrap()).unwrap();
        fs::write(half, "half").unwrap();
    }
    write(&setup.root(), "file", "2");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn an_orderly_stop_flushes_what_was_pending() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["debounce"] = json!({"quiet": "1h", "max": "2h"});
    setup.repository()["batch"]["after"] = json!("1h");
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = setup.start();
        daemon.api().flush();
        write(&setup.root(), format!("pending-{}", signal.as_raw()), "x");
        daemon.signal(signal);
        let status = daemon.end(Duration::from_secs(25));
        assert_eq!(status.code(), Some(0), "{}", daemon.output());
        setup.assert_all_is_well();
    }
}

#[test]
fn a_stop_that_cannot_flush_ends_within_the_grace() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("2s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let mut daemon = setup.start();
    eventually("a commit", SOON, || setup.local().tip("main"));
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.end(Duration::from_secs(30));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    setup.local().assert_sound();

    // The change is not forgotten.
    fs::remove_file(setup.path("disk")).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let remote = crate::support::git::Judge::new(setup.path("disk/documents.git"));
    assert_eq!(remote.blob("main", "folder1/file").unwrap(), b"x");
}

#[test]
fn a_second_signal_hastens_the_stop() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("10m");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let mut daemon = setup.start();
    eventually("a commit", SOON, || setup.local().tip("main"));
    daemon.signal(Signal::TERM);
    let asked = Instant::now();
    eventually("it ends at the second signal", Duration::from_secs(30), || {
        if daemon.ended().is_none() {
            daemon.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(200));
        }
        daemon.ended()
    });
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

/// What below `directory`, itself included, lets anybody but its owner do anything.
fn open_to_others(directory: &Path) -> Vec<String> {
    let mut pending = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if metadata.mode() & 0o077 != 0 {
            found.push(format!("{} {:o}", path.display(), metadata.mode() & 0o7777));
        }
    }
    found
}

#[test]
fn the_state_is_for_its_owner_alone() {
    let setup = Setup::new();
    write(&setup.root(), "secret", "x");
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(open_to_others(&setup.state()), Vec::<String>::new());
    let token = fs::metadata(setup.state().join("admin.token")).unwrap();
    assert_eq!(token.mode() & 0o7777, 0o600);
    let before = fs::read(setup.state().join("admin.token")).unwrap();
    daemon.stop();
    let daemon = setup.start();
    assert_eq!(fs::read(setup.state().join("admin.token")).unwrap(), before, "the token stays");
    daemon.stop();
}

#[test]
fn a_state_directory_that_was_open_to_others_is_closed() {
    let setup = Setup::new();
    fs::create_dir(setup.state()).unwrap();
    fs::set_permissions(setup.state(), fs::Permissions::from_mode(0o755)).unwrap();
    write(&setup.root(), "secret", "x");
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(open_to_others(&setup.state()), Vec::<String>::new());
    daemon.stop();
}

#[test]
fn a_root_that_goes_away_is_not_a_deletion() {
    let ways: [(&str, fn(&Setup), fn(&Setup)); 2] = [
        (
            "moved away",
            |setup| fs::rename(setup.root(), setup.path("away")).unwrap(),
            |setup| fs::rename(setup.path("away"), setup.root()).unwrap(),
        ),
        (
            "empty, as an unmounted disk is",
            |setup| {
                fs::rename(setup.root(), setup.path("away")).unwrap();
                fs::create_dir(setup.root()).unwrap();
            },
            |setup| {
                fs::remove_dir(setup.root()).unwrap();
                fs::rename(setup.path("away"), setup.root()).unwrap();
            },
        ),
    ];
    for (how, take_away, bring_back) in ways {
        let setup = Setup::new();
        write(&setup.root(), "file", "1");
        write(&setup.root(), "deep/er", "1");
        let daemon = setup.start();
        daemon.api().flush();
        let before = setup.remote().tip("main").unwrap();
        take_away(&setup);
        let is_unavailable =
            |status: &serde_json::Value| status["repositories"][0]["roots"][0]["state"] == "unavailable";
        let status = daemon.status_when(how, is_unavailable);
        assert!(status["repositories"][0]["roots"][0]["reason"].is_string(), "{how}: {status:#}");
        let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "30s"}));
        answer.problem(409);
        assert_eq!(setup.remote().tip("main").unwrap(), before, "{how}");

        // Nor is it one for the next start.
        daemon.stop_or_fail();
        let daemon = setup.start();
        daemon.status_when(how, is_unavailable);
        bring_back(&setup);
        write(&setup.root(), "file", "2");
        eventually(how, SOON, || {
            (setup.remote().blob("main", "folder1/file").as_deref() == Some(b"2")).then_some(())
        });
        daemon.api().flush();
        daemon.stop();
        assert!(setup.remote().is_ancestor(&before, "main"), "{how}");
        setup.assert_all_is_well();
    }
}

#[test]
fn a_root_that_is_missing_at_the_start_is_waited_for() {
    let setup = Setup::new();
    fs::remove_dir(setup.root()).unwrap();
    let daemon = setup.start();
    daemon
        .status_when("unavailable", |status| status["repositories"][0]["roots"][0]["state"] == "unavailable");
    write(&setup.root(), "file", "x");
    eventually("the root is backed up", SOON, || setup.remote().blob("main", "folder1/file"));
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn the_environment_and_a_flag_name_the_state_directory() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "x");
    setup.config.as_object_mut().unwrap().remove("state_dir");
    let config = setup.write_config();
    let run = |setup: &Setup, by_flag: bool| {
        let mut command = setup.command(&["run", "--config"]);
        command.arg(&config);
        if by_flag {
            command.arg("--state-dir").arg(setup.state());
        } else {
            command.env("BACKUPBOT_STATE_DIR", setup.state());
        }
        Daemon::spawn(command, setup)
    };
    for by_flag in [true, false] {
        let daemon = run(&setup, by_flag);
        daemon.api().flush();
        daemon.stop();
    }
    setup.assert_all_is_well();
}
