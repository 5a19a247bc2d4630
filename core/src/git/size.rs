//! How many bytes a repository takes: the files below its directory, links not followed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// The sizes of all files below `path` together; 0 if it does not exist. What is removed meanwhile does not count.
///
/// # Errors
/// A directory that cannot be listed.
pub fn bytes_below(path: &Path, progress: &Progress) -> Result<u64> {
    let mut bytes: u64 = 0;
    let mut pending = vec![path.to_path_buf()];
    while let Some(directory) = pending.pop() {
        progress.check()?;
        progress.tick();
        let listing = match fs::read_dir(&directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &directory, error)),
        };
        for entry in listing.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => pending.push(entry.path()),
                Ok(found) if found.is_file() => bytes = bytes.saturating_add(found.len()),
                _ => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_and_links_do_not() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        fs::write(scratch.path().join("a/one"), [0; 100]).unwrap();
        fs::write(scratch.path().join("a/b/two"), [0; 23]).unwrap();
        std::os::unix::fs::symlink(scratch.path(), scratch.path().join("a/b/loop")).unwrap();
        assert_eq!(bytes_below(scratch.path(), &Progress::new()).unwrap(), 123);
        assert_eq!(bytes_below(&scratch.path().join("none"), &Progress::new()).unwrap(), 0);
    }
}
