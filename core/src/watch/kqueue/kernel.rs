//! What the bookkeeping needs of the kernel, and nothing more: so that it can run against a simulated one.
//!
//! In go open descriptors, each under a [`Handle`]; out come [`Event`]s: which handle, and what happened. What
//! every implementation keeps to, as kqueue(2) does with `EVFILT_VNODE` and `EV_CLEAR`:
//!
//! - A note belongs to the file or directory that was opened, wherever it is moved.
//! - Nothing tells a name. A directory gets [`Notes::WRITE`] when an entry is made, removed or renamed in it, and
//!   nothing when the content or mode of an entry changes: the entry's own descriptor gets that.
//! - Notes of one descriptor are merged until they are read; so no queue overflows, and nothing is lost.
//! - A note is there when the system call that caused it returns. Barriers rely on this.
//! - There is no note for the end of writing, and none for what is written through a memory map.

use std::io;
use std::ops::BitOr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::OFlags;

/// Stands for a watched descriptor. No two are ever equal, so a late event of a closed one meets nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Handle(pub u64);

/// What happened, as the `NOTE_` flags of kqueue(2) say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notes(u8);

impl Notes {
    /// Content written; in a directory, an entry made, removed or renamed.
    pub const WRITE: Self = Self(1);
    /// It grew.
    pub const EXTEND: Self = Self(2);
    /// Mode, owner, times or extended attributes changed.
    pub const ATTRIB: Self = Self(4);
    /// One of its names was removed; the last one or, by some kernels, any.
    pub const DELETE: Self = Self(8);
    /// It has another name or stands elsewhere.
    pub const RENAME: Self = Self(16);
    /// The number of its names changed; in a directory, that of its subdirectories.
    pub const LINK: Self = Self(32);
    /// Its file system was unmounted, or it was revoked.
    pub const REVOKE: Self = Self(64);

    pub fn has_any_of(self, others: Notes) -> bool {
        self.0 & others.0 != 0
    }
}

impl BitOr for Notes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Something happened to what `handle` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub handle: Handle,
    pub notes: Notes,
}

/// The kernel, real or simulated.
pub(super) trait Kernel: Send {
    /// How to open what is to be watched; links are never followed, whatever this says.
    fn open_flags(&self) -> OFlags;

    /// Takes a descriptor to be watched from the next [`Kernel::commit`] on.
    fn add(&mut self, handle: Handle, descriptor: OwnedFd) -> io::Result<()>;

    /// Makes what was added watched, and returns what cannot be watched, which it has let go of.
    fn commit(&mut self) -> io::Result<Vec<Handle>>;

    /// Lets go of a descriptor. Unknown ones are ignored.
    fn remove(&mut self, handle: Handle);

    /// Waits for an event, the waker or the end of `timeout`, then adds all events that were pending when it
    /// looked, at most one a handle. Returns whether the waker was used.
    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<bool>;
}

/// Adds an event, merged with one of the same handle that is there already.
pub(super) fn merge(events: &mut Vec<Event>, from: usize, event: Event) {
    match events[from..].iter_mut().find(|known| known.handle == event.handle) {
        Some(known) => known.notes = known.notes | event.notes,
        None => events.push(event),
    }
}
