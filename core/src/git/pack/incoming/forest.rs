//! Objects out of deltas: every whole object of a pack with all that is made from it is a tree, and the trees are gone
//! through by all cores, each depth first.
//!
//! In: the table of a pack that has come whole, and its file. Out: the names of all objects that can be made. What rests on
//! itself or on an object that is elsewhere is reached from no whole object and gets no name.
//!
//! An object that others are still to be made from is kept, within [`KEPT_BYTES`] a thread; what does not fit is made again
//! when it is needed. No single one may be larger than [`MOST_HELD_BYTES`], and one thread at a time has large ones. How
//! deep a chain is and how much is made in all has a limit, too: a pack of a kilobyte can ask for a year's work.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use git2::Oid;
use libdeflater::Decompressor;

use super::super::header::{MAX_HEADER_BYTES, decode_entry_header};
use super::super::object::{ObjectKind, hash_object};
use super::damaged;
use super::links::Links;
use super::patch::{announced, patch};
use super::scan::Scanned;
use crate::error::{Error, Kind, Result};
use crate::git::contents::MOST_HELD_BYTES;
use crate::progress::Progress;

/// What a thread keeps to make others from.
const KEPT_BYTES: u64 = 32 * 1024 * 1024;
/// One thread at a time has larger ones.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;
/// Git makes no longer chains (`pack.depth` is below that).
const MOST_DEEP: usize = 4096;
/// So much may be made in any case, and above that so many times the pack's own length.
const MADE_BYTES: u64 = 1 << 40;
const MADE_TIMES: u64 = 10_000;
const MOST_THREADS: usize = 4;

/// What one thread found.
#[derive(Default)]
pub(super) struct Made {
    pub(super) names: Vec<(u32, Oid)>,
    pub(super) links: Option<Links>,
}

/// What all threads share.
struct Forest<'f> {
    scanned: &'f Scanned,
    file: &'f File,
    names: &'f [Option<Oid>],
    /// Whole objects that something is made from.
    roots: Vec<u32>,
    next_root: AtomicUsize,
    /// Deltas that somebody has begun with: an object that is in the pack twice has them twice.
    begun: Vec<AtomicBool>,
    made_bytes: AtomicU64,
    large: Mutex<()>,
    is_over: AtomicBool,
    progress: &'f Progress,
}

/// Makes all objects that can be made. `names` has those of whole objects.
pub(super) fn resolve(
    scanned: &mut Scanned,
    names: &[Option<Oid>],
    file: &File,
    wants_links: bool,
    progress: &Progress,
) -> Result<Vec<Made>> {
    scanned.by_place.sort_unstable();
    scanned.by_name.sort_unstable();
    let mut forest = Forest {
        scanned,
        file,
        names,
        roots: Vec::new(),
        next_root: AtomicUsize::new(0),
        begun: scanned.entries.iter().map(|_| AtomicBool::new(false)).collect(),
        made_bytes: AtomicU64::new(0),
        large: Mutex::new(()),
        is_over: AtomicBool::new(false),
        progress,
    };
    for (number, name) in (0u32..).zip(names) {
        if let Some(name) = name
            && forest.has_children(number, name)
        {
            forest.roots.push(number);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MOST_THREADS).min(forest.roots.len().max(1));
    let forest = &forest;
    std::thread::scope(|scope| {
        let work = move || Climber::new(forest, wants_links).climb();
        let others: Vec<_> = (1..threads)
            .filter_map(|_| {
                std::thread::Builder::new().name("bb-deltas".to_owned()).spawn_scoped(scope, work).ok()
            })
            .collect();
        let mut all = vec![work()];
        all.extend(others.into_iter().map(|other| {
            other
                .join()
                .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a thread that makes objects panicked")))
        }));
        // The others stopped because of the one that failed.
        let first_of = |error: &Error| error.kind() == Kind::Cancelled && !progress.is_cancelled();
        let failed = all.iter().position(|made| made.as_ref().is_err_and(|error| !first_of(error)));
        if let Some(failed) = failed {
            return Err(all.swap_remove(failed).err().unwrap_or_else(Error::cancelled));
        }
        all.into_iter().collect()
    })
}

impl Forest<'_> {
    fn by_place(&self, base: u32) -> &[(u32, u32)] {
        let pairs = &self.scanned.by_place;
        let begin = pairs.partition_point(|pair| pair.0 < base);
        let end = begin + pairs[begin..].partition_point(|pair| pair.0 == base);
        &pairs[begin..end]
    }

    fn by_name(&self, base: &Oid) -> &[(Oid, u32)] {
        let pairs = &self.scanned.by_name;
        let begin = pairs.partition_point(|pair| pair.0 < *base);
        let end = begin + pairs[begin..].partition_point(|pair| pair.0 == *base);
        &pairs[begin..end]
    }

    fn has_children(&self, entry: u32, name: &Oid) -> bool {
        !self.by_place(entry).is_empty() || !self.by_name(name).is_empty()
    }

    fn children(&self, entry: u32, name: &Oid) -> Vec<u32> {
        let by_place = self.by_place(entry).iter().map(|pair| pair.1);
        by_place.chain(self.by_name(name).iter().map(|pair| pair.1)).collect()
    }

    fn offset(&self, entry: u32) -> u64 {
        self.scanned.entries[entry as usize].offset
    }

    /// Counts what was made.
    fn count(&self, bytes: u64) -> Result<()> {
        let made = self.made_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if made <= MADE_BYTES.max(self.scanned.data_end.saturating_mul(MADE_TIMES)) {
            return Ok(());
        }
        let text =
            format!("the pack of {} bytes makes more than {made} bytes of objects", self.scanned.data_end);
        Err(Error::new(Kind::Git, text))
    }
}

