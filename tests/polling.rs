//! Where events do not come, or not for all of a root: it is polled, every change arrives all the same, a flush
//! stays an honest barrier, and status says what is polled and which setting would change that.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::{change, corpus, write};
use crate::support::{Random, SOON, eventually, seed, skip};

/// Starts the program where inotify has these limits of its own; `None`, announced, where that cannot be.
fn start_limited(setup: &Setup, limits: &[(&str, u32)]) -> Option<Daemon> {
    let possible = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        let why = match possible {
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        skip(&format!("low inotify limits (no user namespace can be made here: {why})"));
        return None;
    }
    let mut script = String::new();
    for (name, value) in limits {
        script.push_str(&format!("echo {value} > /proc/sys/user/max_inotify_{name} && "));
    }
    script.push_str("exec \"$@\"");
    let config = setup.write_config();
    let program = setup.command(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(setup.scratch.path());
    let daemon = Daemon::spawn(command, setup);
    daemon.serving();
    Some(daemon)
}

/// Changes a limit while the program runs under it.
fn set_limit(daemon: &Daemon, name: &str, value: u32) {
    let script = format!("echo {value} > /proc/sys/user/max_inotify_{name}");
    let pid = daemon.pid().to_string();
    let changed = Command::new("nsenter")
        .args(["--target", &pid, "--user", "--preserve-credentials", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
}

fn root_of(status: &Value, number: usize) -> &Value {
    &status["repositories"][0]["roots"][number]
}

/// Waits until the root is compared and watched, and returns what status says of it.
fn watched(daemon: &Daemon) -> Value {
    let status =
        daemon.status_when("the root is watched", |status| root_of(status, 0)["state"] == "watching");
    root_of(&status, 0).clone()
}

fn arrives(setup: &Setup, path: &str, content: &str) {
    eventually(&format!("{path} arrives"), SOON, || {
        (setup.remote().blob("main", path).as_deref() == Some(content.as_bytes())).then_some(())
    });
}

#[test]
fn in_a_polled_root_a_flush_has_every_change_before_it() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["backend"] = json!("poll");
    let mut random = Random::new(seed("in_a_polled_root_a_flush_has_every_change_before_it"));
    corpus(&setup.root(), 200, &mut random);
    let daemon = setup.start();
    daemon.api().flush();
    let root = watched(&daemon);
    assert_eq!((&root["backend"], &root["reason"]), (&json!("poll"), &Value::Null));
    for _ in 0..6 {
        for _ in 0..60 {
            change(&setup.root(), &mut random);
        }
        daemon.api().flush();
        setup.assert_clone_equals_root();
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_change_in_a_polled_root_reaches_the_remote_without_being_asked() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["backend"] = json!("poll");
    for name in ["changes", "goes", "below/moves"] {
        write(&setup.root(), name, name);
    }
    let daemon = setup.start();
    daemon.api().flush();
    let changed = Instant::now();
    write(&setup.root(), "changes", "changed");
    write(&setup.root(), "new/deep/er", "new");
    fs::remove_file(setup.root().join("goes")).unwrap();
    fs::rename(setup.root().join("below"), setup.root().join("above")).unwrap();
    arrives(&setup, "folder1/changes", "changed");
    arrives(&setup, "folder1/new/deep/er", "new");
    arrives(&setup, "folder1/above/moves", "below/moves");
    eventually("what went is gone", SOON, || {
        let is_there = |name: &str| setup.remote().blob("main", name).is_some();
        (!is_there("folder1/goes") && !is_there("folder1/below/moves")).then_some(())
    });
    assert!(changed.elapsed() < Duration::from_secs(60), "{:?}", changed.elapsed());
    setup.assert_clone_equals_root();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_polled_root_that_goes_is_unavailable_and_comes_back() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["backend"] = json!("poll");
    write(&setup.root(), "kept", "kept");
    let daemon = setup.start();
    daemon.api().flush();
    let away = setup.path("away");
    fs::rename(setup.root(), &away).unwrap();
    daemon.status_when("it is unavailable", |status| root_of(status, 0)["state"] == "unavailable");
    write(&away, "meanwhile", "x");
    fs::rename(&away, setup.root()).unwrap();
    daemon.status_when("it is back", |status| root_of(status, 0)["state"] == "watching");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn what_is_beyond_the_watch_limit_is_polled_and_watched_again_when_the_limit_is_raised() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["rescan"] = json!("2s");
    for number in 0..40 {
        write(&setup.root(), format!("d{number:02}/below/file"), "1");
    }
    let Some(daemon) = start_limited(&setup, &[("watches", 12)]) else { return };
    daemon.api().flush();
    let root = watched(&daemon);
    assert_eq!(root["backend"], "inotify+poll", "{root}");
    let reason = root["reason"].as_str().unwrap_or_default();
    // Twelve: the sentinel's directory, the root, ten of eighty.
    for words in ["70 directories are polled", "fs.inotify.max_user_watches", "max_inotify_watches = 12"] {
        assert!(reason.contains(words), "{words} in {reason}");
    }
    assert!(reason.contains(&format!("={}", 12 + 70 + 70 / 4 + 64)), "{reason}");

    let changed = Instant::now();
    for number in 0..40 {
        write(&setup.root(), format!("d{number:02}/below/file"), "2");
        write(&setup.root(), format!("d{number:02}/new/file"), "new");
    }
    for number in 0..40 {
        arrives(&setup, &format!("folder1/d{number:02}/below/file"), "2");
        arrives(&setup, &format!("folder1/d{number:02}/new/file"), "new");
    }
    assert!(changed.elapsed() < Duration::from_secs(60), "{:?}", changed.elapsed());
    for number in 0..40 {
        write(&setup.root(), format!("d{number:02}/below/file"), "3");
    }
    daemon.api().flush();
    setup.assert_clone_equals_root();

    set_limit(&daemon, "watches", 10_000);
    let status = daemon.status_when("it is watched as a whole", |status| {
        let root = root_of(status, 0);
        root["backend"] == "inotify" && root["state"] == "watching" && root["reason"].is_null()
    });
    assert_eq!(root_of(&status, 0)["reason"], Value::Null);
    write(&setup.root(), "d39/below/file", "4");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn of_two_roots_and_one_instance_one_is_watched_and_one_is_polled() {
    let mut setup = Setup::new();
    let second = setup.path("folder2");
    fs::create_dir(&second).unwrap();
    let mut root = setup.repository()["roots"][0].clone();
    root["name"] = json!("folder2");
    root["path"] = json!(second);
    setup.repository()["roots"].as_array_mut().unwrap().push(root);
    write(&setup.root(), "a/file", "1");
    write(&second, "b/file", "1");
    let Some(daemon) = start_limited(&setup, &[("instances", 1)]) else { return };
    daemon.api().flush();
    let status = daemon.status_when("both are watched", |status| {
        (0..2).all(|number| root_of(status, number)["state"] == "watching")
    });
    let roots = [root_of(&status, 0), root_of(&status, 1)];
    let polled = roots.iter().find(|root| root["backend"] == "poll").expect("one is polled");
    assert!(roots.iter().any(|root| root["backend"] == "inotify" && root["reason"].is_null()), "{status}");
    let reason = polled["reason"].as_str().unwrap();
    for words in
        ["all of it is polled", "fs.inotify.max_user_instances", "sysctl -w user.max_inotify_instances=2"]
    {
        assert!(reason.contains(words), "{words} in {reason}");
    }
    write(&setup.root(), "a/file", "2");
    write(&second, "b/file", "2");
    arrives(&setup, "folder1/a/file", "2");
    arrives(&setup, "folder2/b/file", "2");
    write(&setup.root(), "a/file", "3");
    write(&second, "b/file", "3");
    daemon.api().flush();
    assert_eq!(setup.remote().blob("main", "folder1/a/file").as_deref(), Some(&b"3"[..]));
    assert_eq!(setup.remote().blob("main", "folder2/b/file").as_deref(), Some(&b"3"[..]));
    daemon.stop();
}

#[test]
fn forced_inotify_polls_nothing_says_so_and_a_flush_is_honest_all_the_same() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["backend"] = json!("inotify");
    for number in 0..20 {
        write(&setup.root(), format!("d{number:02}/file"), "1");
    }
    let Some(daemon) = start_limited(&setup, &[("watches", 6)]) else { return };
    daemon.api().flush();
    let root = watched(&daemon);
    assert_eq!(root["backend"], "inotify");
    let reason = root["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("16 directories are not watched"), "{reason}");
    assert!(reason.contains("found by the next rescan only"), "{reason}");
    for number in 0..20 {
        write(&setup.root(), format!("d{number:02}/file"), "2");
    }
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}
