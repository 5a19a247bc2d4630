//! What kqueue leaves to be polled: directories that get no descriptor, and those that the kernel cannot watch.
//!
//! Nothing below such a one is on record. While nobody polls them they are only counted, and their own stat is
//! compared. While somebody does, their changes are that one's to tell: here is told when such a directory comes,
//! goes or is replaced, which its parent's listing shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::fs::FileType;

use super::KqueueBackend;
use super::budget::{Pool, Wanting};
use super::tree::{Entry, Reason, State};
use crate::error::{Error, Kind, Result};
use crate::watch::composed::{Made, Means, Told, Tops, Why};
use crate::watch::poll::Counted;

/// Watching by kqueue, and by polling what it leaves.
pub(in crate::watch) struct ByKqueue {
    pool: Arc<Pool>,
    make: Box<dyn Fn(Arc<Pool>) -> Result<KqueueBackend> + Send>,
}

impl ByKqueue {
    /// For this root, with the descriptors of this process.
    #[cfg(any(
        target_os = "macos",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly"
    ))]
    pub fn new(wanted: &crate::watch::Wanted<'_>) -> Self {
        let (root, rules) = (wanted.root.to_owned(), wanted.rules.clone());
        let one_file_system = wanted.one_file_system;
        let make = move |_| KqueueBackend::new(&root, rules.clone(), one_file_system);
        Self::of(Pool::of_process(), Box::new(make))
    }

    /// For what `make` makes with descriptors of `pool`.
    pub(super) fn of(pool: Arc<Pool>, make: Box<dyn Fn(Arc<Pool>) -> Result<KqueueBackend> + Send>) -> Self {
        Self { pool, make }
    }
}

impl Means for ByKqueue {
    type Told = KqueueBackend;
    const ALONE: &'static str = "kqueue";
    const WITH_POLLING: &'static str = "kqueue+poll";
    const SILENCE: &'static str = "the kernel cannot watch such directories";

    fn make(&self) -> Result<Made<KqueueBackend>> {
        let mut kqueue = (self.make)(self.pool.clone())?;
        kqueue.left = Some(Tops::new());
        Ok(Made::Told(kqueue))
    }

    fn is_want_of_watches(&self, error: &Error) -> bool {
        use std::error::Error as _;
        error.kind() == Kind::Limit && error.source().is_none()
    }

    fn polled_for_want_of_watches(&self, polled: Counted, told: Option<&KqueueBackend>) -> String {
        self.pool.sentence(&Wanting {
            directories: polled.directories as u64,
            files_below: polled.files as u64,
            files: told.map_or(0, |told| told.tree.missing().files),
            are_polled: true,
        })
    }
}

impl Told for KqueueBackend {
    fn take_left(&mut self) -> Option<&Tops> {
        if self.tree.take_left_news() && self.left.is_some() {
            self.left = Some(self.unwatched());
            return self.left.as_ref();
        }
        None
    }

    fn left(&self) -> &Tops {
        static NOTHING: Tops = BTreeMap::new();
        self.left.as_ref().unwrap_or(&NOTHING)
    }
}

impl KqueueBackend {
    /// The topmost directories of which neither they nor anything below is told.
    pub(super) fn unwatched(&self) -> Tops {
        let left = self.tree.left();
        left.filter_map(|(id, name, entry)| Some((self.tree.path(id)?.join(name), why(entry)?))).collect()
    }

    /// Whether somebody else looks at an entry and at all below it.
    pub(super) fn is_left(&self, entry: &Entry) -> bool {
        self.left.is_some() && why(entry).is_some()
    }
}

/// Why a directory is not watched, unless it is, cannot be, or the entry is none.
fn why(entry: &Entry) -> Option<Why> {
    match entry.state {
        _ if entry.listed.kind != FileType::Directory => None,
        State::Compared(_, Reason::Beyond { .. }) => Some(Why::NoWatch),
        State::Compared(_, Reason::Refused) => Some(Why::Silent("refused".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
pub(in crate::watch) mod tests;
