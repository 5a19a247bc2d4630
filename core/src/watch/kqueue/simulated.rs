//! A kernel that behaves like kqueue(2) as far as [`Kernel`] goes, made of inotify: for tests on Linux.
//!
//! What it models, and how. Each descriptor is a watch of its inode; several handles may share one.
//!
//! - A directory gets `NOTE_WRITE` when an entry is made, removed or renamed in it, `NOTE_LINK` too if that is a
//!   directory; no name comes along, and changes of its entries' contents and modes are swallowed, as their own
//!   descriptors are told.
//! - A file gets `NOTE_WRITE` and `NOTE_EXTEND` for each write or truncation.
//! - `NOTE_ATTRIB` for mode, owner, times. Where the number of names fell, `NOTE_DELETE` and `NOTE_LINK` instead,
//!   as macOS and FreeBSD say it for any name that is removed; where it grew, `NOTE_LINK`.
//! - `NOTE_RENAME` for what was moved itself, not for what is below it. `NOTE_REVOKE` at an unmount.
//! - All notes of a handle that are pending at a look are one event. They are there when the call that caused
//!   them returns, as inotify queues its events before.
//!
//! What it cannot: the order among handles is that of the first note, as in the kernels, but within one look
//! only. A file keeps its descriptor (by path only), which tells the number of names and keeps its inode from
//! being used again; a directory does not, because Linux says nothing of the removal of one that is open. Should
//! inotify lose events, everything is noted as written, which a kqueue never needs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};

use super::control;
use super::kernel::{Event, Handle, Kernel, Notes, merge};

type Watch = i32;

pub(super) struct Simulated {
    inotify: Inotify,
    woken: UnixStream,
    watched: HashMap<Watch, Vec<Handle>>,
    places: HashMap<Handle, Place>,
    /// Added since the last commit; deaf until then.
    fresh: Vec<(Handle, OwnedFd)>,
    /// Inodes that are refused, as those of some file systems are.
    pub refused: Vec<u64>,
}

struct Place {
    watch: Watch,
    /// A file, and how many names it had at the last look.
    file: Option<(OwnedFd, u64)>,
}

impl Simulated {
    pub fn new(woken: UnixStream) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        Ok(Self {
            inotify,
            woken,
            watched: HashMap::new(),
            places: HashMap::new(),
            fresh: Vec::new(),
            refused: Vec::new(),
        })
    }

    fn register(&mut self, handle: Handle, descriptor: OwnedFd) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&descriptor)?;
        if self.refused.contains(&stat.st_ino) {
            return Ok(false);
        }
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let own = WatchMask::ATTRIB | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        let (mask, path) = if is_dir {
            let entries = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO;
            (own | entries, format!("/proc/self/fd/{}/.", descriptor.as_raw_fd()))
        } else {
            (own | WatchMask::MODIFY, format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
        };
        let watch = self.inotify.watches().add(path, mask)?.get_watch_descriptor_id();
        let file = (!is_dir).then_some((descriptor, stat.st_nlink));
        self.watched.entry(watch).or_default().push(handle);
        self.places.insert(handle, Place { watch, file });
        Ok(true)
    }

    fn note(&mut self, watch: Watch, mask: EventMask, is_named: bool, events: &mut Vec<Event>) {
        let Some(handles) = self.watched.get(&watch).cloned() else { return };
        if mask.contains(EventMask::IGNORED) {
            self.watched.remove(&watch);
            return;
        }
        for handle in handles {
            if let Some(notes) = self.notes_for(handle, mask, is_named) {
                merge(events, 0, Event { handle, notes });
            }
        }
    }

    fn notes_for(&mut self, handle: Handle, mask: EventMask, is_named: bool) -> Option<Notes> {
        if is_named {
            let entries = EventMask::CREATE | EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO;
            let of_directory = mask.contains(EventMask::ISDIR);
            let notes = if of_directory { Notes::WRITE | Notes::LINK } else { Notes::WRITE };
            return mask.intersects(entries).then_some(notes);
        }
        if mask.contains(EventMask::ATTRIB) {
            let Some((file, names)) = self.places.get_mut(&handle)?.file.as_mut() else {
                return Some(Notes::ATTRIB);
            };
            let now = rustix::fs::fstat(file).map_or(0, |stat| stat.st_nlink);
            let before = std::mem::replace(names, now);
            return Some(match now.cmp(&before) {
                std::cmp::Ordering::Less => Notes::DELETE | Notes::LINK,
                std::cmp::Ordering::Equal => Notes::ATTRIB,
                std::cmp::Ordering::Greater => Notes::LINK,
            });
        }
        let kinds = [
            (EventMask::MODIFY, Notes::WRITE | Notes::EXTEND),
            (EventMask::DELETE_SELF, Notes::DELETE),
            (EventMask::MOVE_SELF, Notes::RENAME),
            (EventMask::UNMOUNT, Notes::REVOKE),
        ];
        kinds.into_iter().find(|(kind, _)| mask.contains(*kind)).map(|(_, notes)| notes)
    }
}

impl Kernel for Simulated {
    fn open_flags(&self) -> OFlags {
        OFlags::RDONLY
    }

    fn add(&mut self, handle: Handle, descriptor: OwnedFd) -> io::Result<()> {
        self.fresh.push((handle, descriptor));
        Ok(())
    }

    fn commit(&mut self) -> io::Result<Vec<Handle>> {
        let mut refused = Vec::new();
        for (handle, descriptor) in std::mem::take(&mut self.fresh) {
            if !self.register(handle, descriptor)? {
                refused.push(handle);
            }
        }
        Ok(refused)
    }

    fn remove(&mut self, handle: Handle) {
        self.fresh.retain(|(fresh, _)| *fresh != handle);
        let Some(place) = self.places.remove(&handle) else { return };
        let Some(handles) = self.watched.get_mut(&place.watch) else { return };
        handles.retain(|other| *other != handle);
        if handles.is_empty() {
            self.watched.remove(&place.watch);
            let _ = rustix::fs::inotify::remove_watch(self.inotify.as_fd(), place.watch);
        }
    }

    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<bool> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut told = Vec::new();
            match self.inotify.read_events(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => told.extend(
                    read.map(|event| (event.wd.get_watch_descriptor_id(), event.mask, event.name.is_some())),
                ),
            }
            for (watch, mask, is_named) in told {
                if mask.contains(EventMask::Q_OVERFLOW) {
                    let all: Vec<Handle> = self.places.keys().copied().collect();
                    for handle in all {
                        merge(events, 0, Event { handle, notes: Notes::WRITE | Notes::ATTRIB });
                    }
                } else {
                    self.note(watch, mask, is_named, events);
                }
            }
        }
        Ok(control::drain(&self.woken))
    }
}
