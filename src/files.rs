//! Files of the state directory, with failures for the operator.

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

/// Writes a private file, whole or not at all.
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
