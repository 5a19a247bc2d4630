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

/// Which calls of a thread fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This one.
    Nth(usize),
    /// This one and all after it.
    From(usize),
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::Nth(number) => write!(f, "{number}"),
            When::From(number) => write!(f, "{number}+"),
        }
    }
}

/// `command`, in each thread of which calls fail as `fault` says.
pub fn failing(command: &Command, fault: Fault, when: When) -> Command {
    let Fault { call, error } = fault;
    let arguments = [
        "-o".to_owned(),
        "/dev/null".to_owned(),
        format!("--trace={call}"),
        format!("--inject={call}:error={error}:when={when}"),
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

/// Runs `command` and returns, for each of `calls`, the numbers at which it is worth failing: those at which some
/// thread has a call on a file of this test. A thread's call that wakes another one does not fail on any system, so
/// numbers at which there is one are left out. Calls on no file at all are worth failing at every number.
pub fn reach(command: &Command, calls: &[&str], scratch: &Path) -> BTreeMap<String, Vec<usize>> {
    let trace: PathBuf = scratch.join("trace");
    let arguments = [
        "-y".to_owned(),
        "-o".to_owned(),
        trace.to_str().unwrap().to_owned(),
        format!("--trace={}", calls.join(",")),
    ];
    let output = under_strace(command, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    fs::remove_file(trace).unwrap();
    let own = scratch.to_str().unwrap();
    let mut counted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut seen: BTreeMap<&str, BTreeMap<usize, Seen>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let call = rest.split(['(', ' ']).next().unwrap_or_default();
        if !calls.contains(&call) {
            continue;
        }
        let number = counted.entry((call, thread)).or_default();
        *number += 1;
        let at = seen.entry(call).or_default().entry(*number).or_default();
        let is_channel = ["<anon_inode:[event", "<pipe:", "<socket:", "<UNIX", "<TCP"];
        at.is_waker |= is_channel.iter().any(|kind| rest.contains(kind));
        at.is_own |= rest.contains(own);
    }
    let worth = |numbers: BTreeMap<usize, Seen>| -> Vec<usize> {
        let any_own = numbers.values().any(|seen| seen.is_own);
        let is_worth = |seen: &Seen| !any_own || (seen.is_own && !seen.is_waker);
        numbers.into_iter().filter(|(_, seen)| is_worth(seen)).map(|(number, _)| number).collect()
    };
    seen.into_iter().map(|(call, numbers)| (call.to_owned(), worth(numbers))).collect()
}

/// What the threads do at one number.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    is_own: bool,
    is_waker: bool,
}
