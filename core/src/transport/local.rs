//! A remote that is a directory here: a disk, a mounted share.
//!
//! No git binary takes part. Objects arrive as one pack that is written under a temporary name, synced, kept
//! from any `git gc` by a `.keep` file until the reference has moved, and put in place pack first, index
//! second; the reference moves under Git's own lock. So a reader or writer of the remote sees the old state or
//! the new one, and a process killed half way leaves at most temporary files, which the next push sweeps.
//! Hooks of the remote are not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::Oid;

use super::{Advertisement, ReferenceUpdate, Sent, Transport};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::pack::{self, Copied, EntryKind, ObjectKind, PackSet, PackWriter};
use crate::git::reachable::new_objects;
use crate::git::refs;
use crate::git::repository::{Origin, Repository, git_error};
use crate::progress::Progress;

/// A lock or temporary file of somebody else is taken for abandoned after this.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// What we write into a `.keep` file, by which we know it again.
const KEEP_TEXT: &[u8] = b"backupbot push\n";

/// A bare repository in a directory.
pub struct LocalTransport {
    remote: Repository,
}

impl LocalTransport {
    /// Opens the repository at `path`, or makes it.
    ///
    /// # Errors
    /// [`Kind::RemoteUnreachable`] when its place is missing (an unplugged disk), [`Kind::RemoteRefused`] for
    /// what is no bare SHA-1 repository.
    pub fn open(path: &Path, branch: &str) -> Result<(Self, Origin)> {
        let (remote, origin) =
            Repository::open_or_create(path, branch, "remote").map_err(|error| match error.kind() {
                Kind::Io => {
                    Error::with_source(Kind::RemoteUnreachable, "the remote cannot be reached", error)
                }
                _ => error,
            })?;
        Ok((Self { remote }, origin))
    }
}

impl Transport for LocalTransport {
    fn advertise(&mut self) -> Result<Advertisement> {
        Ok(Advertisement { references: self.remote.references()?.into_iter().collect() })
    }

    fn push(
        &mut self,
        source: &Repository,
        objects: &[Oid],
        updates: &[ReferenceUpdate],
        progress: &Progress,
    ) -> Result<Sent> {
        refs::sweep_stale_locks(self.remote.path(), ABANDONED_AFTER, SystemTime::now());
        sweep_old_temporaries(&self.remote.pack_directory());
        let (sent, keep) =
            match assemble(source, objects, &self.remote.pack_directory(), Trust::Stored, progress)? {
                None => (Sent::default(), None),
                Some(finished) => {
                    let sent = Sent { objects: u64::from(finished.objects()), bytes: finished.bytes() };
                    let keep = KeepFile::create(&self.remote.pack_directory(), finished.name())?;
                    fault::point("push:pack-synced");
                    finished.install()?;
                    fault::point("push:pack-installed");
                    (sent, Some(keep))
                }
            };
        for update in updates {
            refs::move_reference(&self.remote, &update.name, update.expected, update.new)?;
        }
        fault::point("push:reference-moved");
        drop(keep);
        Ok(sent)
    }

    fn commit_message(&mut self, commit: Oid) -> Result<String> {
        let found = self.remote.git().find_commit(commit);
        let found =
            found.map_err(|error| git_error("read the latest commit of", self.remote.path(), error))?;
        Ok(String::from_utf8_lossy(found.message_bytes()).into_owned())
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

/// Removes what a push that was killed has left: unfinished files, and signs to keep a pack.
fn sweep_old_temporaries(pack_directory: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(pack_directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary = name.as_encoded_bytes().starts_with(pack::TEMPORARY_PREFIX.as_bytes());
        let is_keep = || name.as_encoded_bytes().ends_with(b".keep");
        let ours = is_temporary || (is_keep() && fs::read(entry.path()).is_ok_and(|text| text == KEEP_TEXT));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= ABANDONED_AFTER));
        if ours && old {
            let _ = pack::remove_temporary(&entry.path());
        }
    }
}

/// Keeps `git gc` and `git repack` of the remote away from a pack that no reference needs yet.
struct KeepFile {
    path: PathBuf,
}

impl KeepFile {
    fn create(pack_directory: &Path, pack: &str) -> Result<Self> {
        let path = pack_directory.join(format!("{pack}.keep"));
        fs::write(&path, KEEP_TEXT).map_err(|error| Error::io("write", &path, error))?;
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
    fn what_a_killed_push_left_is_swept_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - 2 * ABANDONED_AFTER;
        let files: [(&str, &[u8], SystemTime); 5] = [
            ("pack-1.keep", KEEP_TEXT, old),
            ("tmp_pack_bb_new_1", b"", old),
            ("pack-2.keep", KEEP_TEXT, SystemTime::now()),
            ("pack-3.keep", b"somebody else's", old),
            ("pack-4.pack", b"", old),
        ];
        for (name, text, modified) in files {
            let path = scratch.path().join(name);
            fs::write(&path, text).unwrap();
            fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        }
        sweep_old_temporaries(scratch.path());
        let mut left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["pack-2.keep", "pack-3.keep", "pack-4.pack"]);
    }
}
