//! What can still be read of a damaged repository goes into a new one.
//!
//! Packs that verify are linked, so they cost no space; one whose index is lost or wrong gets a new one; of one
//! that is itself damaged, every object that is still what its name says is copied. Nothing is written to
//! the damaged repository.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::health::{packed_references, parse_oid};
use super::pack::{Completeness, EntryKind, IncomingPack, ObjectKind, PackReader, PackWriter, Sync};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// Larger objects than this do not fit into memory twice; they are lost with a damaged pack in delta form.
const IN_MEMORY: usize = 1024 * 1024 * 1024;

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Packs that were sound, or sound but for their index.
    pub whole: usize,
    /// Packs of which only a part could be read.
    pub partly: usize,
    /// Packs of which nothing could be read.
    pub lost: usize,
}

/// Brings every readable object of the repository at `from` into the packs of the one at `into`, which is on the
/// same file system.
///
/// # Errors
/// For what is written and for cancellation; whatever cannot be read is counted.
pub fn salvage_packs(from: &Path, into: &Path, progress: &Progress) -> Result<Salvaged> {
    let (source, target) = (from.join("objects/pack"), into.join("objects/pack"));
    let mut salvaged = Salvaged::default();
    for pack in packs_in(&source) {
        progress.check()?;
        let opened = PackReader::open(&pack);
        let verified = match &opened {
            Ok(reader) => reader.verify(progress),
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        match verified {
            Ok(()) => {
                link(&pack, &target)?;
                link(&pack.with_extension("idx"), &target)?;
                salvaged.whole += 1;
                continue;
            }
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Limit) => return Err(error),
            Err(_) => {}
        }
        if index_anew(&pack, &target, progress)? {
            salvaged.whole += 1;
        } else if let Ok(reader) = opened
            && copy_readable(from, &reader, &target, progress)? > 0
        {
            salvaged.partly += 1;
        } else {
            salvaged.lost += 1;
        }
    }
    Ok(salvaged)
}

fn packs_in(directory: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut packs: Vec<PathBuf> = listing
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack") && path.is_file())
        .collect();
    packs.sort();
    packs
}

fn link(file: &Path, directory: &Path) -> Result<()> {
    let Some(name) = file.file_name() else { return Ok(()) };
    let place = directory.join(name);
    match fs::hard_link(file, &place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without hard links.
        Err(_) => {
            fs::copy(file, &place).map(|_| ()).map_err(|error| Error::io("copy a pack to", &place, error))
        }
    }
}

/// Reads a pack through and writes it with a new index; false if the pack itself is damaged.
fn index_anew(pack: &Path, target: &Path, progress: &Progress) -> Result<bool> {
    let Ok(mut file) = File::open(pack) else { return Ok(false) };
    let mut incoming = IncomingPack::create(target, Completeness::Parts)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        progress.check()?;
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => match incoming.take(&buffer[..count]) {
                Err(error) if error.kind() == Kind::Git => return Ok(false),
                taken => taken?,
            },
            Err(_) => return Ok(false),
        }
    }
    match incoming.finish(Sync::Durable, progress) {
        Ok(Some(pack)) => pack.install().map(|_| true),
        Ok(None) => Ok(false),
        // The pack is to blame.
        Err(error) if error.kind() == Kind::Git => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies what is still what it should be; how many objects that were.
fn copy_readable(from: &Path, reader: &PackReader, target: &Path, progress: &Progress) -> Result<usize> {
    let Ok(entries) = reader.entries() else { return Ok(0) };
    let database = git2::Odb::new().and_then(|database| {
        database.add_disk_alternate(&from.join("objects").to_string_lossy())?;
        Ok(database)
    });
    let database = database.ok();
    let writer = PackWriter::create(target)?;
    for item in entries {
        progress.check()?;
        let Ok((oid, entry)) = item else { continue };
        if matches!(entry.kind, EntryKind::Whole(_)) {
            match writer.copy_raw_while(oid, &entry, reader, progress) {
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::DiskFull) => return Err(error),
                _ => {}
            }
            continue;
        }
        // Its base may be lost, or be in another pack: what can be read is stored whole.
        let read = database.as_ref().and_then(|database| database.read(oid).ok());
        if let Some(object) = read.filter(|object| object.len() <= IN_MEMORY)
            && let Ok(kind) = ObjectKind::try_from(object.kind())
        {
            writer.add(kind, object.data())?;
        }
    }
    let count = writer.object_count();
    if let Some(finished) = writer.finish(Sync::Durable, progress)? {
        finished.install()?;
    }
    Ok(count)
}

/// Every commit that stands whole in a pack of `repository`.
pub fn commits_in(repository: &Path, progress: &Progress) -> Result<Vec<Oid>> {
    let mut commits = Vec::new();
    for pack in packs_in(&repository.join("objects/pack")) {
        for item in PackReader::open(&pack)?.entries()? {
            progress.check()?;
            let (oid, entry) = item?;
            if entry.kind == EntryKind::Whole(ObjectKind::Commit) {
                commits.push(oid);
            }
        }
    }
    Ok(commits)
}

