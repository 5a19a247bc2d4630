//! The local store of large contents, in git-lfs' own layout: `<repository>/lfs/objects/ab/cd/abcd…`.
//!
//! In: bytes as they are captured, written to `<repository>/lfs/tmp` and hashed on the way, so that what is uploaded later
//! is what was hashed. Out: a [`Pointer`], once the content stands under its name, synced. A content is here once,
//! however many files have it; another repository's are none of ours.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use super::draft::{Appending, Draft};
use super::pointer::{ObjectId, Pointer};
use crate::error::{Error, Kind, Result};
use crate::file_lock::{Attempt, LockedFile};
use crate::progress::Progress;

/// Bytes hashed at a time.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// The large contents of one repository.
#[derive(Debug, Clone)]
pub struct Objects {
    /// `<repository>/lfs`.
    directory: PathBuf,
}

impl Objects {
    /// Those of the bare repository at `repository`. Nothing is made before something is stored.
    pub fn of(repository: &Path) -> Self {
        Self { directory: repository.join("lfs") }
    }

    /// The repository that they belong to.
    pub(crate) fn repository(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Whether anything was ever stored.
    pub fn is_in_use(&self) -> bool {
        self.directory.join("objects").is_dir()
    }

    /// Where a content stands, or would.
    pub fn path_of(&self, id: &ObjectId) -> PathBuf {
        let name = id.to_string();
        self.directory.join("objects").join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// Whether the content is here, as far as its size tells.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn has(&self, pointer: &Pointer) -> Result<bool> {
        let path = self.path_of(&pointer.id);
        match fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.is_file() && found.len() == pointer.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", &path, error)),
        }
    }

    /// Opens a content for reading; `None` if it is not here.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, id: &ObjectId) -> Result<Option<File>> {
        let path = self.path_of(id);
        match OpenOptions::new().read(true).custom_flags(no_follow()).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// Begins a content.
    ///
    /// # Errors
    /// When the store cannot be made or written.
    pub fn begin(&self) -> Result<Draft> {
        Draft::begin(self, &self.directory.join("tmp"))
    }

