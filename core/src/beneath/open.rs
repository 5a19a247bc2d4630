//! Opening something below a root without ever leaving it: no symbolic link is followed, wherever it stands.
//!
//! In go a descriptor of the root and a [`RelPath`], out comes a descriptor. Linux does it in one call; where
//! that call is missing or forbidden, or the path is longer than a call takes, the components are opened one by
//! one, which is as safe because a `RelPath` has no `..`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::path::RelPath;

/// The root itself, as the operator named it: links in that path are the operator's own. Not readable, and to
/// be held only briefly: a deleted directory that is held open does not tell its watches.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    let access = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlags::RDONLY;
    super::retry(|| rustix::fs::open(root, access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
}

/// Opens `path` below `root`. `NOFOLLOW` and `CLOEXEC` are always added.
pub(crate) fn open(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..8 {
            match rustix::fs::openat2(root, path.as_os_path(), flags, Mode::empty(), beneath) {
                // A rename somewhere made the kernel unsure.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => break,
                answer => return answer,
            }
        }
    }
    open_by_component(root, path, flags)
}

fn open_by_component(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    let step = step | OFlags::PATH;
    let mut directory: Option<OwnedFd> = None;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let at = directory.as_ref().map_or(root, AsFd::as_fd);
        let last = components.peek().is_none();
        let flags = if last { flags } else { step };
        let opened = super::retry(|| rustix::fs::openat(at, component, flags, Mode::empty()))?;
        if last {
            return Ok(opened);
        }
        directory = Some(opened);
    }
    super::retry(|| rustix::fs::openat(root, ".", flags, Mode::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_by_either_way() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("f"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/f"), "x").unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("a", root.path().join("in")).unwrap();
        symlink("a/b/f", root.path().join("file")).unwrap();
        let held = open_root(root.path()).unwrap();
        for (path, good) in [
            ("a/b/f", true),
            ("a/b", true),
            ("", true),
            ("out/f", false),
            ("in/b/f", false),
            ("file", false),
            ("out", false),
        ] {
            let path = RelPath::new(path).unwrap();
            assert_eq!(open(held.as_fd(), &path, OFlags::RDONLY).is_ok(), good, "{path:?}");
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            assert_eq!(open_by_component(held.as_fd(), &path, flags).is_ok(), good, "{path:?} by component");
        }
    }

    #[test]
    fn a_path_longer_than_a_call_takes_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let held = open_root(root.path()).unwrap();
        let name = "d".repeat(200);
        let mut at =
            rustix::fs::openat(&held, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut path = RelPath::root();
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
            path = path.join(name.as_bytes());
        }
        assert!(path.as_bytes().len() > 4096);
        assert!(open(held.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY).is_ok());
    }
}
