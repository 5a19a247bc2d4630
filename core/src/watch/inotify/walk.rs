//! Giving every directory its watch.
//!
//! In goes where to start, out come watches in the table, and whether any was needed. Each directory is opened
//! beneath the root without following a link, watched through that descriptor and then listed through it, so
//! nothing that happens on the path meanwhile can lead elsewhere, and what is made after the listing has an
//! event. A walk over watched directories changes nothing but its stamp on them; what it should have met and
//! did not is dropped.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use inotify::WatchMask;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::table::{Placed, Watch};
use super::{InotifyBackend, limits};
use crate::beneath::open;
use crate::error::{Error, Kind, Result};
use crate::ignore::Scope;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::watch::composed::Why;

/// A directory that the walk still has to look at.
struct Step {
    /// The watch of its parent, unless that has none.
    parent: Option<Watch>,
    parent_scope: Scope,
    name: Box<[u8]>,
}

impl Step {
    fn path(&self) -> RelPath {
        self.parent_scope.directory().join(&self.name)
    }
}

/// What became of a directory's watch.
enum Outcome {
    Placed(Watch, Placed),
    /// No watch is to be had; those below are counted nevertheless.
    Unwatched,
    /// It is not to be looked at.
    Skipped,
}

impl InotifyBackend {
    /// Walks the whole tree.
    pub(super) fn walk_all(&mut self, progress: &Progress) -> Result<()> {
        self.resync_needed = true;
        self.here = None;
        self.exhausted.clear();
        self.unreadable.clear();
        self.leaving.clear();
        self.devices.forget();
        self.silent.clear();
        self.leave_nothing_within(&RelPath::root());
        let root = self.place.open()?;
        self.walk = self.walk.wrapping_add(1);
        let opened = open::open(root.as_fd(), &RelPath::root(), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| self.place.unavailable(errno.into()))?;
        let watch = match self.add_watch(opened.as_fd()) {
            Ok(watch) => watch,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let place = self.place.path();
                return Err(Error::io("watch through /proc/self/fd (is /proc mounted?)", place, error));
            }
            Err(error) if limits::is_exhausted(&error) => {
                return Err(Error::with_source(Kind::Limit, limits::too_few_watches(1), error));
            }
            Err(error) => return Err(self.place.unavailable(error)),
        };
        self.table.place_root(watch, self.walk);
        self.root_watch = Some(watch);
        let scope = self.rules.scope_opened(&RelPath::root(), opened.as_fd());
        let mut steps = Vec::new();
        self.list(&opened, Some(watch), &scope, &mut steps)?;
        drop(opened);
        self.run(&root, steps, progress)?;
        let mut dropped = self.table.remove_unseen(watch, self.walk);
        dropped.extend(self.table.remove_detached(watch));
        self.unwatch(dropped);
        self.resync_needed = false;
        Ok(())
    }

    /// Walks the directory `name` in `parent`, whose scope is `scope`, and all below it.
    pub(super) fn walk_directory(&mut self, parent: Watch, scope: &Scope, name: &[u8]) -> Result<()> {
        let root = self.place.open()?;
        self.leave_nothing_within(&scope.directory().join(name));
        self.walk = self.walk.wrapping_add(1);
        self.here = None;
        let step = Step { parent: Some(parent), parent_scope: scope.clone(), name: name.into() };
        self.run(&root, vec![step], &Progress::new())?;
        if let Some(top) = self.table.child(parent, name) {
            let dropped = self.table.remove_unseen(top, self.walk);
            self.unwatch(dropped);
        }
        Ok(())
    }

    /// Adjusts the watches at and below `directory` to its changed rules. What is newly let in has no events
    /// of its own before now, so then everything is hinted once more.
    pub(super) fn follow_rules(&mut self, directory: &RelPath, hints: &mut Vec<super::Hint>) -> Result<()> {
        let Some(root_watch) = self.root_watch else { return Ok(()) };
        let Some(watch) = self.table.find(root_watch, directory) else { return Ok(()) };
        let root = self.place.open()?;
        self.leave_nothing_within(directory);
        self.walk = self.walk.wrapping_add(1);
        self.here = None;
        self.table.see(watch, self.walk);
        let scope = self.rules.scope_fresh(directory);
        let opened = match open::open(root.as_fd(), directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            // Gone meanwhile: its own event comes.
            Err(_) => return Ok(()),
        };
        let mut steps = Vec::new();
        self.list(&opened, Some(watch), &scope, &mut steps)?;
        let any_new = self.run(&root, steps, &Progress::new())?;
        let dropped = self.table.remove_unseen(watch, self.walk);
        self.unwatch(dropped);
        if any_new {
            hints.push(super::Hint::Deep(directory.clone()));
        }
        Ok(())
    }

    /// What is at or below `path` is walked now, or gone: what of it is left to others is found anew.
    pub(super) fn leave_nothing_within(&mut self, path: &RelPath) {
        if let Some(left) = &mut self.left {
            left.remove_within(path);
        }
    }

    /// Takes the steps and all that they lead to; true if some directory was not watched before, or elsewhere.
    fn run(&mut self, root: &OwnedFd, mut steps: Vec<Step>, progress: &Progress) -> Result<bool> {
        let mut any_new = false;
        while let Some(step) = steps.pop() {
            progress.check()?;
            any_new |= self.look_at(root, &step, &mut steps)?;
        }
        Ok(any_new)
    }

    fn look_at(&mut self, root: &OwnedFd, step: &Step, steps: &mut Vec<Step>) -> Result<bool> {
        let path = step.path();
        let opened = match open::open(root.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            // Gone or replaced since it was listed: there is or was an event for that.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
                return Err(Error::io("open", &self.place.path().join(path.as_os_path()), errno));
            }
            Err(_) => {
                self.unreadable.insert(key_of(&path));
                return Ok(false);
            }
        };
        let device = rustix::fs::fstat(&opened).map_or(self.place.device(), |stat| stat.st_dev);
        if device != self.place.device() {
            if self.one_file_system {
                return Ok(false);
            }
            if let Some(kind) = self.devices.silent(device, &opened) {
                let Some(left) = &mut self.left else {
                    self.silent.insert(kind);
                    return self.watch_and_list(&opened, step, &path, steps);
                };
                left.insert(path, Why::Silent(kind));
                return Ok(false);
            }
        }
        self.watch_and_list(&opened, step, &path, steps)
    }

    fn watch_and_list(
        &mut self,
        opened: &OwnedFd,
        step: &Step,
        path: &RelPath,
        steps: &mut Vec<Step>,
    ) -> Result<bool> {
        let (watch, placed) = match self.watch_directory(opened, step, path) {
            Outcome::Placed(_, Placed::Twice) | Outcome::Skipped => return Ok(false),
            Outcome::Placed(watch, placed) => (Some(watch), placed),
            Outcome::Unwatched => (None, Placed::New),
        };
        let is_new = placed != Placed::Known;
        // Only now: an ignore file that is written after this was read has an event.
        let scope = self.rules.enter_opened(&step.parent_scope, &step.name, Some(opened.as_fd()));
        if scope.verdict().is_included() {
            self.list(opened, watch, &scope, steps)?;
        }
        Ok(is_new)
    }

    fn watch_directory(&mut self, opened: &OwnedFd, step: &Step, path: &RelPath) -> Outcome {
        // Below a directory without a watch no path could be told.
        let Some(parent) = step.parent else {
            self.exhausted.insert(key_of(path));
            return Outcome::Unwatched;
        };
        match self.add_watch(opened.as_fd()) {
            Ok(watch) => {
                self.exhausted.remove(&key_of(path));
                self.unreadable.remove(&key_of(path));
                let (mut placed, mut evicted) = self.table.place(watch, parent, &step.name, self.walk);
                if placed == Placed::Twice && !self.stands_where_known(opened, watch) {
                    // Moved while the walk was under way, to where no event tells of it.
                    self.table.detach(watch);
                    (placed, evicted) = self.table.place(watch, parent, &step.name, self.walk);
                    self.resync_needed |= placed == Placed::Twice;
                }
                if let Some(evicted) = evicted {
                    let removed = self.table.remove(evicted);
                    self.unwatch(removed);
                }
                Outcome::Placed(watch, placed)
            }
            Err(error) if limits::is_exhausted(&error) => match &mut self.left {
                Some(left) => {
                    left.insert(path.clone(), Why::NoWatch);
                    Outcome::Skipped
                }
                None => {
                    self.exhausted.insert(key_of(path));
                    Outcome::Unwatched
                }
            },
            Err(_) => {
                self.unreadable.insert(key_of(path));
                Outcome::Skipped
            }
        }
    }

    /// Whether the directory that `opened` is can still be found where its watch is known to stand: then there
    /// are two ways to it, by a bind mount.
    fn stands_where_known(&self, opened: &OwnedFd, watch: Watch) -> bool {
        let Some(path) = self.table.path(watch) else { return false };
        let there = self
            .place
            .open()
            .ok()
            .and_then(|root| open::open(root.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY).ok());
        let identity =
            |directory: &OwnedFd| rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        there.is_some_and(|there| identity(&there) == identity(opened))
    }

    /// Watches the directory that `opened` is, wherever its path may lead by now.
    fn add_watch(&self, opened: BorrowedFd<'_>) -> std::io::Result<Watch> {
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW
            | WatchMask::EXCL_UNLINK;
        // The dot, because the last component must not be the link that the descriptor appears as.
        let path = format!("/proc/self/fd/{}/.", opened.as_raw_fd());
        self.inotify.watches().add(path, mask).map(|watch| watch.get_watch_descriptor_id())
    }

    /// Lists an open directory: directories in it that the rules let in become steps.
    fn list(
        &mut self,
        opened: &OwnedFd,
        watch: Option<Watch>,
        scope: &Scope,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let path = || self.place.path().join(scope.directory().as_os_path());
        let entries = Dir::read_from(opened).map_err(|errno| Error::io("list", &path(), errno))?;
        for entry in entries {
            let Ok(entry) = entry else {
                // Not all of it was seen; the scan meets the same error and reports it.
                self.unreadable.insert(key_of(scope.directory()));
                break;
            };
            let name = entry.file_name();
            let is_dir = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => rustix::fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            let name = name.to_bytes();
            if is_dir
                && !matches!(name, b"." | b"..")
                && self.rules.verdict_child(scope, name, true).is_included()
            {
                steps.push(Step { parent: watch, parent_scope: scope.clone(), name: name.into() });
            }
        }
        Ok(())
    }
}

/// Stands for a path where many have to be told apart and none has to be named.
pub(super) fn key_of(path: &RelPath) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