    /// Reads a content here from its beginning to its end and says whether it is what its name and `pointer` say;
    /// `None` if it is not here.
    ///
    /// # Errors
    /// When it cannot be read, and cancellation.
    pub fn is_sound(&self, pointer: &Pointer, progress: &Progress) -> Result<Option<bool>> {
        let Some(mut file) = self.open(&pointer.id)? else { return Ok(None) };
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut size = 0u64;
        loop {
            progress.check()?;
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    hasher.update(&piece[..length]);
                    size += length as u64;
                    progress.tick();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path_of(&pointer.id), error)),
            }
        }
        Ok(Some(size == pointer.size && hasher.finalize().as_slice() == pointer.id.0.as_slice()))
    }

    /// Takes a damaged content from its name, so that a good one can stand there.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn set_aside(&self, id: &ObjectId) -> Result<()> {
        let path = self.path_of(id);
        fs::rename(&path, aside(&path)).map_err(|error| Error::io("set aside", &path, error))
    }

    /// What was set aside goes if a content stands in its place by now, and back to its name if none does.
    ///
    /// # Errors
    /// When it can be neither removed nor renamed.
    pub(crate) fn end_aside(&self, id: &ObjectId) -> Result<()> {
        let path = self.path_of(id);
        let ended = match fs::symlink_metadata(&path) {
            Ok(_) => fs::remove_file(aside(&path)),
            Err(_) => fs::rename(aside(&path), &path),
        };
        match ended {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("take back what was set aside of", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Takes a content away. One that is not here is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, id: &ObjectId) -> Result<()> {
        let path = self.path_of(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// Every content here, in no order.
    ///
    /// # Errors
    /// When a directory of the store cannot be listed.
    pub fn list(&self) -> Result<Vec<Pointer>> {
        self.listed(&|problem| Err(problem))
    }

    /// As [`Objects::list`]; `passing` says what becomes of a problem with a single place.
    fn listed(&self, passing: &dyn Fn(Error) -> Result<()>) -> Result<Vec<Pointer>> {
        let within = |directory: &Path| match entries(directory) {
            Ok(entries) => Ok(entries),
            Err(problem) => passing(problem).map(|()| Vec::new()),
        };
        let mut found = Vec::new();
        for first in within(&self.directory.join("objects"))? {
            for second in within(&first.path())? {
                for entry in within(&second.path())? {
                    let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                        continue;
                    };
                    match entry.metadata() {
                        Ok(metadata) if metadata.is_file() => {
                            found.push(Pointer { id, size: metadata.len() });
                        }
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            passing(Error::io("look at", &entry.path(), error))?;
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(found)
    }

    /// Has what `other` has, where it can be read, by one more name each, so that it takes no room; how many contents that
    /// are. Nothing is looked into: what rotted is told by whoever reads it. Not synced.
    ///
    /// # Errors
    /// For what is written here, and cancellation.
    pub fn adopt(&self, other: &Self, progress: &Progress) -> Result<usize> {
        let mut adopted = 0;
        for pointer in other.listed(&|_| Ok(()))? {
            progress.check()?;
            progress.tick();
            let (from, to) = (other.path_of(&pointer.id), self.path_of(&pointer.id));
            if let Some(parent) = to.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)
                    .map_err(|error| Error::io("create", parent, error))?;
            }
            let linked = match fs::hard_link(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            };
            // A file system without hard links.
            let taken = linked.or_else(|_| fs::copy(&from, &to).map(|_| ()));
            match taken.map_err(|error| Error::io("copy a large content to", &to, error)) {
                Ok(()) => adopted += 1,
                Err(error) if matches!(error.kind(), Kind::DiskFull | Kind::Limit) => return Err(error),
                Err(_) => {
                    let _ = fs::remove_file(&to);
                }
            }
        }
        Ok(adopted)
    }

    /// Puts a content of `other`, which is sound and on the same file system, in the place of what stands under its name here,
    /// durably.
    ///
    /// # Errors
    /// When it cannot be moved; then what stood here still does.
    pub(crate) fn take_over(&self, other: &Self, id: &ObjectId) -> Result<()> {
        let (from, to) = (other.path_of(id), self.path_of(id));
        let parent = to.parent().unwrap_or(&self.directory);
        super::draft::make(parent)?;
        fs::rename(&from, &to).map_err(|error| Error::io("rename to", &to, error))?;
        crate::git::repository::sync_directory(parent)
    }

    /// Removes what was begun and never finished. A draft that somebody still writes to stays: he holds a lock on it, which
    /// ends with him.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn sweep(&self) -> Result<()> {
        for entry in entries(&self.directory.join("tmp"))? {
            let opened =
                OpenOptions::new().read(true).custom_flags(no_follow() | no_wait()).open(entry.path());
            if opened.is_ok_and(|file| matches!(LockedFile::attempt(file), Ok(Attempt::Held(_)))) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &entry.path(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

fn no_wait() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits() as i32
}

/// Beside the content; no content has such a name.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

/// The entries of a directory; none if it is not there.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    let fail = |error| Error::io("list", directory, error);
    match fs::read_dir(directory) {
        Ok(listed) => listed.collect::<io::Result<_>>().map_err(fail),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(fail(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn store() -> (tempfile::TempDir, Objects) {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Objects::of(scratch.path());
        (scratch, objects)
    }

    fn put(objects: &Objects, bytes: &[u8]) -> Pointer {
        let mut draft = objects.begin().unwrap();
        bytes.chunks(3).for_each(|piece| draft.write(piece).unwrap());
        draft.finish().unwrap()
    }

    #[test]
    fn a_content_stands_once_under_its_hash_where_git_lfs_looks_for_it() {
        let (scratch, objects) = store();
        let pointer = put(&objects, b"hello");
        assert_eq!((pointer.id.to_string().as_str(), pointer.size), (HELLO, 5));
        assert_eq!(put(&objects, b"hello"), pointer);
        let expected = scratch.path().join("lfs/objects/2c/f2").join(HELLO);
        assert_eq!(objects.path_of(&pointer.id), expected);
        assert_eq!(fs::read(expected).unwrap(), b"hello");
        assert!(objects.has(&pointer).unwrap());
        assert!(!objects.has(&Pointer { size: 6, ..pointer }).unwrap());
        assert_eq!(objects.list().unwrap(), [pointer]);
        assert_eq!(fs::read_dir(scratch.path().join("lfs/tmp")).unwrap().count(), 0);
        objects.remove(&pointer.id).unwrap();
        objects.remove(&pointer.id).unwrap();
        assert!(!objects.has(&pointer).unwrap() && objects.open(&pointer.id).unwrap().is_none());
    }

    #[test]
    fn a_content_that_is_not_what_was_expected_or_was_given_up_leaves_nothing() {
        let (scratch, objects) = store();
        let mut draft = objects.begin().unwrap();
        draft.write(b"other").unwrap();
        let expected = Pointer { id: HELLO.parse().unwrap(), size: 5 };
        assert_eq!(draft.finish_as(&expected).unwrap_err().kind(), Kind::RemoteRefused);
        let mut draft = objects.begin().unwrap();
        draft.write(b"hel").unwrap();
        drop(draft);
        assert!(objects.list().unwrap().is_empty());
        // Of a process that was killed.
        fs::write(scratch.path().join("lfs/tmp/bb_left"), "half").unwrap();
        let mut written = objects.begin().unwrap();
        objects.sweep().unwrap();
        written.write(b"hello").unwrap();
        written.finish_as(&expected).unwrap();
        assert_eq!(fs::read_dir(scratch.path().join("lfs/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_content_that_rotted_is_told_by_reading_it() {
        let (_scratch, objects) = store();
        let pointer = put(&objects, b"hello");
        let progress = Progress::new();
        assert_eq!(objects.is_sound(&pointer, &progress).unwrap(), Some(true));
        let path = objects.path_of(&pointer.id);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "hellO").unwrap();
        assert_eq!(objects.is_sound(&pointer, &progress).unwrap(), Some(false));
        objects.remove(&pointer.id).unwrap();
        assert_eq!(objects.is_sound(&pointer, &progress).unwrap(), None);
    }

    #[test]
    fn what_another_store_has_is_taken_over_and_a_place_that_cannot_be_read_is_passed_over() {
        let ((_old, old), (_new, new)) = (store(), store());
        let pointers = [b"one", b"two"].map(|bytes| put(&old, bytes));
        fs::write(old.directory.join("objects/zz"), "no directory").unwrap();
        fs::create_dir_all(old.directory.join("objects/ab/cd/notes")).unwrap();
        let progress = Progress::new();
        assert_eq!(new.adopt(&old, &progress).unwrap(), 2);
        assert_eq!(new.adopt(&old, &progress).unwrap(), 2, "again is harmless");
        for pointer in &pointers {
            old.remove(&pointer.id).unwrap();
            assert_eq!(new.is_sound(pointer, &progress).unwrap(), Some(true));
        }
    }

    #[test]
    fn a_damaged_content_gives_way_to_a_good_one_and_comes_back_if_there_is_none() {
        let (_scratch, objects) = store();
        let pointer = put(&objects, b"hello");
        let path = objects.path_of(&pointer.id);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "hellO").unwrap();
        objects.set_aside(&pointer.id).unwrap();
        assert!(objects.list().unwrap().is_empty() && !objects.has(&pointer).unwrap());
        objects.end_aside(&pointer.id).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hellO");
        objects.set_aside(&pointer.id).unwrap();
        put(&objects, b"hello");
        objects.end_aside(&pointer.id).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        objects.end_aside(&pointer.id).unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_a_content_is_not_followed() {
        let (scratch, objects) = store();
        let pointer = put(&objects, b"hello");
        let path = objects.path_of(&pointer.id);
        let elsewhere = scratch.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(!objects.has(&pointer).unwrap());
        assert!(objects.open(&pointer.id).is_err());
    }
}
