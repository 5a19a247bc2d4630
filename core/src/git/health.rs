//! Whether a repository of our own is what it should be.
//!
//! [`look`] is cheap enough for every start: it is a bare repository with our configuration, nothing makes it
//! read objects from elsewhere, every reference parses, every pack has its index and both fit together, the
//! tip and its root tree can be read, and the latest commit that the database knows of is there. [`examine`]
//! reads everything: it is for when something was met that should not be. [`sample()`] stands between: every day.
//!
//! Damage is told from what a retry or an operator mends: a system that has no descriptors left, or does not
//! let us read, says nothing about the repository and is an error.

mod sample;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use git2::Oid;
use rustix::io::Errno;

use super::pack::{PackReader, PackSet};
use super::reachable::new_objects;
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::path::lossy;
use crate::progress::Progress;

pub use sample::{Draw, sample};

/// No file that is read whole here is longer, unless it is damaged.
const SMALL: u64 = 64 * 1024;
/// `packed-refs` has a line for every reference.
const PACKED: u64 = 64 * 1024 * 1024;
/// Each of these makes Git, or libgit2, read objects or history from somewhere else.
const REDIRECTIONS: [&str; 4] = ["objects/info/alternates", "commondir", "shallow", "info/grafts"];

/// What a repository turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As it should be, as far as was looked.
    Sound,
    /// There is none.
    Missing,
    /// Not to be worked with; in words.
    Damaged(String),
}

/// What should be found in it.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// Who made it, as its configuration says.
    pub origin: &'e str,
    /// The branch, in full.
    pub branch: &'e str,
    /// The latest commit that is known to have been made.
    pub checkpoint: Option<Oid>,
}

pub(crate) enum Fault {
    Damage(String),
    System(Error),
}

pub(crate) type Look<T = ()> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let is_damage = match error.kind() {
            Kind::Git | Kind::RemoteRefused | Kind::Config => can_open_files(),
            Kind::Io => std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<io::Error>())
                .is_some_and(speaks_of_the_content),
            _ => false,
        };
        if is_damage { Fault::Damage(error.to_string()) } else { Fault::System(error) }
    }
}

fn damage<T>(text: impl Into<String>) -> Look<T> {
    Err(Fault::Damage(text.into()))
}

fn io_fault(doing: &str, path: &Path, error: io::Error) -> Fault {
    Fault::from(Error::io(doing, path, error))
}

/// Whether an error of the system says that something is not as it was written, and not that we may not look.
fn speaks_of_the_content(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        None | Some(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::IO | Errno::LOOP | Errno::NXIO)
    )
}

/// libgit2 does not tell a process without descriptors from a repository without files.
fn can_open_files() -> bool {
    let held: Vec<_> = (0..8).map(|_| File::open("/")).collect();
    held.iter().all(std::result::Result::is_ok)
}

fn answer(look: Look) -> Result<Health> {
    match look {
        Ok(()) => Ok(Health::Sound),
        Err(Fault::Damage(text)) => Ok(Health::Damaged(text)),
        Err(Fault::System(error)) => Err(error),
    }
}

/// What can be seen without opening an object: enough to know whether it may be opened at all.
pub fn look_at_shape(path: &Path, origin: &str) -> Result<Health> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            return Ok(Health::Damaged(format!("{} is no directory", shown(path))));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match path.symlink_metadata() {
                Ok(_) => Health::Damaged(format!("{} is a link to nowhere", shown(path))),
                Err(_) => Health::Missing,
            });
        }
        Err(error) => return answer(Err(io_fault("look at", path, error))),
    }
    match fs::read_dir(path).map(|mut listing| listing.next().is_none()) {
        Ok(true) => return Ok(Health::Missing),
        Ok(false) => {}
        Err(error) => return answer(Err(io_fault("list", path, error))),
    }
    answer(shape(path, origin))
}

