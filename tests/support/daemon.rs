//! The program as a process: a setup of directories and a configuration, and a run of it that ends with the test.
//!
//! [`Setup`] lays out one test's world and writes the configuration, with short waits so that tests are quick;
//! a test changes the JSON before it starts the program. [`Daemon`] is one run: found through `daemon.json`,
//! asked over HTTP, ended by signals, its output kept in a file that is shown if the test fails.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::Api;
use super::git::{Judge, assert_clone_equals};
use super::{SOON, eventually};

/// Uid and gid of `nobody` on every system these tests know.
const NOBODY: u32 = 65_534;

/// The directories and the configuration of one test.
pub struct Setup {
    pub scratch: TempDir,
    pub config: Value,
    /// Whether the program runs as a user who is not above permissions.
    pub as_nobody: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// One repository `documents` with one root `folder1` and one remote `usb`.
    pub fn new() -> Self {
        Self::beneath(&std::env::temp_dir())
    }

    /// The same in a new directory below `place`.
    pub fn beneath(place: &Path) -> Self {
        let scratch = tempfile::Builder::new().prefix("backupbot-test-").tempdir_in(place).unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("folder1")).unwrap();
        let config = json!({
            "version": 1,
            "state_dir": at("state"),
            "instance": "testbox",
            "shutdown_grace": "20s",
            "admin": {"listen": "127.0.0.1:0"},
            "repositories": [{
                "name": "documents",
                "roots": [{"name": "folder1", "path": at("folder1"), "debounce": {"quiet": "50ms", "max": "200ms"}}],
                "batch": {"after": "100ms"},
                "retry": {"first": "100ms", "max": "500ms"},
                "remotes": [{"name": "usb", "url": at("remote/documents.git")}],
            }],
        });
        Self { scratch, config, as_nobody: false }
    }

    /// The watched directory.
    pub fn root(&self) -> PathBuf {
        self.path("folder1")
    }

    /// Something in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The remote.
    pub fn remote(&self) -> Judge {
        Judge::new(self.path("remote/documents.git"))
    }

    /// The bare repository in the state directory.
    pub fn local(&self) -> Judge {
        Judge::new(self.state().join("repos/documents.git"))
    }

    /// The one repository's section of the configuration.
    pub fn repository(&mut self) -> &mut Value {
        &mut self.config["repositories"][0]
    }

    /// Writes the configuration, which as JSON is YAML too, and returns its path.
    pub fn write_config(&self) -> PathBuf {
        let path = self.path("backupbot.yaml");
        fs::write(&path, serde_json::to_string_pretty(&self.config).unwrap()).unwrap();
        path
    }

    /// The program with nobody's environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = if self.as_nobody {
            let copy = self.path("backupbot");
            if !copy.exists() {
                // By another process: what this one has open for writing, a process forked by another test holds too,
                // and then it cannot be run.
                let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_backupbot")).arg(&copy).status();
                assert!(copied.unwrap().success());
            }
            hand_over(self.scratch.path());
            let mut command = Command::new(copy);
            command.uid(NOBODY).gid(NOBODY);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_backupbot"))
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BACKUPBOT_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.scratch.path()).env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        command.current_dir(self.scratch.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program with `--config` and returns how it ended.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let config = self.write_config();
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.extend([OsStr::new("--config"), config.as_os_str()]);
        self.command(&all).output().unwrap()
    }

    /// Starts `run --config` and waits until it serves.
    pub fn start(&self) -> Daemon {
        let daemon = self.launch(&[]);
        daemon.serving();
        daemon
    }

    /// Starts `run --config` with these variables and does not wait: it may be meant to die.
    pub fn launch(&self, environment: &[(&str, &str)]) -> Daemon {
        let config = self.write_config();
        let mut command = self.command(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
        command.envs(environment.iter().copied());
        Daemon::spawn(command, self)
    }

    /// The remote's clone is the root.
    pub fn assert_clone_equals_root(&self) {
        assert_clone_equals(&self.remote().path, "main", &[("folder1", &self.root())], |_| false);
    }

    /// Everything that must be true once the program has stopped after a flush: the clone is the root, history
    /// is tidy here and there, both repositories are sound, and nothing is left lying about.
    pub fn assert_all_is_well(&self) {
        self.assert_clone_equals_root();
        for judge in [self.remote(), self.local()] {
            judge.assert_sound();
            judge.assert_tidy("main");
        }
        assert_eq!(leftovers(&self.state()), Vec::<PathBuf>::new());
        assert_eq!(leftovers(&self.path("remote")), Vec::<PathBuf>::new());
    }
}

