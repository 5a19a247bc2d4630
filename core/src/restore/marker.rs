//! The file that tells a restore's own leftovers from somebody's files.
//!
//! A restore into a directory demands that it is empty. One that was killed leaves a directory that is not, so it puts
//! [`NAME`] there first and takes it away last. It names the restore, so that only the same one goes on there, and is
//! locked while one is running.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::file_lock::{Attempt, LockedFile};
use crate::path::lossy;

/// Its name. No root can be called so.
pub const NAME: &str = ".backupbot-restore";
/// More than any restore's name needs.
const LONGEST: u64 = 1 << 20;

/// What is restored, in a form that is equal for equal restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The repository.
    pub repository: String,
    /// The commit.
    pub snapshot: String,
    /// What was chosen of it.
    pub selection: Vec<String>,
}

/// A marked directory, locked for this process.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    file: LockedFile,
    /// An earlier run began this restore.
    pub is_resumed: bool,
}

/// Marks `directory`, which is made if it is not there.
///
/// # Errors
/// [`Kind::Config`] if it holds anything else than what the same restore left; [`Kind::InUse`] if one is writing there.
pub fn begin(directory: &Path, identity: &Identity) -> Result<Marker> {
    let shown = lossy(directory.as_os_str().as_encoded_bytes());
    super::target::Target::make(directory)?;
    let path = directory.join(NAME);
    let failed = |error: std::io::Error| Error::io("write", &path, error);
    let others = others_in(directory)?;
    let mut options = OpenOptions::new();
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    options.read(true).write(true).mode(0o600).custom_flags(nofollow);
    let (file, found) = match options.open(&path) {
        Ok(mut file) => {
            let mut text = String::new();
            (&mut file).take(LONGEST).read_to_string(&mut text).map_err(failed)?;
            (file, serde_json::from_str::<Identity>(&text).ok())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(other) = others {
                return Err(not_empty(directory, &other));
            }
            (options.create_new(true).open(&path).map_err(failed)?, None)
        }
        Err(error) => return Err(failed(error)),
    };
    // Some network file systems have no locks: then two of the same restore are not told from each other.
    let Some(mut file) = LockedFile::where_known(file).map_err(failed)? else {
        return Err(in_use(directory));
    };
    let is_resumed = match found {
        Some(found) if found == *identity => true,
        Some(found) => {
            let text = format!(
                "{shown} holds an unfinished restore of {} ({}): finish it with the same arguments, empty the directory, or \
                 name another one",
                found.snapshot,
                if found.selection.is_empty() { "everything".to_owned() } else { found.selection.join(", ") }
            );
            return Err(Error::new(Kind::Config, text));
        }
        // Killed before the name of the restore was in it.
        None if others_in(directory)?.is_none() => false,
        None => {
            let text =
                format!("{} is not a restore's own, and {shown} is not empty: name another directory", NAME);
            return Err(Error::new(Kind::Config, text));
        }
    };
    if !is_resumed {
        let text = serde_json::to_vec(identity)
            .map_err(|error| Error::with_source(Kind::Internal, "cannot describe a restore", error))?;
        file.set_len(0)
            .and_then(|()| file.write_all(&text))
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
    }
    fault::point("restore:marked");
    Ok(Marker { path, file, is_resumed })
}

