//! Remotes: several of them, lost and found, written to by others, set back; and state that was lost.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup, leftovers};
use crate::support::git::{Judge, assert_clone_equals, git};
use crate::support::tree::{Churn, write};
use crate::support::{SOON, eventually, seed};

/// The status row of a remote of the first repository.
fn remote<'s>(status: &'s Value, name: &str) -> &'s Value {
    let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
    remotes.iter().find(|remote| remote["name"] == name).unwrap_or_else(|| panic!("{name} in {status:#}"))
}

/// Somebody clones a repository, adds a commit, and pushes it; returns the commit.
fn somebody_pushes(setup: &Setup, repository: &Judge) -> String {
    let work = tempfile::tempdir_in(setup.scratch.path()).unwrap();
    let clone = work.path().join("clone");
    repository.clone_to(&clone, "main");
    fs::write(clone.join("intruder"), "hello").unwrap();
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "--quiet", "-m", "from somebody else"]);
    git(&clone, &["push", "--quiet", "origin", "main"]);
    repository.tip("main").unwrap()
}

/// The one rescue branch of a repository.
fn rescue(repository: &Judge) -> Option<(String, String)> {
    let references = repository.references();
    let mut found =
        references.into_iter().filter(|(name, _)| name.starts_with("refs/heads/backupbot/rescue/"));
    let first = found.next();
    assert!(found.next().is_none(), "one rescue branch a halt");
    first
}

#[test]
fn several_repositories_roots_and_remotes_run_side_by_side() {
    let setup = Setup::new();
    let at = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    for root in ["a", "b", "c"] {
        write(&setup.path(root), "file", root);
    }
    let quick = "debounce: {quiet: 50ms, max: 200ms}";
    let yaml = format!(
        "version: 1\nstate_dir: {state}\ninstance: testbox\nadmin: {{listen: \"127.0.0.1:0\"}}\n\
         defaults:\n  batch: {{after: 100ms}}\n  retry: {{first: 100ms, max: 500ms}}\n\
         repositories:\n  - name: one\n    roots:\n      - {{name: first, path: {a}, {quick}}}\n      - {{path: {b}, {quick}}}\n\
         \x20   remotes:\n      - {{name: near, url: {near}}}\n      - {{name: far, url: \"file://{far}\"}}\n\
         \x20 - name: two\n    branch: other\n    roots: [{{path: {c}, {quick}}}]\n    remotes: [{{name: shared, url: {near}}}]\n",
        state = at("state"),
        a = at("a"),
        b = at("b"),
        c = at("c"),
        near = at("near.git"),
        far = at("far.git"),
    );
    let toml = format!(
        "version = 1\nstate_dir = {state:?}\ninstance = \"testbox\"\nadmin = {{listen = \"127.0.0.1:0\"}}\n\
         [defaults]\nbatch = {{after = \"100ms\"}}\nretry = {{first = \"100ms\", max = \"500ms\"}}\n\
         [[repositories]]\nname = \"one\"\n\
         [[repositories.roots]]\nname = \"first\"\npath = {a:?}\ndebounce = {{quiet = \"50ms\", max = \"200ms\"}}\n\
         [[repositories.roots]]\npath = {b:?}\ndebounce = {{quiet = \"50ms\", max = \"200ms\"}}\n\
         [[repositories.remotes]]\nname = \"near\"\nurl = {near:?}\n\
         [[repositories.remotes]]\nname = \"far\"\nurl = \"file://{far}\"\n\
         [[repositories]]\nname = \"two\"\nbranch = \"other\"\n\
         [[repositories.roots]]\npath = {c:?}\ndebounce = {{quiet = \"50ms\", max = \"200ms\"}}\n\
         [[repositories.remotes]]\nname = \"shared\"\nurl = {near:?}\n",
        state = at("state"),
        a = at("a"),
        b = at("b"),
        c = at("c"),
        near = at("near.git"),
        far = at("far.git"),
    );
    for (name, text) in [("config.yaml", yaml), ("config.toml", toml)] {
        let path = setup.path(name);
        fs::write(&path, text).unwrap();
        for root in ["a", "b", "c"] {
            write(&setup.path(root), format!("only/{name}"), root);
        }
        let mut command = setup.command(&["run", "--config"]);
        command.arg(&path);
        let daemon = Daemon::spawn(command, &setup);
        daemon.api().flush();
        daemon.stop();
        let (a, b, c) = (setup.path("a"), setup.path("b"), setup.path("c"));
        for place in ["near.git", "far.git"] {
            assert_clone_equals(&setup.path(place), "main", &[("first", &a), ("b", &b)], |_| false);
        }
        assert_clone_equals(&setup.path("near.git"), "other", &[("c", &c)], |_| false);
        assert_eq!(leftovers(&setup.state()), Vec::<std::path::PathBuf>::new());
        for place in ["near.git", "far.git"] {
            Judge::new(setup.path(place)).assert_sound();
        }
    }
}