/// The cheap look. Crash leftovers must be swept before: a pack that was being put in place has no index.
pub fn look(path: &Path, expected: &Expected<'_>) -> Result<Health> {
    match look_at_shape(path, expected.origin)? {
        Health::Sound => answer(contents(path, expected)),
        other => Ok(other),
    }
}

/// Looks, then reads everything: each pack through its checksum, and each object that any reference needs.
pub fn examine(path: &Path, expected: &Expected<'_>, progress: &Progress) -> Result<Health> {
    match look(path, expected)? {
        Health::Sound => answer(everything(path, progress)),
        other => Ok(other),
    }
}

fn shape(path: &Path, origin: &str) -> Look {
    for directory in ["objects", "objects/pack", "refs"] {
        let at = path.join(directory);
        let found = fs::metadata(&at).map_err(|error| io_fault("look at", &at, error))?;
        if !found.is_dir() {
            return damage(format!("{} is no directory", shown(&at)));
        }
    }
    for redirection in REDIRECTIONS {
        let at = path.join(redirection);
        if at.symlink_metadata().is_ok() {
            return damage(format!("{} was put there by somebody else, and is not obeyed", shown(&at)));
        }
    }
    let head = read_small(&path.join("HEAD"), SMALL)?;
    if !is_reference(&head) {
        return damage(format!("{} is not what Git writes", shown(&path.join("HEAD"))));
    }
    configuration(path, origin)?;
    loose_references(&path.join("refs"))?;
    packed_references(path).map(|_| ())
}

fn configuration(path: &Path, origin: &str) -> Look {
    let at = path.join("config");
    let text = String::from_utf8_lossy(&read_small(&at, SMALL)?).to_ascii_lowercase();
    if text.lines().any(|line| line.trim_start().starts_with("[include")) {
        return damage(format!("{} includes other files, which is not obeyed", shown(&at)));
    }
    let fail = |error: git2::Error| Fault::Damage(format!("{} cannot be read: {error}", shown(&at)));
    let config = git2::Config::open(&at).map_err(fail)?;
    if config.get_string("backupbot.origin").ok().as_deref() != Some(origin) {
        return damage(format!("{} is not the one that this program wrote", shown(&at)));
    }
    if config.get_string("core.worktree").is_ok() || config.get_bool("core.bare").is_ok_and(|bare| !bare) {
        return damage(format!("{} gives it a work tree", shown(&at)));
    }
    Ok(())
}

fn loose_references(top: &Path) -> Look {
    let mut pending = vec![top.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let listing = fs::read_dir(&directory).map_err(|error| io_fault("list", &directory, error))?;
        for entry in listing {
            let entry = entry.map_err(|error| io_fault("list", &directory, error))?;
            let at = entry.path();
            let kind = entry.file_type().map_err(|error| io_fault("look at", &at, error))?;
            if kind.is_dir() {
                pending.push(at);
            } else if at.extension().is_none_or(|ending| ending != "lock")
                && !is_reference(&read_small(&at, SMALL)?)
            {
                return damage(format!("the reference {} is not what Git writes", shown(&at)));
            }
        }
    }
    Ok(())
}

/// Every line of `packed-refs`: name and target.
pub(crate) fn packed_references(path: &Path) -> Look<Vec<(String, Oid)>> {
    let at = path.join("packed-refs");
    if at.symlink_metadata().is_err() {
        return Ok(Vec::new());
    }
    let text = read_small(&at, PACKED)?;
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let parsed = match line {
            [b'#', ..] => continue,
            [b'^', oid @ ..] => parse_oid(oid).map(|_| None),
            _ => line.split_at_checked(40).and_then(|(oid, name)| {
                let name = String::from_utf8(name.strip_prefix(b" ")?.to_vec()).ok()?;
                name.starts_with("refs/").then_some(Some((name, parse_oid(oid)?)))
            }),
        };
        match parsed {
            Some(reference) => found.extend(reference),
            None => return damage(format!("{} is not what Git writes", shown(&at))),
        }
    }
    Ok(found)
}

