//! System calls that fail: the program under `strace`, which makes the n-th call of a kind fail or wait.
//!
//! strace counts in each thread by itself, so the n-th call fails once in every thread that gets so far: harder than
//! a single failure, and every place is reached by some n. How far a scenario gets is found by counting.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One kind of failure of one kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The call, as strace names it.
    pub call: &'static str,
    /// The error, as the system names it.
    pub error: &'static str,
}

/// Why strace cannot be used here, if it cannot.
pub fn unusable() -> Option<String> {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    match tried {
        Err(error) => Some(format!("strace cannot be started: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            Some(format!("strace does not work here: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}

/// `command` under strace with these arguments.
fn under_strace(command: &Command, arguments: &[String]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf", "-qq"]).args(arguments).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    traced.stdin(Stdio::null());
    traced
}

/// `command`, in each thread of which the `nth` call fails as `fault` says.
pub fn failing(command: &Command, fault: Fault, nth: usize) -> Command {
    let Fault { call, error } = fault;
    let arguments = [
        "-o".to_owned(),
        "/dev/null".to_owned(),
        format!("--trace={call}"),
        format!("--inject={call}:error={error}:when={nth}"),
    ];
    under_strace(command, &arguments)
}

/// `command`, each of whose `calls` takes `microseconds` longer.
pub fn slow(command: &Command, calls: &str, microseconds: u64) -> Command {
    let arguments = [
        "-o".to_owned(),
        "/dev/null".to_owned(),
        format!("--trace={calls}"),
        format!("--inject={calls}:delay_enter={microseconds}"),
    ];
    under_strace(command, &arguments)
}

/// Runs `command` and returns how often one thread calls each of `calls` at most.
pub fn reach(command: &Command, calls: &[&str], scratch: &Path) -> BTreeMap<String, usize> {
    let trace: PathBuf = scratch.join("trace");
    let arguments =
        ["-o".to_owned(), trace.to_str().unwrap().to_owned(), format!("--trace={}", calls.join(","))];
    let output = under_strace(command, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in String::from_utf8_lossy(&fs::read(&trace).unwrap()).lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let call = rest.split(['(', ' ']).next().unwrap_or_default();
        if calls.contains(&call) {
            *counted.entry((call.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    fs::remove_file(trace).unwrap();
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((call, _), count) in counted {
        let known = most.entry(call).or_default();
        *known = (*known).max(count);
    }
    most
}
