//! Where a watched root stands, and whether it is still the same directory.
//!
//! A root is known by its path, and by device and inode as they were at the first look. No descriptor of it is
//! kept: a directory that is held open does not tell its watches that it was deleted, and cannot be unmounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::beneath::{open, retry};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;

/// The place of one root.
#[derive(Debug)]
pub(super) struct RootPlace {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl RootPlace {
    /// Remembers what stands at `path` now, which must be a directory.
    pub fn new(path: &Path) -> Result<Self> {
        let identity = identity_of(path).map_err(|errno| unavailable(path, errno.into()))?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// The path, as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system that the root is on.
    pub fn device(&self) -> u64 {
        self.identity.0
    }

    /// Whether the path still leads to the same directory.
    pub fn is_there(&self) -> bool {
        identity_of(&self.path).ok() == Some(self.identity)
    }

    /// Opens the root to look below it, to be held only briefly.
    ///
    /// # Errors
    /// [`Kind::RootUnavailable`] if something else stands there now, or nothing.
    pub fn open(&self) -> Result<OwnedFd> {
        let opened = match open::open_root(&self.path) {
            Ok(opened) => opened,
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Error::io("open", &self.path, errno)),
            Err(errno) => return Err(self.unavailable(errno.into())),
        };
        match rustix::fs::fstat(&opened) {
            #[allow(clippy::unnecessary_cast, reason = "the widths differ by platform")]
            Ok(stat) if (stat.st_dev as u64, stat.st_ino as u64) == self.identity => Ok(opened),
            Ok(_) => Err(self.unavailable(Errno::STALE.into())),
            Err(errno) => Err(self.unavailable(errno.into())),
        }
    }

    /// The error that says that the root cannot be watched.
    pub fn unavailable(&self, error: io::Error) -> Error {
        unavailable(&self.path, error)
    }
}

fn unavailable(root: &Path, error: io::Error) -> Error {
    let context = format!("cannot watch the root {}", lossy(root.as_os_str().as_encoded_bytes()));
    Error::with_source(Kind::RootUnavailable, context, error)
}

/// Device and inode of a directory.
#[allow(clippy::unnecessary_cast, reason = "the widths differ by platform")]
fn identity_of(directory: &Path) -> rustix::io::Result<(u64, u64)> {
    let stat = retry(|| rustix::fs::stat(directory))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}
