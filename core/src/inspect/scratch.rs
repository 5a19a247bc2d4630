//! Where things are fetched and restored to while they are inspected: directories below the state directory, removed at
//! the end, and before they are used again, because a process that was killed left them. One process at a time for each
//! repository and remote.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::file_lock::{Attempt, LockedFile};
use crate::lfs::fetched;
use crate::names::{RemoteName, RepositoryName};

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What a remote holds is read.
    Verification,
    /// A part of it is restored.
    Drill,
}

impl Purpose {
    fn directory(self) -> &'static str {
        match self {
            Self::Verification => "verifying",
            Self::Drill => "drills",
        }
    }

    fn busy(self, remote: &str) -> String {
        match self {
            Self::Verification => format!("remote {remote} is being verified by another process"),
            Self::Drill => format!("a drill of remote {remote} is being made by another process"),
        }
    }
}

/// A directory that is ours alone until it is dropped. It is not made, only its place.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Held while it is used.
    _lock: LockedFile,
}

impl Scratch {
    /// Takes it, and removes what an earlier process left in it.
    ///
    /// # Errors
    /// [`Kind::InUse`] while another process uses it, and what makes the state directory unusable.
    pub fn take(
        state_dir: &Path,
        purpose: Purpose,
        repository: &RepositoryName,
        remote: &RemoteName,
    ) -> Result<Self> {
        let above = state_dir.join(purpose.directory());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&above).map_err(|error| Error::io("make", &above, error))?;
        let name = format!("{repository}-{remote}");
        match lock(&above.join(format!("{name}.lock")))? {
            Some(lock) => {
                let path = above.join(format!("{name}.git"));
                remove(&path)?;
                Ok(Self { path, _lock: lock })
            }
            None => Err(Error::new(Kind::InUse, purpose.busy(remote.as_str()))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next.
        let _ = remove(&self.path);
    }
}

/// Removes what processes that were killed left, of any remote. What another process uses stays.
///
/// # Errors
/// When something cannot be removed; the rest is.
pub fn sweep(state_dir: &Path) -> Result<()> {
    let mut outcome = fetched::sweep(state_dir);
    for purpose in [Purpose::Verification, Purpose::Drill] {
        let above = state_dir.join(purpose.directory());
        let entries = match fs::read_dir(&above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| Error::io("list", &above, error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| Error::io("list", &above, error))?.path();
            if path.extension().is_none_or(|extension| extension != "git") {
                continue;
            }
            let swept = match lock(&path.with_extension("lock")) {
                Ok(Some(_lock)) => remove(&path),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            outcome = outcome.and(swept);
        }
    }
    outcome
}

/// Takes the lock unless somebody else has it.
fn lock(path: &Path) -> Result<Option<LockedFile>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(path).map_err(|error| Error::io("open", path, error))?;
    match LockedFile::attempt(lock).map_err(|error| Error::io("lock", path, error))? {
        Attempt::Locked(lock) => Ok(Some(lock)),
        Attempt::Held(_) => Ok(None),
    }
}

/// Removes a directory, however deep, whatever the modes of what is in it: what was restored has the modes and the depth that
/// its user gave it, and paths have a longest length. So directories are taken up to the top one by one.
fn remove(top: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::io("remove", top, error);
    match fs::remove_dir_all(top) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    if !fs::symlink_metadata(top).map_err(failed)?.is_dir() {
        return fs::remove_file(top).map_err(failed);
    }
    let open_up = |directory: &Path| fs::set_permissions(directory, Permissions::from_mode(0o700));
    let empty = || -> io::Result<()> {
        open_up(top)?;
        let mut number = 0u64;
        loop {
            let mut is_flat = true;
            for entry in fs::read_dir(top)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                open_up(&entry.path())?;
                for inner in fs::read_dir(entry.path())? {
                    let inner = inner?;
                    if !inner.file_type()?.is_dir() {
                        fs::remove_file(inner.path())?;
                        continue;
                    }
                    is_flat = false;
                    open_up(&inner.path())?;
                    let place = loop {
                        number += 1;
                        let place = top.join(format!("up-{number}"));
                        if fs::symlink_metadata(&place).is_err() {
                            break place;
                        }
                    };
                    fs::rename(inner.path(), place)?;
                }
                fs::remove_dir(entry.path())?;
            }
            if is_flat {
                return fs::remove_dir(top);
            }
        }
    };
    empty().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_whatever_its_modes_and_its_depth() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().join("drills/a-b.git");
        let mut directory = top.clone();
        for _ in 0..30 {
            directory.push("d");
        }
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), "x").unwrap();
        fs::write(top.join("d/file"), "x").unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        for mode in [0o000, 0o500] {
            fs::set_permissions(top.join("d/d/d"), Permissions::from_mode(mode)).unwrap();
        }
        sweep(scratch.path()).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        sweep(scratch.path()).unwrap();
    }

    #[test]
    fn what_somebody_uses_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (repository, remote) =
            (RepositoryName::new("documents").unwrap(), RemoteName::new("usb").unwrap());
        let take = || Scratch::take(scratch.path(), Purpose::Drill, &repository, &remote);
        let mine = take().unwrap();
        fs::create_dir(mine.path()).unwrap();
        assert_eq!(take().unwrap_err().kind(), Kind::InUse);
        sweep(scratch.path()).unwrap();
        assert!(mine.path().exists());
        let path = mine.path().to_path_buf();
        drop(mine);
        assert!(!path.exists());
        take().unwrap();
    }
}
