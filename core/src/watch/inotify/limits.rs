//! The kernel's limits on watching, in words that name the setting and the number needed.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::path::lossy;

const MAX_WATCHES: &str = "fs.inotify.max_user_watches";
const MAX_INSTANCES: &str = "fs.inotify.max_user_instances";

/// Why no inotify instance could be made for `root`.
pub(super) fn no_instance(root: &Path, error: io::Error) -> Error {
    if error.raw_os_error() != Some(Errno::MFILE.raw_os_error()) {
        return Error::io("make an inotify instance for", root, error);
    }
    let root = lossy(root.as_os_str().as_encoded_bytes());
    let now = setting(MAX_INSTANCES);
    let needed = now.map_or_else(|| "a larger number".to_owned(), |now| (now * 2).max(now + 1).to_string());
    let now = now.map_or_else(String::new, |now| format!(" = {now}"));
    let context = format!(
        "cannot watch {root}: all inotify instances of this user are in use ({MAX_INSTANCES}{now}), and each \
         watched root needs one; raise the limit, for example: sysctl -w {MAX_INSTANCES}={needed}; or, if the \
         process has as many open files as it may, raise that limit (ulimit -n)"
    );
    Error::with_source(Kind::Limit, context, error)
}

/// The sentence for `unwatched` directories of a root that got no watch.
pub(super) fn too_few_watches(unwatched: usize) -> String {
    let now = setting(MAX_WATCHES);
    let needed = match now {
        // Room for some growth: the same number again would be used up by the next new directory.
        Some(now) => (now + unwatched as u64 + unwatched as u64 / 4 + 64).to_string(),
        None => format!("{unwatched} more than now"),
    };
    let now = now.map_or_else(String::new, |now| format!(" = {now}"));
    format!(
        "{unwatched} directories are not watched because {MAX_WATCHES}{now} is used up; changes there are found \
         by the next rescan only; raise the limit to at least {needed}, for example: sysctl -w {MAX_WATCHES}={needed}"
    )
}

/// Whether an errno of adding a watch means that no more are to be had.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::NOMEM))
}

fn setting(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_name_the_setting_and_a_number_that_is_enough() {
        let now = setting(MAX_WATCHES).unwrap();
        let sentence = too_few_watches(1000);
        assert!(
            sentence.contains(&format!("sysctl -w {MAX_WATCHES}={}", now + 1000 + 250 + 64)),
            "{sentence}"
        );
        let error = no_instance(Path::new("/data"), Errno::MFILE.into());
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.to_string().contains(&format!("sysctl -w {MAX_INSTANCES}=")), "{error}");
        assert_eq!(no_instance(Path::new("/data"), Errno::NODEV.into()).kind(), Kind::Io);
    }
}
