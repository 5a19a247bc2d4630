//! Access to files beneath a root, and nowhere else.
//!
//! A [`RootDirectory`] holds a descriptor of the root; every look and every open goes through it, component by
//! component, never through a symbolic link and never through a path that could lead outside. Nothing here
//! writes. `open.rs` has the one way in, `xattrs.rs` what stat does not tell.

pub(crate) mod open;
mod xattrs;

pub use xattrs::{Xattrs, xattrs_of};

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::path::RelPath;

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; never followed.
    Symlink,
    /// A named pipe; never opened.
    Fifo,
    /// A socket; never opened.
    Socket,
    /// A character device; never opened.
    CharDevice,
    /// A block device; never opened.
    BlockDevice,
}

impl EntryKind {
    fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => return None,
        })
    }

    /// Every kind.
    pub const ALL: [EntryKind; 7] = [
        EntryKind::File,
        EntryKind::Directory,
        EntryKind::Symlink,
        EntryKind::Fifo,
        EntryKind::Socket,
        EntryKind::CharDevice,
        EntryKind::BlockDevice,
    ];

    /// The word in a metadata record.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Directory => "dir",
            EntryKind::Symlink => "symlink",
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
            EntryKind::CharDevice => "char",
            EntryKind::BlockDevice => "block",
        }
    }

    /// Whether it is a device node.
    pub fn is_device(self) -> bool {
        matches!(self, EntryKind::CharDevice | EntryKind::BlockDevice)
    }

    /// Whether Git holds its content (the others live in metadata only).
    pub fn has_content(self) -> bool {
        matches!(self, Self::File | Self::Symlink)
    }
}

/// One call's share of a listing: some 800 entries.
#[cfg(target_os = "linux")]
const LISTING_BYTES: usize = 32 * 1024;

/// What the file system says of an entry; equality of two looks means that nothing was seen to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// What it is.
    pub kind: EntryKind,
    /// The low 12 bits: permissions, set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// File system.
    pub device: u64,
    /// Number of names; above 1 for hard links.
    pub links: u32,
    /// Device number of device nodes, else 0.
    pub special: u64,
    /// Whether a file system is mounted on this directory, where the system tells (Linux).
    pub is_mount: bool,
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

impl Look {
    /// Major and minor number of a device node.
    #[allow(clippy::unnecessary_cast, reason = "the width differs by platform")]
    pub fn device_numbers(&self) -> Option<(u32, u32)> {
        let device = self.special as rustix::fs::Dev;
        self.kind.is_device().then(|| (rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Whether this, recorded earlier, is what was seen now. Device numbers change with the order in which disks
    /// are found at a start; the rest proves enough.
    pub fn is_same_as(&self, now: &Self) -> bool {
        Self { device: now.device, ..*self } == *now
    }

    /// `None` for kinds that this program does not know.
    #[cfg(target_os = "linux")]
    fn of(stat: &rustix::fs::Statx) -> Option<Self> {
        let mode = u32::from(stat.stx_mode);
        let kind = EntryKind::of(FileType::from_raw_mode(mode))?;
        let is_directory = kind == EntryKind::Directory;
        let device = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
        Some(Self {
            kind,
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: if is_directory { 0 } else { stat.stx_size },
            mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
            ctime_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec.into()),
            inode: stat.stx_ino,
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            links: stat.stx_nlink,
            special: if kind.is_device() { device } else { 0 },
            is_mount: is_directory && stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT),
        })
    }

    /// `None` for kinds that this program does not know.
    #[cfg(not(target_os = "linux"))]
    // The widths of struct stat differ by platform.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        let kind = EntryKind::of(FileType::from_raw_mode(stat.st_mode))?;
        Some(Self {
            kind,
            mode: (stat.st_mode as u32) & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == EntryKind::Directory { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) },
            mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            special: if kind.is_device() { stat.st_rdev as u64 } else { 0 },
            is_mount: false,
        })
    }

    /// What stands under `name` in `at`; an empty name is `at` itself.
    fn at(at: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<Self, Unseen> {
        #[cfg(target_os = "linux")]
        let stat = {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
            retry(|| rustix::fs::statx(at, name, flags, rustix::fs::StatxFlags::BASIC_STATS))
        };
        #[cfg(not(target_os = "linux"))]
        let stat = if name.is_empty() {
            retry(|| rustix::fs::fstat(at))
        } else {
            retry(|| rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW))
        };
        let stat = stat.map_err(unseen)?;
        Self::of(&stat).ok_or_else(|| Unseen::Unreadable("an unknown kind of file".to_owned()))
    }
}

/// A failed look or open, sorted into what it means for a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing there: the entry, or a directory on the way to it, is gone or is not a directory any more.
    Gone,
    /// Something there that cannot be read; the text says why. Never a deletion.
    Unreadable(String),
}

/// Why something cannot be read that seldom becomes readable by itself.
pub const PERMISSION_DENIED: &str = "permission denied";

fn unseen(errno: Errno) -> Unseen {
    match errno {
        // MLINK is what FreeBSD says where others say LOOP.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::XDEV => Unseen::Gone,
        Errno::ACCESS | Errno::PERM => Unseen::Unreadable(PERMISSION_DENIED.to_owned()),
        other => Unseen::Unreadable(std::io::Error::from(other).to_string()),
    }
}

/// Whether the cause is a want of descriptors, of which the entry itself knows nothing.
pub fn is_limit(unseen: &Unseen) -> bool {
    let says = |errno: Errno, text: &str| std::io::Error::from(errno).to_string() == text;
    matches!(unseen, Unseen::Unreadable(text) if says(Errno::MFILE, text) || says(Errno::NFILE, text))
}

/// An open watched directory.
#[derive(Debug)]
pub struct RootDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
    look: Look,
}

