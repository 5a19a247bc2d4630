//! `remote test`: what it says of remotes as they are, and that it changes none of them.

use std::process::Output;

use serde_json::{Value, json};

use crate::http::{served, set_password};
use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::{fingerprint, write};
use crate::support::web::Switches;
use crate::support::{SOON, eventually};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn test(setup: &Setup, name: &str) -> Output {
    setup.write_config();
    setup.run(&["remote", "test", name])
}

fn report(setup: &Setup, name: &str) -> Value {
    let output = setup.run(&["--json", "remote", "test", name]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
}

#[test]
fn a_local_remote_is_described_before_and_after_its_first_push_and_never_made() {
    let mut setup = Setup::new();
    let name = "usb";
    let url = setup.path("usb.git");
    setup.repository()["remotes"] = json!([{"name": name, "url": url.to_str().unwrap()}]);
    write(&setup.root(), "file", "1");
    let before = test(&setup, name);
    assert!(before.status.success() && said(&before).contains("nothing is there yet"), "{}", said(&before));
    assert!(!url.exists());

    assert!(setup.run(&["once"]).status.success());
    let pushed = fingerprint(&url);
    let after = test(&setup, name);
    assert!(after.status.success() && said(&after).contains("up to date"), "{}", said(&after));
    assert_eq!(report(&setup, name)["standing"], "equal");
    assert_eq!(fingerprint(&url), pushed, "it was only looked at");

    let tree = git(&url, &["write-tree"]);
    let foreign = git(&url, &["commit-tree", "-m", "foreign", tree.trim()]);
    git(&url, &["update-ref", "refs/heads/main", foreign.trim()]);
    let elsewhere = test(&setup, name);
    assert_eq!(elsewhere.status.code(), Some(1), "{}", said(&elsewhere));
    assert!(said(&elsewhere).contains("NOT in our history"), "{}", said(&elsewhere));
}

#[test]
fn a_web_server_is_described_and_a_refusal_names_its_cause() {
    let Some((setup, _web)) = served(&Switches::default()) else { return };
    let good = test(&setup, "web");
    let text = said(&good);
    assert!(good.status.success(), "{text}");
    for words in ["takes the credentials", "git/", "report-status", "Git LFS: none", "a push makes it"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The question about LFS has little time, which a busy machine may need for itself.
    let found = eventually("LFS is asked for in time", SOON, || {
        Some(report(&setup, "web")).filter(|found| !found["lfs"].is_null())
    });
    assert_eq!((&found["reachable"], &found["standing"]), (&json!(true), &json!("absent")), "{found}");
    assert_eq!(found["lfs"], json!(false), "{found}");

    set_password(&setup, "wrong-word");
    let refused = test(&setup, "web");
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("401") && !text.contains("wrong-word"), "{text}");
    assert_eq!(report(&setup, "web")["reason"], "credentials");
    let unknown = test(&setup, "nowhere");
    assert!(!unknown.status.success() && said(&unknown).contains("web"), "{}", said(&unknown));
}

#[test]
fn an_ssh_server_is_described_once_its_key_is_trusted() {
    let mut setup = Setup::new();
    let sshd = Sshd::start(setup.scratch.path());
    let key = setup.path("key");
    make_key(&key, "ed25519", "");
    sshd.let_in(&key, "");
    let repository = setup.path("nas.git");
    git(setup.scratch.path(), &["init", "-q", "--bare", repository.to_str().unwrap()]);
    setup.repository()["remotes"] = json!([{
        "name": "nas", "url": sshd.url(repository.to_str().unwrap()),
        "credentials": {"ssh_key_file": key.to_str().unwrap()},
    }]);
    let unknown = test(&setup, "nas");
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(said(&unknown).contains("remote trust nas"), "{}", said(&unknown));
    assert_eq!(report(&setup, "nas")["reason"], "host_key");

    assert!(setup.run(&["remote", "trust", "nas", "--yes"]).status.success());
    let trusted = test(&setup, "nas");
    let text = said(&trusted);
    assert!(trusted.status.success() && text.contains("logs us in") && text.contains("git/"), "{text}");
}
