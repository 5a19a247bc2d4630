//! Where a watched root stands, and whether it is still the same directory.
//!
//! A root is known by its path, and by device and inode as they were at the first look. No descriptor of it is
//! kept: a directory that is held open does not tell its watches that it was deleted, and cannot be unmounted.
//! Once it is found gone it is gone for good, and [`Hint::RootGone`] is given once.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::beneath::{open, retry};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;
use crate::watch::Hint;

/// How often to look whether the root's path still leads to the watched directory: a mount over it, or a
/// removal while somebody holds it open, is told by no kernel.
pub(super) const ROOT_CHECK: Duration = Duration::from_secs(2);

/// The place of one root.
#[derive(Debug)]
pub(super) struct RootPlace {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    gone: bool,
    checked: Instant,
}

impl RootPlace {
    /// Remembers what stands at `path` now, which must be a directory.
    pub fn new(path: &Path) -> Result<Self> {
        let identity = identity_of(path).map_err(|errno| unavailable(path, errno.into()))?;
        Ok(Self { path: path.to_owned(), identity, gone: false, checked: Instant::now() })
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

    /// Whether it was found gone.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Looks whether the root is still there, if that was not done for [`ROOT_CHECK`].
    pub fn check(&mut self, hints: &mut Vec<Hint>) {
        if !self.gone && self.checked.elapsed() >= ROOT_CHECK {
            self.checked = Instant::now();
            if !self.is_there() {
                self.lose(hints);
            }
        }
    }

    /// The root is gone.
    pub fn lose(&mut self, hints: &mut Vec<Hint>) {
        if !self.gone {
            self.gone = true;
            hints.push(Hint::RootGone);
        }
    }

    /// A failure because the root is gone is no failure but a hint.
    pub fn unless_lost(&mut self, outcome: Result<()>, hints: &mut Vec<Hint>) -> Result<()> {
        match outcome {
            Err(error) if error.kind() == Kind::RootUnavailable && (self.gone || !self.is_there()) => {
                self.lose(hints);
                Ok(())
            }
            other => other,
        }
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