/// Every reference that can still be read, loose ones first, as they hide packed ones.
pub fn readable_references(repository: &Path) -> Vec<(String, Oid)> {
    let mut found: Vec<(String, Oid)> = Vec::new();
    let mut pending = vec![repository.join("refs")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let at = entry.path();
            if at.is_dir() {
                pending.push(at);
                continue;
            }
            let name = at.strip_prefix(repository).ok().and_then(Path::to_str).map(str::to_owned);
            let small = entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < 1024);
            let target = small.then(|| fs::read(&at).ok()).flatten().and_then(|text| parse_oid(&text));
            found.extend(name.zip(target));
        }
    }
    if let Ok(packed) = packed_references(repository) {
        for (name, target) in packed {
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, target));
            }
        }
    }
    found.retain(|(name, _)| git2::Reference::is_valid_name(name));
    found
}

/// Lets the owner remove a directory that somebody made read-only, before it is set aside.
pub fn make_movable(path: &Path) {
    if let Ok(metadata) = path.symlink_metadata()
        && metadata.is_dir()
        && metadata.permissions().mode() & 0o700 != 0o700
    {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::repository::Repository;

    fn repository(path: &Path) -> (Repository, Vec<Oid>) {
        let (repository, _) = Repository::open_or_create(path, "refs/heads/main", "state", "o").unwrap();
        let writer = PackWriter::create(&repository.pack_directory()).unwrap();
        let objects: Vec<Oid> = (0..20)
            .map(|number| writer.add(ObjectKind::Blob, format!("content {number}").as_bytes()).unwrap())
            .collect();
        writer.finish(Sync::Durable, &Progress::new()).unwrap().unwrap().install().unwrap();
        (repository, objects)
    }

    fn one(directory: &Path, ending: &str) -> PathBuf {
        let mut found =
            fs::read_dir(directory.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
        found.find(|path| path.extension().is_some_and(|own| own == ending)).unwrap()
    }

    fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn salvaged(damage: impl FnOnce(&Path)) -> (Salvaged, usize) {
        let scratch = tempfile::tempdir().unwrap();
        let (from, into) = (scratch.path().join("from.git"), scratch.path().join("into.git"));
        let (_, objects) = repository(&from);
        let (target, _) = Repository::open_or_create(&into, "refs/heads/main", "state", "o").unwrap();
        damage(&from);
        let salvaged = salvage_packs(&from, &into, &Progress::new()).unwrap();
        let database = target.objects().unwrap();
        let readable = objects.iter().filter(|oid| database.read(**oid).is_ok()).count();
        let left = fs::read_dir(into.join("objects/pack")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|name| name.starts_with("pack-")), "{left:?}");
        (salvaged, readable)
    }

    const WHOLE: Salvaged = Salvaged { whole: 1, partly: 0, lost: 0 };

    #[test]
    fn a_sound_pack_and_one_without_a_usable_index_come_over_whole() {
        assert_eq!(salvaged(|_| {}), (WHOLE, 20));
        assert_eq!(salvaged(|from| fs::remove_file(one(from, "idx")).unwrap()), (WHOLE, 20));
        assert_eq!(salvaged(|from| rewrite(&one(from, "idx"), Vec::clear)), (WHOLE, 20));
        assert_eq!(salvaged(|from| rewrite(&one(from, "idx"), |bytes| bytes[1100] ^= 4)), (WHOLE, 20));
    }

    #[test]
    fn of_a_damaged_pack_all_but_the_damage_comes_over() {
        let (count, readable) = salvaged(|from| {
            rewrite(&one(from, "pack"), |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            });
        });
        assert_eq!(count, Salvaged { whole: 0, partly: 1, lost: 0 });
        assert_eq!(readable, 19);
        let (count, readable) = salvaged(|from| rewrite(&one(from, "pack"), Vec::clear));
        assert_eq!((count, readable), (Salvaged { whole: 0, partly: 0, lost: 1 }, 0));
    }

    #[test]
    fn references_are_read_wherever_they_still_can_be() {
        let scratch = tempfile::tempdir().unwrap();
        let (hex_a, hex_b) = ("a".repeat(40), "b".repeat(40));
        fs::create_dir_all(scratch.path().join("refs/heads/deep")).unwrap();
        fs::write(scratch.path().join("refs/heads/main"), format!("{hex_a}\n")).unwrap();
        fs::write(scratch.path().join("refs/heads/deep/empty"), "").unwrap();
        fs::write(scratch.path().join("refs/heads/text"), "no reference").unwrap();
        let packed = format!("# pack-refs with: peeled\n{hex_b} refs/heads/main\n{hex_b} refs/tags/one\n");
        fs::write(scratch.path().join("packed-refs"), packed).unwrap();
        let mut found = readable_references(scratch.path());
        found.sort();
        let expected = [("refs/heads/main", hex_a), ("refs/tags/one", hex_b)];
        let expected = expected.map(|(name, hex)| (name.to_owned(), Oid::from_str(&hex).unwrap()));
        assert_eq!(found, expected);
    }
}
