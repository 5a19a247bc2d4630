//! SSH remotes: which servers are trusted, told by the person who runs the program.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::sshd::Sshd;

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

    let recorded = bench.trust(&["nas", "--yes"]);
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
