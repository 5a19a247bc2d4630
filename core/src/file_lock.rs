//! A lock on an open file (`flock`), held until the value is dropped or the process ends.
//!
//! It is let go of by a call, not by closing the file: a program that another thread starts at the same moment has the
//! open file too until it replaces itself, and the lock would live as long.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An open file with a lock on it.
#[derive(Debug)]
pub struct LockedFile {
    file: File,
}

/// What became of a try to lock a file.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Locked(LockedFile),
    /// Somebody else has it; the file comes back.
    Held(File),
}

impl LockedFile {
    /// Waits until nobody else has the file locked.
    ///
    /// # Errors
    /// Where the file system has no locks, and what else `flock` says.
    pub fn wait(file: File) -> io::Result<Self> {
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { file }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Locks the file for us alone, unless somebody else has it locked.
    ///
    /// # Errors
    /// As [`LockedFile::wait`].
    pub fn attempt(file: File) -> io::Result<Attempt> {
        Self::try_with(file, FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`LockedFile::attempt`], but two who look do not take each other for a holder.
    ///
    /// # Errors
    /// As [`LockedFile::wait`].
    pub fn attempt_shared(file: File) -> io::Result<Attempt> {
        Self::try_with(file, FlockOperation::NonBlockingLockShared)
    }

    /// Locks a file that nobody else knows of yet. Where the file system has no locks it goes without.
    pub fn fresh(file: File) -> Self {
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Self { file }
    }

    /// Locks a file where the file system has locks, and goes without where it has none; nothing if somebody else has it.
    ///
    /// # Errors
    /// What else `flock` says.
    pub fn where_known(file: File) -> io::Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                Ok(Some(Self { file }))
            }
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn try_with(file: File, operation: FlockOperation) -> io::Result<Attempt> {
        match flock(&file, operation) {
            Ok(()) => Ok(Attempt::Locked(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(Attempt::Held(file)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_value_though_another_holds_the_open_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let mine = open();
        // As a program that is about to be started has it.
        let inherited = mine.try_clone().unwrap();
        let Attempt::Locked(lock) = LockedFile::attempt(mine).unwrap() else { panic!("nobody has it") };
        assert!(matches!(LockedFile::attempt(open()).unwrap(), Attempt::Held(_)));
        assert!(matches!(LockedFile::attempt_shared(open()).unwrap(), Attempt::Held(_)));
        drop(lock);
        assert!(matches!(LockedFile::attempt(open()).unwrap(), Attempt::Locked(_)));
        LockedFile::wait(open()).unwrap();
        drop(inherited);
    }
}
