//! SSH remotes: which servers are trusted, told by the person who runs the program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::git::{assert_clone_equals, git};
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::write;

/// A configuration with a remote `nas` behind a real SSH server.
struct Bench {
    setup: Setup,
    sshd: Sshd,
}

impl Bench {
    fn new() -> Self {
        let mut setup = Setup::new();
        let sshd = Sshd::start(setup.scratch.path());
        setup.config["repositories"][0]["remotes"] = json!([{"name": "nas", "url": sshd.url("/x")}, {"name": "usb", "url": setup.path("usb.git").to_str()}]);
        // Found there by every command.
        setup.write_config();
        Self { setup, sshd }
    }

    fn trust(&self, arguments: &[&str]) -> Output {
        self.setup.command(&[&["remote", "trust"], arguments].concat()).output().unwrap()
    }

    fn known_hosts(&self) -> PathBuf {
        self.setup.state().join("known_hosts")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_servers_key_is_shown_and_recorded_only_when_somebody_says_so() {
    let bench = Bench::new();
    let fingerprint = bench.sshd.fingerprint("ed25519");
    let shown = bench.trust(&["nas"]);
    assert_eq!(shown.status.code(), Some(1), "{}", said(&shown));
    let text = said(&shown);
    assert!(text.contains(&fingerprint) && text.contains("ssh-ed25519") && text.contains("--yes"), "{text}");
    assert!(!bench.known_hosts().exists());

    let log = bench.setup.state().join("audit.jsonl");
    fs::create_dir_all(bench.setup.state()).unwrap();
    fs::write(&log, "").unwrap();
    let recorded = bench.trust(&["nas", "--yes"]);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!((&line["what"], &line["remote"]), (&json!("trust"), &json!("nas")), "{line}");
    assert!(line["detail"]["key"].as_str().unwrap().contains(&fingerprint), "{line}");
    assert_eq!(recorded.status.code(), Some(0), "{}", said(&recorded));
    assert_eq!(fs::read_to_string(bench.known_hosts()).unwrap(), bench.sshd.known_hosts_line("ed25519"));
    let again = bench.trust(&["nas"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert!(said(&again).contains("it is trusted"), "{}", said(&again));
}

#[test]
fn a_changed_key_needs_to_be_replaced_by_name() {
    let mut bench = Bench::new();
    assert!(bench.trust(&["nas", "--yes"]).status.success());
    let before = bench.sshd.fingerprint("ed25519");
    bench.sshd.change_host_key("ed25519");
    let refused = bench.trust(&["nas", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let text = said(&refused);
    assert!(text.contains(&before) && text.contains("--replace"), "{text}");
    let replaced = bench.trust(&["nas", "--yes", "--replace", "--json"]);
    assert_eq!(replaced.status.code(), Some(0), "{}", said(&replaced));
    let answer: Value = serde_json::from_slice(&replaced.stdout).unwrap();
    assert_eq!(answer["found"], "changed");
    assert_eq!(answer["trusted"], true);
    assert_eq!(answer["fingerprint"], bench.sshd.fingerprint("ed25519"));
    assert_eq!(answer["recorded"][0]["fingerprint"], before);
    assert_eq!(fs::read_to_string(bench.known_hosts()).unwrap(), bench.sshd.known_hosts_line("ed25519"));
}

#[test]
fn at_a_terminal_the_person_is_asked() {
    let bench = Bench::new();
    for (typed, code) in [("no\n", 1), ("yes\n", 0)] {
        // `script` gives it a terminal of its own.
        let program = bench.setup.command(&["remote", "trust", "nas"]);
        let mut line = String::new();
        for word in std::iter::once(program.get_program()).chain(program.get_args()) {
            line.push_str(&format!("'{}' ", word.to_str().unwrap()));
        }
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(bench.setup.scratch.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{typed:?}: {}", said(&output));
        assert!(said(&output).contains("Record it?"), "{}", said(&output));
    }
    assert!(bench.known_hosts().exists());
}

#[test]
fn what_has_no_key_to_trust_is_told_so() {
    let bench = Bench::new();
    for (name, code, word) in [("usb", 2, "ssh://"), ("nobody", 1, "nas, usb")] {
        let output = bench.trust(&[name, "--yes"]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    let output = bench.trust(&["nas", "--repository", "other"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let mut bench = bench;
    bench.sshd.stop();
    let output = bench.trust(&["nas", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cannot connect to 127.0.0.1"), "{}", said(&output));
}

#[test]
fn a_directory_reaches_a_server_over_ssh_once_its_key_is_trusted() {
    let mut bench = Bench::new();
    let remote = bench.setup.path("remote repositories/it's mine.git");
    fs::create_dir_all(remote.parent().unwrap()).unwrap();
    git(bench.setup.scratch.path(), &["init", "-q", "--bare", "-b", "main", remote.to_str().unwrap()]);
    let (key, passphrase) = (bench.setup.path("key"), bench.setup.path("passphrase"));
    make_key(&key, "ecdsa", "correct horse");
    fs::write(&passphrase, "correct horse\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o644)).unwrap();
    bench.sshd.let_in(&key, "");
    let url = bench.sshd.url(remote.to_str().unwrap()).replace(' ', "%20");
    bench.setup.repository()["remotes"] = json!([{
        "name": "nas", "url": url, "credentials": {"ssh_key_file": key, "passphrase_file": passphrase},
    }]);
    write(&bench.setup.root(), "a/file", "one");

    let refused = bench.setup.run(&["once"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let text = said(&refused);
    let fingerprint = bench.sshd.fingerprint("ed25519");
    assert!(text.contains(&fingerprint) && text.contains("backupbot remote trust nas"), "{text}");
    assert_eq!(bench.sshd.log_ins(), 0);

    assert!(bench.trust(&["nas", "--yes"]).status.success());
    for content in [&b"one"[..], b"two"] {
        write(&bench.setup.root(), "a/file", content);
        let done = bench.setup.run(&["once"]);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        assert!(said(&done).contains("chmod 600"), "{}", said(&done));
        assert!(!said(&done).contains("correct horse"), "{}", said(&done));
        assert_clone_equals(&remote, "main", &[("folder1", &bench.setup.root())], |_| false);
    }
}
