//! Every commit makes a pack; here small packs become few larger ones.
//!
//! In goes a repository that holds more packs than it should, out comes the same repository with the same
//! objects in fewer packs. [`survey`] counts, which is cheap enough for every commit; [`Survey::merge`] does
//! the work: the smallest packs are verified, their entries copied as they are compressed into one new pack,
//! that pack is synced and put in place, and only then are the merged ones removed, index first.
//!
//! **Which packs.** In the order of size, all up to the last pack that is no larger than all smaller ones
//! together. So whatever is rewritten ends in a pack of at least twice the size of the one it was in: an
//! object is rewritten at most log₂(all bytes / its first pack) times, and a large pack only when the small
//! ones have reached its size. Every pack that stays is larger than all smaller ones together, so few stay.
//!
//! **What must stay true.** A pack is removed only when every object of it stands in a pack that is durable and
//! whole. Objects are never left out because some third pack has them: two housekeepers (two machines that
//! share a remote) could each rely on a pack that the other removes. Killed anywhere, nothing is lost: at most
//! an unfinished file is left, which the sweeps of temporary files take, or objects stand in two packs, which
//! later merges mend. Nobody is locked out: commits, pushes and foreign readers go on meanwhile.
//!
//! Left alone: packs with a `.keep` file, of partial clones or of unreachable objects (`.promisor`, `.mtimes`),
//! packs that do not verify, and repositories with a multi-pack index, which somebody else keeps house in.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::pack::{self, Copied, FinishedPack, ObjectKind, PackReader, PackWriter, RawEntry, Sync};
use crate::git::repository::{Repository, git_error};
use crate::git::workshop;
use crate::limits;
use crate::progress::Progress;

/// In a pack directory it means: somebody else keeps house here.
const FOREIGN_INDEXES: [&str; 2] = ["multi-pack-index", "multi-pack-index.d"];
/// An index's bytes that do not depend on the number of objects, and those an object takes.
const INDEX_BYTES: u64 = 8 + 1024 + 40;
const INDEX_ROW_BYTES: u64 = 28;
/// A delta's base named by name instead of by distance makes its entry longer by at most this.
const LONGER_BY: u64 = 20;

/// When to merge, and within which bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many packs may stand; with more, small ones are merged.
    pub most: usize,
    /// Bytes that must stay free on the file system.
    pub reserve: u64,
    /// A merge takes at most so many objects: it needs about 100 bytes of memory for each.
    pub objects: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { most: limits::packs_piled_up(), reserve: 64 * 1024 * 1024, objects: 1_000_000 }
    }
}

/// Why nothing was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// There are not too many packs.
    NotDue,
    /// Every pack is larger than all smaller ones together, or too large to be merged.
    NothingSmall,
    /// A multi-pack index says that somebody else keeps house here.
    ForeignIndex,
    /// The file system has too little space for a second copy of what would be merged.
    LowDisk {
        /// Bytes there are.
        free: u64,
        /// Bytes there should be.
        needed: u64,
    },
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skipped::NotDue => f.write_str("there are not too many packs"),
            Skipped::NothingSmall => f.write_str("no packs are small enough to be merged"),
            Skipped::ForeignIndex => {
                f.write_str("it has a multi-pack index: `git maintenance` or the like keeps house there")
            }
            Skipped::LowDisk { free, needed } => {
                write!(f, "merging packs needs {needed} bytes and {free} are free: make room on that disk")
            }
        }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Housekept {
    /// How many packs were copied into the new one.
    pub merged: usize,
    /// The name of the new pack, `pack-<40 hex>`.
    pub into: Option<String>,
    /// Objects in it.
    pub objects: u64,
    /// Bytes of it, without its index.
    pub bytes: u64,
    /// How many packs were removed.
    pub removed: usize,
    /// Why nothing was merged, if nothing was.
    pub skipped: Option<Skipped>,
    /// Why packs that should have been merged were left alone: they are damaged, or vanished.
    pub left_alone: Vec<Error>,
}

