//! Writing beneath one directory, and nowhere else.
//!
//! A [`Target`] holds a descriptor of the directory that is restored to; a [`Place`] is a directory in it. Every
//! call goes through a descriptor and one name, no symbolic link is ever followed, and nothing that stands there is
//! ever opened for writing: what is new gets an inode of its own under a temporary name beside its place
//! (`temporary.rs`) and is dressed with its metadata (`dress.rs`) before it takes its name. So a hard link or a
//! symbolic link that somebody put there leads nowhere, and a crash leaves nothing half-written under a final name.

mod dress;
mod owners;
mod temporary;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::{self, EntryKind, Look, Unseen, open, retry};
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::path::RelPath;

pub use dress::{Clothes, Dressed};
pub use owners::Owners;
pub use temporary::{Placed, Temporary, is_temporary};

/// A directory in the making is nobody else's business until its own mode is set at the end.
const MODE_IN_THE_MAKING: u32 = 0o700;

/// A directory that is restored to.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    descriptor: OwnedFd,
    look: Look,
    /// Directories in it that are held open, and how many may be.
    held: AtomicUsize,
    most_held: usize,
    /// Part of every temporary name of this run.
    token: String,
    next_temporary: AtomicUsize,
}

impl Target {
    /// Opens the directory at `path`. Links in that path are the operator's own.
    ///
    /// # Errors
    /// When it is missing or no directory.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        Self::open_with(path, OFlags::empty())
    }

    /// As [`Target::open`]; a symbolic link as the last component is refused, as where roots are watched.
    pub fn open_itself(path: &Path) -> Result<Arc<Self>> {
        Self::open_with(path, OFlags::NOFOLLOW)
    }

    fn open_with(path: &Path, more: OFlags) -> Result<Arc<Self>> {
        let failed = |errno: Errno| Error::io("open the directory to restore to,", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
        let descriptor = retry(|| rustix::fs::open(path, flags, Mode::empty())).map_err(failed)?;
        let look =
            beneath::look_at_open(descriptor.as_fd()).map_err(|unseen| unseen_at("look at", path, unseen))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Io, format!("the system gives no random numbers: {error}")))?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            descriptor,
            look,
            held: AtomicUsize::new(0),
            most_held: limits::directories_held(),
            token: format!("{:016x}", u64::from_le_bytes(random)),
            next_temporary: AtomicUsize::new(0),
        }))
    }

    /// Makes the directory at `path`, and those above it, for their owner alone, unless it is there; then opens it.
    pub fn make(path: &Path) -> Result<Arc<Self>> {
        let made = DirBuilder::new().recursive(true).mode(MODE_IN_THE_MAKING).create(path);
        made.map_err(|error| Error::io("make the directory to restore to,", path, error))?;
        Self::open(path)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was when it was opened.
    pub fn look(&self) -> Look {
        self.look
    }

    /// The directory itself as a place.
    pub fn top(self: &Arc<Self>) -> Place {
        self.place(RelPath::root())
    }

    /// A directory in it by its path, opened at each use.
    pub fn place(self: &Arc<Self>, path: RelPath) -> Place {
        Place { target: self.clone(), path, held: None, is_counted: false, anchor: None }
    }

    /// What its file system has left.
    pub fn room(&self) -> Result<Room> {
        Room::of(&self.path)
    }

    /// Makes everything that was written durable.
    pub fn sync(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        let synced = retry(|| rustix::fs::syncfs(&self.descriptor));
        #[cfg(not(target_os = "linux"))]
        let synced = {
            rustix::fs::sync();
            Ok(())
        };
        synced.map_err(|errno: Errno| Error::io("sync the file system of", &self.path, errno))
    }
}

/// Every so many directories below each other one is held in any case, so that opening a deep one does not have to go
/// through all above it.
const ANCHOR_EVERY: usize = 64;

/// A directory beneath a target. Its descriptor is held while there are few of them, else it is opened at each use.
#[derive(Debug)]
pub struct Place {
    target: Arc<Target>,
    path: RelPath,
    held: Option<Arc<OwnedFd>>,
    /// It is one of the few.
    is_counted: bool,
    /// The nearest directory above that is held in any case, and how many bytes of the path lead there.
    anchor: Option<(Arc<OwnedFd>, usize)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_counted {
            self.target.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A descriptor, lent or opened for the moment.
#[derive(Debug)]
pub enum Held<'p> {
    /// Lent by the place.
    Lent(BorrowedFd<'p>),
    /// Opened for this use.
    Opened(OwnedFd),
}

impl AsFd for Held<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Lent(descriptor) => *descriptor,
            Held::Opened(descriptor) => descriptor.as_fd(),
        }
    }
}

impl Place {
    /// Below the target's directory.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// The target it is in.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Its path for people, with `name` in it.
    pub fn shown(&self, name: &[u8]) -> PathBuf {
        let mut path = self.target.path.clone();
        if !self.path.is_root() {
            path.push(self.path.as_os_path());
        }
        if !name.is_empty() {
            path.push(OsStr::from_bytes(name));
        }
        path
    }

