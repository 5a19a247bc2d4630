//! Setting damaged state aside: renamed with a time stamp, durable, and bounded in number.
//!
//! What is damaged is never repaired in place and never thrown away at once: it moves to
//! `<name>.damaged-<time>` beside its place, where somebody can look at it. Only the newest few are kept, because
//! a disk that fails again and again must not fill up with them. The one that was made last always stays,
//! whatever the clock says of the others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::clock;
use crate::error::{Error, Result};

const MARK: &str = ".damaged-";

/// Moves what stands at `path` aside and keeps it and the newest `kept - 1` others; where it is now.
pub fn set_aside(path: &Path, kept: usize) -> Result<PathBuf> {
    let stamp = clock::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut target = named(path, &stamp);
    let mut number = 1;
    while target.symlink_metadata().is_ok() {
        number += 1;
        target = named(path, &format!("{stamp}-{number}"));
    }
    fs::rename(path, &target).map_err(|error| Error::io("set aside", path, error))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    for old in earlier(path).into_iter().filter(|old| *old != target).skip(kept.saturating_sub(1)) {
        // What cannot be removed now is removed when the next one is set aside.
        let _ = if is_directory(&old) { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
    }
    Ok(target)
}

/// What was set aside of `path` and is still there, newest first.
pub fn earlier(path: &Path) -> Vec<PathBuf> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return Vec::new() };
    let mut prefix = name.as_encoded_bytes().to_vec();
    prefix.extend_from_slice(MARK.as_bytes());
    let listing = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listing
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.reverse();
    found
}

fn named(path: &Path, stamp: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!("{MARK}{stamp}"));
    path.with_file_name(name)
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn sync_directory(directory: &Path) -> Result<()> {
    let open = File::open(directory).map_err(|error| Error::io("open", directory, error))?;
    open.sync_all().map_err(|error| Error::io("sync", directory, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_kept_under_names_of_its_own_and_only_the_newest_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state.redb");
        let neighbour = scratch.path().join("state.redb.damaged");
        fs::write(&neighbour, "not ours to count").unwrap();
        let mut last = None;
        for number in 0..7 {
            if number == 2 {
                fs::create_dir_all(path.join("a/directory")).unwrap();
            } else {
                fs::write(&path, number.to_string()).unwrap();
            }
            last = Some(set_aside(&path, 3).unwrap());
            assert!(!path.exists());
        }
        let left = earlier(&path);
        assert_eq!(left.len(), 3, "{left:?}");
        let last = last.unwrap();
        assert!(left.contains(&last));
        assert_eq!(fs::read_to_string(last).unwrap(), "6");
        assert!(neighbour.exists());
    }

    #[test]
    fn the_latest_stays_even_if_the_clock_went_back() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.git");
        for year in 2990..2995 {
            fs::write(scratch.path().join(format!("x.git.damaged-{year}0101T000000Z")), "").unwrap();
        }
        fs::write(&path, "now").unwrap();
        let target = set_aside(&path, 2).unwrap();
        assert_eq!(earlier(&path).len(), 2);
        assert_eq!(fs::read_to_string(target).unwrap(), "now");
    }

    #[test]
    fn what_is_not_there_cannot_be_set_aside() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(set_aside(&scratch.path().join("nothing"), 3).is_err());
    }
}
