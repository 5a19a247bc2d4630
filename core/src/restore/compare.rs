//! Is what stands there what the snapshot holds? Asked before anything is replaced, and after a restore.
//!
//! In: what the snapshot knows of a name and a look at what stands there. Out: a [`Likeness`]. Nothing is followed,
//! waited for or changed.

use std::io::Read;
use std::os::fd::AsFd;

use sha2::{Digest, Sha256};

use super::hands::read_link_target;
use super::target::{Owners, Place};
use crate::beneath::{self, EntryKind, Look};
use crate::error::{Error, Result};
use crate::git::contents::{ContentReader, Found, Trouble};
use crate::git::pack::{ObjectHasher, ObjectKind};
use crate::metadata::Record;
use crate::progress::Progress;

const SET_ID: u32 = 0o6000;
const PIECE_BYTES: usize = 256 * 1024;

/// How much of it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// All of it.
    Same,
    /// The content, but not the metadata.
    SameContent,
    /// Not the content either.
    Different,
}

/// Whose bytes a file has.
enum Bytes {
    /// Those that the record speaks of.
    AsRecorded,
    /// Those that Git holds, and the record speaks of others.
    AsInGit,
    /// Somebody else's.
    Other,
}

/// What a name should be.
pub struct Wanted<'w> {
    /// What it is.
    pub kind: EntryKind,
    /// Its content.
    pub found: Option<&'w Found>,
    /// As recorded.
    pub record: Option<&'w Record>,
    /// The low twelve bits of the mode.
    pub mode: u32,
}

/// How closely it is looked at.
pub struct Eye<'e> {
    /// Who is who here.
    pub owners: &'e Owners,
    /// Owners count, because we could set them.
    pub as_root: bool,
    /// Contents are read whatever size and time say.
    pub reads: bool,
    /// To be stopped by.
    pub progress: &'e Progress,
}

