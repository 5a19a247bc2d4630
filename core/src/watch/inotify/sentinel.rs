//! Barriers: how another thread learns that everything before now has been read.
//!
//! The events of one inotify instance are ordered, so a change in a directory of our own, watched by the same
//! instance, marks a place among them. [`Sentinel::barrier`] renames the one file there to a name that has
//! never been used: no two such events are equal, so the kernel merges none, and a rename to a name of the same
//! length needs no space on a full disk. The watcher reads the event and hands the number out.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use crate::beneath::retry;
use crate::error::{Error, Result};
use crate::watch::Control;

const PREFIX: &str = "barrier-";

/// The directory, and what is asked of the waiting thread.
#[derive(Debug)]
pub(super) struct Sentinel {
    directory: PathBuf,
    /// Readable while the waiting thread should return.
    waker: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The file as it is called now.
    file: PathBuf,
    next: u64,
    /// Barriers whose event has not been read: their place in the order, and the caller's number.
    asked: BTreeMap<u64, u64>,
}

impl Sentinel {
    /// Makes `directory`, which is this instance's own, and the file in it. Older files there are removed.
    pub fn new(directory: &Path) -> Result<Self> {
        let waker = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::io("make a waker for", directory, errno))?;
        make_directory(directory)?;
        let entries = std::fs::read_dir(directory).map_err(|error| Error::io("read", directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("read", directory, error))?;
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                std::fs::remove_file(entry.path())
                    .map_err(|error| Error::io("remove", &entry.path(), error))?;
            }
        }
        let file = file_of(directory, 0);
        File::create(&file).map_err(|error| Error::io("create", &file, error))?;
        let state = Mutex::new(State { file, next: 1, asked: BTreeMap::new() });
        Ok(Self { directory: directory.to_owned(), waker, state })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn waker(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    /// Makes [`Sentinel::waker`] unreadable again.
    pub fn awake(&self) {
        let _ = rustix::io::read(&self.waker, &mut [0u8; 8]);
    }

    /// The barriers that are passed when an event names `name`, in the order in which they were asked for.
    pub fn passed(&self, name: &[u8]) -> Vec<u64> {
        let number = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(number) = number else { return Vec::new() };
        let mut state = self.state();
        let later = state.asked.split_off(&number.saturating_add(1));
        std::mem::replace(&mut state.asked, later).into_values().collect()
    }

    /// All barriers asked for so far, whose events may be lost: for when everything is to be looked at.
    pub fn all_passed(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().asked).into_values().collect()
    }

    /// Makes the directory again after somebody removed it.
    pub fn make_again(&self) -> Result<()> {
        make_directory(&self.directory)
    }

    /// Gives every barrier that is still asked for an event again, after the directory was watched anew.
    pub fn repeat(&self) -> Result<()> {
        let mut state = self.state();
        if state.asked.is_empty() { Ok(()) } else { self.mark(&mut state) }
    }

    /// Renames the file to the next name. The event stands for this number and all before it.
    fn mark(&self, state: &mut State) -> Result<()> {
        let file = file_of(&self.directory, state.next);
        let renamed = match std::fs::rename(&state.file, &file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::create(&file).map(|_| ()),
            other => other,
        };
        renamed.map_err(|error| Error::io("mark a barrier in", &self.directory, error))?;
        state.file = file;
        state.next += 1;
        Ok(())
    }

    /// Whole at every moment between calls, so a panic of a holder leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control for Sentinel {
    fn wake(&self) {
        // The only failure is a counter that is full: then it is readable already.
        let _ = retry(|| rustix::io::write(&self.waker, &1u64.to_ne_bytes()));
    }

    fn barrier(&self, token: u64) -> Result<()> {
        let mut state = self.state();
        let number = state.next;
        state.asked.insert(number, token);
        let marked = self.mark(&mut state);
        if marked.is_err() {
            state.asked.remove(&number);
        }
        marked
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).map_err(|error| Error::io("create", directory, error))
}

/// Every name has the same length.
fn file_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_passes_every_barrier_asked_for_up_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let sentinel = Sentinel::new(&directory.path().join("own")).unwrap();
        for token in [70, 80, 90] {
            sentinel.barrier(token).unwrap();
        }
        assert_eq!(sentinel.passed(b"barrier-0000000000000002"), [70, 80]);
        assert!(sentinel.passed(b"barrier-0000000000000002").is_empty());
        assert!(sentinel.passed(b"something else").is_empty());
        assert_eq!(sentinel.all_passed(), [90]);
        let again = Sentinel::new(sentinel.directory()).unwrap();
        assert_eq!(std::fs::read_dir(again.directory()).unwrap().count(), 1);
    }

    #[test]
    fn a_barrier_that_cannot_be_marked_fails_and_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let sentinel = Sentinel::new(&directory.path().join("own")).unwrap();
        std::fs::remove_dir_all(sentinel.directory()).unwrap();
        assert!(sentinel.barrier(1).is_err());
        assert!(sentinel.all_passed().is_empty());
        sentinel.make_again().unwrap();
        sentinel.barrier(2).unwrap();
        assert_eq!(sentinel.all_passed(), [2]);
    }
}
