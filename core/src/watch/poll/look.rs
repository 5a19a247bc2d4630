//! Looking at one directory: what is in it that the rules let in, with a mark of each entry.
//!
//! In goes a directory by its path below the root, out come its entries in name order, or why there are none. Nothing
//! that was known before plays a part here.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use super::listing::{Entry, Mark};
use super::pass::{Place, Visit};
use super::poller::Poller;
use crate::beneath::{Look, Unseen, look_at_open, look_in, open};
use crate::clock::now_ns;
use crate::error::{Error, Result};
use crate::ignore::Scope;
use crate::path::RelPath;

/// What the rules say of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stance {
    LetIn,
    LeftOut,
    /// Left out, but recorded, because it is a file of rules itself.
    Rules,
}

/// What became of opening and listing a directory.
pub(super) enum Listed {
    Entries(OwnedFd, Look),
    Gone,
    Unreadable,
    /// Another file system, which is to be left out.
    Elsewhere,
}

impl Poller {
    pub(super) fn open(&self, root: BorrowedFd<'_>, path: &RelPath) -> Result<Listed> {
        let opened = match open::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Listed::Gone),
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                return Err(Error::io("open", &self.shown(path), errno));
            }
            Err(_) => return Ok(Listed::Unreadable),
        };
        Ok(match look_at_open(opened.as_fd()) {
            Ok(look) if self.one_file_system && look.device != self.place.device() => Listed::Elsewhere,
            Ok(look) => Listed::Entries(opened, look),
            Err(_) => Listed::Unreadable,
        })
    }

    pub(super) fn shown(&self, path: &RelPath) -> std::path::PathBuf {
        self.place.path().join(path.as_os_path())
    }

    /// Reads the rules anew: here is where a change of them is noticed.
    pub(super) fn scope_of(&self, visit: &Visit) -> Scope {
        match &visit.place {
            Place::Top(path) => self.rules.scope_fresh(path),
            Place::Below(parent, name) => self.rules.enter(parent, name),
        }
    }

    /// Everything in an open directory that the rules let in, sorted by name.
    pub(super) fn list(&self, opened: BorrowedFd<'_>, scope: &Scope) -> rustix::io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let now = now_ns();
        for entry in Dir::read_from(opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let known_kind = match entry.file_type() {
                FileType::Unknown => None,
                kind => Some(kind == FileType::Directory),
            };
            let stance = known_kind.map(|is_directory| self.stance(scope, name, is_directory));
            if stance == Some(Stance::LeftOut) {
                continue;
            }
            let mark = match look_in(opened, OsStr::from_bytes(name)) {
                Ok(look) => self.mark_of(&look, now),
                Err(Unseen::Gone) => continue,
                Err(unseen) => Mark::unseen(&unseen, known_kind.unwrap_or(false), &self.key),
            };
            // It may have become something else since its kind was told.
            let stance = stance
                .filter(|_| known_kind == Some(mark.is_directory()))
                .unwrap_or_else(|| self.stance(scope, name, mark.is_directory()));
            let mark = match stance {
                Stance::LetIn => mark,
                Stance::Rules => mark.hidden(),
                Stance::LeftOut => continue,
            };
            entries.push(Entry { name: name.into(), mark });
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn stance(&self, scope: &Scope, name: &[u8], is_directory: bool) -> Stance {
        if self.rules.verdict_child(scope, name, is_directory).is_included() {
            Stance::LetIn
        } else if !is_directory && self.rules.is_ignore_file(name) {
            Stance::Rules
        } else {
            Stance::LeftOut
        }
    }

    fn mark_of(&self, look: &Look, now_ns: i64) -> Mark {
        let mark = Mark::of(look, &self.key);
        let is_young = look.ctime_ns.saturating_sub(now_ns).unsigned_abs() <= self.young_ns.unsigned_abs();
        if is_young && self.young_ns > 0 { mark.young() } else { mark }
    }
}
