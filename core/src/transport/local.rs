//! A remote that is a directory here: a disk, a mounted share.
//!
//! No git binary takes part. Objects arrive as one pack that is made and synced in a directory of our own, kept
//! from any `git gc` by a `.keep` file until the reference has moved, and put in place pack first, index
//! second; the reference moves under Git's own lock. So a reader or writer of the remote sees the old state or
//! the new one, and what a killed process leaves carries its name, so that the next connection of the same
//! instance sweeps it at once and nobody else's. Hooks of the remote are not run.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::Oid;

use super::{Advertisement, ReferenceUpdate, Sent, Transport};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::pack::{self, Copied, EntryKind, ObjectKind, PackSet, PackWriter};
use crate::git::reachable::{PushSet, new_objects};
use crate::git::refs;
use crate::git::repository::{Origin, Repository, git_error, sync_file};
use crate::git::workshop;
use crate::progress::Progress;

/// A lock of somebody else is taken for abandoned after this.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// A bare repository in a directory.
pub struct LocalTransport {
    remote: Repository,
    /// Tells what we left there from what others did.
    owner: String,
}

impl LocalTransport {
    /// Opens the repository at `path`, or makes it.
    ///
    /// # Errors
    /// [`Kind::RemoteUnreachable`] when its place is missing (an unplugged disk), [`Kind::RemoteRefused`] for
    /// what is no bare SHA-1 repository.
    pub fn open(path: &Path, branch: &str, for_repository: &Path) -> Result<(Self, Origin)> {
        let owner = workshop::owner_of(for_repository);
        let opened =
            can_be_listed(path).and_then(|()| Repository::open_or_create(path, branch, "remote", &owner));
        let (remote, origin) = opened.map_err(|error| match error.kind() {
            Kind::Io => Error::with_source(Kind::RemoteUnreachable, "the remote cannot be reached", error),
            _ => error,
        })?;
        let transport = Self { remote, owner };
        transport.sweep();
        Ok((transport, origin))
    }

    /// Opens the repository at `path` as it is, beside whatever a push of ours is doing there; `None` if there is
    /// none.
    pub fn open_to_read(path: &Path, for_repository: &Path) -> Result<Option<Self>> {
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(None);
        }
        let remote = can_be_listed(path).and_then(|()| Repository::open(path))?;
        Ok(Some(Self { remote, owner: workshop::owner_of(for_repository) }))
    }

    /// Removes what an earlier process of ours left when it was killed: half a pack, a pack without its index,
    /// the file that keeps a pack. One pusher a remote and one process a state directory make it safe.
    fn sweep(&self) {
        let pack_directory = self.remote.pack_directory();
        workshop::sweep(self.remote.path(), &self.owner);
        sweep_old_temporaries(&pack_directory);
        for entry in fs::read_dir(&pack_directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_keep = path.extension().is_some_and(|ending| ending == "keep");
            if is_keep && fs::read_to_string(&path).is_ok_and(|text| text == keep_text(&self.owner)) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// libgit2 says of a directory that we may not enter that there is no repository.
fn can_be_listed(path: &Path) -> Result<()> {
    match fs::read_dir(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io("open", path, error))
        }
        _ => Ok(()),
    }
}

impl LocalTransport {
    /// Whether a commit and its topmost tree can be read there.
    fn shows(&self, commit: Oid) -> bool {
        self.remote.tree_of(commit).is_ok_and(|tree| self.remote.git().find_tree(tree).is_ok())
    }

    /// No reference leads to what was just sent, so it goes again: on a full disk the next attempt needs the room.
    /// A reference whose move failed only after it was seen to move keeps it.
    fn take_back(&self, pack: &pack::InstalledPack, update: &ReferenceUpdate) {
        let has_moved = !matches!(self.remote.reference(&update.name), Ok(at) if at != Some(update.new));
        if !pack.was_there && !has_moved {
            let _ = pack::remove_by_name(&self.remote.pack_directory(), &pack.name);
        }
    }

    fn is_loose(&self, oid: &Oid) -> bool {
        let hex = oid.to_string();
        let (directory, file) = hex.split_at(2);
        self.remote.path().join("objects").join(directory).join(file).exists()
    }
}