    /// The directory's descriptor.
    pub fn descriptor(&self) -> Result<Held<'_>> {
        if self.path.is_root() {
            return Ok(Held::Lent(self.target.descriptor.as_fd()));
        }
        if let Some(held) = &self.held {
            return Ok(Held::Lent(held.as_fd()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = match &self.anchor {
            Some((anchor, length)) => {
                let below = self.path.as_bytes().get(length + 1..).unwrap_or_default();
                let below = RelPath::new(below).map_err(|_| self.failed("open", b"", Errno::INVAL))?;
                open::open(anchor.as_fd(), &below, flags)
            }
            None => open::open(self.target.descriptor.as_fd(), &self.path, flags),
        };
        opened.map(Held::Opened).map_err(|errno| self.failed("open the directory", b"", errno))
    }

    /// An error about `name` in this directory.
    pub(super) fn failed(&self, doing: &str, name: &[u8], errno: Errno) -> Error {
        Error::io(doing, &self.shown(name), errno)
    }

    /// What stands under `name`; `None` if nothing does.
    pub fn look_at(&self, name: &[u8]) -> Result<Option<Look>> {
        match beneath::look_in(self.descriptor()?.as_fd(), OsStr::from_bytes(name)) {
            Ok(look) => Ok(Some(look)),
            Err(Unseen::Gone) => Ok(None),
            Err(unseen) => Err(unseen_at("look at", &self.shown(name), unseen)),
        }
    }

    /// What the directory itself is.
    pub fn look(&self) -> Result<Look> {
        beneath::look_at_open(self.descriptor()?.as_fd())
            .map_err(|unseen| unseen_at("look at", &self.shown(b""), unseen))
    }

    /// The names in it, sorted by bytes.
    pub fn names(&self) -> Result<Vec<OsString>> {
        // A listing moves the descriptor's own position, so it gets one of its own.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = self.descriptor()?;
        let fresh = retry(|| rustix::fs::openat(&held, ".", flags, Mode::empty()))
            .map_err(|errno| self.failed("list", b"", errno))?;
        beneath::names_in(fresh.as_fd()).map_err(|unseen| unseen_at("list", &self.shown(b""), unseen))
    }

    /// The directory `name` in this one, which must be one and no link.
    pub fn enter(&self, name: &[u8]) -> Result<Place> {
        let descriptor = self.open_inside(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let is_few = self.target.held.fetch_add(1, Ordering::Relaxed) < self.target.most_held;
        if !is_few {
            self.target.held.fetch_sub(1, Ordering::Relaxed);
        }
        let path = self.path.join(name);
        let (descriptor, length) = (Arc::new(descriptor), path.as_bytes().len());
        let is_anchor = path.components().count().is_multiple_of(ANCHOR_EVERY);
        let anchor = if is_anchor { Some((descriptor.clone(), length)) } else { self.anchor.clone() };
        Ok(Place {
            target: self.target.clone(),
            path,
            held: (is_few || is_anchor).then_some(descriptor),
            is_counted: is_few,
            anchor,
        })
    }

    /// Opens what stands under `name` for reading, without following it or waiting for it.
    pub fn open_inside(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let one = RelPath::new(name.to_vec())
            .ok()
            .filter(|path| path.components().count() == 1)
            .ok_or_else(|| self.failed("open", name, Errno::INVAL))?;
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        open::open(self.descriptor()?.as_fd(), &one, flags).map_err(|errno| self.failed("open", name, errno))
    }

    /// The target of the symbolic link `name`, byte for byte.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let held = self.descriptor()?;
        retry(|| rustix::fs::readlinkat(&held, name, Vec::new()))
            .map(|target| target.into_bytes())
            .map_err(|errno| self.failed("read the link", name, errno))
    }

    /// Makes the directory `name`, where nothing may stand, and enters it.
    pub fn make_directory(&self, name: &[u8]) -> Result<Place> {
        let held = self.descriptor()?;
        retry(|| rustix::fs::mkdirat(&held, name, Mode::from_raw_mode(MODE_IN_THE_MAKING as _)))
            .map_err(|errno| self.failed("make the directory", name, errno))?;
        self.enter(name)
    }

    /// Removes the directory `name`. `false` if it is not empty.
    pub fn remove_directory(&self, name: &[u8]) -> Result<bool> {
        let held = self.descriptor()?;
        match retry(|| rustix::fs::unlinkat(&held, name, AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.failed("remove the directory", name, errno)),
        }
    }

    /// Lets its owner write into the directory if that is forbidden to him now; the mode that it had.
    pub fn open_up(&self) -> Result<Option<u32>> {
        let look = self.look()?;
        if look.mode & 0o300 == 0o300 {
            return Ok(None);
        }
        self.set_mode(look.mode | 0o700)?;
        Ok(Some(look.mode))
    }

    /// Sets the directory's own mode.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let held = self.descriptor()?;
        retry(|| rustix::fs::fchmod(&held, Mode::from_raw_mode(mode as _)))
            .map_err(|errno| self.failed("set the mode of", b"", errno))
    }
}

/// An error from a look that failed.
fn unseen_at(doing: &str, path: &Path, unseen: Unseen) -> Error {
    let why = match unseen {
        Unseen::Gone => "it is gone, or a link stands in its way".to_owned(),
        Unseen::Unreadable(why) => why,
    };
    Error::new(Kind::Io, format!("cannot {doing} {}: {why}", crate::path::lossy(path.as_os_str().as_bytes())))
}

/// Whether two looks are of the same inode with the same bytes in it, as far as can be told. The change time is left
/// out: taking another name moves it.
pub fn is_same_content(a: &Look, b: &Look) -> bool {
    let of = |look: &Look| (look.kind, look.inode, look.device, look.size, look.mtime_ns);
    of(a) == of(b)
}

/// Whether it is a directory.
pub fn is_directory(look: &Look) -> bool {
    look.kind == EntryKind::Directory
}