fn contents(path: &Path, expected: &Expected<'_>) -> Look {
    let repository = Repository::open(path)?;
    let packs = PackSet::open(&repository.pack_directory())?;
    if let Some(problem) = packs.problems().first() {
        return damage(problem.to_string());
    }
    let tip = repository.reference(expected.branch)?;
    if let Some(tip) = tip {
        let tree = repository.tree_of(tip)?;
        let objects = repository.objects()?;
        crate::tree::Listing::read(&objects, tree, b"")?;
    }
    let Some(checkpoint) = expected.checkpoint else { return Ok(()) };
    if !repository.has_commit(checkpoint) {
        return damage(format!("{} lacks the commit {checkpoint}, which was its latest", shown(path)));
    }
    if tip.is_some() {
        return Ok(());
    }
    // A branch whose name depends on the date, or was changed in the configuration, begins where another stands.
    for (name, target) in repository.references()? {
        if name.starts_with("refs/heads/") && repository.is_ancestor(checkpoint, target)? {
            return Ok(());
        }
    }
    damage(format!("{} of {} is gone", expected.branch, shown(path)))
}

fn everything(path: &Path, progress: &Progress) -> Look {
    let repository = Repository::open(path)?;
    let directory = repository.pack_directory();
    let listing = fs::read_dir(&directory).map_err(|error| io_fault("list", &directory, error))?;
    for entry in listing.flatten() {
        let at = entry.path();
        if at.extension().is_some_and(|ending| ending == "pack") {
            match PackReader::open(&at).and_then(|pack| pack.verify(progress)) {
                // Merged into another in the meantime.
                Err(_) if !at.exists() => {}
                verified => verified?,
            }
        }
    }
    let packs = PackSet::open(&directory)?;
    let mut done = Vec::new();
    for (_, target) in repository.references()? {
        if repository.has_commit(target) || is_needed(&repository, target) {
            complete(&repository, &packs, target, &done, progress)?;
            done.push(target);
        }
    }
    Ok(())
}

/// References may point at anything; only commits have a history.
fn is_needed(repository: &Repository, target: Oid) -> bool {
    repository.objects().is_ok_and(|objects| objects.read_header(target).is_err())
}

/// Whether every object that `tip` needs, beyond what `have` needs, is here. Trees and commits are read, of
/// contents it is enough that they are there: whoever asks has verified the packs.
pub(crate) fn complete(
    repository: &Repository,
    packs: &PackSet,
    tip: Oid,
    have: &[Oid],
    progress: &Progress,
) -> Look {
    let objects = repository.objects()?;
    for oid in new_objects(repository, tip, have, progress)? {
        progress.tick();
        if !packs.contains(&oid)? && !objects.exists(oid) {
            return damage(format!("{} lacks the object {oid}", shown(repository.path())));
        }
    }
    Ok(())
}

/// Whether everything that `tip` needs beyond what `have` needs is here.
pub fn is_complete(repository: &Repository, tip: Oid, have: &[Oid], progress: &Progress) -> Result<bool> {
    let packs = PackSet::open(&repository.pack_directory())?;
    Ok(answer(complete(repository, &packs, tip, have, progress))? == Health::Sound)
}

fn read_small(path: &Path, limit: u64) -> Look<Vec<u8>> {
    let file = File::open(path).map_err(|error| io_fault("open", path, error))?;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| io_fault("read", path, error))?;
    if bytes.len() as u64 > limit {
        return damage(format!("{} is far too long", shown(path)));
    }
    Ok(bytes)
}

fn is_reference(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    match text.strip_prefix(b"ref:") {
        Some(name) => name.trim_ascii_start().starts_with(b"refs/"),
        None => parse_oid(text).is_some(),
    }
}

pub(crate) fn parse_oid(text: &[u8]) -> Option<Oid> {
    let text = std::str::from_utf8(text.trim_ascii_end()).ok()?;
    (text.len() == 40).then(|| Oid::from_str(text).ok()).flatten()
}

fn shown(path: &Path) -> String {
    lossy(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
pub(crate) mod tests;
