//! Directories as the walk finds them, read ahead of it by a few threads.
//!
//! A [`Listing`] is one directory opened once: what it is, its rules, its entries with a look at each. While the
//! walk compares one, [`Lookahead`] reads the next ones: the walk [announces](Lookahead::announce) what it will
//! come to and [takes](Lookahead::take) each when it is there. Nothing depends on a thread being in time: what
//! nobody has begun, the walk reads itself. At most [`HELD_ENTRIES`] entries wait, whatever the tree looks like.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::beneath::{self, Look, RootDirectory, Unseen};
use crate::ignore::{IgnoreRules, Scope};
use crate::path::RelPath;

/// Entries in listings that wait for the walk; nothing more is begun beyond.
const HELD_ENTRIES: usize = 20_000;

/// One directory.
#[derive(Debug)]
pub(super) struct Listing {
    /// What it is itself.
    pub look: Look,
    /// Its ignore rules.
    pub scope: Scope,
    /// Its entries in the order of their names.
    pub entries: Vec<(OsString, Result<Look, Unseen>)>,
}

/// Reads one directory.
pub(super) fn list(
    root: &RootDirectory,
    rules: &IgnoreRules,
    directory: &RelPath,
) -> Result<Listing, Unseen> {
    let opened = root.open_directory(directory)?;
    let look = beneath::look_at_open(opened.as_fd())?;
    let scope = rules.scope_opened(directory, opened.as_fd());
    let names = beneath::names_in(opened.as_fd())?;
    let entries = names.into_iter().map(|name| {
        let look = beneath::look_in(opened.as_fd(), &name);
        (name, look)
    });
    Ok(Listing { look, scope, entries: entries.collect() })
}

type Outcome = Result<Listing, Unseen>;

/// What the walk and its threads share.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Announced, the most urgent first.
    wanted: VecDeque<RelPath>,
    /// Begun; `Some` when it is there.
    begun: HashMap<RelPath, Option<Outcome>>,
    held_entries: usize,
    closed: bool,
}

impl Lookahead {
    /// Runs `walk` with `threads` threads that read ahead of it.
    pub fn run<T>(
        root: &RootDirectory,
        rules: &Arc<IgnoreRules>,
        threads: usize,
        walk: impl FnOnce(&Self) -> T,
    ) -> T {
        let ahead = Self::default();
        std::thread::scope(|scope| {
            let closing = CloseOnDrop(&ahead);
            for number in 0..threads {
                let work = || ahead.work(root, rules);
                // Without them the walk does everything itself.
                let named = std::thread::Builder::new().name(format!("list-{number}"));
                if named.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            let value = walk(&ahead);
            drop(closing);
            value
        })
    }

    /// Says which directories the walk comes to soon, the next one first. Repeating is harmless.
    pub fn announce<'p>(&self, directories: impl Iterator<Item = &'p RelPath>) {
        let mut state = self.state();
        state.wanted.clear();
        for directory in directories {
            if !state.begun.contains_key(directory) {
                state.wanted.push_back(directory.clone());
            }
        }
        let is_work = !state.wanted.is_empty();
        drop(state);
        if is_work {
            self.changed.notify_all();
        }
    }

    /// The listing of `directory`: the one that was read ahead, or one that is read now.
    pub fn take(&self, root: &RootDirectory, rules: &IgnoreRules, directory: &RelPath) -> Outcome {
        let mut state = self.state();
        loop {
            match state.begun.remove(directory) {
                Some(Some(outcome)) => {
                    state.held_entries -= entries_of(&outcome);
                    return outcome;
                }
                Some(None) => {
                    state.begun.insert(directory.clone(), None);
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    drop(state);
                    return list(root, rules, directory);
                }
            }
        }
    }

    fn work(&self, root: &RootDirectory, rules: &IgnoreRules) {
        let mut state = self.state();
        while !state.closed {
            let next = if state.held_entries < HELD_ENTRIES { state.wanted.pop_front() } else { None };
            let Some(directory) = next else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.begun.insert(directory.clone(), None);
            drop(state);
            let begun = Begun { ahead: self, directory: &directory };
            let outcome = list(root, rules, &directory);
            std::mem::forget(begun);
            state = self.state();
            state.held_entries += entries_of(&outcome);
            state.begun.insert(directory, Some(outcome));
            self.changed.notify_all();
        }
    }

    /// Whole between calls, so a panic of a holder leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries_of(outcome: &Outcome) -> usize {
    outcome.as_ref().map_or(0, |listing| listing.entries.len())
}

/// Gives a directory back that a panic came between.
struct Begun<'a> {
    ahead: &'a Lookahead,
    directory: &'a RelPath,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.ahead.state().begun.remove(self.directory);
        self.ahead.changed.notify_all();
    }
}

struct CloseOnDrop<'a>(&'a Lookahead);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}
