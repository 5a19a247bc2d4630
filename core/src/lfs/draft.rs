//! A content on its way into the store: `<repository>/lfs/tmp/bb_…` until it is whole, hashed and synced.
//!
//! In: bytes, or a file whose blocks are taken over. Out: the content under its name in [`Objects`], durable.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::objects::{Objects, PIECE_BYTES};
use super::pointer::{ObjectId, Pointer};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::file_lock::LockedFile;
use crate::git::repository::sync_directory;
use crate::progress::Progress;

/// A content on its way into the store. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    objects: Objects,
    file: LockedFile,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl Draft {
    /// Begins one in `directory`, which is made.
    pub(super) fn begin(objects: &Objects, directory: &Path) -> Result<Self> {
        make(directory)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Io, format!("cannot get random bytes: {error}")))?;
        let path = directory.join(format!("bb_{:016x}", u64::from_ne_bytes(random)));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        // Where the file system knows no locks, a sweep takes every draft for left over.
        let file = LockedFile::fresh(file);
        fault::point("lfs:object-begun");
        Ok(Draft { objects: objects.clone(), file, path, hasher: Sha256::new(), size: 0 })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Has the content be that of `source` without copying it, where the file system can: both share the blocks until one
    /// of them is written to. Whether it could; the bytes are not hashed yet then ([`Draft::hash_shared`]). Only for a
    /// draft that nothing was written to.
    pub fn share(&mut self, source: &File) -> bool {
        debug_assert_eq!(self.size, 0);
        #[cfg(target_os = "linux")]
        let shared = rustix::fs::ioctl_ficlone(&*self.file, source).is_ok();
        #[cfg(not(target_os = "linux"))]
        let shared = {
            let _ = source;
            false
        };
        shared
    }

    /// Reads and hashes what [`Draft::share`] took over; `each` sees every piece.
    ///
    /// # Errors
    /// When it cannot be read, and cancellation.
    pub fn hash_shared(&mut self, progress: &Progress, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            progress.check()?;
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.hasher.update(&piece[..length]);
                    self.size += length as u64;
                    each(&piece[..length]);
                    progress.tick();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path, error)),
            }
        }
    }

    /// What was written so far, from its beginning. Nothing may be written after this.
    ///
    /// # Errors
    /// When the file cannot be rewound.
    pub fn read_back(&mut self) -> Result<&mut File> {
        self.file.rewind().map_err(|error| Error::io("read", &self.path, error))?;
        Ok(&mut self.file)
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pointer to what was written, or taken over and hashed, so far.
    pub fn pointer(&self) -> Pointer {
        Pointer { id: ObjectId(self.hasher.clone().finalize().into()), size: self.size }
    }

    /// Puts the content under its name, durably.
    ///
    /// # Errors
    /// When it cannot be synced or renamed; nothing is left then.
    pub fn finish(mut self) -> Result<Pointer> {
        let id = ObjectId(std::mem::take(&mut self.hasher).finalize().into());
        let pointer = Pointer { id, size: self.size };
        let to = self.objects.path_of(&id);
        let parent = to.parent().unwrap_or(&to);
        if self.objects.has(&pointer)? {
            // Put there by a run that was killed before it could make the name durable, for all we know.
            sync_directory(parent)?;
            return Ok(pointer);
        }
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))?;
        fault::point("lfs:object-synced");
        make(parent)?;
        fs::rename(&self.path, &to).map_err(|error| Error::io("rename to", &to, error))?;
        if let Err(error) = sync_directory(parent) {
            // Found there next time, it would be taken for durable: it is written anew instead.
            let _ = fs::remove_file(&to);
            return Err(error);
        }
        fault::point("lfs:object-stored");
        Ok(pointer)
    }

    /// As [`Draft::finish`] for a content whose name is known beforehand.
    ///
    /// # Errors
    /// [`Kind::RemoteRefused`] if the bytes are others; nothing is left then.
    pub fn finish_as(self, expected: &Pointer) -> Result<()> {
        let id = ObjectId(self.hasher.clone().finalize().into());
        if self.size != expected.size || id != expected.id {
            let text = format!(
                "the large object {} of {} bytes came as {} of {} bytes: not taken",
                expected.id, expected.size, id, self.size
            );
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        self.finish().map(|_| ())
    }
}

/// A draft as something to write to.
#[derive(Debug)]
pub struct Appending<'d>(pub &'d mut Draft);

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was put in place there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a directory with those above it, each durable in the one that holds it.
pub(super) fn make(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(directory);
    if parent != directory {
        make(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", directory, error));
        }
        _ => {}
    }
    sync_directory(parent).inspect_err(|_| {
        // As above; while it is empty.
        let _ = fs::remove_dir(directory);
    })
}