impl Eye<'_> {
    /// Compares what stands under `name`, seen as `look`, with what should be there.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn compare(
        &self,
        reader: &mut ContentReader<'_>,
        place: &Place,
        name: &[u8],
        look: &Look,
        wanted: &Wanted<'_>,
    ) -> Result<Likeness> {
        if look.kind != wanted.kind {
            return Ok(Likeness::Different);
        }
        let is_dressed = self.is_dressed(look, wanted);
        let has_content = match wanted.kind {
            EntryKind::File => match self.bytes(reader, place, name, look, wanted, is_dressed)? {
                Bytes::AsRecorded => true,
                // The record is of other bytes: nothing that it says counts.
                Bytes::AsInGit => return Ok(Likeness::Same),
                Bytes::Other => false,
            },
            EntryKind::Symlink => match wanted.found {
                Some(found) => {
                    let target = read_link_target(reader, found, self.progress)?;
                    place.read_link(name)? == target
                }
                None => false,
            },
            _ => wanted.record.is_none_or(|record| record.device == look.device_numbers()),
        };
        Ok(match (has_content, is_dressed) {
            (false, _) => Likeness::Different,
            (true, true) => Likeness::Same,
            (true, false) => Likeness::SameContent,
        })
    }

    /// Whether mode, time and, where we could have set it, the owner are as recorded.
    pub fn is_dressed(&self, look: &Look, wanted: &Wanted<'_>) -> bool {
        let Some(record) = wanted.record else { return true };
        let is_timely = look.mtime_ns == nanoseconds(record);
        let has_mode = look.kind == EntryKind::Symlink || look.mode & !SET_ID == wanted.mode & !SET_ID;
        let is_owned = !self.as_root || (look.uid, look.gid) == self.owners.of(record);
        is_timely && has_mode && is_owned
    }

    fn bytes(
        &self,
        reader: &mut ContentReader<'_>,
        place: &Place,
        name: &[u8],
        look: &Look,
        wanted: &Wanted<'_>,
        is_dressed: bool,
    ) -> Result<Bytes> {
        let Some(found) = wanted.found else { return Ok(Bytes::Other) };
        // What is recorded of an OpenPGP message may be wrong, and then only reading it tells.
        let may_be_larger = found.exact_size().is_none() && (self.reads || !has_recorded_size(wanted));
        if look.size != found.size && !may_be_larger {
            return Ok(Bytes::Other);
        }
        // Size and time count for the content only where nothing would be given to the file on the strength of them.
        if is_dressed && wanted.record.is_some() && !self.reads && look.size == found.size {
            return Ok(Bytes::AsRecorded);
        }
        // BLAKE3 is the faster, but what Git holds decides where the record speaks of something else.
        let recorded = wanted.record.and_then(|record| record.blake3);
        let is_of_this_size =
            wanted.record.and_then(|record| record.size).is_none_or(|size| size == look.size);
        if let Some(recorded) = recorded.filter(|_| is_of_this_size) {
            let mut hasher = reader.contents().hasher();
            let is_whole = self.read_through(place, name, look.size, &mut |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            if is_whole && *hasher.finalize().as_bytes() == recorded {
                return Ok(Bytes::AsRecorded);
            }
        }
        let is_in_git = self.has_stored_bytes(reader, place, name, look, found)?;
        Ok(match (is_in_git, recorded) {
            (false, _) => Bytes::Other,
            (true, Some(_)) => Bytes::AsInGit,
            (true, None) => Bytes::AsRecorded,
        })
    }

    /// Whether a file has the bytes that are stored, whatever is recorded of them.
    fn has_stored_bytes(
        &self,
        reader: &mut ContentReader<'_>,
        place: &Place,
        name: &[u8],
        look: &Look,
        found: &Found,
    ) -> Result<bool> {
        if found.is_sealed() {
            return self.has_plaintext(reader, place, name, look, found);
        }
        if let Some(pointer) = found.pointer() {
            let mut hasher = Sha256::new();
            let is_whole = self.read_through(place, name, pointer.size, &mut |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            return Ok(is_whole && hasher.finalize().as_slice() == pointer.id.0.as_slice());
        }
        let mut hasher = ObjectHasher::new(ObjectKind::Blob, found.size);
        let is_whole = self.read_through(place, name, found.size, &mut |piece| hasher.update(piece))?;
        // Bytes made to collide are no error here: they are not what they should be.
        Ok(is_whole && hasher.finish().is_ok_and(|id| id == found.id))
    }

    /// The same where what is stored is a ciphertext: names of it say nothing of the file, so both are read.
    fn has_plaintext(
        &self,
        reader: &mut ContentReader<'_>,
        place: &Place,
        name: &[u8],
        look: &Look,
        found: &Found,
    ) -> Result<bool> {
        let mut here = reader.contents().hasher();
        let is_whole = self.read_through(place, name, look.size, &mut |piece| {
            here.update(piece);
            Ok(())
        })?;
        if !is_whole {
            return Ok(false);
        }
        match reader.stream(found, self.progress, &mut |_| Ok(())) {
            Ok(proof) => Ok(proof.blake3 == *here.finalize().as_bytes()),
            Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => Err(error),
        }
    }

    /// Reads a file of exactly `size` bytes. `false` if it is no file, or of another size.
    fn read_through(
        &self,
        place: &Place,
        name: &[u8],
        size: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let file = place.open_inside(name, rustix::fs::OFlags::RDONLY)?;
        let now = beneath::look_at_open(file.as_fd()).ok();
        if now.is_none_or(|now| now.kind != EntryKind::File) {
            return Ok(false);
        }
        let (mut file, mut length) = (std::fs::File::from(file), 0);
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES) + 1)];
        loop {
            self.progress.check()?;
            match file.read(&mut piece) {
                Ok(0) => return Ok(length == size),
                Ok(count) => {
                    length += count as u64;
                    if length > size {
                        return Ok(false);
                    }
                    sink(&piece[..count])?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &place.shown(name), error)),
            }
        }
    }
}

fn has_recorded_size(wanted: &Wanted<'_>) -> bool {
    wanted.record.is_some_and(|record| record.size.is_some())
}

/// The recorded time in the form of a look.
fn nanoseconds(record: &Record) -> i64 {
    record.mtime.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(record.mtime.nanoseconds))
}
