//! Watching by kqueue, on macOS and the BSDs: one descriptor a watched path.
//!
//! In go the kernel's notes, out come hints. What the kernel tells stands in `kernel`: never a name, and of a
//! directory only that something in it was made, removed or renamed. So the last listing of every directory is
//! kept (`tree`) and compared with the present one (`compare`), and every file has a descriptor of its own as
//! long as there are any (`budget`):
//!
//! - A file was written or its mode changed: hinted.
//! - A directory has a note: it is listed. What is new, gone or another one under the same name is hinted, and
//!   watched or let go of. A new directory is hinted with all below, watched first and listed then, because it
//!   may have been filled before. The directory itself is hinted too: what came and went between two listings
//!   is in neither, but whoever looked in between may have it.
//! - Something was deleted, renamed or revoked: its record is dropped, and the directory that it stood in is
//!   listed. What was moved within the tree is found there as new.
//! - An ignore file changes: everything at and below its directory is hinted and listed again.
//! - What has no descriptor, because there is none left, it cannot be opened, or it is a link, a pipe, a socket
//!   or a device, is compared by its stat every now and then, and at each barrier. Directories come first in taking
//!   descriptors; what is below one that gets none is polled by somebody else (`left`), or depends on rescans, and
//!   [`WatchStats`] says so.
//!
//! A record may be older than the disk: a path that leads to another directory than the recorded one ends that
//! record, up to the root, whose loss ends the backend. Nothing is told of what is written through a memory map,
//! and of what another machine does on a network file system: rescans find it.
//!
//! The bookkeeping knows no platform. Its tests, with the suite that it shares with inotify, run on Linux against a
//! simulated kernel, and would run against the real one where there is one.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::composed::Tops;
use super::place::{ROOT_CHECK, RootPlace};
use super::{Backend, Control, Hint, WatchStats};
use crate::error::{Error, Kind, Result};
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::progress::Progress;

mod budget;
mod compare;
mod control;
mod descriptors;
mod events;
mod kernel;
pub(super) mod left;
#[cfg(all(test, target_os = "linux"))]
mod simulated;
mod sweep;
#[cfg(any(
    target_os = "macos",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod system;
#[cfg(test)]
pub(super) mod tests;
mod tree;

use budget::{Budget, Pool, Wanting};
use control::Asker;
use kernel::{Event, Kernel};
use sweep::Sweep;
use tree::{DirectoryId, Reason, State, Taken, Tree};

pub use budget::raise_limit;

/// How long to leave alone what failed, such as a listing for which there was no descriptor.
const RETRY: Duration = Duration::from_secs(1);

/// Watches one root.
pub struct KqueueBackend {
    place: RootPlace,
    one_file_system: bool,
    rules: Arc<IgnoreRules>,
    kernel: Box<dyn Kernel>,
    asker: Arc<Asker>,
    tree: Tree,
    budget: Budget,
    /// Directories to be listed.
    dirty: BTreeSet<DirectoryId>,
    /// Directories of which every entry has to be asked for the rules again.
    recheck: BTreeSet<DirectoryId>,
    /// Directories with entries that wait for a descriptor.
    pending: BTreeSet<DirectoryId>,
    /// Directories that are watched but cannot be listed.
    closed: BTreeSet<DirectoryId>,
    /// Calls so far: whatever was hinted in an earlier one may have been looked at already.
    round: u64,
    /// Listings so far.
    listing: u64,
    /// What somebody else polls; none if nobody does.
    left: Option<Tops>,
    /// The round in which what is beyond the budget was counted last, and until when to go on counting.
    counting: (u64, Instant),
    sweep: Sweep,
    events: Vec<Event>,
}

