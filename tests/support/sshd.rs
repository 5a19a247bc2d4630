//! A real SSH server on 127.0.0.1 and ::1 with keys, configuration and log of its own; ends with the test.
//!
//! It runs as the user who runs the tests and lets in whoever has a key that was given to [`Sshd::let_in`]. Used by the
//! black-box tests and by core's own.

#![allow(dead_code, reason = "the black-box tests and core's tests use different halves of it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian does not have it in the PATH of ordinary users.
const PROGRAM: &str = "/usr/sbin/sshd";
/// How long it may take to answer on a loaded machine.
const SOON: Duration = Duration::from_secs(30);

/// A server that runs.
pub struct Sshd {
    directory: PathBuf,
    port: u16,
    settings: String,
    child: Option<Child>,
}

impl Sshd {
    /// Starts one with its files in `directory`.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &["ed25519"], "")
    }

    /// With host keys of these types, and further lines of configuration.
    pub fn start_with(directory: &Path, host_keys: &[&str], settings: &str) -> Self {
        let directory = directory.join("sshd");
        fs::create_dir_all(&directory).unwrap();
        let mut sshd = Self { directory, port: 0, settings: settings.to_owned(), child: None };
        for kind in host_keys {
            make_key(&sshd.host_key(kind), kind, "");
            sshd.settings.push_str(&format!("\nHostKey {}\n", sshd.host_key(kind).display()));
        }
        fs::write(sshd.authorized_keys(), "").unwrap();
        sshd.port = free_port();
        sshd.launch();
        sshd
    }

    fn launch(&mut self) {
        // Where root starts it, it wants this for its own safety.
        let _ = fs::create_dir_all("/run/sshd");
        let settings = self.directory.join("sshd_config");
        // The first line that sets something counts.
        let lines = [
            self.settings.clone(),
            format!("Port {}", self.port),
            "ListenAddress 127.0.0.1".to_owned(),
            "ListenAddress ::1".to_owned(),
            format!("AuthorizedKeysFile {}", self.authorized_keys().display()),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PermitRootLogin yes".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "AcceptEnv GIT_PROTOCOL".to_owned(),
            // Debian's bash reads its user's start file for sshd unless it is told that it runs within another shell.
            "SetEnv SHLVL=2".to_owned(),
            "LogLevel VERBOSE".to_owned(),
            "MaxStartups 100:30:200".to_owned(),
        ];
        fs::write(&settings, lines.join("\n") + "\n").unwrap();
        let child = Command::new(PROGRAM)
            .args(["-D", "-e", "-f"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(self.log_file()).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM} (Debian: openssh-server) does not start: {error}"));
        self.child = Some(child);
        let deadline = Instant::now() + SOON;
        while !self.greets() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "sshd does not run: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn greets(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok_and(|_| line.starts_with("SSH-2.0"))
    }

    /// Its port, on 127.0.0.1 and on ::1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An address of a path there, for the user of this process.
    pub fn url(&self, path: &str) -> String {
        format!("ssh://{}@127.0.0.1:{}{path}", user(), self.port)
    }

    /// The line for a file of known hosts.
    pub fn known_hosts_line(&self, kind: &str) -> String {
        let public = fs::read_to_string(self.host_key(kind).with_extension("pub")).unwrap();
        let mut words = public.split(' ');
        format!("[127.0.0.1]:{} {} {}\n", self.port, words.next().unwrap(), words.next().unwrap().trim())
    }

    /// The fingerprint of a host key as `ssh-keygen` shows it.
    pub fn fingerprint(&self, kind: &str) -> String {
        fingerprint(&self.host_key(kind))
    }

    /// Lets in whoever has the private key at `key`. `options` stand before it, such as `command="…"`.
    pub fn let_in(&self, key: &Path, options: &str) {
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let mut file = fs::File::options().append(true).open(self.authorized_keys()).unwrap();
        let space = if options.is_empty() { "" } else { " " };
        writeln!(file, "{options}{space}{}", public.trim()).unwrap();
    }

    /// Lets nobody in any more.
    pub fn let_nobody_in(&self) {
        fs::write(self.authorized_keys(), "").unwrap();
    }

    /// Starts it anew with another host key of the same type.
    pub fn change_host_key(&mut self, kind: &str) {
        self.stop();
        fs::remove_file(self.host_key(kind)).unwrap();
        make_key(&self.host_key(kind), kind, "");
        self.launch();
    }

    /// Ends it with everything that it has started.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        end_below(child.id());
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it as it was.
    pub fn start_again(&mut self) {
        self.launch();
    }

    /// Ends the connections there are, in the middle of whatever they do; the server goes on.
    pub fn cut_connections(&self) {
        end_below(self.child.as_ref().unwrap().id());
    }

    /// How many connections have got so far as to log in.
    pub fn log_ins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn host_key(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("host_{kind}"))
    }

    fn authorized_keys(&self) -> PathBuf {
        self.directory.join("authorized_keys")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends the descendants of a process, the nearest first: nobody is left who could tell of the end of the others.
fn end_below(pid: u32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut below: Vec<u32> = children.split_whitespace().map(|child| child.parse().unwrap()).collect();
    let mut at = 0;
    while let Some(pid) = below.get(at) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        below.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        at += 1;
    }
    for pid in below {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Who runs the tests.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a key pair: `ed25519`, `ecdsa` or `rsa`, or `rsa-pem` and so on for PEM instead of OpenSSH's own format.
pub fn make_key(path: &Path, kind: &str, passphrase: &str) {
    let (kind, format) = kind.split_once('-').unwrap_or((kind, "RFC4716"));
    let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-m", format, "-f"])
        .arg(path)
        .args(bits)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The fingerprint of a key as `ssh-keygen` shows it.
pub fn fingerprint(key: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(key).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}