/// Surveys and merges. `keep` is the pack of a staged commit; see [`Survey::merge`] for when to ask for it.
pub fn merge_small_packs(
    repository: &Repository,
    policy: &Policy,
    keep: Option<&str>,
    progress: &Progress,
) -> Result<Housekept> {
    match survey(repository, policy)? {
        Some(survey) => survey.merge(keep, progress),
        None => Ok(skipped(Skipped::NotDue)),
    }
}

/// Merges small packs in the remote at `path` if this program made that repository; `None` if it did not.
/// `owner` tells whose leftovers a killed merge's are ([`workshop`]).
pub fn merge_in_remote(
    path: &Path,
    owner: &str,
    policy: &Policy,
    progress: &Progress,
) -> Result<Option<Housekept>> {
    let remote = Repository::open(path)?;
    let fail = |error| git_error("read the configuration of", path, error);
    let config = remote.git().config().map_err(fail)?;
    match config.get_string("backupbot.origin") {
        Ok(origin) if origin == "remote" => {
            let Some(mut survey) = survey(&remote, policy)? else {
                return Ok(Some(skipped(Skipped::NotDue)));
            };
            let made_in = workshop::for_merge(path, owner)?;
            survey.made_in.clone_from(&made_in);
            let merged = survey.merge(None, progress);
            let _ = std::fs::remove_dir(&made_in);
            merged.map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

/// Lists the packs that could be merged; `None` if there are not too many.
pub fn survey<'r>(repository: &'r Repository, policy: &Policy) -> Result<Option<Survey<'r>>> {
    let pack_dir = repository.pack_directory();
    let candidates = candidates(&pack_dir)?;
    let is_due = candidates.len() > policy.most;
    let made_in = pack_dir.clone();
    Ok(is_due.then_some(Survey { repository, pack_dir, made_in, policy: *policy, candidates }))
}

/// The packs as they stood at one moment: more than there should be.
pub struct Survey<'r> {
    repository: &'r Repository,
    pack_dir: PathBuf,
    /// Where the new pack is made, and where the index of a pack that is being removed stands meanwhile.
    made_in: PathBuf,
    policy: Policy,
    candidates: Vec<Candidate>,
}

/// A pack that may be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    name: String,
    bytes: u64,
    index_bytes: u64,
    modified: SystemTime,
}

impl Candidate {
    fn path(&self, pack_dir: &Path) -> PathBuf {
        pack_dir.join(&self.name).with_extension("pack")
    }

    /// Exact, or a few more if the pack is beyond 2 GiB.
    fn objects(&self) -> u64 {
        self.index_bytes.saturating_sub(INDEX_BYTES) / INDEX_ROW_BYTES
    }
}

/// A new pack under temporary names, and the packs of which it holds every object.
struct Copy {
    finished: FinishedPack,
    sources: Vec<String>,
}

