//! The guard against mass changes: what looks like an attack goes to a branch of its own, and the protected branch stays
//! whole at every remote until somebody decides.

use std::fs;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{assert_clone_equals, git};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

const FILES: usize = 200;

fn path_of(file: usize) -> String {
    format!("d{}/file-{file}.txt", file % 7)
}

/// A root of many files, backed up whole.
fn with_files(setup: &mut Setup) -> Daemon {
    for file in 0..FILES {
        write(&setup.root(), path_of(file), format!("content {file}\n"));
    }
    setup.repository()["batch"]["files"] = json!(20);
    let daemon = setup.start();
    daemon.api().flush();
    daemon
}

/// What an attacker does to some of them.
fn encrypt(setup: &Setup, files: std::ops::Range<usize>) {
    for file in files {
        write(&setup.root(), path_of(file), format!("\u{1}{file} is no longer yours {}\n", file * 7));
    }
}

/// One whose files were all encrypted since: the quarantine's branch is at the remote. Also where the protected branch stands.
fn under_attack(setup: &mut Setup) -> (Daemon, String, String) {
    let daemon = with_files(setup);
    let protected = setup.remote().tip("main").unwrap();
    encrypt(setup, 0..FILES);
    let branch = in_quarantine(&daemon);
    arrives(setup, &branch);
    (daemon, protected, branch)
}

fn quarantine_of(status: &Value) -> Option<String> {
    status["repositories"][0]["quarantine"]["branch"].as_str().map(str::to_owned)
}

fn in_quarantine(daemon: &Daemon) -> String {
    let status =
        daemon.status_when("the repository is in quarantine", |status| quarantine_of(status).is_some());
    quarantine_of(&status).unwrap()
}

/// Waits until the remote's branch is the root as it is on the disk.
fn arrives(setup: &Setup, branch: &str) {
    let local = || setup.local().tip(branch);
    let is_there = || {
        let tip = setup.remote().tip(branch)?;
        let scratch = tempfile::tempdir().unwrap();
        let clone = scratch.path().join("clone");
        setup.remote().clone_to(&clone, branch);
        let differs = std::process::Command::new("diff")
            .arg("-r")
            .args([clone.join("folder1").as_path(), &setup.root()])
            .output()
            .unwrap();
        (Some(&tip) == local().as_ref() && differs.status.success()).then_some(())
    };
    eventually("the branch is at the remote and is the root", SOON, is_there);
    assert_clone_equals(&setup.remote().path, branch, &[("folder1", &setup.root())], |_| false);
}

fn post(daemon: &Daemon, what: &str) -> crate::support::api::Answer {
    daemon.api().post(&format!("/api/v1/{what}"), &json!({}))
}

fn flush(daemon: &Daemon) -> crate::support::api::Answer {
    daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "30s"}))
}

