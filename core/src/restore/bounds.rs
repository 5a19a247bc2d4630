//! What a repository may ask of a target, so that a hostile one cannot fill a disk or keep a restore busy for ever.

use std::path::Path;

use bytesize::ByteSize;

use super::{Destination, Plan};
use crate::disk::{RESERVE_BYTES, Room};
use crate::error::{Error, Kind, Result};

/// Below these nothing is compared with the repository's size: everybody has some duplicates.
const BYTES_BEYOND_DOUBT: u64 = 10 * 1024 * 1024 * 1024;
const ENTRIES_BEYOND_DOUBT: u64 = 1_000_000;
/// What a new inode takes of a file system besides its content.
const BYTES_AN_ENTRY: u64 = 512;

/// Limits that end a restore before it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Things in a snapshot.
    pub entries: u64,
    /// Bytes of all files for each byte of the repository.
    pub ratio: u64,
    /// Whether these count at all.
    pub on: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 50_000_000, ratio: 1000, on: true }
    }
}

impl Bounds {
    /// Whether so much may come out of a repository of `repository_bytes`.
    ///
    /// # Errors
    /// Names both numbers and the way round it.
    pub fn check(&self, entries: u64, bytes: u64, repository_bytes: u64) -> Result<()> {
        if !self.on {
            return Ok(());
        }
        let whole = ByteSize(repository_bytes).display().iec();
        let is_tree_bomb = is_tree_bomb(entries, repository_bytes);
        let is_bomb = bytes > BYTES_BEYOND_DOUBT && bytes / self.ratio.max(1) > repository_bytes;
        let what = if entries > self.entries {
            format!("more than {} files and directories", self.entries)
        } else if is_tree_bomb {
            format!("more than {entries} files and directories out of a repository of {whole}")
        } else if is_bomb {
            format!("more than {} out of a repository of {whole}", ByteSize(bytes).display().iec())
        } else {
            return Ok(());
        };
        let text = format!(
            "the snapshot asks for {what}, as a repository does that was made to fill disks: restore a part of it by \
             naming paths, or use --no-limits if you trust it"
        );
        Err(Error::new(Kind::Git, text))
    }

    /// Whether so many things may be in a snapshot that is only looked through.
    ///
    /// # Errors
    /// Says that there are too many.
    pub fn check_entries(&self, entries: u64, repository_bytes: u64) -> Result<()> {
        if !self.on || (entries <= self.entries && !is_tree_bomb(entries, repository_bytes)) {
            return Ok(());
        }
        let text = format!(
            "the snapshot has more than {entries} files and directories, as one has that was made to keep somebody busy \
             for ever; the rest of it was not looked at"
        );
        Err(Error::new(Kind::Git, text))
    }
}

/// Every name that differs from others takes some twenty bytes in a repository, the id alone.
fn is_tree_bomb(entries: u64, repository_bytes: u64) -> bool {
    entries > ENTRIES_BEYOND_DOUBT && entries > repository_bytes
}

/// What the packs and loose objects of a repository take, as far as can be told.
pub fn repository_bytes(repository: &Path) -> u64 {
    let mut sum = 0;
    let mut pending = vec![repository.join("objects")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => pending.push(entry.path()),
                Ok(metadata) => sum += metadata.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

/// Whether the target has room for what is planned.
pub(super) fn check_room(destination: &Destination, plan: &Plan) -> Result<()> {
    let place: &Path = match destination {
        Destination::Directory(path) => path,
        Destination::InPlace(roots) => match roots.values().next() {
            Some(path) => path,
            None => return Ok(()),
        },
    };
    let existing = place.ancestors().find(|path| path.exists()).unwrap_or(place);
    let room = Room::of(existing)?;
    let totals = &plan.report.totals;
    let entries = totals.files + totals.directories + totals.symlinks + totals.specials;
    let needed = plan.grows + entries * BYTES_AN_ENTRY;
    let shown = crate::path::lossy(place.as_os_str().as_encoded_bytes());
    if let Some(free) = room.bytes.filter(|free| *free < needed.saturating_add(RESERVE_BYTES)) {
        let text = format!(
            "the restore needs {} and the file system of {shown} has {} free: make room there, choose another \
             directory, or restore a part by naming paths; nothing was written",
            ByteSize(needed).display().iec(),
            ByteSize(free).display().iec()
        );
        return Err(Error::new(Kind::DiskFull, text));
    }
    if let Some(inodes) = room.inodes.filter(|inodes| *inodes < entries) {
        let text = format!(
            "the restore makes {entries} files and directories and the file system of {shown} has {inodes} inodes \
             left: remove files there, or choose another directory; nothing was written"
        );
        return Err(Error::new(Kind::DiskFull, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_told_from_a_repository_with_many_duplicates() {
        let bounds = Bounds::default();
        const MIB: u64 = 1024 * 1024;
        assert!(bounds.check(100_000, 2_000 * MIB, MIB).is_ok(), "below ten gigabytes nobody minds");
        assert!(bounds.check(900_000, 0, 10_000).is_ok());
        let error = bounds.check(2_000_000, 0, 10_000).unwrap_err().to_string();
        assert!(error.contains("--no-limits") && error.contains("2000000"), "{error}");
        assert!(bounds.check(10, 20_000 * MIB, MIB).is_err());
        assert!(bounds.check(10, 20_000 * MIB, 30 * MIB).is_ok());
        assert!(bounds.check(60_000_000, 0, u64::MAX).is_err());
        assert!(Bounds { on: false, ..bounds }.check(u64::MAX, u64::MAX, 0).is_ok());
    }
}
