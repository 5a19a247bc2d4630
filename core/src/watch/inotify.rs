//! Watching by inotify: one instance a root, one watch a directory that the ignore rules let in.
//!
//! In go the kernel's events, out come hints. Events of one instance are ordered, which barriers rely on
//! (`sentinel`). What has to be kept right is which watch stands for which path (`table`) and that every
//! directory has its watch (`walk`): a directory may be filled before its watch exists, so it is watched
//! first and listed then. Events tell of the past, the disk of the present; where they contradict each other
//! a later event settles it, so a stale one may cost a look but loses nothing:
//!
//! - A directory is made: watch it and all below, and hint all below, not what was found there: who looked at
//!   an earlier directory of that name has to learn what is no longer in it.
//! - It is moved away: detached until the second event of the rename tells where to; if that does not come, it
//!   left the tree and its watches are dropped. Where it arrives everything is hinted and walked, because other
//!   rules may hold there.
//! - It is deleted: dropped at once, not when the kernel says so, which it delays while somebody has it open.
//! - An ignore file changes: everything at and below its directory is hinted, and its watches are adjusted.
//! - Events are lost: everything is hinted, all pending barriers are passed, and all watches are checked.
//!
//! No descriptor of the root is kept, because a directory that is held open does not tell that it was deleted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::place::{ROOT_CHECK, RootPlace};
use super::{Backend, Control, Hint, WatchStats};
use crate::error::{Error, Kind, Result};
use crate::ignore::{IgnoreRules, Scope};
use crate::path::RelPath;
use crate::progress::Progress;

mod events;
pub(super) mod left;
mod limits;
mod sentinel;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use left::{Devices, Left};
use sentinel::Sentinel;
use table::{Table, Watch};

/// One read takes at most this much: about 4,000 events with short names.
const BUFFER_BYTES: usize = 128 * 1024;
/// How long the second event of a rename may lag behind the first: the kernel queues them one after the other.
const RENAME_GAP: Duration = Duration::from_millis(20);
/// How long to leave alone what failed, such as a walk for which there were no descriptors.
const RETRY: Duration = Duration::from_secs(1);

/// Watches one root.
pub struct InotifyBackend {
    place: RootPlace,
    one_file_system: bool,
    rules: Arc<IgnoreRules>,
    inotify: Inotify,
    table: Table,
    root_watch: Option<Watch>,
    sentinel: Arc<Sentinel>,
    sentinel_watch: Option<Watch>,
    /// Directories between the two events of a rename, by the events' cookie, with the round they left in.
    leaving: HashMap<u32, (Watch, u64)>,
    /// Reads so far.
    round: u64,
    /// Walks so far: what a walk saw is stamped with it.
    walk: u32,
    /// Directories whose ignore file changed in this read.
    changed_rules: BTreeSet<RelPath>,
    /// All watches have to be checked: events were lost, or a walk failed.
    resync_needed: bool,
    /// What failed is not tried again before this.
    retry_at: Instant,
    /// Directories without a watch for lack of watches, and those that cannot be read, by [`walk::key_of`].
    exhausted: HashSet<u64>,
    unreadable: HashSet<u64>,
    /// What somebody else polls; none if nobody does.
    left: Option<Left>,
    devices: Devices,
    /// Kinds of file systems in the tree that do not tell of every change and that nobody polls.
    silent: BTreeSet<String>,
    /// Why events may not come at all.
    warning: Option<String>,
    overflows: u64,
    /// Where the last event happened: most come in rows from one directory.
    here: Option<(Watch, Scope)>,
    buffer: Vec<u8>,
}

impl InotifyBackend {
    /// Prepares to watch the directory `root` by `rules`. `sentinel_directory` lies outside of it, belongs to
    /// this instance alone and is made if need be. With `one_file_system`, mounts below the root are left out.
    pub fn new(
        root: &Path,
        rules: Arc<IgnoreRules>,
        sentinel_directory: &Path,
        one_file_system: bool,
    ) -> Result<Self> {
        let place = RootPlace::new(root)?;
        let sentinel = Arc::new(Sentinel::new(sentinel_directory)?);
        let inotify = Inotify::init().map_err(|error| limits::no_instance(root, error))?;
        let mut backend = Self {
            place,
            one_file_system,
            rules,
            inotify,
            table: Table::default(),
            root_watch: None,
            sentinel,
            sentinel_watch: None,
            leaving: HashMap::new(),
            round: 0,
            walk: 0,
            changed_rules: BTreeSet::new(),
            resync_needed: false,
            retry_at: Instant::now(),
            exhausted: HashSet::new(),
            unreadable: HashSet::new(),
            left: None,
            devices: Devices::default(),
            silent: BTreeSet::new(),
            warning: None,
            overflows: 0,
            here: None,
            buffer: vec![0; BUFFER_BYTES],
        };
        backend.watch_sentinel()?;
        Ok(backend)
    }

    /// A sentence for [`WatchStats::limited`]: why events may not come at all.
    pub(super) fn set_warning(&mut self, warning: Option<String>) {
        self.warning = warning;
    }