/// Removed with whatever an attempt that failed left in it.
struct Workshop(PathBuf);

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Transport for LocalTransport {
    fn advertise(&mut self) -> Result<Advertisement> {
        Ok(Advertisement { references: self.remote.references()?.into_iter().collect(), haves: Vec::new() })
    }

    fn push(
        &mut self,
        source: &Repository,
        set: &PushSet,
        updates: &[ReferenceUpdate],
        progress: &Progress,
    ) -> Result<Sent> {
        let objects = set.objects.as_slice();
        refs::sweep_stale_locks(self.remote.path(), ABANDONED_AFTER, SystemTime::now());
        let workshop = Workshop(workshop::for_push(self.remote.path(), &self.owner)?);
        let workshop = workshop.0.as_path();
        let pack_directory = self.remote.pack_directory();
        let (sent, installed) = match assemble(source, objects, workshop, Trust::Stored, progress)? {
            None => (Sent::default(), None),
            Some(finished) => {
                let (objects, bytes) = (u64::from(finished.objects()), finished.bytes());
                let sent = Sent { objects, bytes, ..Sent::default() };
                let keep = KeepFile::create(workshop, &pack_directory, finished.name(), &self.owner)?;
                fault::point("push:pack-synced");
                let pack = pack::install_from(workshop, &pack_directory, &finished.into_name())?;
                fault::point("push:pack-installed");
                (sent, Some((pack, keep)))
            }
        };
        // A lock with a commit that we made is ours, from a process that died.
        let is_ours =
            |oid: Oid| source.has_commit(oid) && !self.remote.has_commit(oid) || objects.contains(&oid);
        for (number, update) in updates.iter().enumerate() {
            let moved = refs::move_reference_over(
                &self.remote,
                &update.name,
                update.expected,
                update.new,
                workshop,
                &is_ours,
            );
            if let Err(error) = moved {
                if let Some((pack, _)) = installed.as_ref().filter(|_| number == 0) {
                    self.take_back(pack, update);
                }
                return Err(error);
            }
        }
        fault::point("push:reference-moved");
        drop(installed);
        Ok(sent)
    }

    fn lost(&mut self, source: &Repository, tips: &[Oid], progress: &Progress) -> Result<Vec<Oid>> {
        let packs = PackSet::open_lean(&self.remote.pack_directory())?;
        // A pack without its index, an index without its pack, one that is cut off or not what its index says:
        // all of that shows when the packs are opened. A pack that vanished whole shows if the newest commit was
        // in it.
        let is_whole = packs.problems().is_empty() && tips.iter().all(|tip| self.shows(*tip));
        if is_whole {
            return Ok(Vec::new());
        }
        let borrows = self.remote.path().join("objects/info/alternates").exists();
        let database = self.remote.objects()?;
        let mut seen = HashSet::new();
        let mut lost = Vec::new();
        for tip in tips {
            for oid in new_objects(source, *tip, &[], progress)? {
                if !seen.insert(oid) {
                    continue;
                }
                progress.check()?;
                let is_packed = match packs.contains(&oid) {
                    Err(error) if error.kind() == Kind::Limit => return Err(error),
                    answer => answer.unwrap_or(false),
                };
                let is_there = is_packed || self.is_loose(&oid) || (borrows && database.exists(oid));
                if !is_there {
                    lost.push(oid);
                }
            }
        }
        Ok(lost)
    }

    fn commit_message(&mut self, commit: Oid) -> Result<String> {
        self.remote.message_of(commit)
    }

    fn fetch(&mut self, target: &Repository, want: Oid, progress: &Progress) -> Result<()> {
        let objects = new_objects(&self.remote, want, &[], progress)?;
        if let Some(finished) =
            assemble(&self.remote, &objects, &target.pack_directory(), Trust::Nothing, progress)?
        {
            finished.install()?;
        }
        Ok(())
    }
}

/// How far the source's objects are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// They are ours: the index's CRC proves that they are as they were written.
    Stored,
    /// They are a stranger's: each one is hashed again.
    Nothing,
}

