//! All packs of a repository: in which one is an object?
//!
//! However many packs there are, few descriptors are held: every pack is opened once to be checked, then only
//! small indexes stay, in memory; large indexes and packs are opened at a question and the most recently used
//! stay open. What [`PackSet::find`] gives out is pinned: it can be read even if the pack is removed meanwhile.
//!
//! Housekeeping removes packs at any time, after their objects stand in another. So a pack that is missing at
//! a question makes the set look at the directory again before it says that an object does not exist.
//!
//! A pack that cannot be read does not hide the others: its error, which names the file, is kept in
//! [`PackSet::problems`], and questions are answered from the rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use git2::Oid;

use super::index::{IN_MEMORY_BYTES, PackIndex};
use super::reader::{PackReader, RawEntry};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// All indexes in memory together take at most so many bytes, where nothing else is said.
const RESIDENT_BYTES: u64 = 32 * 1024 * 1024;
/// How often the directory is read for one question, should packs come and go each time.
const LOOKS: usize = 4;

/// A pack that was there and whole when the directory was last looked at.
#[derive(Debug)]
struct Listed {
    /// By which its open files are found.
    number: u64,
    path: PathBuf,
    /// The index, if it is small.
    resident: Option<Arc<PackIndex>>,
}

/// The packs of one `objects/pack` directory.
#[derive(Debug)]
pub struct PackSet {
    pack_dir: PathBuf,
    /// How much memory the indexes may take together.
    resident_bytes: u64,
    packs: RwLock<Arc<Vec<Arc<Listed>>>>,
    problems: Vec<Error>,
    next_number: AtomicU64,
    /// Each with at most two descriptors.
    open_packs: Mutex<Recent<PackReader>>,
    /// Without their pack, each with one descriptor.
    open_indexes: Mutex<Recent<PackIndex>>,
    /// Objects asked for one after the other tend to be in one pack, so it is asked first.
    last_hit: AtomicUsize,
}

/// What one pack answers.
enum Answer<T> {
    Found(T),
    Absent,
    /// The pack is not there any more.
    Gone,
}

impl PackSet {
    /// Looks at every pack in `pack_dir`; a directory that does not exist has none.
    pub fn open(pack_dir: &Path) -> Result<Self> {
        Self::open_within(pack_dir, RESIDENT_BYTES)
    }

    /// As [`PackSet::open`] for who only wants to know whether every pack can be read: no index is held in memory.
    pub fn open_lean(pack_dir: &Path) -> Result<Self> {
        Self::open_within(pack_dir, 0)
    }

    /// As [`PackSet::open`] with at most `resident_bytes` of indexes in memory.
    pub(super) fn open_within(pack_dir: &Path, resident_bytes: u64) -> Result<Self> {
        let mut set = Self {
            pack_dir: pack_dir.to_owned(),
            resident_bytes,
            packs: RwLock::default(),
            problems: Vec::new(),
            next_number: AtomicU64::new(0),
            open_packs: Mutex::new(Recent::new(limits::packs_a_reader())),
            open_indexes: Mutex::new(Recent::new(limits::packs_a_reader())),
            last_hit: AtomicUsize::new(0),
        };
        set.refresh()?;
        Ok(set)
    }

    /// Looks again: takes in what is new, drops what is gone, and tries again what could not be read. Fails
    /// only if the directory cannot be listed or this process cannot open more files.
    pub fn refresh(&mut self) -> Result<()> {
        self.problems = self.look_again()?;
        Ok(())
    }

    /// Packs are merged while the directory is read: a merged one is gone when it is to be opened, or never
    /// seen, and the new one came too late to be seen. Only two equal listings tell that nothing was missed.
    fn look_again(&self) -> Result<Vec<Error>> {
        let mut packs = self.listed().to_vec();
        let mut problems = Vec::new();
        let mut listing = self.list()?;
        for _ in 0..LOOKS {
            problems.clear();
            self.adopt(&mut packs, listing.clone(), &mut problems)?;
            let later = self.list()?;
            if later == listing {
                break;
            }
            listing = later;
        }
        // A descriptor of a removed file keeps its space from being free.
        let is_there = |number: u64| packs.iter().any(|listed| listed.number == number);
        lock(&self.open_packs).retain(is_there);
        lock(&self.open_indexes).retain(is_there);
        *self.packs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(packs);
        Ok(problems)
    }

    /// Makes `packs` what `listing` says.
    fn adopt(
        &self,
        packs: &mut Vec<Arc<Listed>>,
        mut listing: BTreeSet<PathBuf>,
        problems: &mut Vec<Error>,
    ) -> Result<()> {
        packs.retain(|listed| listing.remove(&listed.path));
        let mut resident: u64 = packs.iter().filter_map(|listed| listed.resident_bytes()).sum();
        for path in listing {
            let in_memory = IN_MEMORY_BYTES.min(self.resident_bytes.saturating_sub(resident));
            match self.examine(&path, in_memory) {
                Ok(listed) => {
                    resident += listed.resident_bytes().unwrap_or(0);
                    packs.push(Arc::new(listed));
                }
                Err(error) if error.kind() == Kind::Limit => return Err(error),
                // Somebody removed it since the directory was listed.
                Err(_) if !path.exists() && !path.with_extension("idx").exists() => {}
                Err(error) => problems.push(error),
            }
        }
        Ok(())
    }

