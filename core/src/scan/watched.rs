//! A watched root: what of it is taken, and whether it is still what it was.
//!
//! A root that is missing, suddenly empty or on another file system is not looked into, so that nothing in it can be
//! taken for deleted.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::beneath::{self, EntryKind, Look, RootDirectory, Unseen};
use crate::error::{Error, Kind, Result};
use crate::ignore::IgnoreRules;
use crate::lfs::SizeLimit;
use crate::names::RootName;
use crate::path::{RelPath, lossy};
use crate::store::changes::{Failure, SkipReason};
use crate::store::files::FilesView;

/// What of a root is taken.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Whether what is on other file systems is left out.
    pub one_file_system: bool,
    /// A larger file is skipped.
    pub largest_file: SizeLimit,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { one_file_system: false, largest_file: SizeLimit::of_repository(u64::MAX) }
    }
}

/// A watched root as long as a configuration is in force; clones are the same.
#[derive(Debug, Clone)]
pub struct WatchedRoot {
    /// Its name.
    pub name: RootName,
    /// Where it is.
    pub path: PathBuf,
    /// What is left out of it.
    pub rules: Arc<IgnoreRules>,
    /// What of it is taken.
    pub bounds: Bounds,
    /// The file system it was on when it was first opened; a different one means that it was unmounted, or that
    /// something was mounted over it.
    device: Arc<Mutex<Option<u64>>>,
}

impl WatchedRoot {
    /// A root that nobody has looked at yet.
    pub fn new(name: RootName, path: PathBuf, rules: Arc<IgnoreRules>, bounds: Bounds) -> Self {
        Self { name, path, rules, bounds, device: Arc::default() }
    }

    /// Why an entry that was found as `look` is not stored whatever is in it.
    pub fn refusal(&self, look: &Look) -> Option<Failure> {
        if look.kind != EntryKind::File {
            return None;
        }
        let message = self.bounds.largest_file.refusal(look.size)?;
        Some(Failure { reason: SkipReason::TooLarge, message })
    }

    /// Whether an entry that was found as `look` is left out because it is on another file system than `root`.
    pub fn is_elsewhere(&self, root: &RootDirectory, look: &Look) -> bool {
        self.bounds.one_file_system && look.device != root.look().device
    }

    /// Opens it, if it is what it was: present, on the same file system, and not suddenly empty.
    ///
    /// # Errors
    /// [`Kind::RootUnavailable`] says which; nothing below it may then be taken for deleted.
    pub fn open(&self, files: &FilesView) -> Result<RootDirectory> {
        let root = RootDirectory::open(&self.path)?;
        let device = *self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if device.is_some_and(|device| device != root.look().device) {
            let text = format!(
                "the watched directory {} is on another file system than before: was it unmounted, or something \
                 mounted over it? Mount the right one, or restart to accept this one",
                self.shown()
            );
            return Err(Error::new(Kind::RootUnavailable, text));
        }
        let listing = root.open_directory(&RelPath::root()).and_then(|open| beneath::names_in(open.as_fd()));
        let names = listing.map_err(|unseen| self.unreadable(&unseen))?;
        if names.is_empty() && files.has_any(&self.name)? {
            let text = format!(
                "the watched directory {} is empty and was not before: is it mounted? Its last version is kept. If \
                 it is meant to be empty, put one file into it",
                self.shown()
            );
            return Err(Error::new(Kind::RootUnavailable, text));
        }
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.look().device);
        Ok(root)
    }

    fn unreadable(&self, unseen: &Unseen) -> Error {
        let why = match unseen {
            Unseen::Gone => "it is gone",
            Unseen::Unreadable(why) => why.as_str(),
        };
        // A want of descriptors says nothing about the root.
        let kind = if beneath::is_limit(unseen) { Kind::Limit } else { Kind::RootUnavailable };
        Error::new(kind, format!("the watched directory {} cannot be listed: {why}", self.shown()))
    }

    fn shown(&self) -> String {
        lossy(self.path.as_os_str().as_bytes())
    }
}
