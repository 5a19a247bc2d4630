//! New inodes under temporary names, and how they take the names that they are meant for.
//!
//! A temporary name is [`PREFIX`], sixteen hexadecimal digits that are the run's own, `-` and a number: whoever finds
//! one knows what it is, and the next restore to the same place removes it. Taking a name comes in two forms: where
//! nothing may stand ([`Temporary::take`]), which the system itself refuses if something does, and in place of what
//! was seen there ([`Temporary::replace`]), which exchanges the two and looks at what came out, so that bytes that
//! somebody wrote there meanwhile are put back instead of lost.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use rustix::fs::RenameFlags;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Place, is_same_content};
use crate::beneath::{self, Look, retry};
use crate::error::{Error, Kind, Result};

/// Every temporary name begins so; the built-in list of exclusions knows it too.
pub const PREFIX: &[u8] = b".backupbot-restoring-";
const TOKEN_DIGITS: usize = 16;
const MODE_IN_THE_MAKING: u32 = 0o600;

/// Whether a name is one that a restore gives while it writes.
pub fn is_temporary(name: &[u8]) -> bool {
    let Some((token, number)) =
        name.strip_prefix(PREFIX).and_then(|rest| rest.split_at_checked(TOKEN_DIGITS))
    else {
        return false;
    };
    let digits = number.strip_prefix(b"-").unwrap_or_default();
    token.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
        && !digits.is_empty()
        && digits.len() <= 20
        && digits.iter().all(u8::is_ascii_digit)
}

/// What became of an attempt to take a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It has the name.
    Done,
    /// Something stands there that was not there when it was planned; nothing was touched.
    Occupied,
}

/// A new inode under a temporary name, removed when dropped without having taken its name.
#[derive(Debug)]
pub struct Temporary<'p> {
    place: &'p Place,
    name: Option<Vec<u8>>,
    /// Of a regular file, open for writing.
    pub file: Option<OwnedFd>,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let (Some(name), Ok(held)) = (self.name.take(), self.place.descriptor()) {
            // What cannot be removed now is swept by the next run.
            let _ = rustix::fs::unlinkat(&held, name.as_slice(), AtFlags::empty());
        }
    }
}

impl Place {
    fn temporary_name(&self) -> Vec<u8> {
        let number = self.target.next_temporary.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut name = PREFIX.to_vec();
        name.extend_from_slice(format!("{}-{number}", self.target.token).as_bytes());
        name
    }

    /// A new empty file, readable by nobody else.
    pub fn new_file(&self) -> Result<Temporary<'_>> {
        let name = self.temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(MODE_IN_THE_MAKING as _);
        let held = self.descriptor()?;
        let file = retry(|| rustix::fs::openat(&held, name.as_slice(), flags, mode))
            .map_err(|errno| self.failed("write into", b"", errno))?;
        Ok(Temporary { place: self, name: Some(name), file: Some(file) })
    }

    /// A new symbolic link.
    pub fn new_symlink(&self, target: &[u8]) -> Result<Temporary<'_>> {
        let name = self.temporary_name();
        let held = self.descriptor()?;
        retry(|| rustix::fs::symlinkat(target, &held, name.as_slice()))
            .map_err(|errno| self.failed("make a symbolic link in", b"", errno))?;
        Ok(Temporary { place: self, name: Some(name), file: None })
    }

    /// A new name for the inode that `name` in `from` stands for, if that is still the inode `expected`.
    pub fn new_link(&self, from: &Place, name: &[u8], expected: &Look) -> Result<Temporary<'_>> {
        let own = self.temporary_name();
        let (source, held) = (from.descriptor()?, self.descriptor()?);
        retry(|| rustix::fs::linkat(&source, name, &held, own.as_slice(), AtFlags::empty()))
            .map_err(|errno| self.failed("make a hard link in", b"", errno))?;
        let made = Temporary { place: self, name: Some(own), file: None };
        match made.look() {
            Ok(look) if is_same_content(&look, expected) => Ok(made),
            _ => Err(Error::new(Kind::Io, "what was to be linked to is not there any more")),
        }
    }

    /// A new named pipe, socket or device.
    #[cfg(target_os = "linux")]
    pub fn new_special(&self, kind: beneath::EntryKind, device: Option<(u32, u32)>) -> Result<Temporary<'_>> {
        use rustix::fs::FileType;
        let kind = match kind {
            beneath::EntryKind::Fifo => FileType::Fifo,
            beneath::EntryKind::Socket => FileType::Socket,
            beneath::EntryKind::CharDevice => FileType::CharacterDevice,
            beneath::EntryKind::BlockDevice => FileType::BlockDevice,
            _ => return Err(Error::new(Kind::Internal, "this is no special file")),
        };
        let (major, minor) = device.unwrap_or_default();
        let name = self.temporary_name();
        let held = self.descriptor()?;
        let mode = Mode::from_raw_mode(MODE_IN_THE_MAKING);
        let device = rustix::fs::makedev(major, minor);
        retry(|| rustix::fs::mknodat(&held, name.as_slice(), kind, mode, device))
            .map_err(|errno| self.failed("make a special file in", b"", errno))?;
        Ok(Temporary { place: self, name: Some(name), file: None })
    }

    /// See above.
    #[cfg(not(target_os = "linux"))]
    pub fn new_special(&self, _: beneath::EntryKind, _: Option<(u32, u32)>) -> Result<Temporary<'_>> {
        Err(Error::new(Kind::Io, "special files are not made on this system"))
    }

    /// Removes `name`, which is no directory, if it is still what was seen as `expected`.
    pub fn remove(&self, name: &[u8], expected: &Look) -> Result<Placed> {
        let aside = self.temporary_name();
        let held = self.descriptor()?;
        match retry(|| rustix::fs::renameat(&held, name, &held, aside.as_slice())) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Placed::Done),
            Err(errno) => return Err(self.failed("remove", name, errno)),
        }
        let moved = Temporary { place: self, name: Some(aside), file: None };
        match moved.look() {
            Ok(look) if is_same_content(&look, expected) => {
                drop(moved);
                Ok(Placed::Done)
            }
            _ => moved.put_back(name),
        }
    }

    /// Removes a temporary file that an earlier run left here.
    pub fn sweep(&self, name: &[u8]) -> Result<()> {
        if !is_temporary(name) {
            return Ok(());
        }
        let held = self.descriptor()?;
        match retry(|| rustix::fs::unlinkat(&held, name, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove what an earlier restore left,", name, errno)),
        }
    }
}

