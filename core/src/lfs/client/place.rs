//! A copy of one object from one store to another on disks that are mounted here: shared blocks where the file system can,
//! else bytes; hashed in any case, synced, renamed to its name, and its directory synced. Nothing is followed out of the
//! store that is written to: it may be somebody else's disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
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

/// A store that is written to.
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
    /// Copies `pointer` from `source`.
    ///
    /// # Errors
    /// When it cannot be written; what cannot be read is said by the outcome.
    pub(super) fn copy(&self, source: &Objects, pointer: &Pointer, progress: &Progress) -> Result<Copied> {
        let mut from = match open(&source.path_of(&pointer.id)) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Copied::NotThere),
            Err(error) if error.kind() == Kind::Io => return Ok(Copied::Unreadable),
            Err(error) => return Err(error),
        };
        let directory = self.directory(&["lfs", "tmp"])?;
        let (mut file, temporary) = self.begin(&directory)?;
        let hashed = match clone(&file, &from) {
            true => hash(&mut file, None, pointer.size, progress)?,
            false => hash(&mut from, Some((&mut file, &temporary.0)), pointer.size, progress)?,
        };
        match hashed {
            None => return Ok(Copied::Unreadable),
            Some((size, hash)) if size != pointer.size || hash != pointer.id.0 => return Ok(Copied::Damaged),
            Some(_) => {}
        }
        file.sync_all().map_err(|error| Error::io("sync", &temporary.0, error))?;
        let name = pointer.id.to_string();
        let parent = self.directory(&["lfs", "objects", &name[..2], &name[2..4]])?;
        ownership::follow(&temporary.0, &parent);
        let to = parent.join(&name);
        fs::rename(&temporary.0, &to).map_err(|error| Error::io("rename to", &to, error))?;
        sync_directory(&parent)?;
        Ok(Copied::Whole)
    }

    fn begin(&self, directory: &Path) -> Result<(File, Temporary)> {
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
        Ok((file, Temporary(path)))
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
                    sync_directory(&parent)?;
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

/// Opens a plain file, whatever else stands there; `None` if there is none.
fn open(path: &Path) -> Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => {
            let found = file.metadata().map_err(|error| Error::io("look at", path, error))?;
            Ok(found.is_file().then_some(file))
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

/// Reads a file to its end, or until it is longer than it may be, and copies it; `None` if it cannot be read.
fn hash(
    from: &mut File,
    mut to: Option<(&mut File, &Path)>,
    most: u64,
    progress: &Progress,
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
        if let Some((file, path)) = &mut to {
            file.write_all(&piece[..length]).map_err(|error| Error::io("write", path, error))?;
        }
        progress.bytes_done(length as u64);
    }
    Ok(Some((size, hasher.finalize().into())))
}
