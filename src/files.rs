//! Small private files of the state directory: written whole or not at all, readable by their owner only.

use std::fs;
use std::io;
use std::path::Path;

use backupbot_core::path::lossy;
use backupbot_core::private_file;
pub use backupbot_core::private_file::read_small;

use crate::exit::Failure;

/// The path for people.
pub fn shown(path: &Path) -> String {
    lossy(path.as_os_str().as_encoded_bytes())
}

/// Writes `contents` to a neighbour of `path` and renames it over `path`.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    Ok(private_file::write(path, contents)?)
}

/// Removes a file that may be gone already.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", shown(path)), error))
        }
        _ => Ok(()),
    }
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
        write_private(&path, b"new").unwrap();
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
