//! All packs of a repository: in which one is an object?
//!
//! A pack that cannot be read does not hide the others: its error, which names the file, is kept in
//! [`PackSet::problems`], and questions are answered from the rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use git2::Oid;

use super::reader::{PackReader, RawEntry};
use crate::error::{Error, Kind, Result};

/// The packs of one `objects/pack` directory, open.
#[derive(Debug)]
pub struct PackSet {
    pack_dir: PathBuf,
    packs: Vec<PackReader>,
    problems: Vec<Error>,
    /// Objects asked for one after the other tend to be in one pack, so it is asked first.
    last_hit: AtomicUsize,
}

impl PackSet {
    /// Opens every pack in `pack_dir`; a directory that does not exist has none.
    pub fn open(pack_dir: &Path) -> Result<Self> {
        let mut set = Self {
            pack_dir: pack_dir.to_owned(),
            packs: Vec::new(),
            problems: Vec::new(),
            last_hit: AtomicUsize::new(0),
        };
        set.refresh()?;
        Ok(set)
    }

    /// Looks again: opens what is new, closes what is gone, and tries again what could not be read. Fails
    /// only if the directory cannot be listed or this process cannot open more files.
    pub fn refresh(&mut self) -> Result<()> {
        self.problems.clear();
        let mut found = self.list()?;
        self.packs.retain(|pack| found.remove(pack.path()));
        for path in found {
            match PackReader::open(&path) {
                Ok(pack) => self.packs.push(pack),
                Err(error) if error.kind() == Kind::Limit => return Err(error),
                // Somebody removed it since the directory was listed.
                Err(_) if !path.exists() && !path.with_extension("idx").exists() => {}
                Err(error) => self.problems.push(error),
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
    pub fn find(&self, oid: &Oid) -> Result<Option<(&PackReader, RawEntry)>> {
        self.first(|pack| Ok(pack.entry(oid)?.map(|entry| (pack, entry))))
    }

    /// Whether any pack holds `oid`.
    pub fn contains(&self, oid: &Oid) -> Result<bool> {
        Ok(self.first(|pack| Ok(pack.contains(oid)?.then_some(())))?.is_some())
    }

    /// The packs that can be read.
    pub fn packs(&self) -> &[PackReader] {
        &self.packs
    }

    /// Why the others cannot.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    fn first<'a, T>(&'a self, ask: impl Fn(&'a PackReader) -> Result<Option<T>>) -> Result<Option<T>> {
        let start = self.last_hit.load(Ordering::Relaxed).min(self.packs.len());
        let (before, from) = self.packs.split_at(start);
        let mut failure = None;
        for (number, pack) in (start..).zip(from).chain((0..).zip(before)) {
            match ask(pack) {
                Ok(Some(answer)) => {
                    self.last_hit.store(number, Ordering::Relaxed);
                    return Ok(Some(answer));
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}
