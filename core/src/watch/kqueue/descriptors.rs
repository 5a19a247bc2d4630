//! Giving descriptors, or fingerprints, to what was found.
//!
//! In go an open directory and a name in it, out comes the state of that entry: told by the kernel where a
//! descriptor is to be had, else compared. A directory that finds none left takes one from a file. What is gone
//! again leaves the record: the note for that is pending, as its directory was watched before it was listed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::budget::Wanting;
use super::compare::{Found, is_other};
use super::events::push;
use super::tree::{DirectoryId, Entry, Listed, Reason, State, Subject};
use super::{Hint, KqueueBackend, identity_in};
use crate::error::{Error, Kind, Result};
use crate::path::RelPath;

impl KqueueBackend {
    /// Watches the root itself.
    pub(super) fn watch_root(&mut self) -> Result<DirectoryId> {
        let flags = self.kernel.open_flags() | OFlags::DIRECTORY;
        let opened = self
            .open_below(&RelPath::root(), flags)?
            .map_err(|errno| self.place.unavailable(errno.into()))?;
        let stat = rustix::fs::fstat(&opened).map_err(|errno| self.place.unavailable(errno.into()))?;
        let identity = identity_in(&stat);
        if !self.budget.take_directory() {
            let wanting = Wanting { directories: 1, ..Wanting::default() };
            return Err(Error::new(Kind::Limit, self.budget.pool().sentence(&wanting)));
        }
        let handle = self.tree.new_handle();
        let added = self.kernel.add(handle, opened).and_then(|()| self.kernel.commit());
        let refused = added.map_err(|error| Error::io("watch", self.place.path(), error));
        match refused {
            Ok(refused) if refused.is_empty() => {}
            other => {
                self.kernel.remove(handle);
                self.budget.give_back_directory();
                let text = "this file system cannot be watched by kqueue";
                let error = std::io::Error::other(text);
                return Err(other.err().unwrap_or_else(|| Error::io("watch", self.place.path(), error)));
            }
        }
        Ok(self.tree.add_directory(None, identity, handle, self.round))
    }

    /// Watches a new directory, to be listed after [`KqueueBackend::commit`].
    pub(super) fn watch_directory(
        &mut self,
        parent: DirectoryId,
        at: &OwnedFd,
        name: &Arc<[u8]>,
        listed: Listed,
        hints: &mut Vec<Hint>,
    ) -> Result<()> {
        if !self.budget.take_directory() && !self.make_room(hints)? {
            self.leave_beyond(parent, at, name, listed);
            return Ok(());
        }
        let state = match self.open_entry(at, name, OFlags::DIRECTORY) {
            Ok((opened, stat)) => {
                let identity = identity_in(&stat);
                if self.one_file_system && identity.0 != self.place.device() {
                    State::Foreign
                } else {
                    let handle = self.tree.new_handle();
                    if self.kernel.add(handle, opened).is_ok() {
                        let place = Some((parent, name.clone(), listed, self.listing));
                        let id = self.tree.add_directory(place, identity, handle, self.round);
                        self.dirty.insert(id);
                        return Ok(());
                    }
                    fingerprint(at, name).map_or(State::Foreign, |now| State::Compared(now, Reason::Refused))
                }
            }
            Err(errno) if is_other(errno) => {
                self.budget.give_back_directory();
                return Ok(());
            }
            Err(Errno::MFILE | Errno::NFILE) => {
                self.budget.give_back_directory();
                self.leave_beyond(parent, at, name, listed);
                return Ok(());
            }
            Err(_) => {
                fingerprint(at, name).map_or(State::Foreign, |now| State::Compared(now, Reason::Closed))
            }
        };
        self.budget.give_back_directory();
        let entry = Entry { listed, is_included: true, state, seen: self.listing };
        self.tree.set_entry(parent, name.clone(), entry);
        Ok(())
    }

    fn leave_beyond(&mut self, parent: DirectoryId, at: &OwnedFd, name: &Arc<[u8]>, listed: Listed) {
        let Some(now) = fingerprint(at, name) else { return };
        let Some(path) = self.tree.path(parent) else { return };
        // Whoever polls it counts too.
        let reason = match self.left {
            None => self.count_below(&path.join(name)),
            Some(_) => Reason::Beyond { directories: 1, files: 0 },
        };
        let state = State::Compared(now, reason);
        let entry = Entry { listed, is_included: true, state, seen: self.listing };
        self.tree.set_entry(parent, name.clone(), entry);
    }

    /// Takes the descriptor of a file for a directory; false if no file has one.
    fn make_room(&mut self, hints: &mut Vec<Hint>) -> Result<bool> {
        let Some((id, name)) = self.tree.last_told() else { return Ok(false) };
        let Some(path) = self.tree.path(id) else { return Ok(false) };
        let found = self.find(id, &path)?;
        let entry = self.tree.entry(id, &name).copied();
        let taken = self.tree.take_entry(id, &name);
        self.let_go(taken);
        if let Some(entry) = entry {
            // What happened to it so far may not have been told.
            if entry.is_included {
                push(hints, Hint::Changed(path.join(&name)));
            }
            if self.rules.is_ignore_file(&name) {
                self.follow_rules(id, hints);
            }
            match found {
                Found::Open(at) => {
                    if let Some(now) = fingerprint(&at, &name) {
                        let reason = Reason::Beyond { directories: 0, files: 1 };
                        let entry = Entry { state: State::Compared(now, reason), ..entry };
                        self.tree.set_entry(id, name, entry);
                    }
                }
                Found::Other | Found::Closed => {
                    self.dirty.insert(id);
                }
            }
        }
        Ok(self.budget.take_directory())
    }