/// Two repositories with a branch each on one remote.
fn sharing() -> Setup {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("second")).unwrap();
    let mut second = setup.repository().clone();
    second["name"] = json!("second");
    second["branch"] = json!("second");
    second["roots"][0]["name"] = json!("second");
    second["roots"][0]["path"] = json!(setup.path("second").to_str().unwrap());
    setup.config["repositories"].as_array_mut().unwrap().push(second);
    write(&setup.root(), "file", "1");
    write(&setup.path("second"), "file", "2");
    setup
}

fn assert_shared_is_well(setup: &Setup) {
    setup.assert_all_is_well();
    let second = setup.path("second");
    assert_clone_equals(&setup.remote().path, "second", &[("second", &second)], |_| false);
    setup.remote().assert_tidy("second");
}

#[test]
fn two_repositories_make_a_shared_remote_together() {
    for _ in 0..8 {
        let setup = sharing();
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        assert_shared_is_well(&setup);
    }
}

#[test]
fn two_repositories_push_to_a_shared_remote_side_by_side() {
    let setup = sharing();
    let seed = seed("two_repositories_push_to_a_shared_remote_side_by_side");
    let daemon = setup.start();
    let pause = Duration::from_millis(10);
    let churns =
        [Churn::start(&setup.root(), seed, pause), Churn::start(&setup.path("second"), seed + 1, pause)];
    for _ in 0..20 {
        daemon.api().flush();
    }
    churns.into_iter().for_each(|churn| {
        churn.stop();
    });
    daemon.api().flush();
    daemon.stop();
    assert_shared_is_well(&setup);
}

