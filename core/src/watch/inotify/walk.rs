//! Giving every directory its watch.
//!
//! In goes where to start, out come watches in the table and what was found in directories that had none. Each
//! directory is opened beneath the root without following a link, watched through that descriptor and then
//! listed through it, so nothing that happens on the path meanwhile can lead elsewhere, and what is made after
//! the listing has an event. A walk over watched directories changes nothing but its stamp on them; what it
//! should have met and did not is dropped.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use inotify::WatchMask;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::table::{Placed, Watch};
use super::{InotifyBackend, limits, root_unavailable};
use crate::error::{Error, Kind, Result};
use crate::ignore::{Scope, beneath};
use crate::path::RelPath;
use crate::progress::Progress;

/// More entries than this in new directories become one deep hint.
const MAX_FOUND: usize = 256;

/// What was found in directories that were not watched before.
#[derive(Debug, Default)]
pub(super) struct Found {
    paths: Vec<RelPath>,
    too_many: bool,
    /// Whether some directory got its watch only now.
    any_new: bool,
}

impl Found {
    /// The entries, unless they are too many.
    pub fn paths(self) -> Option<Vec<RelPath>> {
        (!self.too_many).then_some(self.paths)
    }

    fn add(&mut self, path: RelPath) {
        if self.paths.len() < MAX_FOUND {
            self.paths.push(path);
        } else {
            self.too_many = true;
        }
    }
}

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
    /// No watch is to be had; its entries are looked at nevertheless.
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
        let root = self.open_root()?;
        self.walk = self.walk.wrapping_add(1);
        let opened = beneath::open(root.as_fd(), &RelPath::root(), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| root_unavailable(&self.root, errno.into()))?;
        let watch = match self.add_watch(opened.as_fd()) {
            Ok(watch) => watch,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::io("watch through /proc/self/fd (is /proc mounted?)", &self.root, error));
            }
            Err(error) if limits::is_exhausted(&error) => {
                return Err(Error::with_source(Kind::Limit, limits::too_few_watches(1), error));
            }
            Err(error) => return Err(root_unavailable(&self.root, error)),
        };
        self.table.place_root(watch, self.walk);
        self.root_watch = Some(watch);
        let scope = self.rules.scope_fresh(&RelPath::root());
        let mut steps = Vec::new();
        self.list(&opened, Some(watch), &scope, &mut steps, None)?;
        drop(opened);
        self.run(&root, steps, &mut Found::default(), progress)?;
        let mut dropped = self.table.remove_unseen(watch, self.walk);
        dropped.extend(self.table.remove_detached(watch));
        self.unwatch(dropped);
        self.resync_needed = false;
        Ok(())
    }

    /// Walks the directory `name` in `parent`, whose scope is `scope`, and all below it.
    pub(super) fn walk_directory(
        &mut self,
        parent: Watch,
        scope: &Scope,
        name: &[u8],
        found: &mut Found,
    ) -> Result<()> {
        let root = self.open_root()?;
        self.walk = self.walk.wrapping_add(1);
        self.here = None;
        let step = Step { parent: Some(parent), parent_scope: scope.clone(), name: name.into() };
        self.run(&root, vec![step], found, &Progress::new())?;
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
        let root = self.open_root()?;
        self.walk = self.walk.wrapping_add(1);
        self.here = None;
        self.table.see(watch, self.walk);
        let scope = self.rules.scope_fresh(directory);
        let opened = match beneath::open(root.as_fd(), directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            // Gone meanwhile: its own event comes.
            Err(_) => return Ok(()),
        };
        let mut steps = Vec::new();
        self.list(&opened, Some(watch), &scope, &mut steps, None)?;
        let mut found = Found::default();
        self.run(&root, steps, &mut found, &Progress::new())?;
        let dropped = self.table.remove_unseen(watch, self.walk);
        self.unwatch(dropped);
        if found.any_new {
            hints.push(super::Hint::Deep(directory.clone()));
        }
        Ok(())
    }

    fn open_root(&self) -> Result<OwnedFd> {
        let opened = match beneath::open_root(&self.root) {
            Ok(opened) => opened,
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Error::io("open", &self.root, errno)),
            Err(errno) => return Err(root_unavailable(&self.root, errno.into())),
        };
        match rustix::fs::fstat(&opened) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.identity => Ok(opened),
            Ok(_) => Err(root_unavailable(&self.root, Errno::STALE.into())),
            Err(errno) => Err(root_unavailable(&self.root, errno.into())),
        }
    }

    fn run(
        &mut self,
        root: &OwnedFd,
        mut steps: Vec<Step>,
        found: &mut Found,
        progress: &Progress,
    ) -> Result<()> {
        while let Some(step) = steps.pop() {
            progress.check()?;
            self.look_at(root, &step, &mut steps, found)?;
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        root: &OwnedFd,
        step: &Step,
        steps: &mut Vec<Step>,
        found: &mut Found,
    ) -> Result<()> {
        let path = step.path();
        let opened = match beneath::open(root.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            // Gone or replaced since it was listed: there is or was an event for that.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
                return Err(Error::io("open", &self.root.join(path.as_os_path()), errno));
            }
            Err(_) => {
                self.unreadable.insert(key_of(&path));
                return Ok(());
            }
        };
        if self.one_file_system && rustix::fs::fstat(&opened).is_ok_and(|stat| stat.st_dev != self.identity.0)
        {
            return Ok(());
        }
        let (watch, is_new) = match self.watch_directory(&opened, step, &path) {
            Outcome::Placed(_, Placed::Twice) | Outcome::Skipped => return Ok(()),
            Outcome::Placed(watch, placed) => (Some(watch), placed == Placed::New),
            Outcome::Unwatched => (None, true),
        };
        found.any_new |= is_new;
        // Only now: an ignore file that is written after this was read has an event.
        let scope = self.rules.enter(&step.parent_scope, &step.name);
        if !scope.verdict().is_included() {
            return Ok(());
        }
        self.list(&opened, watch, &scope, steps, is_new.then_some(found))
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
                let (placed, evicted) = self.table.place(watch, parent, &step.name, self.walk);
                if let Some(evicted) = evicted {
                    let removed = self.table.remove(evicted);
                    self.unwatch(removed);
                }
                Outcome::Placed(watch, placed)
            }
            Err(error) if limits::is_exhausted(&error) => {
                self.exhausted.insert(key_of(path));
                Outcome::Unwatched
            }
            Err(_) => {
                self.unreadable.insert(key_of(path));
                Outcome::Skipped
            }
        }
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

    /// Lists an open directory: directories that the rules let in become steps, and every entry they let in is
    /// added to `found` if that is asked for.
    fn list(
        &mut self,
        opened: &OwnedFd,
        watch: Option<Watch>,
        scope: &Scope,
        steps: &mut Vec<Step>,
        mut found: Option<&mut Found>,
    ) -> Result<()> {
        let path = || self.root.join(scope.directory().as_os_path());
        let entries = Dir::read_from(opened).map_err(|errno| Error::io("list", &path(), errno))?;
        for entry in entries {
            let Ok(entry) = entry else {
                // Not all of it was seen; the scan meets the same error and reports it.
                self.unreadable.insert(key_of(scope.directory()));
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => rustix::fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            if !is_dir && found.is_none() {
                continue;
            }
            if !self.rules.verdict_child(scope, name.to_bytes(), is_dir).is_included() {
                continue;
            }
            if let Some(found) = found.as_deref_mut() {
                found.add(scope.directory().join(name.to_bytes()));
            }
            if is_dir {
                let name = name.to_bytes().into();
                steps.push(Step { parent: watch, parent_scope: scope.clone(), name });
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
