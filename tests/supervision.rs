//! One part breaks and the others go on: panics, hangs, and failures that do not end.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::Judge;
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn children(daemon: &Daemon) -> Vec<Value> {
    let answer = daemon.api().get("/api/v1/children");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    let list = document.as_array().or_else(|| document["children"].as_array());
    list.unwrap_or_else(|| panic!("{document}")).clone()
}

#[cfg(feature = "fault-points")]
fn restarts(daemon: &Daemon, role: &str) -> u64 {
    let of_role = children(daemon).into_iter().filter(|child| child["role"] == role);
    of_role.map(|child| child["restarts"].as_u64().unwrap()).sum()
}

/// Two repositories, so that there is always a neighbour.
fn neighbours() -> Setup {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("neighbour")).unwrap();
    let mut second = setup.repository().clone();
    second["name"] = json!("neighbour");
    second["roots"][0]["name"] = json!("neighbour");
    second["roots"][0]["path"] = json!(setup.path("neighbour").to_str().unwrap());
    second["remotes"][0]["url"] = json!(setup.path("remote/neighbour.git").to_str().unwrap());
    setup.config["repositories"].as_array_mut().unwrap().push(second);
    setup
}

#[cfg(feature = "fault-points")]
#[test]
fn every_actor_survives_a_panic_wherever_it_happens() {
    let mut places: Vec<(&str, String)> = Vec::new();
    for role in ["queue", "committer", "pusher", "watcher"] {
        places.push((role, format!("actor:{role}:started=panic@1")));
        for pass in [1, 3] {
            places.push((role, format!("actor:{role}:handle=panic@{pass}")));
        }
        if matches!(role, "committer" | "pusher") {
            places.push((role, format!("actor:{role}:job=panic@1")));
            places.push((role, format!("actor:{role}:job=panic@3")));
        }
    }
    places.push(("queue", "actor:queue:build=panic@1".to_owned()));
    let mut failures = Vec::new();
    for (role, fault) in places {
        let row = std::panic::AssertUnwindSafe(|| {
            let setup = neighbours();
            write(&setup.root(), "before", "x");
            let daemon = setup.launch(&[("BACKUPBOT_FAULT", &fault)]);
            daemon.serving();
            for number in 0..4 {
                write(&setup.root(), "file", number.to_string());
                write(&setup.path("neighbour"), "file", number.to_string());
                daemon.api().flush();
            }
            assert!(restarts(&daemon, role) >= 1, "{fault}: nobody was restarted: {:#?}", children(&daemon));
            assert!(daemon.output().contains("fault point"), "{fault}: a panic is logged");
            daemon.stop();
            setup.assert_all_is_well();
        });
        if let Err(panic) = std::panic::catch_unwind(row) {
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failures.push(format!("{fault}: {said}"));
        }
    }
    assert!(failures.is_empty(), "{} places:\n{}", failures.len(), failures.join("\n"));
}

#[cfg(feature = "fault-points")]
#[test]
fn a_job_that_hangs_is_given_up_and_replaced() {
    for (role, fault) in
        [("committer", "actor:committer:job=stall@2"), ("pusher", "actor:pusher:job=stall@1")]
    {
        let mut setup = Setup::new();
        setup.config["shutdown_grace"] = json!("5s");
        write(&setup.root(), "before", "x");
        let daemon = setup.launch(&[("BACKUPBOT_FAULT", fault), ("BACKUPBOT_FAULT_HANG_AFTER_MS", "1000")]);
        daemon.serving();
        write(&setup.root(), "file", "x");
        eventually(&format!("{fault}: a new run does the work"), SOON, || {
            setup.remote().blob("main", "folder1/file")
        });
        let row = children(&daemon).into_iter().find(|child| child["role"] == role).unwrap();
        assert!(row["restarts"].as_u64().unwrap() >= 1, "{row}");
        assert!(row["last_exit"]["reason"].as_str().unwrap().contains("hung"), "{row}");
        daemon.api().flush();
        // The thread that hangs cannot be stopped; the process ends all the same.
        daemon.stop_or_fail();
        setup.assert_all_is_well();
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn a_pusher_that_keeps_panicking_is_parked_while_commits_go_on() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("2s");
    write(&setup.root(), "file", "0");
    let daemon = setup.launch(&[("BACKUPBOT_FAULT", "actor:pusher:job=panic@1+")]);
    daemon.serving();
    let row = eventually("the pusher is parked", Duration::from_secs(120), || {
        children(&daemon).into_iter().find(|child| child["role"] == "pusher" && child["state"] == "parked")
    });
    assert!(row["last_exit"]["reason"].as_str().unwrap().contains("panicked"), "{row}");
    for number in 1..3 {
        let before = setup.local().tip("main");
        write(&setup.root(), "file", number.to_string());
        eventually("a commit although the pusher is parked", SOON, || {
            (setup.local().tip("main") != before).then_some(())
        });
    }
    let status = daemon.api().status();
    let wait = &status["repositories"][0]["remotes"][0]["oldest_unprotected_seconds"];
    assert!(wait.as_u64().unwrap() > 0, "status does not hide it: {status:#}");
    daemon.stop_or_fail();
}

#[cfg(feature = "fault-points")]
#[test]
fn a_queue_that_keeps_panicking_ends_the_process_with_a_code_of_its_own() {
    let setup = Setup::new();
    write(&setup.root(), "file", "0");
    let mut daemon = setup.launch(&[("BACKUPBOT_FAULT", "actor:queue:handle=panic@1+")]);
    let status = daemon.end(Duration::from_secs(180));
    assert_eq!(status.code(), Some(6), "{}", daemon.output());

    // What starts it again finds everything as it was.
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_repository_that_keeps_failing_is_parked_while_its_neighbour_goes_on() {
    let mut setup = neighbours();
    setup.config["shutdown_grace"] = json!("2s");
    write(&setup.root(), "file", "0");
    write(&setup.path("neighbour"), "file", "0");
    let daemon = setup.launch(&[("BACKUPBOT_FAULT", "actor:committer:started/documents=panic@1+")]);
    daemon.serving();
    let neighbour = Judge::new(setup.path("remote/neighbour.git"));
    eventually("the neighbour's first commit", SOON, || neighbour.blob("main", "neighbour/file"));
    let parked = eventually("the committer is parked", Duration::from_secs(120), || {
        children(&daemon).into_iter().find(|child| child["role"] == "committer" && child["state"] == "parked")
    });
    assert!(parked["id"].to_string().contains("documents"), "{parked}");
    write(&setup.path("neighbour"), "file", "1");
    eventually("the neighbour goes on", SOON, || {
        (neighbour.blob("main", "neighbour/file").as_deref() == Some(b"1")).then_some(())
    });
    let running = children(&daemon).into_iter().filter(|child| {
        child["role"] == "committer"
            && child["id"].to_string().contains("neighbour")
            && child["state"] == "running"
    });
    assert_eq!(running.count(), 1);
    daemon.stop_or_fail();

    // The next start protects what waited.
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}