    /// Watches an entry that is not a directory and that waits for it. With `is_urgent` another file gives way.
    pub(super) fn watch_entry(&mut self, id: DirectoryId, at: &OwnedFd, name: &Arc<[u8]>, is_urgent: bool) {
        let Some(entry) = self.tree.entry(id, name).copied() else { return };
        let taken = self.tree.take_entry(id, name);
        self.let_go(taken);
        let compared = |reason| fingerprint(at, name).map(|now| State::Compared(now, reason));
        let beyond = Reason::Beyond { directories: 0, files: 1 };
        let state = if entry.listed.kind != FileType::RegularFile {
            compared(Reason::Kind)
        } else if !(self.budget.take_file() || is_urgent && self.budget.take_file_before_others()) {
            compared(beyond)
        } else {
            let watched = match self.open_entry(at, name, OFlags::NONBLOCK | OFlags::NOCTTY) {
                Ok((opened, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    let handle = self.tree.new_handle();
                    match self.kernel.add(handle, opened) {
                        Ok(()) => Ok(handle),
                        Err(_) => Err(compared(Reason::Refused)),
                    }
                }
                Err(Errno::MFILE | Errno::NFILE) => Err(compared(beyond)),
                // Replaced since it was listed.
                Ok(_) => Err(None),
                Err(errno) if is_other(errno) => Err(None),
                Err(_) => Err(compared(Reason::Closed)),
            };
            if watched.is_err() {
                self.budget.give_back_file();
            }
            watched.map_or_else(|instead| instead, |handle| Some(State::Told(handle)))
        };
        if let Some(state) = state {
            self.tree.set_entry(id, name.clone(), Entry { state, ..entry });
        }
    }

    fn open_entry(&self, at: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<(OwnedFd, Stat)> {
        let flags = self.kernel.open_flags() | flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = crate::beneath::retry(|| rustix::fs::openat(at.as_fd(), name, flags, Mode::empty()))?;
        let stat = rustix::fs::fstat(&opened)?;
        Ok((opened, stat))
    }

    /// Makes what was added watched; what the kernel cannot watch is compared from now on.
    pub(super) fn commit(&mut self) -> Result<()> {
        let refused =
            self.kernel.commit().map_err(|error| Error::io("watch below", self.place.path(), error))?;
        for handle in refused {
            let (parent, name) = match self.tree.subject(handle).cloned() {
                Some(Subject::Entry(id, name)) => (id, name),
                Some(Subject::Directory(id)) => match self.tree.get(id) {
                    Some(directory) => match directory.parent {
                        Some(parent) => (parent, directory.name.clone()),
                        None => continue,
                    },
                    None => continue,
                },
                None => continue,
            };
            let Some(entry) = self.tree.entry(parent, &name).copied() else { continue };
            let taken = self.tree.take_entry(parent, &name);
            self.let_go(taken);
            let Some(path) = self.tree.path(parent) else { continue };
            match self.find(parent, &path)? {
                Found::Open(at) => {
                    if let Some(now) = fingerprint(&at, &name) {
                        let state = State::Compared(now, Reason::Refused);
                        self.tree.set_entry(parent, name, Entry { state, ..entry });
                    }
                }
                Found::Other | Found::Closed => {
                    self.dirty.insert(parent);
                }
            }
        }
        Ok(())
    }
}

/// A change this soon after another may leave the same times: file systems count them in steps of up to 2 s.
const YOUNG: Duration = Duration::from_secs(3);

/// What the stat of an entry says, in eight bytes; none if it is gone. That of an entry which has just changed
/// equals no other, so that it is hinted once more when it is older.
// The widths of struct stat differ by platform.
#[allow(clippy::unnecessary_cast)]
pub(super) fn fingerprint(at: &OwnedFd, name: &[u8]) -> Option<u64> {
    let stat = crate::beneath::retry(|| rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)).ok()?;
    let mut hasher = DefaultHasher::new();
    identity_in(&stat).hash(&mut hasher);
    (stat.st_mode as u32, stat.st_uid as u32, stat.st_gid as u32).hash(&mut hasher);
    (stat.st_size as i64, stat.st_mtime as i64, stat.st_ctime as i64).hash(&mut hasher);
    (stat.st_mtime_nsec as i64, stat.st_ctime_nsec as i64).hash(&mut hasher);
    let changed = u64::try_from(stat.st_ctime as i64).unwrap_or(0);
    let changed = UNIX_EPOCH.checked_add(Duration::new(changed, stat.st_ctime_nsec as u32));
    let now = SystemTime::now();
    let is_young = changed
        .is_some_and(|changed| now.duration_since(changed).unwrap_or_else(|ahead| ahead.duration()) < YOUNG);
    if is_young {
        now.hash(&mut hasher);
    }
    Some(hasher.finish())
}
