//! What inotify leaves to be polled: directories that get no watch, and file systems that do not tell of every
//! change.
//!
//! Kept are the topmost such directories only; nothing below them is watched or walked. Whoever polls asks for
//! them after each wait. Without such a one nothing is kept, and directories are only counted.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{InotifyBackend, limits};
use crate::error::{Error, Result};
use crate::ignore::IgnoreRules;
use crate::path::RelPath;
use crate::watch::choice::Wanted;
use crate::watch::composed::{Made, Means, Told, Tops, Why};
use crate::watch::kinds;
use crate::watch::poll::Counted;

/// How long a change of our own may take to be told. It takes microseconds where it works at all.
pub(in crate::watch) const SELF_TEST: Duration = Duration::from_secs(2);

/// Watching by inotify, and by polling what it leaves.
pub(in crate::watch) struct ByInotify {
    root: PathBuf,
    rules: Arc<IgnoreRules>,
    own_directory: PathBuf,
    one_file_system: bool,
}

impl ByInotify {
    /// For this root.
    pub fn new(wanted: &Wanted<'_>) -> Self {
        Self {
            root: wanted.root.to_owned(),
            rules: wanted.rules.clone(),
            own_directory: wanted.own_directory.to_owned(),
            one_file_system: wanted.one_file_system,
        }
    }
}

impl Means for ByInotify {
    type Told = InotifyBackend;
    const ALONE: &'static str = "inotify";
    const WITH_POLLING: &'static str = "inotify+poll";
    const SILENCE: &'static str = "such file systems do not tell of changes that are made elsewhere";

    fn make(&self) -> Result<Made<InotifyBackend>> {
        if let Ok(Some(kind)) = kinds::silent_at(&self.root) {
            return Ok(Made::Silent(kind));
        }
        let rules = self.rules.clone();
        let mut inotify = InotifyBackend::new(&self.root, rules, &self.own_directory, self.one_file_system)?;
        inotify.left = Some(Left::default());
        inotify.self_test(SELF_TEST)?;
        Ok(Made::Told(inotify))
    }

    fn is_want_of_watches(&self, error: &Error) -> bool {
        limits::is_want_of_watches(error)
    }

    fn polled_for_want_of_watches(&self, polled: Counted, _: Option<&InotifyBackend>) -> String {
        limits::polled_for_want_of_watches(polled.directories)
    }
}

impl Told for InotifyBackend {
    fn take_left(&mut self) -> Option<&Tops> {
        // While something is to be walked again, what is left is not known.
        let left = self.left.as_mut().filter(|_| !self.resync_needed)?;
        left.take_news().then(|| left.tops())
    }

    fn left(&self) -> &Tops {
        static NOTHING: Tops = Tops::new();
        self.left.as_ref().map_or(&NOTHING, Left::tops)
    }
}

#[derive(Debug, Default)]
pub(super) struct Left {
    tops: Tops,
    is_news: bool,
}

impl Left {
    pub fn tops(&self) -> &Tops {
        &self.tops
    }

    /// Whether anything changed since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    pub fn insert(&mut self, path: RelPath, why: Why) {
        self.is_news = true;
        self.tops.insert(path, why);
    }

    /// Drops what is at or below `path`: it is gone, or about to be walked again.
    pub fn remove_within(&mut self, path: &RelPath) {
        if path.is_root() {
            self.is_news |= !self.tops.is_empty();
            self.tops.clear();
            return;
        }
        // No name is smaller than one NUL byte, and none contains it.
        let below = path.join(b"\0");
        let within = |top: &RelPath| top.is_within(path);
        let mut doomed: Vec<RelPath> =
            self.tops.range(below..).map(|(top, _)| top).take_while(|top| within(top)).cloned().collect();
        doomed.extend(self.tops.get_key_value(path).map(|(top, _)| top.clone()));
        for top in doomed {
            self.is_news |= self.tops.remove(&top).is_some();
        }
    }
}

/// The kinds of the file systems that were met, by device.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<u64, Option<String>>);

impl Devices {
    /// The name of the kind of file system that the open `directory` on `device` is on, if that kind does not
    /// tell of every change.
    pub fn silent(&mut self, device: u64, directory: impl AsFd) -> Option<String> {
        let kind = self.0.entry(device).or_insert_with(|| kinds::silent(directory).unwrap_or_default());
        kind.clone()
    }

    /// Device numbers are used again.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_path_is_dropped_and_its_neighbours_stay() {
        let path = |text: &str| RelPath::new(text).unwrap();
        let mut left = Left::default();
        for top in ["a", "a-b", "a/x", "a/x-y", "b/c"] {
            left.insert(path(top), Why::NoWatch);
        }
        assert!(left.take_news() && !left.take_news());
        left.remove_within(&path("c"));
        assert!(!left.take_news());
        left.remove_within(&path("a/x"));
        left.remove_within(&path("b"));
        assert!(left.take_news());
        assert_eq!(left.tops().keys().map(ToString::to_string).collect::<Vec<_>>(), ["a", "a-b", "a/x-y"]);
        left.remove_within(&path("a"));
        assert_eq!(left.tops().keys().map(ToString::to_string).collect::<Vec<_>>(), ["a-b"]);
        left.remove_within(&RelPath::root());
        assert!(left.tops().is_empty());
    }
}