/// Writes the objects of `source` into one new pack in `pack_directory`: entries that are stored whole are
/// copied as they are, everything else (deltas, loose objects) is read, checked and stored whole.
fn assemble(
    source: &Repository,
    objects: &[Oid],
    pack_directory: &Path,
    trust: Trust,
    progress: &Progress,
) -> Result<Option<pack::FinishedPack>> {
    let packs = PackSet::open(&source.pack_directory())?;
    let database = source.objects()?;
    let writer = PackWriter::create(pack_directory)?;
    for oid in objects {
        progress.check()?;
        if trust == Trust::Stored
            && let Some((reader, entry)) = packs.find(oid)?
            && matches!(entry.kind, EntryKind::Whole(_))
            && writer.copy_raw_while(*oid, &entry, &reader, progress)? != Copied::Cyclic
        {
            continue;
        }
        let object = database
            .read(*oid)
            .map_err(|error| git_error(&format!("read object {oid} of"), source.path(), error))?;
        let kind = match object.kind() {
            git2::ObjectType::Commit => ObjectKind::Commit,
            git2::ObjectType::Tree => ObjectKind::Tree,
            git2::ObjectType::Tag => ObjectKind::Tag,
            _ => ObjectKind::Blob,
        };
        let stored = writer.add(kind, object.data())?;
        if stored != *oid {
            return Err(Error::new(
                Kind::Git,
                format!("object {oid} of {} is damaged", source.path().display()),
            ));
        }
    }
    writer.finish(pack::Sync::Durable, progress)
}

/// Removes unfinished files of anybody's, such as those of housekeeping that was killed, once they are old.
fn sweep_old_temporaries(pack_directory: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(pack_directory).into_iter().flatten().flatten() {
        let is_temporary =
            entry.file_name().as_encoded_bytes().starts_with(pack::TEMPORARY_PREFIX.as_bytes());
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= ABANDONED_AFTER));
        if is_temporary && old {
            let _ = pack::remove_temporary(&entry.path());
        }
    }
}

fn keep_text(owner: &str) -> String {
    format!("backupbot push {owner}\n")
}

/// Keeps `git gc` and `git repack` of the remote away from a pack that no reference needs yet.
struct KeepFile {
    path: PathBuf,
}

impl KeepFile {
    fn create(workshop: &Path, pack_directory: &Path, pack: &str, owner: &str) -> Result<Self> {
        // Made elsewhere and renamed: an empty one in place would be nobody's, and stay.
        let draft = workshop.join("keep");
        // Nothing that somebody else has put there is written to.
        let made = File::options().write(true).create_new(true).open(&draft);
        made.and_then(|mut file| file.write_all(keep_text(owner).as_bytes()))
            .map_err(|error| Error::io("write", &draft, error))?;
        // After a power cut an empty one would be nobody's, too.
        sync_file(&draft)?;
        let path = pack_directory.join(format!("{pack}.keep"));
        fs::rename(&draft, &path).map_err(|error| Error::io("move into place", &path, error))?;
        Ok(Self { path })
    }
}

impl Drop for KeepFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_push_left_is_swept_by_its_owner_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let (remote, ours) = (scratch.path().join("remote.git"), scratch.path().join("ours.git"));
        let branch = "refs/heads/main";
        let (transport, _) = LocalTransport::open(&remote, branch, &ours).unwrap();
        let packs = remote.join("objects/pack");
        let workshop = workshop::for_push(&remote, &transport.owner).unwrap();
        let unfinished = scratch.path().join(format!("remote.git-{}.unfinished", transport.owner));
        fs::create_dir_all(&unfinished).unwrap();
        let hex = "a".repeat(40);
        fs::write(workshop.join(format!("{}{hex}_idx", pack::TEMPORARY_PREFIX)), "").unwrap();
        let half = packs.join(format!("pack-{hex}.pack"));
        let old = SystemTime::now() - 2 * ABANDONED_AFTER;
        for (path, text, modified) in [
            (half, String::new(), SystemTime::now()),
            (packs.join("pack-1.keep"), keep_text(&transport.owner), SystemTime::now()),
            (packs.join("pack-2.keep"), keep_text("another"), old),
            (packs.join("tmp_pack_bb_new_1"), String::new(), old),
            (packs.join("tmp_pack_bb_new_2"), String::new(), SystemTime::now()),
            (packs.join("pack-4.pack"), String::new(), old),
        ] {
            fs::write(&path, text).unwrap();
            File::open(&path).unwrap().set_modified(modified).unwrap();
        }
        LocalTransport::open(&remote, branch, &ours).unwrap();
        let mut left: Vec<_> = fs::read_dir(&packs).unwrap().map(|item| item.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["pack-2.keep", "pack-4.pack", "tmp_pack_bb_new_2"]);
        assert!(!workshop.exists());
        assert!(!unfinished.exists());
    }
}
