//! The kernel's limits on watching, in words that name the setting and the number needed.
//!
//! Each limit is set twice: for the machine, and for each user namespace, as containers have; the tighter one
//! counts, so that is the one to name.

use std::error::Error as _;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::path::lossy;

/// The same limit of the machine and of the user namespace.
struct Names {
    machine: &'static str,
    namespace: &'static str,
}

const WATCHES: Names =
    Names { machine: "fs.inotify.max_user_watches", namespace: "user.max_inotify_watches" };
const INSTANCES: Names =
    Names { machine: "fs.inotify.max_user_instances", namespace: "user.max_inotify_instances" };

/// The limit that counts here.
struct Limit {
    setting: &'static str,
    /// None if it cannot be read.
    now: Option<u64>,
    /// The setting, its value, and the machine's setting if that is another one.
    shown: String,
}

impl Limit {
    fn of(names: &Names) -> Self {
        Self::tighter(names, value(names.machine), value(names.namespace))
    }

    fn tighter(names: &Names, machine: Option<u64>, namespace: Option<u64>) -> Self {
        let with_value = |name: &str, now: Option<u64>| match now {
            Some(now) => format!("{name} = {now}"),
            None => name.to_owned(),
        };
        match (machine, namespace) {
            (_, Some(here)) if machine.is_none_or(|machine| here < machine) => Self {
                setting: names.namespace,
                now: namespace,
                shown: format!(
                    "{} (of this user namespace; {})",
                    with_value(names.namespace, namespace),
                    with_value(names.machine, machine)
                ),
            },
            _ => Self { setting: names.machine, now: machine, shown: with_value(names.machine, machine) },
        }
    }

    /// What to do so that `more` are to be had.
    fn remedy(&self, more: u64) -> String {
        match self.now {
            Some(now) => {
                let (setting, needed) = (self.setting, now.saturating_add(more));
                format!("raise the limit to at least {needed}, for example: sysctl -w {setting}={needed}")
            }
            None => format!("raise {} by at least {more}", self.setting),
        }
    }
}

fn value(setting: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", setting.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Why no inotify instance could be made for `root`.
pub(super) fn no_instance(root: &Path, error: io::Error) -> Error {
    if error.raw_os_error() != Some(Errno::MFILE.raw_os_error()) {
        return Error::io("make an inotify instance for", root, error);
    }
    let root = lossy(root.as_os_str().as_encoded_bytes());
    let limit = Limit::of(&INSTANCES);
    // As many again: others of this user need some too.
    let remedy = limit.remedy(limit.now.unwrap_or(1).max(1));
    let context = format!(
        "cannot watch {root}: all inotify instances of this user are in use ({}), and each watched root needs \
         one; {remedy}; or, if the process has as many open files as it may, raise that limit (ulimit -n)",
        limit.shown
    );
    Error::with_source(Kind::Limit, context, error)
}

/// Room for some growth: just the number missing would be used up by the next new directory.
fn with_room(directories: usize) -> u64 {
    let directories = directories as u64;
    directories.saturating_add(directories / 4).saturating_add(64)
}

fn counted(directories: usize) -> String {
    if directories == 1 { "1 directory is".to_owned() } else { format!("{directories} directories are") }
}

/// The sentence for `unwatched` directories of a root that got no watch and that nobody polls.
pub(super) fn too_few_watches(unwatched: usize) -> String {
    let limit = Limit::of(&WATCHES);
    format!(
        "{} not watched because {} is used up; changes there are found by the next rescan only; {}",
        counted(unwatched),
        limit.shown,
        limit.remedy(with_room(unwatched))
    )
}

/// The sentence for `polled` directories that got no watch.
pub(super) fn polled_for_want_of_watches(polled: usize) -> String {
    let limit = Limit::of(&WATCHES);
    format!(
        "{} polled every 5 to 30 seconds instead of watched because {} is used up; {}",
        counted(polled),
        limit.shown,
        limit.remedy(with_room(polled))
    )
}

/// Whether an errno of adding a watch means that no more are to be had.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::NOMEM))
}

/// Whether an error of this module says that there was no watch to be had.
pub(super) fn is_want_of_watches(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.kind() == Kind::Limit && source.is_some_and(is_exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_name_the_setting_and_a_number_that_is_enough() {
        let limit = Limit::of(&WATCHES);
        let needed = limit.now.unwrap() + 1000 + 250 + 64;
        for sentence in [too_few_watches(1000), polled_for_want_of_watches(1000)] {
            assert!(sentence.contains(&format!("sysctl -w {}={needed}", limit.setting)), "{sentence}");
            assert!(sentence.contains(WATCHES.machine), "{sentence}");
        }
        assert!(too_few_watches(1).starts_with("1 directory is not watched"));
        let error = no_instance(Path::new("/data"), Errno::MFILE.into());
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.to_string().contains("sysctl -w "), "{error}");
        assert!(error.to_string().contains(INSTANCES.machine), "{error}");
        assert!(!is_want_of_watches(&error));
        assert!(is_want_of_watches(&Error::with_source(Kind::Limit, "", io::Error::from(Errno::NOSPC))));
        assert_eq!(no_instance(Path::new("/data"), Errno::NODEV.into()).kind(), Kind::Io);
    }

    #[test]
    fn the_tighter_of_the_two_limits_is_the_one_to_raise() {
        let said = |machine, namespace| {
            let limit = Limit::tighter(&WATCHES, machine, namespace);
            (limit.setting, limit.remedy(5), limit.shown)
        };
        let (setting, remedy, shown) = said(Some(100), Some(10));
        assert_eq!(setting, WATCHES.namespace);
        assert!(remedy.ends_with("sysctl -w user.max_inotify_watches=15"), "{remedy}");
        assert!(shown.contains("fs.inotify.max_user_watches = 100"), "{shown}");
        for namespace in [Some(100), Some(1000), None] {
            assert_eq!(said(Some(100), namespace).0, WATCHES.machine);
        }
        assert_eq!(said(None, Some(10)).0, WATCHES.namespace);
        assert_eq!(said(None, None).1, "raise fs.inotify.max_user_watches by at least 5");
    }
}
