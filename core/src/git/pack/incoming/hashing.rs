//! Names for the objects that stand whole in a pack, found by a second thread while the first one inflates.
//!
//! In: inflated bytes, object after object, of any size. Out: the name of each, and what they link to if somebody wants to
//! know. Bytes go from thread to thread in batches of one size, of which there are few, so memory is flat; only trees and
//! commits that do not fit one are put together again, and only where links are wanted.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use git2::Oid;

use super::super::object::{ObjectHasher, ObjectKind, hash_object};
use super::links::Links;
use crate::error::{Error, Kind, Result};
use crate::git::contents::MOST_HELD_BYTES;

/// What goes from thread to thread at once.
const BATCH_BYTES: usize = 1024 * 1024;
/// An inflater is fastest while it has more room than it needs.
const LEAST_ROOM: usize = 4 * 1024;
/// Batches that wait.
const BATCHES: usize = 4;

/// Inflated bytes of one object, or a part of it.
struct Part {
    entry: u32,
    kind: ObjectKind,
    /// Of the whole object.
    size: u64,
    length: usize,
    is_last: bool,
}

struct Batch {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl Batch {
    fn new() -> Self {
        Self { bytes: vec![0; BATCH_BYTES], parts: Vec::new() }
    }
}

/// What was found out.
#[derive(Default)]
pub(super) struct Named {
    /// By the number of the entry.
    pub(super) names: Vec<(u32, Oid)>,
    /// What they need, if that was wanted.
    pub(super) links: Option<Links>,
    unfinished: Option<(ObjectHasher, Vec<u8>)>,
}

/// The way to the thread that hashes.
pub(super) struct Hashing {
    batch: Batch,
    filled: usize,
    /// Where the part that is being inflated begins.
    begin: usize,
    /// Without a second thread, the names so far.
    here: Named,
    there: Option<There>,
}

struct There {
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    thread: JoinHandle<Result<Named>>,
}

impl Hashing {
    pub(super) fn begin(wants_links: bool) -> Self {
        let named = || Named { links: wants_links.then(Links::default), ..Named::default() };
        let (full, to_hash) = sync_channel::<Batch>(BATCHES);
        let (hashed, empty) = channel();
        let mut there = named();
        let work = move || {
            for mut batch in to_hash {
                there.take(&batch)?;
                batch.parts.clear();
                // Nobody wants it back at the end.
                let _ = hashed.send(batch);
            }
            Ok(there)
        };
        // Where no thread can be had it is done here.
        let thread = std::thread::Builder::new().name("bb-hashing".to_owned()).spawn(work).ok();
        let there = thread.map(|thread| There { full, empty, thread });
        Self { batch: Batch::new(), filled: 0, begin: 0, here: named(), there }
    }

    /// Where the next bytes of the object that is being inflated go; more room than they may take.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.batch.bytes[self.filled..]
    }

    /// So many bytes were put there.
    pub(super) fn filled(&mut self, bytes: usize, entry: u32, kind: ObjectKind, size: u64) -> Result<()> {
        self.filled += bytes;
        if self.batch.bytes.len() - self.filled < LEAST_ROOM {
            if self.filled > self.begin {
                self.part(entry, kind, size, false);
            }
            self.hand_over()?;
        }
        Ok(())
    }

    /// The object has ended.
    pub(super) fn end(&mut self, entry: u32, kind: ObjectKind, size: u64) {
        self.part(entry, kind, size, true);
    }

    fn part(&mut self, entry: u32, kind: ObjectKind, size: u64, is_last: bool) {
        let length = self.filled - self.begin;
        self.batch.parts.push(Part { entry, kind, size, length, is_last });
        self.begin = self.filled;
    }

    fn hand_over(&mut self) -> Result<()> {
        (self.filled, self.begin) = (0, 0);
        let Some(there) = &self.there else {
            self.here.take(&self.batch)?;
            self.batch.parts.clear();
            return Ok(());
        };
        let next = match there.empty.try_recv() {
            Ok(batch) => batch,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Batch::new(),
        };
        let batch = std::mem::replace(&mut self.batch, next);
        match there.full.send(batch) {
            Ok(()) => Ok(()),
            // It has ended before its time, with an error.
            Err(_) => self.join().and_then(|_| Err(Error::new(Kind::Internal, "hashing ended too early"))),
        }
    }

    fn join(&mut self) -> Result<Named> {
        let Some(There { full, thread, .. }) = self.there.take() else {
            return Ok(std::mem::take(&mut self.here));
        };
        drop(full);
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the thread that hashes a pack panicked")))
    }

    /// The names of all objects.
    pub(super) fn finish(mut self) -> Result<Named> {
        self.hand_over()?;
        self.join()
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        // No thread of ours outlives what it works for.
        let _ = self.join();
    }
}

impl Named {
    fn take(&mut self, batch: &Batch) -> Result<()> {
        let mut rest = batch.bytes.as_slice();
        for part in &batch.parts {
            let (bytes, behind) = rest.split_at(part.length);
            rest = behind;
            self.take_part(part, bytes)?;
        }
        Ok(())
    }

    fn take_part(&mut self, part: &Part, bytes: &[u8]) -> Result<()> {
        if part.is_last && self.unfinished.is_none() {
            self.names.push((part.entry, hash_object(part.kind, bytes)?));
            return self.link(part.kind, bytes);
        }
        let unfinished = self.unfinished.take();
        let (mut hasher, mut kept) =
            unfinished.unwrap_or_else(|| (ObjectHasher::new(part.kind, part.size), Vec::new()));
        hasher.update(bytes)?;
        if self.links.is_some() && part.kind != ObjectKind::Blob {
            if part.size > MOST_HELD_BYTES {
                let text = format!("the pack holds a {} of {} bytes", part.kind.as_str(), part.size);
                return Err(Error::new(Kind::Git, text));
            }
            kept.extend_from_slice(bytes);
        }
        if part.is_last {
            self.names.push((part.entry, hasher.finish()?));
            return self.link(part.kind, &kept);
        }
        self.unfinished = Some((hasher, kept));
        Ok(())
    }

    fn link(&mut self, kind: ObjectKind, data: &[u8]) -> Result<()> {
        match &mut self.links {
            Some(links) => links.take(kind, data),
            None => Ok(()),
        }
    }
}
