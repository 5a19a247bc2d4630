//! One process a state directory: an operating system lock on `<state_dir>/lock`, and who holds it.
//!
//! The lock dies with its process, so a file that was left behind means nothing. Its text is for people and
//! for finding the daemon; the next holder overwrites it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backupbot_core::file_lock::{Attempt, LockedFile};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::files::shown;

const FILE_NAME: &str = "lock";
/// How often somebody who waits for the lock looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Who holds the lock has written its text after so long.
const TEXT_WITHIN: Duration = Duration::from_millis(500);

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The command it runs.
    pub command: String,
    /// The name under which it backs up.
    pub instance: String,
    /// The machine.
    pub host: String,
    /// Since when, RFC 3339.
    pub started: String,
}

impl Holder {
    /// This process.
    pub fn this(command: &str, instance: &str, host: &str) -> Self {
        Self {
            pid: std::process::id(),
            command: command.to_owned(),
            instance: instance.to_owned(),
            host: host.to_owned(),
            started: backupbot_actors::board::Moment::now().to_string(),
        }
    }
}

/// The held lock; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: LockedFile,
}

/// What a look at the lock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nobody holds it.
    Free,
    /// By this process, if its text could be read.
    By(Option<Holder>),
}

fn path_of(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// Takes the lock, waiting for `patience` at most: a command that only looks holds it for a moment.
pub fn take(state_dir: &Path, holder: &Holder, patience: Duration) -> Result<Lock, Failure> {
    let path = path_of(state_dir);
    let failed = |doing: &str, error: &dyn std::fmt::Display| {
        let remedy = "run as the user that owns the state directory, or choose another with --state-dir";
        Failure::failed(format!("cannot {doing} {}: {error}; {remedy}", shown(&path)))
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|error| failed("open", &error))?;
    let deadline = Instant::now() + patience;
    let mut locked = loop {
        file = match LockedFile::attempt(file) {
            Ok(Attempt::Locked(locked)) => break locked,
            Ok(Attempt::Held(file)) if Instant::now() < deadline => file,
            Ok(Attempt::Held(mut file)) => return Err(in_use(state_dir, read_text(&mut file).as_ref())),
            Err(error) => return Err(failed("lock", &error)),
        };
        std::thread::sleep(LOOK_AGAIN);
    };
    let write = |file: &mut File| -> io::Result<()> {
        let text = serde_json::to_vec(holder)?;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&text)
    };
    write(&mut locked).map_err(|error| failed("write", &error))?;
    Ok(Lock { _file: locked })
}

/// The refusal that names the holder.
pub fn in_use(state_dir: &Path, holder: Option<&Holder>) -> Failure {
    let who = match holder {
        Some(holder) => format!(
            "process {} (`backupbot {}`, instance {}, on host {}, since {})",
            holder.pid, holder.command, holder.instance, holder.host, holder.started
        ),
        None => "another process".to_owned(),
    };
    let text = format!("the state directory {} is in use by {who}", shown(state_dir));
    Failure::new(Exit::InUse, text)
}

/// Who holds the lock now.
pub fn look(state_dir: &Path) -> Result<Held, Failure> {
    let path = path_of(state_dir);
    let failed = |error: &dyn std::fmt::Display| {
        let remedy = "run as the user that runs the daemon";
        Failure::failed(format!("cannot look at {}: {error}; {remedy}", shown(&path)))
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::Free),
        Err(error) => return Err(failed(&error)),
    };
    match LockedFile::attempt_shared(file) {
        Ok(Attempt::Locked(_)) => Ok(Held::Free),
        Ok(Attempt::Held(mut file)) => Ok(Held::By(read_text(&mut file))),
        Err(error) => Err(failed(&error)),
    }
}

fn read_text(file: &mut File) -> Option<Holder> {
    let deadline = Instant::now() + TEXT_WITHIN;
    loop {
        let mut text = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(4096).read_to_end(&mut text));
        match (read, serde_json::from_slice(&text)) {
            (Ok(_), Ok(holder)) => return Some(holder),
            _ if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_the_first_is() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(look(scratch.path()).unwrap(), Held::Free);
        let holder = Holder::this("run", "laptop", "host1");
        let lock = take(scratch.path(), &holder, Duration::ZERO).unwrap();
        assert_eq!(look(scratch.path()).unwrap(), Held::By(Some(holder)));

        let failure = take(scratch.path(), &Holder::this("once", "b", "h"), Duration::ZERO).unwrap_err();
        assert_eq!(failure.exit, Exit::InUse);
        let text = &failure.lines[0];
        assert!(text.contains(&std::process::id().to_string()) && text.contains("host1"), "{text}");

        drop(lock);
        assert_eq!(look(scratch.path()).unwrap(), Held::Free);
        take(scratch.path(), &Holder::this("once", "b", "h"), Duration::ZERO).unwrap();
    }
}
