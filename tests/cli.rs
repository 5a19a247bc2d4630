//! The command line: verbs, exit codes, mistakes told with file, line and field, and answers as JSON.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::tree::write;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[test]
fn wrong_usage_is_exit_code_two() {
    let setup = Setup::new();
    let cases: [&[&str]; 5] =
        [&["no-such-verb"], &["run", "--no-such-flag"], &[], &["run", "--watch"], &["why"]];
    for arguments in cases {
        let output = setup.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    }
    for arguments in [["--help"], ["--version"]] {
        let output = setup.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(said(&output).contains("backupbot"), "{arguments:?}");
    }
}

#[test]
fn check_tells_every_mistake_at_once_with_line_and_field() {
    let setup = Setup::new();
    let path = setup.path("wrong.yaml");
    let text = format!(
        "version: 1\nstate_dir: {state}\nadmin:\n  listen: nowhere\nrepositories:\n  - name: one\n    bacth: {{after: 1s}}\n\
         \x20   roots:\n      - path: relative/path\n      - path: {root}\n      - path: {root}/below\n        rescan: soon\n",
        state = setup.state().display(),
        root = setup.root().display(),
    );
    fs::write(&path, text).unwrap();
    let output = setup.command(&["check", "--config", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let text = said(&output);
    for (line, word) in [(4, "listen"), (7, "bacth"), (9, "path"), (11, "path"), (12, "rescan")] {
        let place = format!("wrong.yaml:{line}");
        assert!(
            text.lines().any(|told| told.contains(&place) && told.contains(word)),
            "{place} {word} in:\n{text}"
        );
    }
    for verb in ["run", "once", "status"] {
        let output = setup.command(&[verb, "--config", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}: {}", said(&output));
    }
    assert!(!setup.state().exists(), "nothing is made for a wrong configuration");
}

#[test]
fn check_accepts_what_runs_and_refuses_what_nobody_could_read() {
    let mut setup = Setup::new();
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!setup.state().exists(), "a check makes nothing");
    setup.repository()["lfs"] = json!({"threshold": "1MiB"});
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    setup.repository()["encryption"] = json!({"method": "git-crypt", "key_file": "/etc/backupbot/key"});
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    setup.repository()["encryption"] = json!({"method": "gpg", "recipients": ["/a.asc"]});
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    setup.repository()["encryption"] = json!({"method": "gpg"});
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("encryption.recipients"), "{}", said(&output));
    let output = setup.command(&["check", "--config", "/no/such/file.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("/no/such/file.yaml"), "{}", said(&output));
}

#[test]
fn roots_that_cannot_stand_together_are_refused() {
    let setup = Setup::new();
    for directory in ["x/same", "y/same", "state/inside"] {
        fs::create_dir_all(setup.path(directory)).unwrap();
    }
    let at = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let cases = [
        vec![at("x/same"), at("y/same")],
        vec![at("x"), at("x/same")],
        vec![at("x"), at("x")],
        vec![at("state/inside")],
        vec![setup.scratch.path().to_str().unwrap().to_owned()],
    ];
    for watched in cases {
        let mut command = setup.command(&["once"]);
        for path in &watched {
            command.arg("--watch").arg(path);
        }
        command.arg("--remote").arg(at("remote.git")).arg("--state-dir").arg(setup.state());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{watched:?}: {}", said(&output));
    }
}

#[test]
fn once_does_it_once() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    setup.assert_all_is_well();
    assert!(!setup.state().join("daemon.json").exists());
    let tip = setup.remote().tip("main").unwrap();
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(setup.remote().tip("main").unwrap(), tip, "with nothing new there is no commit");
    write(&setup.root(), "file", "2");
    let output = setup.run(&["once", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let answer = json_of(&output);
    assert_eq!(answer["repositories"][0]["commit"], setup.remote().tip("main").unwrap());
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], true, "{answer}");
    setup.assert_all_is_well();
}

#[test]
fn once_fails_when_a_remote_or_a_root_is_not_there() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    let good = setup.repository()["remotes"].clone();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    let output = setup.run(&["once", "--timeout", "2s"]);
    assert!(matches!(output.status.code(), Some(1 | 4)), "{:?}: {}", output.status, said(&output));
    setup.repository()["remotes"] = good;
    fs::rename(setup.root(), setup.path("away")).unwrap();
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    fs::rename(setup.path("away"), setup.root()).unwrap();
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    setup.assert_all_is_well();
}

#[test]
fn status_pause_resume_flush_and_why_speak_to_the_running_program() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let output = setup.run(&["flush", "--wait", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let tip = setup.remote().tip("main").unwrap();

    let output = setup.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(json_of(&output)["repositories"][0]["commit"], tip);
    let output = setup.run(&["status"]);
    assert!(said(&output).contains("documents") && said(&output).contains("usb"), "{}", said(&output));

    for path in [setup.root().join("file").to_str().unwrap().to_owned(), "folder1/file".to_owned()] {
        let output = setup.run(&["why", &path, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let report = json_of(&output);
        assert_eq!(report["state"], "pushed", "{report:#}");
        assert_eq!(report["protected"], true);
        assert_eq!(report["commit"], tip);
        assert_eq!(report["remotes"][0]["has_it"], true);
    }
    let output = setup.run(&["why", "/somewhere/else"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));

    let output = setup.run(&["pause", "--repository", "documents"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    write(&setup.root(), "file", "2");
    daemon.status_when("it waits", |status| status["repositories"][0]["pending"].as_u64() >= Some(1));
    let report = json_of(&setup.run(&["why", "folder1/file", "--json"]));
    assert_eq!(report["state"], "queued", "{report:#}");
    assert_eq!(report["protected"], false);
    let output = setup.run(&["flush", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("paused"), "{}", said(&output));
    let output = setup.run(&["resume"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = setup.run(&["flush", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = setup.run(&["pause", "--repository", "nobody"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn why_follows_a_file_on_its_way() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("1s");
    setup.repository()["roots"][0]["debounce"] = json!({"quiet": "1h", "max": "2h"});
    setup.repository()["roots"][0]["ignore"] = json!(["*.tmp"]);
    let state = |setup: &Setup, path: &str| {
        let report = json_of(&setup.run(&["why", path, "--json"]));
        (report["state"].as_str().unwrap().to_owned(), report["protected"].as_bool().unwrap(), report)
    };
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(state(&setup, "folder1/file").0, "pushed");
    assert_eq!(state(&setup, "folder1/nothing").0, "watched");
    write(&setup.root(), "x.tmp", "1");
    let (word, is_protected, report) = state(&setup, "folder1/x.tmp");
    assert_eq!((word.as_str(), is_protected), ("watched", false), "{report:#}");
    assert!(report["explanation"].as_str().unwrap().contains("*.tmp"), "{report:#}");

    // Changed and not yet quiet: seen on disk, in no row.
    write(&setup.root(), "file", "2");
    let (word, is_protected, report) = state(&setup, "folder1/file");
    assert_eq!((word.as_str(), is_protected), ("detected", false), "{report:#}");
    daemon.api().flush();
    assert_eq!(state(&setup, "folder1/file").0, "pushed");
    daemon.stop();
    // Committed, and the remote has an older version.
    fs::rename(setup.path("remote"), setup.path("away")).unwrap();
    fs::write(setup.path("remote"), "not mounted").unwrap();
    write(&setup.root(), "file", "3");
    let output = setup.run(&["once", "--timeout", "2s"]);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    let (word, is_protected, report) = state(&setup, "folder1/file");
    assert_eq!((word.as_str(), is_protected), ("committed", false), "{report:#}");
    assert!(report["explanation"].as_str().unwrap().contains("usb"), "{report:#}");
}

#[test]
fn status_works_without_a_running_program() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    assert!(setup.run(&["once"]).status.success());
    let output = setup.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let status = json_of(&output);
    assert_eq!(status["repositories"][0]["commit"], setup.remote().tip("main").unwrap(), "{status:#}");
    let output = setup.run(&["why", "folder1/file", "--json"]);
    assert_eq!(json_of(&output)["state"], "pushed", "{}", said(&output));
    // After a kill there is an address of nobody.
    let daemon = setup.start();
    daemon.api().flush();
    daemon.kill();
    let output = setup.run(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_flush_that_runs_out_of_time_is_exit_code_four() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("1s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let _daemon = setup.start();
    let output = setup.run(&["flush", "--wait", "--timeout", "2s"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
}

#[test]
fn flush_without_a_running_program_says_so() {
    let setup = Setup::new();
    let output = setup.run(&["flush", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("running"), "{}", said(&output));
}

#[test]
fn completions_are_there_for_every_shell() {
    let setup = Setup::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = setup.command(&["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("backupbot"), "{shell}");
    }
}
