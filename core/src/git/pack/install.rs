//! From temporary names to final ones, and back out after a crash.
//!
//! A pack is made under random temporary names, then waits as a [`FinishedPack`] under temporary names that
//! follow from its final one, so that whoever has recorded the final name can finish or drop it after a
//! crash ([`install_by_name`], [`remove_by_name`]). What nobody recorded is found by [`sweep_temporary`].
//!
//! Temporary names must not end in `.pack` or `.idx`: Git and libgit2 take every `*.idx` in the directory
//! for an index, whatever its name begins with, and would read a pack that is not there yet. For the same
//! reason a pack is put in place before its index and taken away after it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::reader::PackReader;
use super::shown;
use super::writer::Sync;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::ownership;
use crate::progress::Progress;

/// Every file that is being made in a pack directory has a name that begins like this.
pub const TEMPORARY_PREFIX: &str = "tmp_pack_bb_";
/// Tools may have put these beside a pack; they mean nothing without it.
const COMPANIONS: [&str; 3] = ["rev", "bitmap", "mtimes"];
/// Beside a pack they mean: not to be touched.
pub(in crate::git) const SIGNS_TO_LEAVE_ALONE: [&str; 3] = ["keep", "promisor", "mtimes"];
/// How much is copied between two looks at whether to stop.
const COPY_BYTES: u64 = 64 * 1024 * 1024;

/// A file that is removed when dropped, unless it was renamed to a name that is to stay.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    file: File,
    path: PathBuf,
    keep: bool,
}

impl TemporaryFile {
    /// A new file in `pack_dir`, readable by whom the umask lets, writable through this descriptor only.
    pub(super) fn create(pack_dir: &Path) -> Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Io, format!("cannot get random bytes: {error}")))?;
        let path = pack_dir.join(format!("{TEMPORARY_PREFIX}new_{:016x}", u64::from_ne_bytes(random)));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { file, path, keep: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sync(&self, sync: Sync) -> Result<()> {
        match sync {
            Sync::Durable => self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error)),
            Sync::Relaxed => Ok(()),
        }
    }

    fn rename(&mut self, to: PathBuf) -> Result<()> {
        std::fs::rename(&self.path, &to).map_err(|error| Error::io("rename to", &to, error))?;
        self.path = to;
        Ok(())
    }

    fn keep(mut self) {
        self.keep = true;
    }

    /// Lets every write from now on go to another file, one that is full for example; the file before.
    #[cfg(test)]
    pub(super) fn redirect(&mut self, to: File) -> File {
        std::mem::replace(&mut self.file, to)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.keep {
            // The sweep at the next start finds what cannot be removed now.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A complete pack with its index, both under temporary names. Dropping it removes them.
#[derive(Debug)]
pub struct FinishedPack {
    pack_dir: PathBuf,
    name: String,
    objects: u32,
    bytes: u64,
    sync: Sync,
    keep: bool,
}

impl FinishedPack {
    /// Takes over a whole pack and its index, and gives them the temporary names that follow from `checksum`.
    pub(super) fn adopt(
        pack_dir: &Path,
        mut pack: TemporaryFile,
        mut index: TemporaryFile,
        checksum: &[u8],
        objects: u32,
        bytes: u64,
        sync: Sync,
    ) -> Result<Self> {
        let hex: String = checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("pack-{hex}");
        let places = Places::new(pack_dir, &name)?;
        pack.rename(places.temporary_pack)?;
        index.rename(places.temporary_index)?;
        pack.keep();
        index.keep();
        fault::point("pack:finished");
        Ok(Self { pack_dir: pack_dir.to_owned(), name, objects, bytes, sync, keep: false })
    }

    /// `pack-` and the 40 hex digits of the pack's checksum: the final name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many objects are in it.
    pub fn objects(&self) -> u32 {
        self.objects
    }

    /// Bytes of the pack itself, without its index.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where pack and index are now.
    pub fn temporary_paths(&self) -> Result<(PathBuf, PathBuf)> {
        let places = Places::new(&self.pack_dir, &self.name)?;
        Ok((places.temporary_pack, places.temporary_index))
    }

    /// Puts pack and index in place, where readers find them, and makes that durable if the pack was finished
    /// so. A pack of that name that is there already has the same bytes and stays.
    pub fn install(self) -> Result<InstalledPack> {
        install(Places::new(&self.pack_dir, &self.name)?, &self.pack_dir, &self.name, self.sync)
    }

    /// Leaves the files under their temporary names, for [`install_by_name`] or [`remove_by_name`].
    pub fn into_name(mut self) -> String {
        self.keep = true;
        std::mem::take(&mut self.name)
    }
}

impl Drop for FinishedPack {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Ok((pack, index)) = self.temporary_paths() {
            // After an installation there is nothing to remove; the sweep finds what cannot be removed now.
            let _ = std::fs::remove_file(index);
            let _ = std::fs::remove_file(pack);
        }
    }
}

/// A pack in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPack {
    /// `pack-<40 hex>`.
    pub name: String,
    /// The `.pack` file.
    pub path: PathBuf,
    /// The same pack had been in place before.
    pub was_there: bool,
}