impl RootDirectory {
    /// Opens the directory at `path`, which must be absolute; a symbolic link as its last component is refused.
    ///
    /// # Errors
    /// [`Kind::RootUnavailable`] when it is missing, no directory, or cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let unavailable = |errno: Errno| {
            let shown = crate::path::lossy(path.as_os_str().as_bytes());
            let hint = match errno {
                Errno::LOOP => ": it is a symbolic link; name the directory that it points at",
                _ => "",
            };
            if matches!(errno, Errno::MFILE | Errno::NFILE) {
                return Error::io("open the watched directory", path, errno);
            }
            let text = format!("the watched directory {shown} is not available{hint}");
            Error::with_source(Kind::RootUnavailable, text, std::io::Error::from(errno))
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = retry(|| rustix::fs::open(path, flags, Mode::empty())).map_err(unavailable)?;
        let look = look_at_open(descriptor.as_fd()).map_err(|_| unavailable(Errno::NOTDIR))?;
        Ok(Self { path: path.to_path_buf(), descriptor, look })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the directory was when it was opened; device and inode identify it.
    pub fn look(&self) -> Look {
        self.look
    }

    /// The descriptor, for calls that start here.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// What stands at `path` now.
    pub fn look_at(&self, path: &RelPath) -> std::result::Result<Look, Unseen> {
        let (directory, name) = self.directory_of(path)?;
        look_in(directory.as_ref().map_or(self.descriptor.as_fd(), AsFd::as_fd), name)
    }

    /// Opens what stands at `path` for reading. `NONBLOCK`, so that a pipe put there meanwhile cannot hang us.
    pub fn open_file(&self, path: &RelPath) -> std::result::Result<OwnedFd, Unseen> {
        open::open(self.descriptor.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .map_err(unseen)
    }

    /// The target of the symbolic link at `path`, byte for byte.
    pub fn read_link(&self, path: &RelPath) -> std::result::Result<Vec<u8>, Unseen> {
        let (directory, name) = self.directory_of(path)?;
        let at = directory.as_ref().map_or(self.descriptor.as_fd(), AsFd::as_fd);
        retry(|| rustix::fs::readlinkat(at, name, Vec::new()))
            .map(|target| target.into_bytes())
            .map_err(unseen)
    }

    /// Opens the directory at `path` for listing.
    pub fn open_directory(&self, path: &RelPath) -> std::result::Result<OwnedFd, Unseen> {
        open::open(self.descriptor.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(unseen)
    }

    /// The directory that holds `path` (`None`: the root itself) and the last component.
    fn directory_of<'p>(
        &self,
        path: &'p RelPath,
    ) -> std::result::Result<(Option<OwnedFd>, &'p OsStr), Unseen> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent.is_root() => Ok((None, OsStr::from_bytes(name))),
            (Some(parent), Some(name)) => Ok((Some(self.open_directory(&parent)?), OsStr::from_bytes(name))),
            _ => Ok((None, OsStr::new("."))),
        }
    }
}

/// What stands under `name` in the open directory `at`.
pub fn look_in(at: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<Look, Unseen> {
    Look::at(at, name)
}

/// What the open file is now.
pub fn look_at_open(file: BorrowedFd<'_>) -> std::result::Result<Look, Unseen> {
    Look::at(file, OsStr::new(""))
}

/// The names in an open directory that nobody has read from yet, sorted by bytes, without `.` and `..`.
pub fn names_in(directory: BorrowedFd<'_>) -> std::result::Result<Vec<OsString>, Unseen> {
    let mut names = Vec::new();
    let mut take = |name: &[u8]| {
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    };
    #[cfg(target_os = "linux")]
    {
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut entries = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => take(entry.file_name().to_bytes()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(unseen(errno)),
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    for entry in rustix::fs::Dir::read_from(directory).map_err(unseen)? {
        take(entry.map_err(unseen)?.file_name().to_bytes());
    }
    names.sort_unstable();
    Ok(names)
}

/// Calls again while a signal interrupts.
pub fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_directory_swapped_for_a_symlink_leads_nowhere() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("canary"), "secret").unwrap();
        symlink(outside.path(), scratch.path().join("dir")).unwrap();
        let root = RootDirectory::open(scratch.path()).unwrap();
        assert_eq!(root.look_at(&rel("dir/canary")), Err(Unseen::Gone));
        assert!(root.open_file(&rel("dir/canary")).is_err());
        assert_eq!(root.look_at(&rel("dir")).unwrap().kind, EntryKind::Symlink);
    }

    #[cfg(not(target_vendor = "apple"))]
    #[test]
    fn a_pipe_is_looked_at_and_never_blocks() {
        let scratch = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, scratch.path().join("p"), FileType::Fifo, Mode::from(0o600), 0)
            .unwrap();
        let root = RootDirectory::open(scratch.path()).unwrap();
        assert_eq!(root.look_at(&rel("p")).unwrap().kind, EntryKind::Fifo);
        assert!(root.open_file(&rel("p")).is_ok());
    }

    #[test]
    fn a_path_beyond_the_systems_limit_is_reached() {
        let scratch = tempfile::tempdir().unwrap();
        let root = RootDirectory::open(scratch.path()).unwrap();
        let name = "d".repeat(200);
        let mut path = RelPath::root();
        let mut at = rustix::fs::open(scratch.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::from(0o700)).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap();
            path = path.join(name.as_bytes());
        }
        assert!(path.as_bytes().len() > 10_000);
        assert_eq!(root.look_at(&path).unwrap().kind, EntryKind::Directory);
        assert!(root.open_directory(&path).is_ok());
        assert_eq!(root.look_at(&path.join(b"missing")), Err(Unseen::Gone));
    }
}