/// Temporary files, locks and other halves below `directory`.
pub fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let in_repository = entry.path().to_string_lossy().contains(".git/");
            let is_half = [".new", ".unfinished", ".keep", ".tmp"].iter().any(|end| name.ends_with(end))
                || (in_repository && name.contains(".lock"))
                || name.starts_with("tmp_")
                || name.starts_with("backupbot-lock-");
            let in_packs = entry.path().parent().is_some_and(|parent| parent.ends_with("objects/pack"));
            let is_stranger = in_packs
                && !["pack", "idx", "rev", "bitmap"]
                    .iter()
                    .any(|end| entry.path().extension() == Some(OsStr::new(end)));
            if is_half || is_stranger {
                found.push(entry.path());
            } else if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found
}

/// Gives everything below `directory` to nobody. What is his already is left alone: a running program would see a change, and
/// what it had found unreadable would wait for its next commit again.
fn hand_over(directory: &Path) {
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        // A running program's own files come and go.
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if (found.uid(), found.gid()) != (NOBODY, NOBODY) {
            std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        if path.is_dir() && !path.is_symlink() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// Whether this process may do what permissions forbid.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One run of the program.
pub struct Daemon {
    child: Child,
    /// The child is a tracer, and the program its child.
    traced: bool,
    ended: Option<ExitStatus>,
    state: PathBuf,
    output: PathBuf,
}

impl Daemon {
    /// Starts `command`, its output going to a file of its own in the setup.
    pub fn spawn(mut command: Command, setup: &Setup) -> Self {
        let number = (0..).find(|number| !setup.path(&format!("output-{number}.log")).exists()).unwrap();
        let output = setup.path(&format!("output-{number}.log"));
        let file = fs::File::create(&output).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let state = setup.state();
        let child = loop {
            match command.spawn() {
                // A copy of the program that a test has just written is still open in a child that another test is
                // about to start.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                spawned => break spawned.unwrap(),
            }
        };
        Self { child, traced: false, ended: None, state, output }
    }

    /// The same where `command` starts the program as its own child.
    pub fn spawn_traced(command: Command, setup: &Setup) -> Self {
        let mut daemon = Self::spawn(command, setup);
        daemon.traced = true;
        daemon
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        if self.traced { self.traced_pid().unwrap_or(0) } else { self.child.id() }
    }

    fn traced_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.state.join("daemon.json")).ok()?;
        let document: Value = serde_json::from_str(&text).ok()?;
        u32::try_from(document["pid"].as_u64()?).ok()
    }

    /// Everything it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until it can be asked.
    pub fn serving(&self) -> Api {
        eventually("the program serves", SOON, || {
            let api = self.address()?;
            let answer = api.try_raw("GET", "/livez", &[("Host", &api.address)], b"").ok()?;
            (answer.status == 200).then_some(api)
        })
    }

    fn address(&self) -> Option<Api> {
        let text = fs::read_to_string(self.state.join("daemon.json")).ok()?;
        let document: Value = serde_json::from_str(&text).ok()?;
        if document["pid"] != self.pid() {
            return None;
        }
        let address = document["address"].as_str()?.trim_start_matches("http://").to_owned();
        let token = fs::read_to_string(self.state.join("admin.token")).ok()?.trim().to_owned();
        Some(Api { address, token })
    }

    /// The API of the running program.
    pub fn api(&self) -> Api {
        self.serving()
    }

    /// The status of an answer to a bare order; none if the program is gone.
    pub fn try_post(&self, path: &str) -> Option<u16> {
        let api = self.address()?;
        let bearer = format!("Bearer {}", api.token);
        let headers = [("Host", api.address.as_str()), ("Authorization", &bearer)];
        Some(api.try_raw("POST", path, &headers, b"").ok()?.status)
    }

    /// Waits until something in its status holds, and returns that status.
    pub fn status_when(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let api = self.api();
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, SOON, || {
                last = api.status();
                holds(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{what}; the last status was {last:#}"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        eventually("the program ends", within, || self.ended())
    }

    /// Asks it to stop, which must succeed.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.end(SOON);
        assert_eq!(status.code(), Some(0), "an orderly stop: {status}\n{}", self.output());
    }

    /// Asks it to stop where a flush cannot succeed; only that it ends in time is demanded.
    pub fn stop_or_fail(mut self) {
        self.signal(Signal::TERM);
        self.end(SOON);
    }

    /// Kills it at once, as a power cut for the process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended = Some(self.child.wait().unwrap());
    }

    /// Waits until it kills itself, which it does only at a fault point.
    #[cfg(feature = "fault-points")]
    pub fn dies_by_itself(mut self, what: &str) {
        let status = eventually(&format!("the program dies at {what}"), SOON, || self.ended());
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{what}: {status}\n{}",
            self.output()
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended.is_none() {
            if self.traced && self.traced_pid().is_some() {
                self.signal(Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail = output.char_indices().rev().nth(8000).map_or(0, |(index, _)| index);
            println!("--- the program said:\n{}", &output[tail..]);
        }
    }
}
