//! A copy of one object between a store of ours and one on a disk that is mounted here: shared blocks where the file system
//! can, else bytes; hashed in any case, synced, renamed to its name, and its directory synced. Of somebody else's store
//! nothing is followed out of it, whether it is read or written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::file_lock::{Attempt, LockedFile};
use crate::git::ownership;
use crate::git::repository::sync_directory;
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

/// Bytes copied at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// It stands under its name.
    Whole,
    /// There is nothing to copy.
    NotThere,
    /// What stands under its name there is another content.
    Damaged,
    /// What stands there cannot be read.
    Unreadable,
}

/// Copies `pointer` from somebody else's store into ours.
///
/// # Errors
/// When it cannot be written; what cannot be read is said by the outcome.
pub(super) fn fetch(
    from: &Objects,
    pointer: &Pointer,
    store: &Objects,
    progress: &Progress,
) -> Result<Copied> {
    let mut file = match source(from, pointer)? {
        Ok(file) => file,
        Err(outcome) => return Ok(outcome),
    };
    let mut draft = store.begin()?;
    if draft.share(&file) {
        draft.hash_shared(progress, &mut |_| {})?;
    } else {
        let copied = read(&mut file, pointer.size, progress, &mut |piece| draft.write(piece))?;
        if copied.is_none() {
            return Ok(Copied::Unreadable);
        }
    }
    match draft.finish_as(pointer) {
        Ok(()) => Ok(Copied::Whole),
        Err(error) if error.kind() == Kind::RemoteRefused => Ok(Copied::Damaged),
        Err(error) => Err(error),
    }
}

/// What is to be copied, if it can be the object at all.
fn source(from: &Objects, pointer: &Pointer) -> Result<std::result::Result<File, Copied>> {
    match open(&from.path_of(&pointer.id)) {
        Ok(Some((file, size))) if size == pointer.size => Ok(Ok(file)),
        Ok(Some(_)) => Ok(Err(Copied::Damaged)),
        Ok(None) => Ok(Err(Copied::NotThere)),
        Err(error) if error.kind() == Kind::Io => Ok(Err(Copied::Unreadable)),
        Err(error) => Err(error),
    }
}

/// Somebody else's store.
pub(super) struct Target<'t> {
    /// The repository that it belongs to: `lfs` is below it.
    pub repository: &'t Path,
    /// What temporary names begin with.
    pub prefix: &'t str,
}

/// Removed unless it got its name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Target<'_> {
    /// Copies `pointer` from a store of ours.
    ///
    /// # Errors
    /// When it cannot be written; what cannot be read is said by the outcome.
    pub(super) fn copy(&self, store: &Objects, pointer: &Pointer, progress: &Progress) -> Result<Copied> {
        let mut from = match source(store, pointer)? {
            Ok(file) => file,
            Err(outcome) => return Ok(outcome),
        };
        let directory = self.directory(&["lfs", "tmp"])?;
        let (mut file, temporary) = self.begin(&directory)?;
        let hashed = match clone(&file, &from) {
            true => read(&mut file, pointer.size, progress, &mut |_| Ok(()))?,
            false => read(&mut from, pointer.size, progress, &mut |piece| {
                file.write_all(piece).map_err(|error| Error::io("write", &temporary.0, error))
            })?,
        };
        match hashed {
            None => return Ok(Copied::Unreadable),
            Some((size, hash)) if size != pointer.size || hash != pointer.id.0 => return Ok(Copied::Damaged),
            Some(_) => {}
        }
        file.sync_all().map_err(|error| Error::io("sync", &temporary.0, error))?;
        fault::point("lfs:copy-synced");
        let name = pointer.id.to_string();
        let parent = self.directory(&["lfs", "objects", &name[..2], &name[2..4]])?;
        ownership::follow(&temporary.0, &parent);
        let to = parent.join(&name);
        fs::rename(&temporary.0, &to).map_err(|error| Error::io("rename to", &to, error))?;
        if let Err(error) = sync_directory(&parent) {
            // Found there next time, it would be taken for durable: it is written anew instead.
            let _ = fs::remove_file(&to);
            return Err(error);
        }
        fault::point("lfs:copy-placed");
        Ok(Copied::Whole)
    }

    fn begin(&self, directory: &Path) -> Result<(LockedFile, Temporary)> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Io, format!("cannot get random bytes: {error}")))?;
        let path = directory.join(format!("{}{:016x}", self.prefix, u64::from_ne_bytes(random)));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        // Tells a copy under way from one that was left; where there are no locks, its age has to.
        Ok((LockedFile::fresh(file), Temporary(path)))
    }

    /// A directory of the store, made with those above it where they are not there, each as open as the one that holds it.
    fn directory(&self, names: &[&str]) -> Result<PathBuf> {
        let mut directory = self.repository.to_path_buf();
        for name in names {
            let parent = directory.clone();
            directory.push(name);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    ownership::follow(&directory, &parent);
                    sync_directory(&parent).inspect_err(|_| {
                        // As below; while it is empty.
                        let _ = fs::remove_dir(&directory);
                    })?;
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &directory, error)),
            }
            let found =
                fs::symlink_metadata(&directory).map_err(|error| Error::io("look at", &directory, error))?;
            if !found.is_dir() {
                let shown = crate::path::lossy(directory.as_os_str().as_encoded_bytes());
                let text = format!("{shown} is no directory: large objects are not put behind links");
                return Err(Error::new(Kind::RemoteRefused, text));
            }
        }
        Ok(directory)
    }
}

/// Opens a plain file, and says how large it is; `None` if there is none.
fn open(path: &Path) -> Result<Option<(File, u64)>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => {
            let found = file.metadata().map_err(|error| Error::io("look at", path, error))?;
            Ok(found.is_file().then_some((file, found.len())))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// Lets `to` share the blocks of `from`; whether that was possible.
fn clone(to: &File, from: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (to, from);
        false
    }
}

/// Reads a file to its end, or until it is longer than it may be; `each` takes what was read. Size and hash, or `None` if
/// it cannot be read.
fn read(
    from: &mut File,
    most: u64,
    progress: &Progress,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Option<(u64, [u8; 32])>> {
    if from.rewind().is_err() {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0u64;
    while size <= most {
        progress.check()?;
        let length = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Ok(None),
        };
        size += length as u64;
        hasher.update(&piece[..length]);
        each(&piece[..length])?;
        progress.bytes_done(length as u64);
    }
    Ok(Some((size, hasher.finalize().into())))
}

/// Whether somebody still writes to a copy; `None` where that cannot be told.
pub(super) fn is_held(path: &Path) -> Option<bool> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
    match LockedFile::attempt(file) {
        Ok(Attempt::Locked(_)) => Some(false),
        Ok(Attempt::Held(_)) => Some(true),
        Err(_) => None,
    }
}