impl Temporary<'_> {
    /// Its name at present.
    pub fn name(&self) -> &[u8] {
        self.name.as_deref().unwrap_or_default()
    }

    /// What stands under the temporary name.
    pub fn look(&self) -> Result<Look> {
        beneath::look_in(self.place.descriptor()?.as_fd(), OsStr::from_bytes(self.name()))
            .map_err(|unseen| super::unseen_at("look at", &self.place.shown(self.name()), unseen))
    }

    /// The directory that it is in.
    pub fn place(&self) -> &Place {
        self.place
    }

    /// Takes `name`, where nothing may stand.
    pub fn take(mut self, name: &[u8]) -> Result<Placed> {
        let held = self.place.descriptor()?;
        match rename_where_nothing_stands(held.as_fd(), self.name(), name) {
            Ok(()) => {
                self.name = None;
                Ok(Placed::Done)
            }
            Err(Errno::EXIST) => Ok(Placed::Occupied),
            Err(errno) => Err(self.place.failed("put in place", name, errno)),
        }
    }

    /// Takes the place of what was seen under `name` as `expected`. With `whatever` it is replaced even if it is
    /// another by now; a directory never is.
    pub fn replace(mut self, name: &[u8], expected: &Look, whatever: bool) -> Result<Placed> {
        let held = self.place.descriptor()?;
        match exchange(held.as_fd(), self.name(), name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return self.take(name),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return self.replace_in_two_steps(name, expected, whatever);
            }
            Err(errno) => return Err(self.place.failed("put in place", name, errno)),
        }
        // What stood there has the temporary name now.
        let is_expected = match self.look() {
            Ok(found) if super::is_directory(&found) => false,
            Ok(found) => whatever || is_same_content(&found, expected),
            Err(_) => false,
        };
        if is_expected {
            drop(self);
            return Ok(Placed::Done);
        }
        if let Err(errno) = exchange(held.as_fd(), self.name(), name) {
            // Neither may be removed: both are somebody's.
            let aside = self.place.shown(self.name());
            self.name = None;
            let text = format!(
                "what somebody else put in the place of {} meanwhile stands now as {}",
                self.place.shown(name).display(),
                aside.display()
            );
            return Err(Error::with_source(Kind::Io, text, std::io::Error::from(errno)));
        }
        Ok(Placed::Occupied)
    }

    /// Where the system cannot exchange names there is a moment between the look and the rename.
    pub(super) fn replace_in_two_steps(
        mut self,
        name: &[u8],
        expected: &Look,
        whatever: bool,
    ) -> Result<Placed> {
        let found = self.place.look_at(name)?;
        match found {
            None => return self.take(name),
            Some(found) if super::is_directory(&found) => return Ok(Placed::Occupied),
            Some(found) if !whatever && !is_same_content(&found, expected) => return Ok(Placed::Occupied),
            Some(_) => {}
        }
        let held = self.place.descriptor()?;
        retry(|| rustix::fs::renameat(&held, self.name(), &held, name))
            .map_err(|errno| self.place.failed("put in place", name, errno))?;
        self.name = None;
        Ok(Placed::Done)
    }

    /// Gives what was moved aside its name back.
    fn put_back(mut self, name: &[u8]) -> Result<Placed> {
        let held = self.place.descriptor()?;
        let back = rename_where_nothing_stands(held.as_fd(), self.name(), name);
        let aside = self.place.shown(self.name());
        // It is somebody's: it is not to be removed whatever happened.
        self.name = None;
        match back {
            Ok(()) => Ok(Placed::Occupied),
            Err(errno) => {
                let text = format!(
                    "{} was changed by somebody else meanwhile and stands now as {}",
                    self.place.shown(name).display(),
                    aside.display()
                );
                Err(Error::with_source(Kind::Io, text, std::io::Error::from(errno)))
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(at: BorrowedFd<'_>, a: &[u8], b: &[u8]) -> std::result::Result<(), Errno> {
    retry(|| rustix::fs::renameat_with(at, a, at, b, RenameFlags::EXCHANGE))
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_: BorrowedFd<'_>, _: &[u8], _: &[u8]) -> std::result::Result<(), Errno> {
    Err(Errno::NOSYS)
}

fn rename_where_nothing_stands(at: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> std::result::Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    match retry(|| rustix::fs::renameat_with(at, from, at, to, RenameFlags::NOREPLACE)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        answer => return answer,
    }
    match retry(|| rustix::fs::linkat(at, from, at, to, AtFlags::empty())) {
        Ok(()) => return retry(|| rustix::fs::unlinkat(at, from, AtFlags::empty())),
        Err(Errno::EXIST) => return Err(Errno::EXIST),
        // A file system without hard links, or one that does not link what this is.
        Err(_) => {}
    }
    match beneath::look_in(at, OsStr::from_bytes(to)) {
        Err(beneath::Unseen::Gone) => retry(|| rustix::fs::renameat(at, from, at, to)),
        _ => Err(Errno::EXIST),
    }
}