#[test]
fn a_remote_that_cannot_be_reached_is_tried_again_until_it_can() {
    let mut setup = Setup::new();
    let disk = setup.path("disk");
    fs::write(&disk, "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(disk.join("documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let status = daemon.status_when("backoff", |status| remote(status, "usb")["state"] == "backoff");
    assert!(
        remote(&status, "usb")["reason"].as_str().is_some_and(|reason| reason.contains("disk")),
        "{status:#}"
    );
    eventually("the commit is made all the same", SOON, || setup.local().tip("main"));

    fs::remove_file(&disk).unwrap();
    fs::create_dir(&disk).unwrap();
    daemon.status_when("the remote is reached", |status| {
        let row = remote(status, "usb");
        row["state"] == "idle"
            && row["commit"] == status["repositories"][0]["commit"]
            && row["commit"].is_string()
    });
    daemon.api().flush();
    daemon.stop();
    assert_clone_equals(&disk.join("documents.git"), "main", &[("folder1", &setup.root())], |_| false);
}

/// The remote had everything, so nothing is left to be sent: only reading it back tells that it is gone.
#[test]
fn a_remote_that_was_complete_and_is_gone_is_never_called_verified() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("1s");
    write(&setup.root(), "file", "x");
    assert!(setup.run(&["once"]).status.success());
    let away = setup.path("unplugged.git");
    fs::rename(&setup.remote().path, &away).unwrap();

    let output = setup.run(&["once", "--json"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], false, "{said}");

    let daemon = setup.start();
    let body = json!({"wait": true, "timeout": "2s"});
    daemon.api().post("/api/v1/flush", &body).problem(504);
    fs::rename(&away, &setup.remote().path).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_backoff_survives_a_restart() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("2s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    setup.repository()["retry"] = json!({"first": "1h", "max": "2h"});
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.status_when("backoff", |status| remote(status, "usb")["state"] == "backoff");
    daemon.kill();

    fs::remove_file(setup.path("disk")).unwrap();
    let daemon = setup.start();
    daemon.status_when("still backoff", |status| {
        remote(status, "usb")["state"] == "backoff"
            && status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    assert!(!setup.path("disk").exists(), "the remote was tried before its time");
    // Somebody who asks does not wait for the law.
    daemon.api().flush();
    assert!(setup.path("disk/documents.git").exists());
}

#[test]
fn a_diverged_remote_is_halted_and_rescued_while_others_go_on() {
    let mut setup = Setup::new();
    let good = Judge::new(setup.path("remote/good.git"));
    let url = good.path.to_str().unwrap().to_owned();
    setup.repository()["remotes"].as_array_mut().unwrap().push(json!({"name": "good", "url": url}));
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let ours = setup.remote().tip("main").unwrap();
    let theirs = somebody_pushes(&setup, &setup.remote());

    write(&setup.root(), "file", "2");
    let status = daemon.status_when("halted", |status| {
        remote(status, "usb")["state"] == "halted"
            && remote(status, "good")["state"] == "idle"
            && remote(status, "good")["commit"] != ours.as_str()
    });
    assert!(remote(&status, "usb")["reason"].as_str().unwrap().contains("diverged"), "{status:#}");
    assert!(!status["alerts"].as_array().unwrap().is_empty(), "a halt is an alert: {status:#}");
    assert_eq!(setup.remote().tip("main").unwrap(), theirs, "nothing is forced");
    assert_eq!(good.blob("main", "folder1/file").unwrap(), b"2", "the other remote goes on");
    let (branch, _) = eventually("the rescue branch", SOON, || rescue(&setup.remote()));
    assert!(branch.starts_with("refs/heads/backupbot/rescue/testbox/"), "{branch}");
    eventually("the work is rescued", SOON, || {
        (setup.remote().blob(&branch, "folder1/file").as_deref() == Some(b"2")).then_some(())
    });
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "30s"}));
    answer.problem(409);

    // The rescue branch follows, and stays the same one over a restart.
    daemon.stop_or_fail();
    let daemon = setup.start();
    write(&setup.root(), "file", "3");
    eventually("the rescue branch follows", SOON, || {
        assert_eq!(rescue(&setup.remote()).unwrap().0, branch);
        let _ = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "5s"}));
        (setup.remote().blob(&branch, "folder1/file").as_deref() == Some(b"3")).then_some(())
    });
    assert_eq!(setup.remote().tip("main").unwrap(), theirs);

    // Somebody takes the foreign commit back: the cause is gone, and a flush looks.
    git(&setup.remote().path, &["update-ref", "refs/heads/main", &ours]);
    git(&setup.remote().path, &["prune", "--expire=now"]);
    daemon.api().flush();
    daemon.status_when("idle again", |status| remote(status, "usb")["state"] == "idle");
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_remote_that_was_set_back_is_halted_until_somebody_resumes_it() {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..3 {
        write(&setup.root(), "file", number.to_string());
        daemon.api().flush();
    }
    let back = setup.remote().resolve("main~1").unwrap();
    git(&setup.remote().path, &["update-ref", "refs/heads/main", &back]);
    write(&setup.root(), "file", "after");
    let status = daemon.status_when("halted", |status| remote(status, "usb")["state"] == "halted");
    assert!(remote(&status, "usb")["reason"].as_str().unwrap().contains("rewound"), "{status:#}");
    assert_eq!(setup.remote().tip("main").unwrap(), back, "nothing is forced");
    let (branch, _) = eventually("the rescue branch", SOON, || rescue(&setup.remote()));
    eventually("the work is rescued", SOON, || {
        (setup.remote().blob(&branch, "folder1/file").as_deref() == Some(b"after")).then_some(())
    });

    let answer = daemon.api().post("/api/v1/resume", &json!({"repository": "documents", "remote": "usb"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    daemon.status_when("idle again", |status| remote(status, "usb")["state"] == "idle");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_lost_state_is_continued_from_the_remote() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    write(&setup.root(), "gone-later", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let before = setup.remote().tip("main").unwrap();
    let length = setup.remote().history("main").len();

    fs::remove_dir_all(setup.state()).unwrap();
    fs::remove_file(setup.root().join("gone-later")).unwrap();
    write(&setup.root(), "file", "2");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert!(setup.remote().is_ancestor(&before, "main"));
    assert!(setup.remote().history("main").len() > length);
    assert!(rescue(&setup.remote()).is_none());
    setup.assert_all_is_well();

    // With nothing changed, a lost state costs no commit at all.
    let before = setup.remote().tip("main").unwrap();
    fs::remove_dir_all(setup.state()).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert_eq!(setup.remote().tip("main").unwrap(), before);
}

#[test]
fn a_lost_database_costs_neither_history_nor_a_commit() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    write(&setup.root(), "gone-later", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let before = setup.remote().tip("main").unwrap();

    for (number, damage) in ["", "this is no database"].into_iter().enumerate() {
        fs::write(setup.state().join("state.redb"), damage).unwrap();
        let daemon = setup.start();
        daemon.api().flush();
        let output = daemon.output();
        assert!(output.contains("set aside") || output.contains("damaged"), "it is announced: {output}");
        daemon.stop();
        let kept = fs::read_dir(setup.state()).unwrap().flatten();
        let kept = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("state.redb.damaged"));
        assert_eq!(kept.count(), number + 1, "the damaged file is kept");
        assert_eq!(setup.remote().tip("main").unwrap(), before);
    }
    fs::remove_file(setup.state().join("state.redb")).unwrap();
    write(&setup.root(), "file", "2");
    fs::remove_file(setup.root().join("gone-later")).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert!(setup.remote().is_ancestor(&before, "main"));
    setup.assert_all_is_well();
}

#[test]
fn the_most_advanced_remote_leads_after_a_loss() {
    let mut setup = Setup::new();
    let ahead = Judge::new(setup.path("remote/ahead.git"));
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    git(setup.scratch.path(), &["clone", "--quiet", "--bare", "remote/documents.git", "remote/ahead.git"]);
    let url = ahead.path.to_str().unwrap().to_owned();
    let first = setup.repository()["remotes"].clone();
    setup.repository()["remotes"] = json!([{"name": "ahead", "url": url}]);
    write(&setup.root(), "file", "2");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let tip = ahead.tip("main").unwrap();
    assert_ne!(setup.remote().tip("main").unwrap(), tip);

    fs::remove_dir_all(setup.state()).unwrap();
    setup.repository()["remotes"] = first;
    setup.repository()["remotes"].as_array_mut().unwrap().push(json!({"name": "ahead", "url": url}));
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert_eq!(setup.remote().tip("main").unwrap(), tip);
    assert_eq!(ahead.tip("main").unwrap(), tip);
}

/// Fills the remote with a history that is not ours: another program's, another instance's, other roots'.
pub fn foreign_histories() -> Vec<(&'static str, fn(&Setup))> {
    fn by_another_backup(setup: &Setup, instance: &str, name: &str) {
        let mut other = Setup::new();
        let path = other.root().to_str().unwrap().to_owned();
        other.config["instance"] = json!(instance);
        let url = setup.remote().path.to_str().unwrap().to_owned();
        other.repository()["remotes"][0]["url"] = json!(url);
        other.repository()["roots"][0] = json!({"name": name, "path": path});
        write(&other.root(), "theirs", "x");
        let output = other.run(&["once"]);
        assert!(output.status.success(), "{output:?}");
    }
    vec![
        ("somebody's own project", |setup| {
            let work = setup.path("work");
            fs::create_dir_all(&work).unwrap();
            git(&work, &["init", "--quiet", "--initial-branch=main"]);
            fs::write(work.join("theirs"), "x").unwrap();
            git(&work, &["add", "."]);
            git(&work, &["commit", "--quiet", "-m", "theirs"]);
            fs::create_dir_all(setup.path("remote")).unwrap();
            git(setup.scratch.path(), &["clone", "--quiet", "--bare", "work", "remote/documents.git"]);
        }),
        ("another instance", |setup| by_another_backup(setup, "otherbox", "folder1")),
        ("other roots", |setup| by_another_backup(setup, "testbox", "folder2")),
    ]
}

#[test]
fn a_foreign_history_is_left_alone_and_the_work_rescued() {
    for (whose, fill) in foreign_histories() {
        let setup = Setup::new();
        fill(&setup);
        let theirs = setup.remote().tip("main").unwrap();
        write(&setup.root(), "ours", "x");
        let daemon = setup.start();
        let status = daemon.status_when(whose, |status| remote(status, "usb")["state"] == "halted");
        assert!(
            remote(&status, "usb")["reason"].as_str().unwrap().contains("diverged"),
            "{whose}: {status:#}"
        );
        let (branch, _) = eventually(whose, SOON, || rescue(&setup.remote()));
        eventually(whose, SOON, || setup.remote().blob(&branch, "folder1/ours"));
        daemon.stop_or_fail();
        assert_eq!(setup.remote().tip("main").unwrap(), theirs, "{whose}");
        setup.remote().assert_sound();
    }
}

#[test]
fn a_remote_that_cannot_take_a_backup_is_refused_with_the_remedy() {
    let cases: [(&str, fn(&Path), &str); 3] = [
        ("a work tree", |path| drop(git(path, &["init", "--quiet"])), "--bare"),
        ("SHA-256", |path| drop(git(path, &["init", "--quiet", "--bare", "--object-format=sha256"])), "sha1"),
        ("somebody's files", |path| fs::write(path.join("letter"), "dear").unwrap(), "documents.git"),
    ];
    for (what, make, word) in cases {
        let setup = Setup::new();
        fs::create_dir_all(&setup.remote().path).unwrap();
        make(&setup.remote().path);
        write(&setup.root(), "file", "x");
        let daemon = setup.start();
        let status = daemon.status_when(what, |status| {
            matches!(remote(status, "usb")["state"].as_str(), Some("halted" | "backoff"))
        });
        let reason = remote(&status, "usb")["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(word), "{what}: {reason}");
        eventually("the commit is made all the same", SOON, || setup.local().tip("main"));
    }
}

#[test]
fn somebody_elses_gc_on_the_remote_does_no_harm() {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..4 {
        write(&setup.root(), format!("file-{number}"), number.to_string());
        daemon.api().flush();
        git(&setup.remote().path, &["gc", "--quiet", "--prune=now"]);
        git(&setup.remote().path, &["pack-refs", "--all"]);
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn an_abandoned_lock_on_the_remote_holds_a_push_back_and_no_more() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let lock = setup.remote().path.join("refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    write(&setup.root(), "file", "2");
    daemon.status_when("backoff", |status| remote(status, "usb")["state"] == "backoff");
    assert!(lock.exists(), "a lock that may be in use is respected");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    let times = fs::FileTimes::new().set_modified(long_ago);
    fs::File::options().write(true).open(&lock).unwrap().set_times(times).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}