impl Survey<'_> {
    /// Merges the smallest packs. `keep` names the pack of a commit that is staged and not settled; ask for it
    /// **after** the survey: a commit is staged before its pack is put in place, so whatever the survey has
    /// seen is then either named or settled.
    ///
    /// # Errors
    /// For the disk, cancellation, and packs that change under our hands. The repository is whole after any.
    pub fn merge(mut self, keep: Option<&str>, progress: &Progress) -> Result<Housekept> {
        self.candidates.retain(|candidate| Some(candidate.name.as_str()) != keep);
        if FOREIGN_INDEXES.iter().any(|name| self.pack_dir.join(name).symlink_metadata().is_ok()) {
            return Ok(skipped(Skipped::ForeignIndex));
        }
        let chosen = choose(&mut self.candidates, self.policy.objects);
        if chosen.is_empty() {
            return Ok(skipped(Skipped::NothingSmall));
        }
        if let Some(reason) = self.lacks_space(&chosen)? {
            return Ok(skipped(reason));
        }
        let mut result = Housekept::default();
        let Some(copy) = self.copy(&chosen, &mut result.left_alone, progress)? else {
            result.skipped = Some(Skipped::NothingSmall);
            return Ok(result);
        };
        result.merged = copy.sources.len();
        result.objects = u64::from(copy.finished.objects());
        result.bytes = copy.finished.bytes();
        fault::point("housekeeping:merged-not-installed");
        let sources = copy.sources.clone();
        let into = self.put_in_place(copy, progress)?;
        fault::point("housekeeping:installed");
        result.removed = self.remove(&sources, &into)?;
        result.into = Some(into);
        Ok(result)
    }

    fn lacks_space(&self, chosen: &[Candidate]) -> Result<Option<Skipped>> {
        let system = rustix::fs::statvfs(&self.pack_dir)
            .map_err(|error| Error::io("ask for the free space of", &self.pack_dir, error))?;
        // Some network file systems do not know.
        if system.f_blocks == 0 {
            return Ok(None);
        }
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let copy: u64 = chosen.iter().map(|c| c.bytes + c.index_bytes + c.objects() * LONGER_BY).sum();
        let needed = copy.saturating_add(self.policy.reserve);
        Ok((free < needed).then_some(Skipped::LowDisk { free, needed }))
    }

    /// Copies the chosen packs, those that verify, into a new one; `None` if fewer than two do.
    fn copy(
        &self,
        chosen: &[Candidate],
        left_alone: &mut Vec<Error>,
        progress: &Progress,
    ) -> Result<Option<Copy>> {
        let writer = PackWriter::create(&self.made_in)?;
        let mut sources = Vec::new();
        for candidate in chosen {
            let opened = PackReader::open(&candidate.path(&self.pack_dir))
                .and_then(|source| source.verify(progress).map(|()| source));
            match opened {
                Ok(source) => {
                    self.copy_pack(&writer, &source, progress)?;
                    sources.push(candidate.name.clone());
                }
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Limit) => return Err(error),
                Err(error) => left_alone.push(error),
            }
        }
        if sources.len() < 2 {
            return Ok(None);
        }
        let finished = writer.finish(Sync::Durable, progress)?;
        Ok(finished.map(|finished| Copy { finished, sources }))
    }

    fn copy_pack(&self, writer: &PackWriter, source: &PackReader, progress: &Progress) -> Result<()> {
        for item in source.entries()? {
            progress.check()?;
            let (oid, entry) = item?;
            if writer.contains(&oid) {
                continue;
            }
            let copied = if is_self_contained(source, &entry)? {
                writer.copy_raw_while(oid, &entry, source, progress)?
            } else {
                Copied::Cyclic
            };
            if copied == Copied::Cyclic {
                self.copy_whole(writer, oid)?;
            }
        }
        Ok(())
    }

    fn copy_whole(&self, writer: &PackWriter, oid: git2::Oid) -> Result<()> {
        let objects = self.repository.objects()?;
        let object = objects
            .read(oid)
            .map_err(|error| git_error(&format!("read object {oid} of"), self.repository.path(), error))?;
        let stored = writer.add(ObjectKind::try_from(object.kind())?, object.data())?;
        if stored == oid {
            return Ok(());
        }
        let place = self.repository.path().display();
        Err(Error::new(Kind::Git, format!("object {oid} of {place} is damaged: it reads as {stored}")))
    }

    /// Puts the new pack in place; its name.
    fn put_in_place(&self, copy: Copy, progress: &Progress) -> Result<String> {
        let name = copy.finished.into_name();
        let installed = pack::install_from(&self.made_in, &self.pack_dir, &name)?;
        // A file that stood there under this name takes the place of ours: it must be as good.
        if installed.was_there && !copy.sources.contains(&installed.name) {
            PackReader::open(&installed.path)?.verify(progress)?;
        }
        Ok(installed.name)
    }

    /// Removes what stands in `into` now. Git removes in the same order: a reader may find a pack without an
    /// index, never an index without its pack.
    fn remove(&self, sources: &[String], into: &str) -> Result<usize> {
        let mut removed = 0;
        for name in sources {
            // Merged with packs that have nothing of their own, a pack comes out as it was, name and all.
            if name == into || is_kept(&self.pack_dir, name) {
                continue;
            }
            pack::remove_files(&self.made_in, &self.pack_dir, name)?;
            removed += 1;
            if removed == 1 {
                fault::point("housekeeping:first-removed");
            }
        }
        pack::sync_directory(&self.pack_dir)?;
        Ok(removed)
    }
}

