//! Contents that are encrypted as OpenPGP messages, with flat memory and read once.
//!
//! The same content gives another message each time, so whether it is the same is told by its keyed checksum alone, and a
//! message that is there already is kept. How long a message becomes is known at its end only: one that goes into the pack is
//! written as a draft among the large contents first. Nothing of the plaintext is written anywhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use git2::Oid;

use super::{
    Cleaner, Reading, Stored, StreamTrouble, changing, collision, hash_stream, rewind, trouble_of, unreadable,
};
use crate::beneath::{self, Look};
use crate::crypt::openpgp;
use crate::crypt::sealer::Sealer;
use crate::error::{Kind, Result};
use crate::git::pack::Streamed;
use crate::lfs::objects::Appending;
use crate::lfs::{Pointer, pointer};
use crate::progress::Progress;
use crate::store::files::FileRecord;

impl Cleaner<'_> {
    /// Stores what is in the buffer.
    pub(super) fn message_whole(
        &mut self,
        sealer: &Sealer,
        look: &Look,
        former: Option<&FileRecord>,
        checksum: [u8; 32],
        is_large: bool,
    ) -> Result<Reading> {
        if let Some(known) = self.known(former, &checksum)? {
            return Ok(Reading::Done(known));
        }
        let reading = self.new_message(sealer, checksum, is_large)?;
        Ok(self.noted(look, reading))
    }

    fn new_message(&mut self, sealer: &Sealer, checksum: [u8; 32], is_large: bool) -> Result<Reading> {
        self.buffer = sealer.seal(&self.buffer)?;
        if is_large {
            self.buffer = self.put_large()?.encode().into_bytes();
        }
        Ok(match self.store_blob(!is_large)? {
            Some(stored) => Reading::Done(Stored { stored, checksum, is_pointer: is_large }),
            None => Reading::Failed(collision()),
        })
    }

    /// Stores a file of any size.
    pub(super) fn message_streamed(
        &mut self,
        sealer: &Sealer,
        file: &mut File,
        look: &Look,
        former: Option<&FileRecord>,
        is_large: bool,
        progress: &Progress,
    ) -> Result<Reading> {
        let may_be_former = former.is_some_and(|former| former.is_stored() && former.look.size == look.size);
        if may_be_former || self.to.elsewhere.has_size(look.size) {
            // Reading twice is far cheaper than storing gigabytes again because a time stamp moved.
            let mut hasher = self.to.hasher();
            let read = hash_stream(file, progress, &mut |piece| {
                hasher.update(piece);
            });
            match read {
                Ok(()) => {}
                Err(StreamTrouble::Cancelled(error)) => return Err(error),
                Err(StreamTrouble::Read(error)) => return Ok(Reading::Failed(unreadable(&error))),
            }
            if let Some(known) = self.known(former, hasher.finalize().as_bytes())? {
                return Ok(Reading::Done(known));
            }
            if let Some(trouble) = rewind(file) {
                return Ok(trouble);
            }
        }
        let reading = self.new_large_message(sealer, file, look, is_large, progress)?;
        Ok(self.noted(look, reading))
    }

    fn new_large_message(
        &mut self,
        sealer: &Sealer,
        file: &mut File,
        look: &Look,
        is_large: bool,
        progress: &Progress,
    ) -> Result<Reading> {
        let mut draft = self.to.objects.begin()?;
        let mut heard = Heard { source: &mut *file, hasher: self.to.hasher(), trouble: None };
        let sealed = openpgp::encrypt(&mut heard, sealer.recipients(), Appending(&mut draft), progress);
        let Heard { hasher, trouble, .. } = heard;
        if let Some(trouble) = trouble {
            return Ok(Reading::Failed(unreadable(&trouble)));
        }
        let size = sealed?;
        if size != look.size || !beneath::look_at_open(file.as_fd()).is_ok_and(|after| after == *look) {
            return Ok(Reading::Failed(changing()));
        }
        let checksum = *hasher.finalize().as_bytes();
        if is_large {
            return self.point_at(draft, checksum);
        }
        let size = draft.size();
        let streamed = match self.to.pack.add_ciphertext(size, draft.read_back()?, progress) {
            Err(error) if error.kind() == Kind::Git => return Ok(Reading::Failed(collision())),
            streamed => streamed?,
        };
        Ok(match streamed {
            Streamed::Stored(stored) => Reading::Done(Stored { stored, checksum, is_pointer: false }),
            Streamed::SizeChanged => Reading::Failed(changing()),
            Streamed::ReadFailed(error) => Reading::Failed(trouble_of(&error)),
        })
    }

    /// Has the next file with this content take the same message.
    fn noted(&self, look: &Look, reading: Reading) -> Reading {
        if let Reading::Done(Stored { stored, checksum, is_pointer }) = &reading {
            let mut raw = [0; 20];
            raw.copy_from_slice(stored.as_bytes());
            let (checksum, is_pointer) = (*checksum, *is_pointer);
            let record = FileRecord { look: *look, recorded_ns: 0, stored: raw, checksum, is_pointer };
            self.to.elsewhere.note_new(record);
        }
        reading
    }

    /// The message that a content with this checksum is stored as already: at this place, or for another one.
    fn known(&self, former: Option<&FileRecord>, checksum: &[u8; 32]) -> Result<Option<Stored>> {
        let same = former.filter(|former| former.is_stored() && former.checksum == *checksum);
        if let Some(same) = same
            && !(same.is_pointer && self.is_message_lost(same)?)
        {
            return Stored::again(same).map(Some);
        }
        let Some(other) = self.to.elsewhere.get(checksum) else { return Ok(None) };
        if other.record.is_pointer && !other.is_new && self.is_message_lost(&other.record)? {
            return Ok(None);
        }
        Stored::again(&other.record).map(Some)
    }

    /// Whether the message that a pointer stands for cannot be had any more. Nobody can make the same one again.
    fn is_message_lost(&self, record: &FileRecord) -> Result<bool> {
        let oid = super::oid_of(&record.stored)?;
        match self.pointer_at(oid)? {
            Some(pointer) => self.is_lost(record, &pointer),
            None => Ok(true),
        }
    }

    fn pointer_at(&self, oid: Oid) -> Result<Option<Pointer>> {
        let Some((pack, _)) = self.to.present.find(&oid)? else { return Ok(None) };
        let blob = pack.read_object(&oid, pointer::LARGEST as u64)?;
        Ok(blob.and_then(|(_, bytes)| Pointer::parse(&bytes)))
    }
}

/// A source that is hashed as it is read, and whose own trouble is told from everything else's.
struct Heard<'h> {
    source: &'h mut File,
    hasher: blake3::Hasher,
    trouble: Option<io::Error>,
}

impl Read for Heard<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.source.read(out) {
            Ok(read) => {
                self.hasher.update(&out[..read]);
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                if kind != io::ErrorKind::Interrupted {
                    self.trouble = Some(error);
                }
                Err(kind.into())
            }
        }
    }
}