impl KqueueBackend {
    /// Prepares to watch the directory `root` by `rules`. With `one_file_system`, mounts below it are left out.
    #[cfg(any(
        target_os = "macos",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly"
    ))]
    pub fn new(root: &Path, rules: Arc<IgnoreRules>, one_file_system: bool) -> Result<Self> {
        let (asker, woken) = Asker::new()?;
        let kernel = system::System::new(woken)
            .map_err(|error| Error::io("make a kernel event queue for", root, error))?;
        Self::on(Box::new(kernel), asker, Pool::of_process(), root, rules, one_file_system)
    }

    fn on(
        kernel: Box<dyn Kernel>,
        asker: Asker,
        pool: Arc<Pool>,
        root: &Path,
        rules: Arc<IgnoreRules>,
        one_file_system: bool,
    ) -> Result<Self> {
        Ok(Self {
            place: RootPlace::new(root)?,
            one_file_system,
            rules,
            kernel,
            asker: Arc::new(asker),
            tree: Tree::default(),
            budget: Budget::new(pool),
            dirty: BTreeSet::new(),
            recheck: BTreeSet::new(),
            pending: BTreeSet::new(),
            closed: BTreeSet::new(),
            round: 0,
            listing: 0,
            left: None,
            counting: (0, Instant::now()),
            sweep: Sweep::new(),
            events: Vec::new(),
        })
    }

    /// Lists everything and gives descriptors to what has none, as far as they go.
    fn walk_all(&mut self, progress: &Progress) -> Result<()> {
        self.round += 1;
        self.rules.forget(&RelPath::root());
        self.recheck.clear();
        self.closed.retain(|id| self.tree.get(*id).is_some());
        let root = match self.tree.root() {
            Some(root) => root,
            None => self.watch_root()?,
        };
        for id in self.tree.subtree(root) {
            let retried = self.tree.entries(id, |_, entry| {
                matches!(
                    entry.state,
                    State::Foreign
                        | State::Compared(_, Reason::Closed | Reason::Refused | Reason::Beyond { .. })
                )
            });
            for (name, _) in retried {
                let taken = self.tree.take_entry(id, &name);
                self.let_go(taken);
            }
            self.dirty.insert(id);
            self.recheck.insert(id);
        }
        // Whoever asked for the walk scans afterwards.
        let mut unheard = Vec::new();
        self.settle(true, progress, &mut unheard)
    }

    /// Lets go of descriptors whose place is gone.
    fn let_go(&mut self, taken: Taken) {
        for handle in taken.directories {
            self.kernel.remove(handle);
            self.budget.give_back_directory();
        }
        for handle in taken.files {
            self.kernel.remove(handle);
            self.budget.give_back_file();
        }
    }

    fn open_below(&self, path: &RelPath, flags: OFlags) -> Result<rustix::io::Result<OwnedFd>> {
        let root = self.place.open()?;
        Ok(crate::beneath::open::open(root.as_fd(), path, flags))
    }

    /// How long nothing is due.
    fn idle_time(&self, now: Instant) -> Duration {
        let mut idle = ROOT_CHECK.min(self.sweep.pause_left(now));
        for id in &self.dirty {
            let rests = self.tree.get(*id).and_then(|directory| directory.rest_until);
            idle = idle.min(rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)));
        }
        idle
    }
}

/// Device and inode.
// The widths of struct stat differ by platform.
#[allow(clippy::unnecessary_cast)]
fn identity_in(stat: &rustix::fs::Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

impl Backend for KqueueBackend {
    fn name(&self) -> &'static str {
        "kqueue"
    }

    fn start(&mut self, progress: &Progress) -> Result<()> {
        self.walk_all(progress)
    }

    fn resync(&mut self, progress: &Progress) -> Result<()> {
        self.walk_all(progress)
    }

    fn wait(&mut self, timeout: Duration, hints: &mut Vec<Hint>) -> Result<()> {
        let from = hints.len();
        let end = Instant::now().checked_add(timeout);
        loop {
            self.round += 1;
            self.place.check(hints);
            // Taken before the events are read: what happened before the asking is pending by now.
            let barriers = self.asker.take();
            let now = Instant::now();
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
            let is_urgent = !barriers.is_empty() || hints.len() > from;
            let slice = if is_urgent { Duration::ZERO } else { left.min(self.idle_time(now)) };
            let mut events = std::mem::take(&mut self.events);
            let waited = self.kernel.wait(slice, &mut events);
            for event in events.drain(..) {
                self.take(event, hints);
            }
            self.events = events;
            let woken = match waited {
                Ok(woken) => woken,
                Err(error) => {
                    self.asker.put_back(barriers);
                    return Err(Error::io("wait for events of", self.place.path(), error));
                }
            };
            let settled = self.bring_up_to_date(!barriers.is_empty(), hints);
            hints.extend(barriers.into_iter().map(Hint::Barrier));
            self.place.unless_lost(settled, hints)?;
            if woken || hints.len() > from || left.is_zero() {
                return Ok(());
            }
        }
    }

    fn stats(&self) -> WatchStats {
        let mut missing = self.tree.missing();
        if self.left.is_some() {
            (missing.refused_directories, missing.directories, missing.files_below) = (0, 0, 0);
        }
        let closed = self.closed.iter().filter(|id| self.tree.get(**id).is_some()).count();
        let unwatched =
            usize::try_from(missing.closed_directories + missing.refused_directories + missing.directories);
        let wanting = Wanting {
            directories: missing.directories,
            files_below: missing.files_below,
            files: missing.files,
            are_polled: false,
        };
        WatchStats {
            watches: self.tree.len(),
            unwatched: unwatched.unwrap_or(usize::MAX).saturating_add(closed),
            overflows: 0,
            limited: wanting.is_anything().then(|| self.budget.pool().sentence(&wanting)),
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.asker) as Arc<dyn Control>
    }
}
