//! Small files of our own: written whole or not at all, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `contents` to a neighbour of `path` and renames it over `path`.
///
/// # Errors
/// When that cannot be done; what was there is there still.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|error| Error::io("write", path, error))
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut contents = Vec::new();
    file.take(limit + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than it can be"));
    }
    Ok(Some(contents))
}
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_written_file_is_private_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.json");
        fs::write(&path, "old").unwrap();
        fs::write(scratch.path().join("daemon.json.new"), "half of a crash").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(read_small(&path, 3).unwrap().unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_and_a_missing_one_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x");
        assert!(read_small(&path, 3).unwrap().is_none());
        fs::write(&path, "1234").unwrap();
        assert!(read_small(&path, 3).is_err());
    }
}
