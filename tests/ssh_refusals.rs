//! An SSH server that is wrong in some way: what is said of it, and that nothing is lost or forced. The same cases over
//! HTTP are in `http_refusals`; here are those in which the way matters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::http::{row, standing};
use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{Judge, git};
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

/// A daemon that has pushed a first commit to a real SSH server.
struct Running {
    setup: Setup,
    sshd: Sshd,
    key: PathBuf,
    daemon: Daemon,
}

fn running() -> Running {
    let mut setup = Setup::new();
    let sshd = Sshd::start(setup.scratch.path());
    let key = setup.path("key");
    make_key(&key, "ed25519", "");
    sshd.let_in(&key, "");
    let known_hosts = setup.path("known_hosts");
    fs::write(&known_hosts, sshd.known_hosts_line("ed25519") + "\n").unwrap();
    let remote = setup.remote().path;
    git(setup.scratch.path(), &["init", "-q", "--bare", "-b", "main", remote.to_str().unwrap()]);
    setup.repository()["remotes"] = json!([{
        "name": "nas",
        "url": sshd.url(remote.to_str().unwrap()),
        "credentials": {"ssh_key_file": key, "known_hosts_file": known_hosts},
        "timeouts": {"connect": "5s", "stall": "2s", "answer": "5s"},
    }]);
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    Running { setup, sshd, key, daemon }
}

impl Running {
    fn hook(&self, name: &str, script: &str) -> PathBuf {
        let path = self.setup.remote().path.join("hooks").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn ends_well(self) {
        self.daemon.api().flush();
        standing(&self.daemon, "nas", "idle", "");
        self.daemon.stop();
        self.setup.assert_all_is_well();
    }
}

fn rescues(remote: &Path) -> Vec<String> {
    let references = Judge::new(remote).references();
    references.into_keys().filter(|name| name.starts_with("refs/heads/backupbot/rescue/")).collect()
}

#[test]
fn a_hook_over_ssh_is_heard_and_a_branch_that_somebody_moved_is_not_touched() {
    let running = running();
    let remote = running.setup.remote().path;
    let hook = running.hook("pre-receive", "printf 'not \\033[31mtoday\\n' >&2; exit 1");
    write(&running.setup.root(), "file", "declined");
    let found = standing(&running.daemon, "nas", "halted", "rejected: ");
    assert!(found["reason"].as_str().unwrap().contains("not \\u{1b}[31mtoday"), "{found}");
    fs::remove_file(hook).unwrap();
    running.daemon.api().flush();
    let tree = git(&remote, &["rev-parse", "main^{tree}"]);
    let theirs = git(&remote, &["commit-tree", "-p", "main", "-m", "theirs", tree.trim()]);
    git(&remote, &["update-ref", "refs/heads/main", theirs.trim()]);
    write(&running.setup.root(), "file", "diverged");
    standing(&running.daemon, "nas", "halted", "diverged");
    eventually("the work is rescued", SOON, || {
        let names = rescues(&remote);
        let content = Judge::new(&remote).blob(names.first()?, "folder1/file")?;
        (content == b"diverged").then_some(())
    });
    assert_eq!(running.setup.remote().tip("main").unwrap(), theirs.trim());
    running.daemon.stop_or_fail();
}

#[test]
fn a_key_that_is_let_in_no_more_halts_and_goes_on_when_it_is() {
    let running = running();
    running.sshd.let_nobody_in();
    write(&running.setup.root(), "file", "1");
    let found = standing(&running.daemon, "nas", "halted", "credentials: ");
    assert!(!found["reason"].as_str().unwrap().contains("PRIVATE"), "{found}");
    running.sshd.let_in(&running.key, "");
    running.ends_well();
}

#[test]
fn a_server_that_stops_and_one_that_cuts_connections_are_waited_for() {
    let mut running = running();
    running.hook("pre-receive", "sleep 3");
    write(&running.setup.root(), "file", "cut in the middle");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    running.sshd.cut_connections();
    write(&running.setup.root(), "file", "1");
    running.sshd.stop();
    write(&running.setup.root(), "file", "2");
    standing(&running.daemon, "nas", "backoff", "");
    fs::remove_file(running.setup.remote().path.join("hooks/pre-receive")).unwrap();
    running.sshd.start_again();
    running.daemon.api().flush();
    standing(&running.daemon, "nas", "idle", "");
    running.daemon.stop();
    // What a server that was cut off leaves lying about is its own.
    running.setup.assert_clone_equals_root();
}

#[test]
fn what_a_server_says_of_a_push_that_it_takes_is_in_status() {
    let running = running();
    running.hook("post-receive", "echo 'the disk is nearly full' >&2");
    write(&running.setup.root(), "file", "1");
    running.daemon.api().flush();
    running.daemon.status_when("the words", |status| {
        row(status, "nas")["messages"].to_string().contains("the disk is nearly full")
    });
    running.ends_well();
}
