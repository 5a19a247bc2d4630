//! Small JSON files of the state directory that are damaged: set aside before anybody takes them for empty.
//!
//! In goes what such a file should hold, out comes what was done. Nothing that is backed up depends on these files; what is lost with
//! one is in its owner's words. A file that cannot be read at this moment is not damaged: a disk may come back.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::path::lossy;
use crate::{private_file, quarantine};

/// So many damaged ones of each name are kept.
const KEPT: usize = 3;

/// A file that was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where it was.
    pub file: PathBuf,
    /// Where it is now.
    pub set_aside: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What that costs, and what to do.
    pub lost: &'static str,
}

impl Aside {
    /// Its name.
    pub fn name(&self) -> String {
        lossy(self.file.file_name().unwrap_or_default().as_encoded_bytes())
    }

    /// For an operator.
    pub fn words(&self) -> String {
        let place = lossy(self.set_aside.as_os_str().as_encoded_bytes());
        format!("{} was damaged ({}) and is set aside as {place}; {}", self.name(), self.reason, self.lost)
    }
}

/// Sets `file` aside unless it is absent or holds a `D`. `lost` says what that costs, and what to do.
///
/// # Errors
/// When it cannot be set aside.
pub fn mend<D: DeserializeOwned>(file: &Path, limit: u64, lost: &'static str) -> Result<Option<Aside>> {
    let Some(reason) = damage::<D>(file, limit) else { return Ok(None) };
    let set_aside = quarantine::set_aside(file, KEPT)?;
    Ok(Some(Aside { file: file.to_owned(), set_aside, reason, lost }))
}

/// What is wrong with `file`, if it is there and can be read.
pub(crate) fn damage<D: DeserializeOwned>(file: &Path, limit: u64) -> Option<String> {
    match private_file::read_small(file, limit) {
        Ok(None) => None,
        Ok(Some(bytes)) => serde_json::from_slice::<D>(&bytes).err().map(|error| error.to_string()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::IsADirectory | ErrorKind::InvalidData | ErrorKind::FileTooLarge
            ) =>
        {
            Some(error.to_string())
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_damaged_is_set_aside_and_what_is_whole_or_absent_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("notes.json");
        let mend = || mend::<Vec<u32>>(&file, 20, "it is begun anew").unwrap();
        assert_eq!(mend(), None);
        fs::write(&file, "[1, 2]").unwrap();
        assert_eq!(mend(), None);
        assert!(file.exists());
        for damaged in [&b""[..], b"[1, 2", b"{}", b"\xff\0", b"[1, 2, 3, 4, 5, 6, 7, 8, 9]"] {
            fs::write(&file, damaged).unwrap();
            let aside = mend().unwrap();
            assert_eq!((fs::read(&aside.set_aside).unwrap().as_slice(), file.exists()), (damaged, false));
            let words = aside.words();
            assert!(
                words.starts_with("notes.json was damaged (") && words.ends_with("begun anew"),
                "{words}"
            );
        }
        fs::create_dir(&file).unwrap();
        assert!(mend().is_some() && !file.exists());
        assert_eq!(quarantine::earlier(&file).len(), KEPT);
    }
}