#[test]
fn what_is_encrypted_in_small_steps_goes_to_a_quarantine_and_the_protected_branch_stays() {
    let mut setup = Setup::new();
    let daemon = with_files(&mut setup);
    let whole = setup.remote().tip("main").unwrap();
    for step in 0..9 {
        encrypt(&setup, step * 10..(step + 1) * 10);
        daemon.api().flush();
    }
    let last = setup.remote().tip("main").unwrap();
    assert_ne!(whole, last, "90 of 200 are below the threshold");
    encrypt(&setup, 90..110);
    let refused = flush(&daemon);
    let detail = refused.problem(409)["detail"].to_string();
    assert!(detail.contains("quarantine") && detail.contains("backupbot approve"), "{detail}");
    let branch = in_quarantine(&daemon);
    assert!(branch.starts_with("backupbot/quarantine/testbox/2"), "{branch}");
    encrypt(&setup, 110..FILES);
    write(&setup.root(), "new", "also after the trigger");
    arrives(&setup, &branch);
    assert_eq!(setup.remote().tip("main").unwrap(), last, "the trigger is not on it");
    assert_eq!(setup.local().tip("main").unwrap(), last);
    assert!(setup.remote().is_ancestor(&last, &branch));

    let status = daemon.api().status();
    let repository = &status["repositories"][0];
    assert_eq!(repository["state"], "quarantine");
    let quarantine = &repository["quarantine"];
    assert_eq!((&quarantine["root"], &quarantine["of"]), (&json!("folder1"), &json!(FILES)));
    assert!(quarantine["lost"].as_u64().unwrap() >= 100 && quarantine["percent"].as_u64().unwrap() >= 50);
    assert_eq!(
        (&quarantine["protected_branch"], &quarantine["protected_commit"]),
        (&json!("main"), &json!(last))
    );
    let alert =
        status["alerts"].as_array().unwrap().iter().find(|alert| alert["name"] == "mass_change").unwrap();
    assert_eq!(alert["severity"], "critical");
    flush(&daemon).problem(409);
    let page = setup.run(&["status"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("IN QUARANTINE") && page.contains("NOT everything is protected"), "{page}");

    // History shows the protected branch, says so, and the quarantine when asked.
    let shown = setup.run(&["cat", "folder1/d4/file-102.txt"]);
    assert_eq!(shown.stdout, b"content 102\n");
    assert!(String::from_utf8_lossy(&shown.stderr).contains(&branch));
    let shown = setup.run(&["cat", "--at", &branch, "folder1/d4/file-102.txt"]);
    assert!(shown.stdout.starts_with(b"\x01102 is no longer"), "{shown:?}");
    let target = setup.path("out");
    let restored = setup.run(&["restore", "--to", target.to_str().unwrap(), "--at", &whole]);
    assert!(restored.status.success(), "{restored:?}");
    for file in 0..FILES {
        let content = fs::read_to_string(target.join("folder1").join(path_of(file))).unwrap();
        assert_eq!(content, format!("content {file}\n"));
    }
    daemon.stop_or_fail();
    setup.remote().assert_sound();
    setup.local().assert_sound();
}

#[test]
fn a_quarantine_survives_a_kill_and_an_approval_moves_the_protected_branch_forward() {
    let mut setup = Setup::new();
    let (daemon, before, branch) = under_attack(&mut setup);
    daemon.kill();
    write(&setup.root(), "while nobody looked", "x");
    let daemon = setup.start();
    assert_eq!(in_quarantine(&daemon), branch, "it goes on there");
    arrives(&setup, &branch);
    assert_eq!(setup.remote().tip("main").unwrap(), before);

    let approved = post(&daemon, "approve");
    assert_eq!(approved.status, 200, "{}", approved.text());
    assert_eq!(approved.json()["repositories"][0]["branch"], "main");
    daemon.api().flush();
    let tip = setup.remote().tip("main").unwrap();
    assert_eq!(Some(&tip), setup.remote().tip(&branch).as_ref(), "no commit was made for it");
    assert_eq!(approved.json()["repositories"][0]["commit"], tip);
    assert!(setup.remote().is_ancestor(&before, "main"));
    let status = daemon.api().status();
    assert_eq!(status["repositories"][0]["state"], "running");
    assert_eq!(status["alerts"], json!([]));
    let shown = setup.run(&["snapshots"]);
    assert!(shown.stderr.is_empty(), "{shown:?}");

    // The window begins anew, and the next attack makes the next quarantine.
    write(&setup.root(), "after", "x");
    daemon.api().flush();
    assert_ne!(setup.remote().tip("main").unwrap(), tip);
    post(&daemon, "approve").problem(409);
    for file in 0..150 {
        fs::remove_file(setup.root().join(path_of(file))).unwrap();
    }
    let second = in_quarantine(&daemon);
    assert_ne!(second, branch);
    arrives(&setup, &second);
    assert_eq!(setup.run(&["approve"]).status.code(), Some(0));
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_lost_database_does_not_end_a_quarantine() {
    let mut setup = Setup::new();
    let (daemon, before, branch) = under_attack(&mut setup);
    daemon.stop_or_fail();
    fs::remove_file(setup.state().join("state.redb")).unwrap();
    encrypt(&setup, 0..1);
    write(&setup.root(), "more", "x");
    let daemon = setup.start();
    assert_eq!(in_quarantine(&daemon), branch);
    let status = daemon.api().status();
    let quarantine = &status["repositories"][0]["quarantine"];
    assert_eq!((&quarantine["lost"], &quarantine["of"]), (&json!(FILES), &json!(FILES)));
    arrives(&setup, &branch);
    assert_eq!(setup.remote().tip("main").unwrap(), before);
    assert_eq!(post(&daemon, "approve").status, 200);
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_rejection_pauses_and_the_files_come_back_from_the_protected_branch() {
    let mut setup = Setup::new();
    let (daemon, before, branch) = under_attack(&mut setup);
    let rejected = setup.run(&["reject"]);
    assert_eq!(rejected.status.code(), Some(0), "{rejected:?}");
    let said = String::from_utf8_lossy(&rejected.stdout).into_owned();
    assert!(said.contains("rejected and paused") && said.contains("restore --in-place"), "{said}");
    let status = daemon.api().status();
    let repository = &status["repositories"][0];
    assert_eq!((&repository["paused"], &repository["quarantine"]["rejected"]), (&json!(true), &json!(true)));
    let attacked = setup.remote().tip(&branch).unwrap();

    write(&setup.root(), "note", "written after the attack");
    let restored = setup.run(&["restore", "--in-place", "--yes"]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert_eq!(fs::read_to_string(setup.root().join(path_of(3))).unwrap(), "content 3\n");
    assert_eq!(setup.local().blob(&branch, "folder1/note").unwrap(), b"written after the attack");
    assert_eq!(setup.run(&["resume"]).status.code(), Some(0));
    arrives(&setup, &branch);
    assert!(setup.remote().is_ancestor(&attacked, &branch), "what the attack left can still be looked at");
    assert_eq!(setup.remote().tip("main").unwrap(), before);
    let compared = setup.run(&["diff", "latest", &branch, "--stat"]);
    let compared = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.starts_with("1 added, 0 changed, 0 deleted"), "{compared}");
    assert_eq!(setup.run(&["approve"]).status.code(), Some(0));
    daemon.api().flush();
    assert_eq!(daemon.api().status()["repositories"][0]["state"], "running");
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn new_files_moved_directories_modes_and_small_roots_do_not_trigger() {
    let mut setup = Setup::new();
    let daemon = with_files(&mut setup);
    for file in 0..500 {
        write(&setup.root(), format!("new/{file}"), format!("new {file}"));
    }
    daemon.api().flush();
    for directory in 0..7 {
        let (from, to) =
            (setup.root().join(format!("d{directory}")), setup.root().join(format!("moved-{directory}")));
        fs::rename(from, to).unwrap();
    }
    daemon.api().flush();
    for file in 0..500 {
        let path = setup.root().join(format!("new/{file}"));
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    daemon.api().flush();
    fs::remove_dir_all(setup.root().join("new")).unwrap();
    daemon.api().flush();
    assert_eq!(quarantine_of(&daemon.api().status()), None);
    daemon.stop();
    setup.assert_all_is_well();

    let small = Setup::new();
    for file in 0..100 {
        write(&small.root(), path_of(file), "x");
    }
    let daemon = small.start();
    daemon.api().flush();
    for file in 0..99 {
        fs::remove_file(small.root().join(path_of(file))).unwrap();
    }
    daemon.api().flush();
    assert_eq!(quarantine_of(&daemon.api().status()), None);
    daemon.stop();
    small.assert_all_is_well();
}

#[test]
fn a_restore_of_an_older_state_is_our_own_doing() {
    let mut setup = Setup::new();
    let (daemon, first, _) = under_attack(&mut setup);
    assert_eq!(post(&daemon, "approve").status, 200);
    daemon.api().flush();
    let restored = setup.run(&["restore", "--in-place", "--yes", "--at", &first]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    daemon.api().flush();
    daemon.stop();
    // Also what is read from the commits after a restart.
    let daemon = setup.start();
    write(&setup.root(), "one more", "x");
    daemon.api().flush();
    let undone = setup.run(&["restore", "--undo", "--yes"]);
    assert_eq!(undone.status.code(), Some(0), "{undone:?}");
    daemon.api().flush();
    assert!(fs::read(setup.root().join(path_of(3))).unwrap().starts_with(b"\x013 is"));
    assert_eq!(quarantine_of(&daemon.api().status()), None);
    // Done by somebody else the same would be one.
    for file in 0..FILES {
        write(&setup.root(), path_of(file), format!("once more {file}\n"));
    }
    in_quarantine(&daemon);
    daemon.stop_or_fail();
}

#[test]
fn with_the_policy_alert_there_is_an_alert_and_no_quarantine_and_with_off_nothing() {
    for (policy, alerts) in [("alert", 1), ("off", 0)] {
        let mut setup = Setup::new();
        setup.repository()["mass_change"] = json!({"policy": policy});
        let daemon = with_files(&mut setup);
        encrypt(&setup, 0..FILES);
        daemon.api().flush();
        let status = daemon.api().status();
        assert_eq!(quarantine_of(&status), None);
        let found = status["alerts"].as_array().unwrap();
        assert_eq!(found.len(), alerts, "{policy}: {found:?}");
        assert!(found.iter().all(|alert| alert["name"] == "mass_change" && alert["severity"] == "warning"));
        daemon.stop();
        setup.assert_all_is_well();
    }
}

#[test]
fn once_commits_and_pushes_to_the_quarantine_and_fails_until_somebody_approves() {
    let mut setup = Setup::new();
    let daemon = with_files(&mut setup);
    let before = setup.remote().tip("main").unwrap();
    daemon.stop();
    encrypt(&setup, 0..FILES);
    for _ in 0..2 {
        let once = setup.run(&["once"]);
        assert_eq!(once.status.code(), Some(1), "{once:?}");
        let said = String::from_utf8_lossy(&once.stderr).into_owned();
        assert!(said.contains("quarantine") && said.contains("backupbot approve"), "{said}");
        assert_eq!(setup.remote().tip("main").unwrap(), before);
        let references = setup.remote().references();
        let of_quarantine: Vec<_> = references.keys().filter(|name| name.contains("quarantine")).collect();
        let [branch] = of_quarantine.as_slice() else { panic!("{references:?}") };
        assert_clone_equals(
            &setup.remote().path,
            branch.trim_start_matches("refs/heads/"),
            &[("folder1", &setup.root())],
            |_| false,
        );
        write(&setup.root(), "more", "x");
    }
    // A restore in place needs no daemon either.
    let restored = setup.run(&["restore", "--in-place", "--yes", "--dry-run"]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert_eq!(setup.run(&["approve"]).status.code(), Some(0));
    let once = setup.run(&["once"]);
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    setup.assert_all_is_well();
}

#[test]
fn the_first_comparison_with_a_history_that_was_taken_over_does_not_trigger() {
    let mut setup = Setup::new();
    let daemon = with_files(&mut setup);
    daemon.stop();
    fs::remove_dir_all(setup.state()).unwrap();
    encrypt(&setup, 0..FILES);
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(quarantine_of(&daemon.api().status()), None);
    // From then on it counts.
    for directory in 0..7 {
        fs::remove_dir_all(setup.root().join(format!("d{directory}"))).unwrap();
    }
    write(&setup.root(), "left", "so that the root is not empty");
    let branch = in_quarantine(&daemon);
    arrives(&setup, &branch);
    daemon.stop_or_fail();
}

#[test]
fn a_remote_that_was_behind_gets_the_protected_branch_too_and_a_stranger_there_halts_it() {
    let mut setup = Setup::new();
    let daemon = with_files(&mut setup);
    let remote = setup.path("remote/documents.git");
    let away = setup.path("remote/away.git");
    fs::rename(&remote, &away).unwrap();
    encrypt(&setup, 0..50);
    eventually("the first part is committed", SOON, || {
        let held = setup.local().blob("main", &format!("folder1/{}", path_of(49)))?;
        held.starts_with(b"\x01").then_some(())
    });
    encrypt(&setup, 50..FILES);
    let branch = in_quarantine(&daemon);
    let protected = setup.local().tip("main").unwrap();
    fs::rename(&away, &remote).unwrap();
    arrives(&setup, &branch);
    assert_eq!(setup.remote().tip("main").unwrap(), protected, "what came before the trigger is on it");

    let stranger = git(&remote, &["commit-tree", "main^{tree}", "-p", "main", "-m", "a stranger"]);
    git(&remote, &["update-ref", "refs/heads/main", stranger.trim()]);
    write(&setup.root(), "one more", "x");
    let status = daemon.status_when("the remote is halted", |status| {
        status["repositories"][0]["remotes"][0]["state"] == "halted"
    });
    let reason = status["repositories"][0]["remotes"][0]["reason"].to_string();
    assert!(reason.contains("refs/heads/main stands at"), "{reason}");
    daemon.stop_or_fail();
}

#[test]
fn a_branch_that_is_named_after_the_day_is_protected_and_approved_like_any_other() {
    let mut setup = Setup::new();
    setup.repository()["branch"] = json!("{instance}/{date:%Y}");
    setup.repository()["tags"] = json!({"every": "commit"});
    let daemon = with_files(&mut setup);
    let tags = |setup: &Setup| {
        setup.local().references().into_keys().filter(|name| name.starts_with("refs/tags/")).count()
    };
    let (before, tagged) = (setup.local().references(), tags(&setup));
    let (name, tip) = before.iter().find(|(name, _)| name.starts_with("refs/heads/testbox/")).unwrap();
    encrypt(&setup, 0..FILES);
    let branch = in_quarantine(&daemon);
    arrives(&setup, &branch);
    assert_eq!(setup.remote().references().get(name), Some(tip));
    assert_eq!(tags(&setup), tagged, "a quarantine gets no tags");
    assert_eq!(post(&daemon, "approve").status, 200);
    daemon.api().flush();
    assert_eq!(
        setup.remote().references().get(name),
        setup.remote().references().get(&format!("refs/heads/{branch}"))
    );
    daemon.stop();
}

/// Everything that has to be true whichever step of an opening the program died at.
#[cfg(feature = "fault-points")]
#[test]
fn death_at_every_step_with_which_a_quarantine_begins() {
    let points = [
        "snapshot:staged",
        "snapshot:pack-installed",
        "snapshot:branch-moved",
        "queue:before-settle",
        "queue:settled",
    ];
    for point in points {
        let mut setup = Setup::new();
        let daemon = with_files(&mut setup);
        daemon.stop();
        let before = setup.remote().tip("main").unwrap();
        encrypt(&setup, 0..FILES);
        let fault = format!("{point}=kill");
        setup.launch(&[("BACKUPBOT_FAULT", fault.as_str())]).dies_by_itself(&fault);
        let daemon = setup.start();
        let branch = in_quarantine(&daemon);
        arrives(&setup, &branch);
        assert_eq!(setup.remote().tip("main").unwrap(), before, "{point}");
        assert_eq!(setup.local().tip("main").unwrap(), before, "{point}");
        let history = setup.remote().history(&format!("main..{branch}"));
        assert_eq!(history.len(), 1, "{point}: no second commit");
        assert_eq!(quarantines(&setup.local().path), 1, "{point}");
        assert_eq!(post(&daemon, "approve").status, 200, "{point}");
        daemon.api().flush();
        daemon.stop();
        setup.assert_all_is_well();
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn death_at_every_step_of_an_approval() {
    for point in ["ref:locked-not-moved", "ref:moved", "approve:branch-moved", "approve:recorded"] {
        let mut setup = Setup::new();
        let (daemon, before, branch) = under_attack(&mut setup);
        daemon.stop_or_fail();
        let fault = format!("{point}=kill");
        let daemon = setup.launch(&[("BACKUPBOT_FAULT", fault.as_str())]);
        let api = daemon.serving();
        daemon.status_when("the root is compared", |status| {
            status["repositories"][0]["roots"][0]["state"] == "watching"
        });
        let headers = [
            ("Host", api.address.as_str()),
            ("Authorization", &api.bearer()),
            ("Content-Type", "application/json"),
        ];
        let _ = api.try_raw("POST", "/api/v1/approve", &headers, b"{}");
        daemon.dies_by_itself(&fault);
        let daemon = setup.start();
        if point == "ref:locked-not-moved" {
            assert_eq!(in_quarantine(&daemon), branch);
            assert_eq!(setup.remote().tip("main").unwrap(), before);
            assert_eq!(post(&daemon, "approve").status, 200);
        }
        daemon.status_when("the quarantine is over", |status| quarantine_of(status).is_none());
        eventually("the remote follows without a flush", SOON, || {
            (setup.remote().tip("main") == setup.local().tip("main")).then_some(())
        });
        daemon.api().flush();
        daemon.stop();
        setup.assert_all_is_well();
    }
}

#[cfg(feature = "fault-points")]
fn quarantines(repository: &std::path::Path) -> usize {
    git(repository, &["for-each-ref", "refs/heads/backupbot/quarantine"]).lines().count()
}
