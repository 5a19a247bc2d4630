//! The audit log: every commit and push has its line, also after `kill -9`, and what was tampered with is found.

use std::fs;

use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::tree::write;

/// The lines of the log.
pub fn lines(setup: &Setup) -> Vec<Value> {
    let text = fs::read_to_string(setup.state().join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where the lines say that the branch came to stand, here or at a remote, in order.
fn stands(lines: &[Value], remote: Option<&str>) -> Vec<String> {
    let is_meant = |line: &&Value| {
        line["ref"] == "refs/heads/main" && line.get("remote").and_then(Value::as_str) == remote
    };
    lines.iter().filter(is_meant).map(|line| line["to"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The log is in order, each commit since it began has one line, and the last lines are where the branches stand.
pub fn assert_tells_all(setup: &Setup) {
    let verified = setup.run(&["audit", "verify", "--json"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}");
    let lines = lines(setup);
    let here = stands(&lines, None);
    let tip = setup.local().tip("main").unwrap();
    assert_eq!(here.last(), Some(&tip));
    let range = format!("{}..main", here[0]);
    let listed = git(&setup.local().path, &["rev-list", "--first-parent", "--reverse", &range]);
    let commits: Vec<&str> = listed.lines().collect();
    assert_eq!(here[1..], commits, "each commit has its line, once and in order");
    let remote = lines.iter().rev().find_map(|line| line["remote"].as_str());
    let there = stands(&lines, remote);
    assert_eq!(there.last(), setup.remote().tip("main").as_ref());
}

#[test]
fn commits_pushes_starts_and_stops_are_told_and_the_command_shows_them() {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..3 {
        write(&setup.root(), "file", format!("version {number}"));
        daemon.api().flush();
    }
    daemon.stop();
    assert_tells_all(&setup);
    let told = lines(&setup);
    let whats: Vec<&str> = told.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!((whats[0], whats[1], whats.last()), ("start", "configuration", Some(&"stop")));
    let commit = told.iter().rfind(|line| line["what"] == "commit").unwrap();
    assert_eq!(commit["detail"]["changed"], "1", "{commit}");
    let shown = setup.run(&["audit", "--repository", "documents", "--since", "1 hour ago"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let short = &commit["to"].as_str().unwrap()[..10];
    assert!(shown.contains(short) && !shown.contains("start"), "{shown}");
    let one = setup.run(&["audit", "--limit", "1", "--json"]);
    let one: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one, *told.last().unwrap());
}

#[test]
fn a_push_that_fails_is_told_with_its_reason() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    fs::write(setup.path("remote"), "not a repository").unwrap();
    let output = setup.run(&["once", "--timeout", "5s"]);
    assert!(!output.status.success());
    let told = lines(&setup);
    let push = told.iter().find(|line| line["what"] == "push").expect("a line");
    assert!(push["result"] != "ok" && push["detail"]["message"].is_string(), "{push}");
    assert!(push.get("ref").is_none(), "nothing stands anywhere by it: {push}");
}

#[test]
fn what_was_changed_in_the_log_is_named_by_file_and_line() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    setup.run(&["once"]);
    let verified = setup.run(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    let head = said.rsplit(' ').next().unwrap().trim().to_owned();
    assert!(setup.run(&["audit", "verify", "--head", &head]).status.success(), "{said}");
    let path = setup.state().join("audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"what\":\"commit\"", "\"what\":\"nothing\"", 1)).unwrap();
    let verified = setup.run(&["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(complaint.contains("audit.jsonl:"), "{complaint}");
    // Cut off where it is in order again: only the line that was noted down tells.
    let first: String = text.split_inclusive('\n').take(1).collect();
    fs::write(&path, first).unwrap();
    assert!(setup.run(&["audit", "verify"]).status.success());
    assert_eq!(setup.run(&["audit", "verify", "--head", &head]).status.code(), Some(1));
}