/// One object on the way from a whole one to the one that is being made.
struct Level {
    entry: u32,
    /// Its bytes, unless they had to make room.
    data: Option<Vec<u8>>,
    /// What is still to be made from it.
    waiting: Vec<u32>,
}

struct Climber<'f> {
    forest: &'f Forest<'f>,
    levels: Vec<Level>,
    kept_bytes: u64,
    inflate: Decompressor,
    packed: Vec<u8>,
    /// Had from the first large object of a tree to the tree's end.
    has_large: Option<MutexGuard<'f, ()>>,
    made: Made,
}

impl<'f> Climber<'f> {
    fn new(forest: &'f Forest<'f>, wants_links: bool) -> Self {
        Self {
            forest,
            levels: Vec::new(),
            kept_bytes: 0,
            inflate: Decompressor::new(),
            packed: Vec::new(),
            has_large: None,
            made: Made { names: Vec::new(), links: wants_links.then(Links::default) },
        }
    }

    fn climb(mut self) -> Result<Made> {
        let outcome = self.all();
        if outcome.is_err() {
            self.forest.is_over.store(true, Ordering::Relaxed);
        }
        outcome.map(|()| self.made)
    }

    fn all(&mut self) -> Result<()> {
        let forest = self.forest;
        while let Some(root) = forest.roots.get(forest.next_root.fetch_add(1, Ordering::Relaxed)) {
            let entry = &forest.scanned.entries[*root as usize];
            if let (Some(kind), Some(name)) = (entry.whole, forest.names[*root as usize]) {
                self.tree(*root, kind, &name)?;
            }
            self.levels.clear();
            self.kept_bytes = 0;
            self.has_large = None;
        }
        Ok(())
    }

    fn tree(&mut self, root: u32, kind: ObjectKind, name: &Oid) -> Result<()> {
        let forest = self.forest;
        let mut waiting = forest.children(root, name);
        waiting.retain(|child| !forest.begun[*child as usize].swap(true, Ordering::Relaxed));
        self.levels.push(Level { entry: root, data: None, waiting });
        while let Some(level) = self.levels.last_mut() {
            let Some(child) = level.waiting.pop() else {
                let level = self.levels.pop();
                self.kept_bytes -= level.and_then(|level| level.data).map_or(0, |data| data.len() as u64);
                continue;
            };
            forest.progress.check()?;
            if forest.is_over.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let base = self.top()?;
            let data = self.make(&base, child)?;
            match self.levels.last() {
                Some(level) if !level.waiting.is_empty() => self.keep(base),
                _ => drop(base),
            }
            let name = hash_object(kind, &data)?;
            self.made.names.push((child, name));
            if let Some(links) = &mut self.made.links {
                links.take(kind, &data)?;
            }
            let mut waiting = forest.children(child, &name);
            waiting.retain(|child| !forest.begun[*child as usize].swap(true, Ordering::Relaxed));
            if waiting.is_empty() {
                continue;
            }
            if self.levels.len() >= MOST_DEEP {
                let what = format!("more than {MOST_DEEP} differences rest on each other");
                return Err(damaged(forest.offset(child), &what));
            }
            self.levels.push(Level { entry: child, data: None, waiting });
            self.keep(data);
        }
        Ok(())
    }

