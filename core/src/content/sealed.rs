//! Contents that are encrypted as git-crypt does, with flat memory: read once for nonce and checksum, once more for the
//! ciphertext, which goes into the pack or among the large contents. Nothing of the plaintext is written anywhere.
//!
//! Both readings must be of the same bytes: two plaintexts under one nonce would betray each other. The last piece of the
//! ciphertext comes only if they were, and nothing of a failed one is kept.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use sha2::{Digest, Sha256};

use super::{Capture, Cleaner, Reading, Stored, changing, collision, rewind, trouble_of};
use crate::beneath::{self, Look};
use crate::crypt::gitcrypt::{Encrypting, Nonce};
use crate::crypt::sealer::Sealer;
use crate::error::{Error, Kind, Result};
use crate::git::pack::Streamed;
use crate::lfs::{ObjectId, Pointer};
use crate::progress::Progress;
use crate::store::changes::{Failure, SkipReason};
use crate::store::files::FileRecord;

/// Bytes encrypted at a time.
const PIECE_BYTES: usize = 256 * 1024;

impl Cleaner<'_> {
    /// Stores a file of any size that is to be encrypted.
    pub(super) fn store_sealed(
        &mut self,
        sealer: &Sealer,
        file: &mut File,
        look: &Look,
        former: Option<&FileRecord>,
        is_large: bool,
        progress: &Progress,
    ) -> Result<Reading> {
        let key = sealer.key().version()?;
        let mut hasher = sealer.key().checksums().hasher();
        let nonce = match Nonce::of(key, Heard { source: &mut *file, hasher: &mut hasher }, progress) {
            Ok(nonce) if nonce.size() == look.size => nonce,
            Ok(_) => return Ok(Reading::Failed(changing())),
            Err(error) => return failed_reading(error),
        };
        let checksum = *hasher.finalize().as_bytes();
        let same = former.filter(|former| former.checksum == checksum);
        if let Some(former) = same.filter(|former| !former.is_pointer) {
            return Stored::again(former).map(Reading::Done);
        }
        if let Some(former) = same {
            if let Some(trouble) = rewind(file) {
                return Ok(trouble);
            }
            let mut name = Sha256::new();
            if let Some(trouble) = pour(Encrypting::new(key, nonce, &mut *file), progress, &mut |piece| {
                name.update(piece);
                Ok(())
            })? {
                return Ok(trouble);
            }
            let id = ObjectId(name.finalize().into());
            if !self.is_lost(former, &Pointer { id, size: nonce.encrypted_size() })? {
                return Stored::again(former).map(Reading::Done);
            }
        }
        if let Some(trouble) = rewind(file) {
            return Ok(trouble);
        }
        let encrypting = Encrypting::new(key, nonce, &mut *file);
        if same.is_none() && !is_large {
            return self.pack_sealed(encrypting, nonce, checksum, progress);
        }
        let mut draft = self.to.objects.begin()?;
        if let Some(trouble) = pour(encrypting, progress, &mut |piece| draft.write(piece))? {
            return Ok(trouble);
        }
        if !beneath::look_at_open(file.as_fd()).is_ok_and(|after| after == *look) {
            return Ok(Reading::Failed(changing()));
        }
        match same {
            Some(former) => {
                draft.finish()?;
                Stored::again(former).map(Reading::Done)
            }
            None => self.point_at(draft, checksum),
        }
    }

    fn pack_sealed(
        &mut self,
        mut encrypting: Encrypting<&mut File>,
        nonce: Nonce,
        checksum: [u8; 32],
        progress: &Progress,
    ) -> Result<Reading> {
        let size = nonce.encrypted_size();
        let streamed = match self.to.pack.add_ciphertext(size, &mut encrypting, progress) {
            Err(error) if error.kind() == Kind::Git => return Ok(Reading::Failed(collision())),
            streamed => streamed?,
        };
        Ok(match streamed {
            Streamed::Stored(stored) => Reading::Done(Stored { stored, checksum, is_pointer: false }),
            Streamed::SizeChanged => Reading::Failed(changing()),
            Streamed::ReadFailed(error) => Reading::Failed(trouble_of(&error)),
        })
    }
}

/// A source whose bytes somebody else hears too.
struct Heard<'h, R> {
    source: R,
    hasher: &'h mut blake3::Hasher,
}

impl<R: Read> Read for Heard<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(out)?;
        self.hasher.update(&out[..read]);
        Ok(read)
    }
}

/// Gives a whole ciphertext to `take`; what was wrong with its source, if anything.
fn pour(
    mut ciphertext: impl Read,
    progress: &Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Option<Reading>> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        progress.check()?;
        match ciphertext.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                take(&piece[..length])?;
                progress.tick();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Some(Reading::Failed(trouble_of(&error)))),
        }
    }
}

fn failed_reading(error: Error) -> Result<Reading> {
    let reason = match error.kind() {
        Kind::Cancelled => return Err(error),
        Kind::TooLarge => SkipReason::TooLarge,
        _ => SkipReason::Unreadable,
    };
    Ok(Reading::Failed(Capture::Failed(Failure { reason, message: error.to_string() })))
}