    /// The `.pack` path of everything of which there is a pack or an index.
    fn list(&self) -> Result<BTreeSet<PathBuf>> {
        let failed = |error| Error::io("list the packs in", &self.pack_dir, error);
        let listing = match std::fs::read_dir(&self.pack_dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = BTreeSet::new();
        for item in listing {
            let path = item.map_err(failed)?.path();
            let is_pack = path.extension().is_some_and(|ending| ending == "pack" || ending == "idx")
                && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pack-"));
            if is_pack {
                found.insert(path.with_extension("pack"));
            }
        }
        Ok(found)
    }

    /// The pack that holds `oid`, and the entry. An error of one pack counts only if no other has the object.
    pub fn find(&self, oid: &Oid) -> Result<Option<(Arc<PackReader>, RawEntry)>> {
        self.first(|listed| {
            let Some(index) = self.index_of(listed)? else { return Ok(Answer::Gone) };
            if index.position(oid)?.is_none() {
                return Ok(Answer::Absent);
            }
            let Some(pack) = self.pack_of(listed, index)? else { return Ok(Answer::Gone) };
            let entry = pack.entry(oid)?;
            Ok(entry.map_or(Answer::Absent, |entry| Answer::Found((pack, entry))))
        })
    }

    /// Whether any pack holds `oid`.
    pub fn contains(&self, oid: &Oid) -> Result<bool> {
        let found = self.first(|listed| {
            let Some(index) = self.index_of(listed)? else { return Ok(Answer::Gone) };
            Ok(index.position(oid)?.map_or(Answer::Absent, |_| Answer::Found(())))
        })?;
        Ok(found.is_some())
    }

    /// How many packs can be read.
    pub fn len(&self) -> usize {
        self.listed().len()
    }

    /// Whether there is no pack that can be read.
    pub fn is_empty(&self) -> bool {
        self.listed().is_empty()
    }

    /// Why the others cannot.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    fn listed(&self) -> Arc<Vec<Arc<Listed>>> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a pack once: who says that an object is here must not rely on an index without its pack.
    fn examine(&self, path: &Path, in_memory: u64) -> Result<Listed> {
        let index = Arc::new(PackIndex::open_within(&path.with_extension("idx"), in_memory)?);
        PackReader::open_with(path, index.clone())?;
        let resident = index.resident_bytes().is_some().then_some(index);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        Ok(Listed { number, path: path.to_owned(), resident })
    }

    fn first<T>(&self, ask: impl Fn(&Listed) -> Result<Answer<T>>) -> Result<Option<T>> {
        for look in 1..=LOOKS {
            let packs = self.listed();
            let start = self.last_hit.load(Ordering::Relaxed).min(packs.len());
            let (before, from) = packs.split_at(start);
            let (mut failure, mut is_gone) = (None, false);
            for (number, listed) in (start..).zip(from).chain((0..).zip(before)) {
                match ask(listed) {
                    Ok(Answer::Found(answer)) => {
                        self.last_hit.store(number, Ordering::Relaxed);
                        return Ok(Some(answer));
                    }
                    Ok(Answer::Absent) => {}
                    Ok(Answer::Gone) => is_gone = true,
                    Err(error) => failure = Some(error),
                }
            }
            if !is_gone || look == LOOKS {
                return failure.map_or(Ok(None), Err);
            }
            self.look_again()?;
        }
        Ok(None)
    }

    /// The index of a pack; `None` if it is not there any more.
    fn index_of(&self, listed: &Listed) -> Result<Option<Arc<PackIndex>>> {
        if let Some(index) = &listed.resident {
            return Ok(Some(index.clone()));
        }
        if let Some(index) = lock(&self.open_indexes).get(listed.number) {
            return Ok(Some(index));
        }
        let path = listed.path.with_extension("idx");
        let opened = PackIndex::open_within(&path, 0);
        let Some(index) = unless_removed(opened, &path)? else { return Ok(None) };
        lock(&self.open_indexes).put(listed.number, index.clone());
        Ok(Some(index))
    }

    /// A pack, open; `None` if it is not there any more.
    fn pack_of(&self, listed: &Listed, index: Arc<PackIndex>) -> Result<Option<Arc<PackReader>>> {
        if let Some(pack) = lock(&self.open_packs).get(listed.number) {
            return Ok(Some(pack));
        }
        let opened = PackReader::open_with(&listed.path, index);
        let Some(pack) = unless_removed(opened, &listed.path)? else { return Ok(None) };
        lock(&self.open_packs).put(listed.number, pack.clone());
        Ok(Some(pack))
    }
}

impl Listed {
    fn resident_bytes(&self) -> Option<u64> {
        self.resident.as_ref()?.resident_bytes()
    }
}

fn unless_removed<T>(opened: Result<T>, path: &Path) -> Result<Option<Arc<T>>> {
    match opened {
        Ok(opened) => Ok(Some(Arc::new(opened))),
        Err(_) if !path.exists() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The most recently used of what is open, oldest first.
#[derive(Debug)]
struct Recent<T> {
    most: usize,
    open: Vec<(u64, Arc<T>)>,
}

impl<T> Recent<T> {
    fn new(most: usize) -> Self {
        Self { most, open: Vec::with_capacity(most) }
    }

    fn get(&mut self, number: u64) -> Option<Arc<T>> {
        let at = self.open.iter().position(|(open, _)| *open == number)?;
        self.open[at..].rotate_left(1);
        self.open.last().map(|(_, opened)| opened.clone())
    }

    fn put(&mut self, number: u64, opened: Arc<T>) {
        // Two threads may have opened it at the same time.
        self.retain(|open| open != number);
        if self.open.len() == self.most {
            self.open.remove(0);
        }
        self.open.push((number, opened));
    }

    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.open.retain(|(number, _)| keep(*number));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
