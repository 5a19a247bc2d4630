//! How much room a file system has left, and whether something that is to be written fits.
//!
//! A commit that runs into a full disk would leave the database without room for its own bookkeeping, so room is
//! asked for before anything is written, and a reserve is left. Somebody else may fill the disk meanwhile: whoever
//! writes still meets [`Kind::DiskFull`].

use std::path::Path;

use bytesize::ByteSize;

use crate::error::{Error, Kind, Result};
use crate::path::lossy;

/// What stays free beside a commit, for the database that records it.
pub const RESERVE_BYTES: u64 = 8 * 1024 * 1024;
/// What stays free of inodes: a commit takes a pack, an index, a lock, and directories for a branch.
const RESERVE_INODES: u64 = 32;

/// What a file system has left for an ordinary user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes; absent where the file system does not say.
    pub bytes: Option<u64>,
    /// Inodes; absent where the file system makes them as it needs them.
    pub inodes: Option<u64>,
}

impl Room {
    /// The room on the file system that holds `directory`.
    pub fn of(directory: &Path) -> Result<Self> {
        let system = loop {
            match rustix::fs::statvfs(directory) {
                Err(rustix::io::Errno::INTR) => {}
                asked => break asked,
            }
        };
        let system = match system {
            // A file system that does not answer is tried, as one that answers with nought is.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                return Ok(Self { bytes: None, inodes: None });
            }
            asked => asked.map_err(|errno| Error::io("ask for the free space of", directory, errno))?,
        };
        // Some network file systems do not know and say nought of everything.
        let bytes = (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize));
        let inodes = (system.f_files > 0).then_some(system.f_favail);
        Ok(Self { bytes, inodes })
    }

    /// Bytes that may be written so that the reserve stays; none if the inodes have run out.
    pub fn spare(&self) -> u64 {
        if self.inodes.is_some_and(|inodes| inodes < RESERVE_INODES) {
            return 0;
        }
        self.bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(RESERVE_BYTES))
    }

    /// Whether `bytes` more fit into `directory`, whose room this is, besides the reserve.
    ///
    /// # Errors
    /// [`Kind::DiskFull`] says what is there, what is needed, and what to do.
    pub fn must_hold(&self, bytes: u64, directory: &Path) -> Result<()> {
        let place = lossy(directory.as_os_str().as_encoded_bytes());
        if let Some(inodes) = self.inodes.filter(|inodes| *inodes < RESERVE_INODES) {
            let text = format!(
                "the file system of {place} has {inodes} inodes left and a commit needs {RESERVE_INODES}: remove files \
                 there; commits go on by themselves then"
            );
            return Err(Error::new(Kind::DiskFull, text));
        }
        let needed = bytes.saturating_add(RESERVE_BYTES);
        match self.bytes {
            Some(free) if free < needed => {
                let text = format!(
                    "the file system of {place} has {} free and the next commit needs {} ({} of them a reserve): \
                     make room there; commits go on by themselves then",
                    ByteSize(free),
                    ByteSize(needed),
                    ByteSize(RESERVE_BYTES),
                );
                Err(Error::new(Kind::DiskFull, text))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_reserve_stays_free_whatever_is_to_be_written() {
        let room = |bytes, inodes| Room { bytes, inodes };
        let fits = |room: Room, bytes| room.must_hold(bytes, Path::new("/state")).is_ok();
        assert!(fits(room(Some(8 * MIB), Some(1000)), 0));
        assert!(!fits(room(Some(8 * MIB), Some(1000)), 1));
        assert!(fits(room(Some(9 * MIB), None), MIB));
        assert!(!fits(room(Some(900 * MIB), Some(31)), 0), "inodes are room too");
        assert!(fits(room(None, None), u64::MAX), "a file system that does not say is tried");
        assert_eq!(room(Some(9 * MIB), None).spare(), MIB);
        assert_eq!(room(Some(7 * MIB), None).spare(), 0);
        assert_eq!(room(Some(900 * MIB), Some(3)).spare(), 0);
        assert_eq!(room(None, None).spare(), u64::MAX);
    }

    #[test]
    fn the_refusal_names_the_place_both_numbers_and_the_remedy() {
        let room = Room { bytes: Some(10 * MIB), inodes: None };
        let error = room.must_hold(4 * MIB, Path::new("/var/lib/x")).unwrap_err();
        assert_eq!(error.kind(), Kind::DiskFull);
        let text = error.to_string();
        for part in ["/var/lib/x", "10.0 MiB free", "needs 12.0 MiB", "make room"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_real_file_system_is_asked() {
        let room = Room::of(Path::new("/")).unwrap();
        assert!(room.bytes.is_some_and(|bytes| bytes > 0));
        let error = Room::of(Path::new("/no/such/place")).unwrap_err();
        assert!(error.to_string().contains("/no/such/place"), "{error}");
    }
}
