//! The wire against a real sshd: a bench with a server, a key that it lets in, and repositories behind it.

mod faults;
mod hostile;
mod hosts;
mod login;
#[path = "../../../../tests/support/sshd.rs"]
pub(crate) mod sshd;
mod talk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use self::sshd::Sshd;
use super::*;
use crate::config::{Credentials, RemoteUrl, SecretSource};
use crate::names::RemoteName;
use crate::transport::wire::Incoming;

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    answer: Duration::from_secs(20),
    bandwidth: None,
};

/// A remote called `nas` at an address.
pub(super) fn remote_at(address: &str) -> (Remote, NetworkUrl) {
    let url = RemoteUrl::parse(address).unwrap();
    let RemoteUrl::Ssh(parts) = url.clone() else { panic!("{address} is no SSH address") };
    let remote = Remote::at(RemoteName::new("nas").unwrap(), url);
    (remote, parts)
}

/// A server whose key is known, a key that it lets in, and an empty repository `/…/remote.git`.
struct Bench {
    scratch: tempfile::TempDir,
    sshd: Sshd,
    credentials: Credentials,
}

impl Bench {
    fn new() -> Self {
        Self::with(&["ed25519"], "")
    }

    fn with(host_keys: &[&str], settings: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sshd = Sshd::start_with(scratch.path(), host_keys, settings);
        let key = scratch.path().join("key");
        sshd::make_key(&key, "ed25519", "");
        sshd.let_in(&key, "");
        let known: String = host_keys.iter().map(|kind| sshd.known_hosts_line(kind)).collect();
        fs::write(scratch.path().join("known_hosts"), known).unwrap();
        git(scratch.path(), &["init", "-q", "--bare", "-b", "main", "remote.git"]);
        let credentials = Credentials { ssh_key: Some(SecretSource::File(key)), ..Default::default() };
        Self { scratch, sshd, credentials }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The account runs `script` instead of what it is told to run.
    fn forced(&self, script: &str) {
        let path = self.path("forced");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        Command::new("chmod").arg("755").arg(&path).status().unwrap();
        self.sshd.let_nobody_in();
        self.sshd.let_in(&self.path("key"), &format!("command=\"{}\"", path.display()));
    }

    fn remote(&self, path: &str) -> (Remote, NetworkUrl) {
        let (mut remote, url) = remote_at(&self.sshd.url(path));
        remote.credentials = Some(self.credentials.clone());
        (remote, url)
    }

    fn wire_to(&self, path: &str, limits: Limits, progress: &Progress) -> SshWire {
        let (remote, url) = self.remote(path);
        SshWire::new(&remote, &url, self.scratch.path(), limits, progress).unwrap()
    }

    fn wire(&self) -> SshWire {
        let path = self.path("remote.git");
        self.wire_to(path.to_str().unwrap(), LIMITS, &Progress::new())
    }

    /// Why a service does not start.
    fn refusal(&self) -> Error {
        refusal(&mut self.wire())
    }
}

fn refusal(wire: &mut SshWire) -> Error {
    let mut talk = match wire.open(Service::ReceivePack) {
        Err(error) => return error,
        Ok(talk) => talk,
    };
    let outcome = read_to_flush(talk.advertisement());
    outcome.expect_err("it should have been refused")
}

/// Reads an advertisement up to its flush packet, packet by packet.
fn read_to_flush(incoming: &mut dyn Incoming) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let length = read_exactly(incoming, 4)?;
        let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
        if length == 0 {
            return Ok(lines);
        }
        lines.push(String::from_utf8_lossy(&read_exactly(incoming, length - 4)?).into_owned());
    }
}

fn read_exactly(incoming: &mut dyn Incoming, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match incoming.read(&mut bytes[filled..])? {
            0 => return Err(Error::new(Kind::Git, format!("ended after {filled} of {length} bytes"))),
            more => filled += more,
        }
    }
    Ok(bytes)
}

fn read_to_end(incoming: &mut dyn Incoming) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match incoming.read(&mut buffer)? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}

fn packet(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

fn git_with(directory: &Path, arguments: &[&str], input: &str) -> Vec<u8> {
    let mut command = Command::new("git");
    command.current_dir(directory).args(arguments);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "Somebody").env(format!("GIT_{name}_EMAIL"), "some@body");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    String::from_utf8(git_with(directory, arguments, "")).unwrap().trim().to_owned()
}

/// A repository with one commit of one file with this content, at `directory`; returns the commit.
fn commit(directory: &Path, content: &[u8]) -> String {
    fs::create_dir_all(directory).unwrap();
    git(directory, &["init", "-q", "-b", "main"]);
    fs::write(directory.join("file"), content).unwrap();
    git(directory, &["add", "file"]);
    git(directory, &["commit", "-q", "-m", "one"]);
    git(directory, &["rev-parse", "HEAD"])
}

/// Pushes a commit of `source` as `main`, over the wire as it is; returns the report.
fn push(wire: &mut SshWire, source: &Path, commit: &str) -> Result<String> {
    let pack = git_with(source, &["pack-objects", "--revs", "--stdout", "-q"], &format!("{commit}\n"));
    let zero = "0".repeat(40);
    let mut talk = wire.open(Service::ReceivePack)?;
    read_to_flush(talk.advertisement())?;
    let command = packet(&format!("{zero} {commit} refs/heads/main\0report-status"));
    let mut answer = talk.ask(None, &mut |out| {
        out.write(&command)?;
        out.write(b"0000")?;
        out.write(&pack)
    })?;
    let report = read_to_end(&mut *answer)?;
    drop(answer);
    talk.close();
    Ok(String::from_utf8_lossy(&report).into_owned())
}
