//! The real kernel, by the `kqueue` crate.
//!
//! Adding to a queue of that crate means to register everything in it again, and each event costs a search
//! through it. So the descriptors are spread over many small queues, which one more queue, the lobby, waits on
//! together with the waker: a queue is readable while it has events.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kqueue::{EventData, EventFilter, FilterFlag, Ident, Vnode, Watcher};
use rustix::fs::OFlags;

use super::control;
use super::kernel::{Event, Handle, Kernel, Notes, merge};

/// Descriptors in one queue.
const SHARD_SIZE: usize = 256;
/// The crate hands out each note of a descriptor by itself; there are fewer kinds than this.
const MOST_NOTES: usize = 12;

struct Shard {
    queue: Watcher,
    /// What the numbers of its descriptors stand for. The descriptors are ours to close, once they are removed.
    watched: HashMap<RawFd, (Handle, OwnedFd)>,
    /// Added since the last commit.
    fresh: Vec<RawFd>,
}

pub(super) struct System {
    lobby: Watcher,
    shards: Vec<Shard>,
    places: HashMap<Handle, (usize, RawFd)>,
    /// Shards with something fresh.
    touched: Vec<usize>,
    /// Shards with room.
    open: Vec<usize>,
    woken: UnixStream,
}

impl System {
    pub fn new(woken: UnixStream) -> io::Result<Self> {
        let mut lobby = Watcher::new()?;
        // A queue stays readable until it was read to its end.
        lobby.disable_clears();
        lobby.add_fd(woken.as_raw_fd(), EventFilter::EVFILT_READ, FilterFlag::empty())?;
        lobby.watch()?;
        Ok(Self {
            lobby,
            shards: Vec::new(),
            places: HashMap::new(),
            touched: Vec::new(),
            open: Vec::new(),
            woken,
        })
    }

    fn shard_with_room(&mut self) -> io::Result<usize> {
        while let Some(last) = self.open.last() {
            if self.shards.get(*last).is_some_and(|shard| shard.watched.len() < SHARD_SIZE) {
                return Ok(*last);
            }
            self.open.pop();
        }
        let queue = Watcher::new()?;
        self.lobby.add_fd(queue.as_raw_fd(), EventFilter::EVFILT_READ, FilterFlag::empty())?;
        self.lobby.watch()?;
        self.shards.push(Shard { queue, watched: HashMap::new(), fresh: Vec::new() });
        self.open.push(self.shards.len() - 1);
        Ok(self.shards.len() - 1)
    }
}

impl Kernel for System {
    fn open_flags(&self) -> OFlags {
        // Neither needs permission to read, nor keeps a disk from being unmounted where the system can say so.
        #[cfg(target_os = "macos")]
        let flags = OFlags::from_bits_retain(0x8000); // O_EVTONLY of <fcntl.h>
        #[cfg(target_os = "freebsd")]
        let flags = OFlags::PATH;
        #[cfg(not(any(target_os = "macos", target_os = "freebsd")))]
        let flags = OFlags::RDONLY;
        flags
    }

    fn add(&mut self, handle: Handle, descriptor: OwnedFd) -> io::Result<()> {
        let index = self.shard_with_room()?;
        let Some(shard) = self.shards.get_mut(index) else { return Ok(()) };
        let number = descriptor.as_raw_fd();
        shard.queue.add_fd(number, EventFilter::EVFILT_VNODE, wanted_notes())?;
        shard.watched.insert(number, (handle, descriptor));
        shard.fresh.push(number);
        self.places.insert(handle, (index, number));
        self.touched.push(index);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<Vec<Handle>> {
        let mut refused = Vec::new();
        self.touched.sort_unstable();
        self.touched.dedup();
        for index in std::mem::take(&mut self.touched) {
            let Some(shard) = self.shards.get_mut(index) else { continue };
            let fresh = std::mem::take(&mut shard.fresh);
            if shard.queue.watch().is_ok() {
                continue;
            }
            // The call stops at the first that is refused and does not say which: try them one by one.
            for number in &fresh {
                let _ = shard.queue.remove_fd(*number, EventFilter::EVFILT_VNODE);
            }
            for number in fresh {
                let Some((handle, _)) = shard.watched.get(&number) else { continue };
                let handle = *handle;
                shard.queue.add_fd(number, EventFilter::EVFILT_VNODE, wanted_notes())?;
                if shard.queue.watch().is_err() {
                    let _ = shard.queue.remove_fd(number, EventFilter::EVFILT_VNODE);
                    shard.watched.remove(&number);
                    self.places.remove(&handle);
                    refused.push(handle);
                }
            }
        }
        Ok(refused)
    }

    fn remove(&mut self, handle: Handle) {
        let Some((index, number)) = self.places.remove(&handle) else { return };
        let Some(shard) = self.shards.get_mut(index) else { return };
        // A failure means that the kernel has let go already.
        let _ = shard.queue.remove_fd(number, EventFilter::EVFILT_VNODE);
        shard.fresh.retain(|fresh| *fresh != number);
        shard.watched.remove(&number);
        if !self.open.contains(&index) {
            self.open.push(index);
        }
    }

    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<bool> {
        // Which queue is readable does not matter: a look at one that is empty costs little.
        if let Some(event) = self.lobby.poll(Some(timeout))
            && let EventData::Error(error) = event.data
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for shard in &self.shards {
            let from = events.len();
            // Bounded, because what is read may be noted again: the queue is in the order of the first note, so
            // this many hold everything that was pending at the first look.
            for _ in 0..=shard.watched.len() * MOST_NOTES {
                let Some(event) = shard.queue.poll(None) else { break };
                match (event.ident, event.data) {
                    (Ident::Fd(number), EventData::Vnode(vnode)) => {
                        if let Some((handle, _)) = shard.watched.get(&number) {
                            merge(events, from, Event { handle: *handle, notes: notes_of(&vnode) });
                        }
                    }
                    (_, EventData::Error(error)) if error.kind() != io::ErrorKind::Interrupted => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(control::drain(&self.woken))
    }
}

fn notes_of(vnode: &Vnode) -> Notes {
    match vnode {
        Vnode::Write | Vnode::Truncate => Notes::WRITE,
        Vnode::Extend => Notes::EXTEND,
        Vnode::Attrib => Notes::ATTRIB,
        Vnode::Link => Notes::LINK,
        Vnode::Rename => Notes::RENAME,
        Vnode::Revoke => Notes::REVOKE,
        Vnode::Delete => Notes::DELETE,
        // Not asked for; a look costs little.
        _ => Notes::ATTRIB,
    }
}

fn wanted_notes() -> FilterFlag {
    FilterFlag::NOTE_WRITE
        | FilterFlag::NOTE_EXTEND
        | FilterFlag::NOTE_ATTRIB
        | FilterFlag::NOTE_DELETE
        | FilterFlag::NOTE_RENAME
        | FilterFlag::NOTE_LINK
        | FilterFlag::NOTE_REVOKE
}