    /// Sees whether the kernel tells of a change at all: of one in the sentinel's directory, which is ours.
    pub(super) fn self_test(&mut self, patience: Duration) -> Result<()> {
        const TOKEN: u64 = u64::MAX;
        self.sentinel.barrier(TOKEN)?;
        let end = Instant::now() + patience;
        let mut hints = Vec::new();
        while !hints.contains(&Hint::Barrier(TOKEN)) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.sentinel.all_passed();
                let directory = crate::path::lossy(self.sentinel.directory().as_os_str().as_encoded_bytes());
                let text =
                    format!("inotify did not tell of a change that was made in {directory} to test it");
                return Err(Error::new(Kind::Io, text));
            }
            let ready = self
                .poll(left)
                .map_err(|error| Error::io("wait for events of", self.sentinel.directory(), error))?;
            if ready.events {
                self.read(&mut hints)?;
            }
        }
        Ok(())
    }

    fn watch_sentinel(&mut self) -> Result<()> {
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        let added = self.inotify.watches().add(self.sentinel.directory(), mask);
        let watch = added.map_err(|error| {
            if limits::is_exhausted(&error) {
                Error::with_source(Kind::Limit, limits::too_few_watches(1), error)
            } else {
                Error::io("watch", self.sentinel.directory(), error)
            }
        })?;
        self.sentinel_watch = Some(watch.get_watch_descriptor_id());
        Ok(())
    }

    /// The sentinel's directory was removed or moved: make another and let nobody wait in vain.
    fn restore_sentinel(&mut self) -> Result<()> {
        self.sentinel.make_again()?;
        self.watch_sentinel()?;
        self.sentinel.repeat()
    }

    /// Lets go of a watch. The kernel may have done so already.
    fn unwatch(&self, watches: impl IntoIterator<Item = Watch>) {
        for watch in watches {
            let _ = rustix::fs::inotify::remove_watch(self.inotify.as_fd(), watch);
        }
    }

    /// Waits for the kernel or the waker.
    fn poll(&self, timeout: Duration) -> io::Result<Ready> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.sentinel.waker(), PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Ready { events: !fds[0].revents().is_empty(), woken: !fds[1].revents().is_empty() })
    }

    /// Reads once and turns what was read into hints.
    fn read(&mut self, hints: &mut Vec<Hint>) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = loop {
            match self.inotify.read_events(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(Error::io("read the events of", self.place.path(), error)),
                Ok(events) => {
                    self.round += 1;
                    let mut outcome = Ok(());
                    for event in events {
                        outcome = outcome.and(self.take(&event, hints));
                    }
                    break outcome;
                }
            }
        };
        self.buffer = buffer;
        outcome
    }

    /// What reads left to do: watches to adjust, directories that did not arrive anywhere.
    fn settle(&mut self, hints: &mut Vec<Hint>) -> Result<()> {
        if self.place.is_gone() || Instant::now() < self.retry_at {
            return Ok(());
        }
        let outcome = self.settle_now(hints);
        if outcome.is_err() {
            self.retry_at = Instant::now() + RETRY;
        }
        outcome
    }

    fn settle_now(&mut self, hints: &mut Vec<Hint>) -> Result<()> {
        let sentinel = if self.sentinel_watch.is_none() { self.restore_sentinel() } else { Ok(()) };
        if self.resync_needed {
            self.changed_rules.clear();
            return self.walk_all(&Progress::new()).and(sentinel);
        }
        while let Some(directory) = self.changed_rules.pop_first() {
            if let Err(error) = self.follow_rules(&directory, hints) {
                self.resync_needed = true;
                return Err(error);
            }
        }
        sentinel
    }

    /// Drops what left its place before `round` and arrived nowhere: it is outside the tree.
    fn drop_departed(&mut self, round: u64) {
        let departed: Vec<Watch> =
            self.leaving.extract_if(|_, (_, left)| *left < round).map(|(_, (watch, _))| watch).collect();
        for watch in departed {
            // It may have been found again by a walk meanwhile.
            if self.table.path(watch).is_none() {
                let removed = self.table.remove(watch);
                self.unwatch(removed);
            }
        }
    }
}

/// What is wrong, in sentences.
impl InotifyBackend {
    fn limited(&self) -> Option<String> {
        let mut sentences: Vec<String> = self.warning.iter().cloned().collect();
        if !self.silent.is_empty() {
            let kinds: Vec<&str> = self.silent.iter().map(String::as_str).collect();
            sentences.push(format!(
                "parts of the root are on {}, which does not tell of changes that are made elsewhere: these are \
                 found by the next rescan only; `backend: auto` polls such parts",
                kinds.join(" and ")
            ));
        }
        if !self.exhausted.is_empty() {
            sentences.push(limits::too_few_watches(self.exhausted.len()));
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

struct Ready {
    events: bool,
    woken: bool,
}

impl Backend for InotifyBackend {
    fn name(&self) -> &'static str {
        "inotify"
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
            self.place.check(hints);
            let settled = self.settle(hints);
            self.place.unless_lost(settled, hints)?;
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let slice = if self.leaving.is_empty() { ROOT_CHECK } else { RENAME_GAP };
            let ready = self
                .poll(left.min(slice))
                .map_err(|error| Error::io("wait for events of", self.place.path(), error))?;
            if ready.events {
                let read = self.read(hints);
                let read = self.place.unless_lost(read, hints);
                self.drop_departed(self.round);
                let settled = self.settle(hints);
                read.and(self.place.unless_lost(settled, hints))?;
            } else if left >= slice && !self.leaving.is_empty() && !ready.woken {
                self.drop_departed(u64::MAX);
            }
            if ready.woken {
                self.sentinel.awake();
            }
            if ready.woken || hints.len() > from || left.is_zero() {
                return Ok(());
            }
        }
    }

    fn stats(&self) -> WatchStats {
        WatchStats {
            watches: self.table.len(),
            unwatched: self.exhausted.len() + self.unreadable.len(),
            overflows: self.overflows,
            limited: self.limited(),
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.sentinel) as Arc<dyn Control>
    }
}