    /// Keeps the bytes of the topmost level, and lets go of others, the lowest first, where they become too many.
    fn keep(&mut self, data: Vec<u8>) {
        self.kept_bytes += data.len() as u64;
        let Some((top, below)) = self.levels.split_last_mut() else { return };
        top.data = Some(data);
        for level in below {
            if self.kept_bytes <= KEPT_BYTES {
                return;
            }
            self.kept_bytes -= level.data.take().map_or(0, |data| data.len() as u64);
        }
    }

    /// Takes the bytes of the topmost level, made again if they had to make room.
    fn top(&mut self) -> Result<Vec<u8>> {
        let known = self.levels.iter_mut().rposition(|level| level.data.is_some());
        let mut at = known.unwrap_or(0);
        let mut data = match known {
            Some(known) if known + 1 == self.levels.len() => {
                let data = self.levels[known].data.take().unwrap_or_default();
                self.kept_bytes -= data.len() as u64;
                return Ok(data);
            }
            Some(known) => self.levels[known].data.clone().unwrap_or_default(),
            None => self.whole(self.levels[0].entry)?,
        };
        while at + 1 < self.levels.len() {
            at += 1;
            self.forest.progress.check()?;
            data = self.make(&data, self.levels[at].entry)?;
        }
        Ok(data)
    }

    fn make(&mut self, base: &[u8], entry: u32) -> Result<Vec<u8>> {
        let delta = self.whole(entry)?;
        let offset = self.forest.offset(entry);
        let size = announced(&delta).map_err(|what| damaged(offset, what))?;
        self.may_hold(size, entry)?;
        self.forest.count(size)?;
        patch(base, &delta).map_err(|what| damaged(offset, what))
    }

    /// The inflated bytes of an entry: of an object, or of a delta.
    fn whole(&mut self, entry: u32) -> Result<Vec<u8>> {
        let offset = self.forest.offset(entry);
        let end = self.forest.scanned.end_of(entry);
        let mut header = [0; MAX_HEADER_BYTES];
        let header = &mut header[..(end - offset).min(MAX_HEADER_BYTES as u64) as usize];
        self.read(header, offset)?;
        let header = decode_entry_header(header).map_err(|what| damaged(offset, what))?;
        self.may_hold(header.size, entry)?;
        let at = offset + header.length as u64;
        let length = end.saturating_sub(at);
        // Deflated bytes may say nothing at any length.
        if length > 2 * header.size + LARGE_BYTES {
            return Err(damaged(offset, "it is much longer than what it inflates to"));
        }
        let mut packed = std::mem::take(&mut self.packed);
        packed.resize(length as usize, 0);
        self.read(&mut packed, at)?;
        let mut plain = vec![0; header.size as usize];
        let inflated = self.inflate.zlib_decompress(&packed, &mut plain);
        if packed.capacity() as u64 <= LARGE_BYTES {
            self.packed = packed;
        }
        match inflated {
            Ok(made) if made == plain.len() => Ok(plain),
            Ok(_) => Err(damaged(offset, "it inflates to less than its header says")),
            Err(error) => Err(damaged(offset, &format!("it does not inflate: {error}"))),
        }
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.forest.file.read_exact_at(buffer, at).map_err(|error| {
            Error::with_source(Kind::Io, "cannot read back what was written of a pack", error)
        })
    }

    /// Whether something of this size may be held, and nobody else's turn to hold such.
    fn may_hold(&mut self, size: u64, entry: u32) -> Result<()> {
        if size > MOST_HELD_BYTES {
            let what = format!(
                "a difference of {size} bytes, or from so many, more than the {MOST_HELD_BYTES} that are held in memory; \
                 `git repack -adf` there, with core.bigFileThreshold at its default, stores such files whole"
            );
            return Err(damaged(self.forest.offset(entry), &what));
        }
        if size > LARGE_BYTES && self.has_large.is_none() {
            self.has_large = Some(self.forest.large.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }
}
