//! A history on the remote that is not ours, and what the operator decides about it.

use std::fs;

use serde_json::Value;

use crate::remotes::foreign_histories;
use crate::support::daemon::{Daemon, Setup};
use crate::support::git::Judge;
use crate::support::tree::write;

const CONTINUE: (&str, &str) = ("BACKUPBOT_ADOPT", "continue");
const BRANCH: (&str, &str) = ("BACKUPBOT_ADOPT", "branch");

fn state(status: &Value) -> &str {
    status["repositories"][0]["remotes"][0]["state"].as_str().unwrap()
}

fn started(setup: &Setup, decision: (&str, &str)) -> Daemon {
    let daemon = setup.launch(&[decision]);
    daemon.serving();
    daemon
}

/// Their branch goes on with ours upon it, and what they had is still there beside our root.
fn assert_continued(setup: &Setup, theirs: &str, kept: &[(String, Vec<u8>)]) {
    let remote = setup.remote();
    assert!(remote.is_ancestor(theirs, "main"), "nothing is forced");
    for (path, content) in kept {
        assert_eq!(remote.blob("main", path).as_ref(), Some(content), "{path} is still there");
    }
    assert_eq!(remote.blob("main", "folder1/ours").unwrap(), b"x");
    remote.assert_sound();
}

/// What they have outside of our root.
fn beside_our_root(remote: &Judge) -> Vec<(String, Vec<u8>)> {
    let listed = crate::support::git::git(&remote.path, &["ls-tree", "-r", "--name-only", "main"]);
    let names =
        listed.lines().filter(|name| !name.starts_with("folder1/") && !name.starts_with(".backupbot/"));
    names.map(|name| (name.to_owned(), remote.blob("main", name).unwrap())).collect()
}

#[test]
fn a_foreign_history_is_continued_if_the_operator_says_so_before_anything_is_here() {
    for (whose, fill) in foreign_histories() {
        println!("{whose}");
        let setup = Setup::new();
        fill(&setup);
        let theirs = setup.remote().tip("main").unwrap();
        let kept = beside_our_root(&setup.remote());
        write(&setup.root(), "ours", "x");
        let daemon = started(&setup, CONTINUE);
        daemon.api().flush();
        daemon.status_when(whose, |status| state(status) == "idle");
        daemon.stop();
        assert_continued(&setup, &theirs, &kept);
        // Once is enough, and once more does no harm.
        for decision in [("BACKUPBOT_ADOPT", ""), CONTINUE] {
            write(&setup.root(), "later", format!("{decision:?}"));
            let daemon = started(&setup, decision);
            daemon.api().flush();
            daemon.stop();
            assert_continued(&setup, &theirs, &kept);
        }
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn a_history_of_our_own_that_had_begun_stays_as_a_branch_wherever_the_program_dies() {
    for fault in [None, Some("adopt:fetched=kill@1"), Some("adopt:set-aside=kill@1")] {
        println!("{fault:?}");
        let setup = Setup::new();
        let (_, fill) = foreign_histories().into_iter().next().unwrap();
        fill(&setup);
        let theirs = setup.remote().tip("main").unwrap();
        let kept = beside_our_root(&setup.remote());
        write(&setup.root(), "ours", "x");
        let daemon = setup.start();
        let status = daemon.status_when("it is halted", |status| state(status) == "halted");
        assert!(status.to_string().contains("--adopt continue"), "it says what can be done: {status:#}");
        daemon.stop_or_fail();
        let ours = setup.local().tip("main").unwrap();
        if let Some(fault) = fault {
            setup.launch(&[CONTINUE, ("BACKUPBOT_FAULT", fault)]).dies_by_itself(fault);
        }
        let daemon = started(&setup, CONTINUE);
        daemon.api().flush();
        daemon.stop();
        assert_continued(&setup, &theirs, &kept);
        let aside =
            setup.local().references().into_iter().filter(|(name, _)| name.contains("/set-aside/testbox/"));
        assert!(
            aside.map(|(_, commit)| commit).any(|commit| commit == ours),
            "{:?}",
            setup.local().references()
        );
    }
}

#[test]
fn a_foreign_history_is_left_alone_for_a_branch_of_our_own_that_stays() {
    for (whose, fill) in foreign_histories() {
        for has_begun in [false, true] {
            println!("{whose} {has_begun}");
            let mut setup = Setup::new();
            fill(&setup);
            let theirs = setup.remote().tip("main").unwrap();
            write(&setup.root(), "ours", "x");
            if has_begun {
                let daemon = setup.start();
                daemon.status_when("it is halted", |status| state(status) == "halted");
                daemon.stop_or_fail();
            }
            let daemon = started(&setup, BRANCH);
            daemon.api().flush();
            daemon.stop();
            write(&setup.root(), "later", "y");
            let daemon = setup.start();
            daemon.api().flush();
            daemon.status_when(whose, |status| state(status) == "idle");
            daemon.stop();
            let remote = setup.remote();
            assert_eq!(remote.tip("main").unwrap(), theirs);
            assert_eq!(remote.blob("main-testbox", "folder1/later").unwrap(), b"y");
            assert_eq!(remote.blob("main-testbox", "folder1/ours").unwrap(), b"x");
            assert!(setup.run(&["status"]).status.success());
            // Another branch in the configuration is a decision too.
            setup.repository()["branch"] = "elsewhere".into();
            let daemon = setup.start();
            daemon.api().flush();
            daemon.stop();
            assert!(setup.remote().blob("elsewhere", "folder1/later").is_some());
        }
    }
}

#[test]
fn a_decision_where_there_is_nothing_to_decide_changes_nothing() {
    for decision in [CONTINUE, BRANCH] {
        let setup = Setup::new();
        write(&setup.root(), "file", "1");
        for content in ["1", "2"] {
            write(&setup.root(), "file", content);
            let daemon = started(&setup, decision);
            daemon.api().flush();
            daemon.stop();
            setup.assert_all_is_well();
        }
        // A remote behind ours is ours, and one that is gone is none.
        crate::support::git::git(&setup.remote().path, &["update-ref", "refs/heads/main", "main~1"]);
        let daemon = started(&setup, decision);
        let answer = daemon.api().post("/api/v1/flush", &serde_json::json!({"wait": true, "timeout": "30s"}));
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert_eq!(state(&daemon.api().status()), "halted");
        daemon.stop_or_fail();
        fs::rename(setup.path("remote"), setup.path("unplugged")).unwrap();
        let daemon = started(&setup, decision);
        daemon.stop_or_fail();
        assert_eq!(setup.local().references().len(), 1, "{:?}", setup.local().references());
    }
}