/// A delta stays one only if its base comes along. In a pack that Git would accept it always does.
fn is_self_contained(source: &PackReader, entry: &RawEntry) -> Result<bool> {
    match source.base_oid(entry)? {
        Some(base) => source.contains(&base),
        None => Ok(true),
    }
}

fn is_kept(pack_dir: &Path, name: &str) -> bool {
    let path = pack_dir.join(name);
    pack::SIGNS_TO_LEAVE_ALONE.iter().any(|ending| path.with_extension(ending).symlink_metadata().is_ok())
}

/// Takes the packs to be merged out of `candidates`, oldest first, so that history stays together: the
/// smallest, up to the last that is no larger than all smaller ones together.
fn choose(candidates: &mut Vec<Candidate>, most_objects: u64) -> Vec<Candidate> {
    candidates.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.name.cmp(&b.name)));
    let (mut smaller_bytes, mut objects) = (0u64, 0u64);
    let mut count = 0;
    for (position, candidate) in candidates.iter().enumerate() {
        objects = objects.saturating_add(candidate.objects());
        if objects > most_objects {
            break;
        }
        if position > 0 && candidate.bytes <= smaller_bytes {
            count = position + 1;
        }
        smaller_bytes = smaller_bytes.saturating_add(candidate.bytes);
    }
    let mut chosen: Vec<Candidate> = candidates.drain(..count).collect();
    chosen.sort_by(|a, b| a.modified.cmp(&b.modified).then_with(|| a.name.cmp(&b.name)));
    chosen
}

/// Every pack that has its index and no sign that says to leave it alone.
fn candidates(pack_dir: &Path) -> Result<Vec<Candidate>> {
    let failed = |error| Error::io("list the packs in", pack_dir, error);
    let listing = match std::fs::read_dir(pack_dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for item in listing {
        let item = item.map_err(failed)?;
        let file_name = item.file_name();
        let Some((name, ending)) = file_name.to_str().and_then(|name| name.split_once('.')) else { continue };
        if !pack::is_pack_name(name) {
            continue;
        }
        let found = found.entry(name.to_owned()).or_default();
        match ending {
            "pack" => found.pack = file(&item)?,
            "idx" => found.index = file(&item)?,
            other => found.is_left_alone |= pack::SIGNS_TO_LEAVE_ALONE.contains(&other),
        }
    }
    let candidate = |(name, found): (String, Found)| {
        let ((bytes, modified), (index_bytes, _)) = found.pack.zip(found.index)?;
        (!found.is_left_alone).then_some(Candidate { name, bytes, index_bytes, modified })
    };
    Ok(found.into_iter().filter_map(candidate).collect())
}

#[derive(Default)]
struct Found {
    pack: Option<(u64, SystemTime)>,
    index: Option<(u64, SystemTime)>,
    is_left_alone: bool,
}

/// Size and time of a regular file; `None` for anything else and for what is gone by now.
fn file(item: &std::fs::DirEntry) -> Result<Option<(u64, SystemTime)>> {
    let looked = item.metadata().and_then(|metadata| Ok((metadata.modified()?, metadata)));
    match looked {
        Ok((modified, metadata)) => Ok(metadata.is_file().then_some((metadata.len(), modified))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("examine", &item.path(), error)),
    }
}

fn skipped(reason: Skipped) -> Housekept {
    Housekept { skipped: Some(reason), ..Housekept::default() }
}

#[cfg(test)]
mod tests;