/// The four paths of a pack.
struct Places {
    temporary_pack: PathBuf,
    temporary_index: PathBuf,
    pack: PathBuf,
    index: PathBuf,
}

impl Places {
    fn new(pack_dir: &Path, name: &str) -> Result<Self> {
        Self::between(pack_dir, pack_dir, name)
    }

    fn between(temporary_dir: &Path, pack_dir: &Path, name: &str) -> Result<Self> {
        let hex = hex_of(name)
            .ok_or_else(|| Error::new(Kind::Internal, format!("{name:?} is not the name of a pack")))?;
        Ok(Self {
            temporary_pack: temporary_dir.join(format!("{TEMPORARY_PREFIX}{hex}_pack")),
            temporary_index: temporary_dir.join(format!("{TEMPORARY_PREFIX}{hex}_idx")),
            pack: pack_dir.join(format!("{name}.pack")),
            index: pack_dir.join(format!("{name}.idx")),
        })
    }
}

fn hex_of(name: &str) -> Option<&str> {
    name.strip_prefix("pack-")
        .filter(|hex| hex.len() == 40 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether `name` is `pack-` and 40 hex digits, as everybody names packs.
pub(in crate::git) fn is_pack_name(name: &str) -> bool {
    hex_of(name).is_some()
}

/// Finishes an installation that may have stopped anywhere, given the name of the pack. Doing it again is
/// harmless. Fails if pack or index is neither in place nor under its temporary name.
pub fn install_by_name(pack_dir: &Path, name: &str) -> Result<InstalledPack> {
    install(Places::new(pack_dir, name)?, pack_dir, name, Sync::Durable)
}

/// As [`install_by_name`] for a pack that was made in another directory of the same file system.
pub fn install_from(made_in: &Path, pack_dir: &Path, name: &str) -> Result<InstalledPack> {
    install(Places::between(made_in, pack_dir, name)?, pack_dir, name, Sync::Durable)
}

/// The names of the packs that wait in `directory` under their temporary names.
pub fn waiting_in(directory: &Path) -> Vec<String> {
    let listing = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = listing.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let hex = name.strip_prefix(TEMPORARY_PREFIX)?.strip_suffix("_idx")?.to_owned();
        Some(format!("pack-{hex}"))
    });
    names.collect()
}

