//! What composing asks of a backend that is told by the kernel: to say which directories it leaves to be polled.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::path::RelPath;
use crate::watch::Backend;
use crate::watch::poll::Counted;

/// Why a directory is not watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::watch) enum Why {
    /// There was no watch to be had.
    NoWatch,
    /// The kernel does not tell of every change there; and for people, what kind of directory that is.
    Silent(String),
}

/// The topmost directories that are not watched; nothing below them is.
pub(in crate::watch) type Tops = BTreeMap<RelPath, Why>;

/// A backend that is told by the kernel and leaves to others what it is not told of.
pub(in crate::watch) trait Told: Backend {
    /// The topmost directories that somebody else has to poll, if these changed since the last call.
    fn take_left(&mut self) -> Option<&Tops>;

    /// The same, whether or not they changed: as of the last [`Told::take_left`] or later.
    fn left(&self) -> &Tops;
}

/// How a backend of that kind is made, and the words for it.
pub(in crate::watch) trait Means: Send {
    /// What tells.
    type Told: Told;
    /// The word for status while nothing is polled.
    const ALONE: &'static str;
    /// The word for status while something is.
    const WITH_POLLING: &'static str;
    /// Why what is [`Why::Silent`] is polled, after "because".
    const SILENCE: &'static str;

    /// Makes it anew, not started.
    fn make(&self) -> Result<Made<Self::Told>>;

    /// Whether an error of making or starting it says that there was not one watch to be had.
    fn is_want_of_watches(&self, error: &Error) -> bool;

    /// The sentence for so much that is polled for want of watches, with the limit and the number needed; it also
    /// tells what else `told` is in want of.
    fn polled_for_want_of_watches(&self, polled: Counted, told: Option<&Self::Told>) -> String;
}

/// What came of making what tells.
pub(in crate::watch) enum Made<T> {
    /// It may be started.
    Told(T),
    /// All of the root is on a file system of this kind, which does not tell of every change.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the kinds are known for Linux only"))]
    Silent(String),
}