/// The restore that was begun in a directory and not finished, if there is one.
pub fn unfinished(directory: &Path) -> Option<Identity> {
    let file = File::open(directory.join(NAME)).ok()?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Something in the directory beside the marker.
fn others_in(directory: &Path) -> Result<Option<String>> {
    let failed = |error| Error::io("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.as_encoded_bytes();
        if name != NAME.as_bytes() {
            return Ok(Some(lossy(name)));
        }
    }
    Ok(None)
}

/// Whether the restore may begin there, without touching anything: for a dry run.
///
/// # Errors
/// As [`begin`].
pub fn look(directory: &Path, identity: &Identity) -> Result<bool> {
    if !directory.exists() {
        return Ok(false);
    }
    if unfinished(directory).as_ref() == Some(identity) {
        return Ok(true);
    }
    match others_in(directory)? {
        None => Ok(false),
        Some(other) => Err(not_empty(directory, &other)),
    }
}

/// As [`look`] before it is known which restore it is: whatever an earlier one left may be its own.
///
/// # Errors
/// [`Kind::Config`] if the directory holds something and no restore's marker.
pub fn look_for_others(directory: &Path) -> Result<()> {
    if !directory.exists() || directory.join(NAME).symlink_metadata().is_ok() {
        return Ok(());
    }
    others_in(directory)?.map_or(Ok(()), |other| Err(not_empty(directory, &other)))
}

/// Whether no other process restores there at this moment, as far as the file system has locks.
///
/// # Errors
/// [`Kind::InUse`] if one does.
pub fn look_for_writer(directory: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let Ok(file) = options.open(directory.join(NAME)) else { return Ok(()) };
    match LockedFile::attempt_shared(file) {
        Ok(Attempt::Held(_)) => Err(in_use(directory)),
        _ => Ok(()),
    }
}

fn in_use(directory: &Path) -> Error {
    let shown = lossy(directory.as_os_str().as_encoded_bytes());
    Error::new(Kind::InUse, format!("another restore is writing to {shown}; wait for its end"))
}

fn not_empty(directory: &Path, other: &str) -> Error {
    let shown = lossy(directory.as_os_str().as_encoded_bytes());
    let text = format!(
        "{shown} is not empty ({other} is in it): name another directory, or say what is to be done with what stands \
         there: --overwrite=never, changed or always"
    );
    Error::new(Kind::Config, text)
}

impl Marker {
    /// The restore came to its end.
    pub fn finish(self) -> Result<()> {
        let removed = fs::remove_file(&self.path);
        drop(self.file);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(snapshot: &str) -> Identity {
        Identity { repository: "d".to_owned(), snapshot: snapshot.to_owned(), selection: Vec::new() }
    }

    #[test]
    fn only_the_same_restore_goes_on_in_a_directory_that_is_not_empty() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("new/place");
        let marker = begin(&place, &identity("a")).unwrap();
        assert!(!marker.is_resumed);
        assert_eq!(begin(&place, &identity("a")).unwrap_err().kind(), Kind::InUse);
        assert_eq!(look_for_writer(&place).unwrap_err().kind(), Kind::InUse);
        drop(marker);
        look_for_writer(&place).unwrap();
        fs::write(place.join("half"), "x").unwrap();
        assert!(look(&place, &identity("a")).unwrap());
        look_for_others(&place).unwrap();
        let error = begin(&place, &identity("b")).unwrap_err();
        assert!(
            error.kind() == Kind::Config && error.to_string().contains("unfinished restore of a"),
            "{error}"
        );
        let marker = begin(&place, &identity("a")).unwrap();
        assert!(marker.is_resumed);
        marker.finish().unwrap();
        let error = begin(&place, &identity("a")).unwrap_err().to_string();
        assert!(error.contains("half") && error.contains("--overwrite"), "{error}");
        assert!(look(&place, &identity("a")).is_err());
        assert!(look_for_others(&place).unwrap_err().to_string().contains("half"));
        look_for_others(&scratch.path().join("not/there")).unwrap();
    }

    #[test]
    fn a_marker_that_was_not_written_whole_begins_anew_and_a_link_in_its_place_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join(NAME), "").unwrap();
        begin(scratch.path(), &identity("a")).unwrap().finish().unwrap();
        let victim = tempfile::NamedTempFile::new().unwrap();
        fs::write(victim.path(), "precious").unwrap();
        std::os::unix::fs::symlink(victim.path(), scratch.path().join(NAME)).unwrap();
        assert!(begin(scratch.path(), &identity("a")).is_err());
        assert_eq!(fs::read(victim.path()).unwrap(), b"precious");
    }
}