fn install(places: Places, pack_dir: &Path, name: &str, sync: Sync) -> Result<InstalledPack> {
    let pack_step = step(&places.temporary_pack, &places.pack)?;
    let index_step = step(&places.temporary_index, &places.index)?;
    let was_there = pack_step != Step::Move && index_step != Step::Move;
    carry_out(pack_step, &places.temporary_pack, &places.pack)?;
    fault::point("pack:half-installed");
    if let Err(error) = carry_out(index_step, &places.temporary_index, &places.index) {
        if pack_step == Step::Move {
            let _ = std::fs::remove_file(&places.pack);
        }
        return Err(error);
    }
    if sync == Sync::Durable
        && let Err(error) = sync_directory(pack_dir)
    {
        // The system tells of a lost write once: synced again, it would call durable what is not. What was put
        // in place is taken away, so that it is written anew.
        if index_step == Step::Move {
            let _ = std::fs::remove_file(&places.index);
        }
        if pack_step == Step::Move {
            let _ = std::fs::remove_file(&places.pack);
        }
        return Err(error);
    }
    fault::point("pack:installed");
    Ok(InstalledPack { name: name.to_owned(), path: places.pack, was_there })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    DropTemporary,
    Move,
}

/// Equal names mean equal bytes, so of two files of one length either will do; of different lengths, the one
/// in place is what some accident left of it.
fn step(temporary: &Path, place: &Path) -> Result<Step> {
    match (length(temporary)?, length(place)?) {
        (None, None) => Err(Error::new(
            Kind::Git,
            format!("neither {} nor {} exists; the pack is lost", shown(place), shown(temporary)),
        )),
        (None, Some(_)) => Ok(Step::Nothing),
        (Some(ours), Some(theirs)) if ours == theirs => Ok(Step::DropTemporary),
        (Some(_), _) => Ok(Step::Move),
    }
}

fn carry_out(step: Step, temporary: &Path, place: &Path) -> Result<()> {
    match step {
        Step::Nothing => Ok(()),
        Step::DropTemporary => remove_if_there(temporary).map(|_| ()),
        Step::Move => {
            if let Some(directory) = place.parent() {
                ownership::follow(temporary, directory);
            }
            std::fs::rename(temporary, place).map_err(|error| Error::io("rename to", place, error))
        }
    }
}

fn length(path: &Path) -> Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("examine", path, error)),
    }
}

/// Removes a pack by name, in place or under its temporary names or half of each, and makes that durable.
/// A pack that does not exist is removed already.
pub fn remove_by_name(pack_dir: &Path, name: &str) -> Result<()> {
    remove_files(pack_dir, pack_dir, name)?;
    sync_directory(pack_dir)
}

/// As [`remove_by_name`] for many packs: [`sync_directory`] after the last makes it durable. Until the pack is
/// gone its index stands under its temporary name in `temporary_dir`, by which [`remove_temporary`] knows a half-removed pack.
pub(in crate::git) fn remove_files(temporary_dir: &Path, pack_dir: &Path, name: &str) -> Result<()> {
    let places = Places::between(temporary_dir, pack_dir, name)?;
    match std::fs::rename(&places.index, &places.temporary_index) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::io("take away the pack index", &places.index, error));
        }
        _ => {}
    }
    for ending in COMPANIONS {
        remove_if_there(&places.pack.with_extension(ending))?;
    }
    for path in [&places.pack, &places.temporary_pack, &places.temporary_index] {
        remove_if_there(path)?;
    }
    Ok(())
}

/// Removes one abandoned temporary file; whether it was there. The index of a pack that was being put in place
/// or taken away takes along the pack: without an index no reader sees it, so nobody needs it.
pub fn remove_temporary(path: &Path) -> Result<bool> {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hex = file_name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix("_idx"));
    if let Some((hex, pack_dir)) = hex.zip(path.parent())
        && let Ok(places) = Places::new(pack_dir, &format!("pack-{hex}"))
        && length(&places.index)?.is_none()
    {
        remove_if_there(&places.pack)?;
    }
    remove_if_there(path)
}

/// Removes every temporary file in `pack_dir` but those of the pack named `keep`, and tells how many. Only
/// for a time when nobody writes a pack there: at the start, under the lock of the state directory.
pub fn sweep_temporary(pack_dir: &Path, keep: Option<&str>) -> Result<usize> {
    let kept = keep.map(|name| Places::new(pack_dir, name)).transpose()?;
    let failed = |error| Error::io("list the packs in", pack_dir, error);
    let listing = match std::fs::read_dir(pack_dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut removed = 0;
    for item in listing {
        let item = item.map_err(failed)?;
        let path = item.path();
        let is_kept =
            kept.as_ref().is_some_and(|kept| path == kept.temporary_pack || path == kept.temporary_index);
        if item.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) && !is_kept {
            removed += usize::from(remove_temporary(&path)?);
        }
    }
    Ok(removed)
}

