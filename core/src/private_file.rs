//! Small files of our own: written whole or not at all, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// What is added to a file's name until it is whole.
const DRAFT: &str = ".new";
/// The ends of the names of files that only the holder of the state directory writes.
const OWN: [&str; 2] = [".json", ".token"];

/// Writes `contents` to a neighbour of `path` and renames it over `path`.
///
/// # Errors
/// When that cannot be done; what was there is there still.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DRAFT);
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
    write().map_err(|error| {
        // A full disk is the likeliest reason: half a file would be in the way of everybody.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, error)
    })
}

/// Removes what [`write()`] left half done in `directory` when the process died. Only for who holds the state
/// directory: files that commands write beside a daemon (known hosts) are not touched.
///
/// # Errors
/// When the directory cannot be read, or a draft cannot be removed.
pub fn sweep(directory: &Path) -> Result<()> {
    let sweep = || -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_draft = name
                .to_str()
                .and_then(|name| name.strip_suffix(DRAFT))
                .is_some_and(|name| OWN.iter().any(|end| name.ends_with(end)));
            if is_draft && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    sweep().map_err(|error| Error::io("remove half-written files from", directory, error))
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
    fn a_file_that_cannot_be_put_in_place_leaves_nothing_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("alerts.json");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"new").is_err());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let others = ["alerts.json", "known_hosts.new", "state.redb", "state.redb.new"];
        for name in others.iter().chain(&["alerts.json.new", "inspections.json.new", "admin.token.new"]) {
            fs::write(scratch.path().join(name), "half").unwrap();
        }
        sweep(scratch.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, others);
        assert!(sweep(&scratch.path().join("absent")).is_err());
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
