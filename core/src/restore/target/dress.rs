//! What an inode gets beside its content: owner, mode, extended attributes, times.
//!
//! In that order, with attributes before the mode, because an owner may not attach any to a file that he may not
//! write: changing the owner takes set-id bits and capabilities away, and everything takes the time along. What the
//! system refuses is told in [`Dressed`] and fails nothing, but set-id bits are given only to a file whose owner is
//! as recorded.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::{Owners, Temporary};
use crate::beneath::{EntryKind, retry};
use crate::metadata::{Mtime, Record};

const SET_ID: u32 = 0o6000;

/// What to give.
#[derive(Debug, Clone, Copy)]
pub struct Clothes<'r> {
    /// As recorded; without a record, only the mode below.
    pub record: Option<&'r Record>,
    /// The low twelve bits of the mode.
    pub mode: u32,
    /// Whether set-id bits are wanted at all.
    pub set_id: bool,
    /// Whether this process is above permissions, so that attributes of the system can be asked for.
    pub as_root: bool,
}

/// What the system refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dressed {
    /// The owner or the group is not as recorded.
    pub owner_refused: bool,
    /// Set-id bits were recorded and are not set.
    pub set_id_dropped: bool,
    /// Set-id bits were recorded and are set.
    pub set_id_set: bool,
    /// The attributes that are not set.
    pub attributes_refused: Vec<Vec<u8>>,
    /// Mode or time could not be set, and why.
    pub failed: Option<Errno>,
}

impl Clothes<'_> {
    /// Dresses an open file or directory.
    pub fn put_on(&self, file: BorrowedFd<'_>, owners: &Owners) -> Dressed {
        let mut dressed = Dressed::default();
        let own = |uid: Option<Uid>, gid: Option<Gid>| retry(|| rustix::fs::fchown(file, uid, gid));
        self.own(owners, &mut dressed, own);
        self.attach(file, &mut dressed);
        let mode = self.mode_for(&mut dressed);
        dressed.note(retry(|| rustix::fs::fchmod(file, Mode::from_raw_mode(mode as _))));
        if let Some(record) = self.record {
            dressed.note(retry(|| rustix::fs::futimens(file, &times(record.mtime))));
        }
        dressed
    }

    /// Dresses a symbolic link: owner and time, which are all it has.
    pub fn put_on_symlink(&self, link: &Temporary<'_>, owners: &Owners) -> Dressed {
        let mut dressed = Dressed::default();
        let Ok(held) = link.place().descriptor() else {
            return Dressed { failed: Some(Errno::BADF), ..dressed };
        };
        self.own_by_name(held.as_fd(), link.name(), owners, &mut dressed);
        self.time_by_name(held.as_fd(), link.name(), &mut dressed);
        dressed
    }

    /// Dresses a special file, which is never opened.
    #[cfg(target_os = "linux")]
    pub fn put_on_special(&self, special: &Temporary<'_>, kind: EntryKind, owners: &Owners) -> Dressed {
        let mut dressed = Dressed::default();
        let Ok(held) = special.place().descriptor() else {
            return Dressed { failed: Some(Errno::BADF), ..dressed };
        };
        self.own_by_name(held.as_fd(), special.name(), owners, &mut dressed);
        let mode = self.mode_for(&mut dressed);
        // Only by way of a descriptor that names the inode and opens nothing is no link followed.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let opened = retry(|| rustix::fs::openat(&held, special.name(), flags, Mode::empty()));
        let set = opened.and_then(|opened| {
            use std::os::fd::AsRawFd;
            match crate::beneath::look_at_open(opened.as_fd()) {
                Ok(look) if look.kind == kind => {
                    let way = format!("/proc/self/fd/{}", opened.as_raw_fd());
                    retry(|| rustix::fs::chmod(&way, Mode::from_raw_mode(mode)))
                }
                _ => Err(Errno::NOENT),
            }
        });
        dressed.note(set);
        self.time_by_name(held.as_fd(), special.name(), &mut dressed);
        dressed
    }

    /// See above.
    #[cfg(not(target_os = "linux"))]
    pub fn put_on_special(&self, special: &Temporary<'_>, _: EntryKind, owners: &Owners) -> Dressed {
        self.put_on_symlink(special, owners)
    }

    fn own_by_name(&self, at: BorrowedFd<'_>, name: &[u8], owners: &Owners, dressed: &mut Dressed) {
        let own = |uid: Option<Uid>, gid: Option<Gid>| {
            retry(|| rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
        };
        self.own(owners, dressed, own);
    }

    fn time_by_name(&self, at: BorrowedFd<'_>, name: &[u8], dressed: &mut Dressed) {
        if let Some(record) = self.record {
            let times = times(record.mtime);
            dressed.note(retry(|| rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW)));
        }
    }

    fn own(
        &self,
        owners: &Owners,
        dressed: &mut Dressed,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) {
        let Some(record) = self.record else { return };
        let (uid, gid) = owners.of(record);
        // The largest number means "leave it" to the system, and is nobody's.
        if uid == u32::MAX || gid == u32::MAX {
            dressed.owner_refused = true;
            return;
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        if chown(Some(uid), Some(gid)).is_err() {
            dressed.owner_refused = true;
            // Who may not give a file away may still hand it to a group of his own.
            let _ = chown(None, Some(gid));
        }
    }

    fn mode_for(&self, dressed: &mut Dressed) -> u32 {
        if self.mode & SET_ID == 0 {
            return self.mode;
        }
        if dressed.owner_refused || !self.set_id || self.record.is_none() {
            dressed.set_id_dropped = true;
            return self.mode & !SET_ID;
        }
        dressed.set_id_set = true;
        self.mode
    }

    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn attach(&self, file: BorrowedFd<'_>, dressed: &mut Dressed) {
        let Some(record) = self.record else { return };
        for (name, value) in &record.xattrs {
            let is_ours_to_try = is_of_users(name) || self.as_root;
            // A capability is as good as a set-id bit.
            let is_power = name == b"security.capability" && (dressed.owner_refused || !self.set_id);
            let set = || {
                let flags = rustix::fs::XattrFlags::empty();
                retry(|| rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, flags))
            };
            if !is_ours_to_try || is_power || set().is_err() {
                dressed.attributes_refused.push(name.clone());
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    fn attach(&self, _: BorrowedFd<'_>, dressed: &mut Dressed) {
        dressed
            .attributes_refused
            .extend(self.record.iter().flat_map(|record| record.xattrs.keys().cloned()));
    }
}

impl Dressed {
    fn note(&mut self, outcome: Result<(), Errno>) {
        if let Err(errno) = outcome {
            self.failed.get_or_insert(errno);
        }
    }
}

/// Attributes that an ordinary owner may set: his own, and access lists.
#[cfg(target_os = "linux")]
fn is_of_users(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

#[cfg(target_vendor = "apple")]
fn is_of_users(_: &[u8]) -> bool {
    true
}

/// The time of the last change; that of the last access stays.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the widths differ by platform")]
fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds as _ },
    }
}