/// The names of the packs in `pack_dir` that have their index and no sign beside them that says to leave them alone.
pub(in crate::git) fn whole_packs(pack_dir: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("list the packs in", pack_dir, error);
    let mut names = Vec::new();
    for item in std::fs::read_dir(pack_dir).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let is_pack = path.extension().is_some_and(|ending| ending == "pack") && is_pack_name(name);
        let has = |ending: &str| path.with_extension(ending).symlink_metadata().is_ok();
        if is_pack && has("idx") && !SIGNS_TO_LEAVE_ALONE.iter().any(|ending| has(ending)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what other tools left unfinished among the objects of `repository` and did not touch for `grace`; how many
/// files that were. Git names them so: `tmp_pack_…`, `tmp_idx_…`, `tmp_obj_…`, `.tmp-…` and directories `tmp_objdir-…`.
pub fn sweep_foreign(repository: &Path, grace: Duration, now: SystemTime) -> usize {
    let objects = repository.join("objects");
    let mut removed = 0;
    let mut directories = vec![objects.clone()];
    directories.extend(list(&objects).map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name == b"pack" || (name.len() == 2 && name.iter().all(u8::is_ascii_hexdigit))
    }));
    for entry in directories.iter().flat_map(|directory| list(directory)) {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_ours = name.starts_with(TEMPORARY_PREFIX.as_bytes());
        let is_unfinished = name.starts_with(b"tmp_") || name.starts_with(b".tmp-");
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        // A time from the future says nothing.
        let is_old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= grace));
        if is_ours || !is_unfinished || !is_old {
            continue;
        }
        let path = entry.path();
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed += usize::from(gone.is_ok());
    }
    removed
}

fn list(directory: &Path) -> impl Iterator<Item = std::fs::DirEntry> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten()
}

/// Copies a whole pack with its index to another repository on this machine, as far as the file system can
/// without the bytes passing through here. What is copied is not read, so damage is copied too:
/// [`PackReader::verify`] first, where that matters.
pub fn copy_whole_pack(
    source: &PackReader,
    pack_dir: &Path,
    sync: Sync,
    progress: &Progress,
) -> Result<FinishedPack> {
    let pack = copy_file(source.path(), pack_dir, sync, progress)?;
    let index = copy_file(&source.path().with_extension("idx"), pack_dir, sync, progress)?;
    let length = pack.file.metadata().map_err(|error| Error::io("examine", &pack.path, error))?.len();
    if length != source.bytes() {
        return Err(Error::new(Kind::Git, format!("{} changed while it was copied", shown(source.path()))));
    }
    FinishedPack::adopt(pack_dir, pack, index, source.checksum(), source.len(), length, sync)
}

fn copy_file(from: &Path, pack_dir: &Path, sync: Sync, progress: &Progress) -> Result<TemporaryFile> {
    let source = File::open(from).map_err(|error| Error::io("open", from, error))?;
    let target = TemporaryFile::create(pack_dir)?;
    loop {
        progress.check()?;
        let copied = std::io::copy(&mut (&source).take(COPY_BYTES), &mut &target.file)
            .map_err(|error| Error::io("copy a pack to", &target.path, error))?;
        if copied == 0 {
            break;
        }
    }
    target.sync(sync)?;
    Ok(target)
}

fn remove_if_there(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Some network and removable file systems cannot sync a directory and say so; there is nothing more to do.
pub(in crate::git) fn sync_directory(pack_dir: &Path) -> Result<()> {
    use rustix::io::Errno;
    match File::open(pack_dir).and_then(|directory| directory.sync_all()) {
        Ok(()) => Ok(()),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => Ok(()),
        Err(error) => Err(Error::io("sync the directory", pack_dir, error)),
    }
}
