//! Contents that are too large for Git: copied once into the repository's large contents, hashed on the way, so that the
//! bytes that were hashed are those that are kept. In Git stands a pointer.
//!
//! Where the file system can share blocks between files, nothing is copied: the content is taken over in one moment, and
//! what is hashed is what was taken over.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::{Cleaner, Reading, Stored, changing, collision, unreadable};
use crate::beneath::{self, Look};
use crate::error::Result;
use crate::lfs::Pointer;
use crate::lfs::objects::Draft;
use crate::progress::Progress;
use crate::store::files::FileRecord;

/// Bytes copied at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What became of a copy.
enum Copying {
    Done(Draft, [u8; 32]),
    Failed(Reading),
}

impl Cleaner<'_> {
    /// Whether a content whose pointer is in the tree, and which is at hand now, has to be stored again: it is not here, and
    /// not because every remote has it. After a lost state nobody knows who has it; an operator who was told that
    /// it is lost touches its file.
    pub(super) fn is_lost(&self, former: &FileRecord, pointer: &Pointer) -> Result<bool> {
        if self.to.objects.has(pointer)? {
            return Ok(false);
        }
        Ok(former.is_from_commit() || !(self.to.is_everywhere)(pointer)?)
    }

    /// Puts the buffer among the large contents.
    pub(super) fn put_large(&self) -> Result<Pointer> {
        let mut draft = self.to.objects.begin()?;
        draft.write(&self.buffer)?;
        draft.finish()
    }

    /// Stores a file of any size, with flat memory.
    pub(super) fn store_large(
        &mut self,
        file: &mut File,
        look: &Look,
        former: Option<&FileRecord>,
        progress: &Progress,
    ) -> Result<Reading> {
        let mut draft = self.to.objects.begin()?;
        if !draft.share(file) {
            drop(draft);
            if let Some(again) = self.stored_before(file, look, former, progress)? {
                return Ok(again);
            }
            draft = self.to.objects.begin()?;
            return match copy(draft, self.to.hasher(), file, look, progress)? {
                Copying::Done(draft, checksum) => self.point_at(draft, checksum),
                Copying::Failed(reading) => Ok(reading),
            };
        }
        let mut hasher = self.to.hasher();
        draft.hash_shared(progress, &mut |piece| {
            hasher.update(piece);
        })?;
        if draft.size() != look.size {
            return Ok(Reading::Failed(changing()));
        }
        let checksum = *hasher.finalize().as_bytes();
        match former.filter(|former| former.checksum == checksum) {
            Some(former) => {
                if former.is_pointer && self.is_lost(former, &draft.pointer())? {
                    draft.finish()?;
                }
                Stored::again(former).map(Reading::Done)
            }
            None => self.point_at(draft, checksum),
        }
    }

    /// Sees to it that a content whose pointer is in the tree is here.
    pub(super) fn put_again(
        &self,
        file: &mut File,
        look: &Look,
        former: &FileRecord,
        progress: &Progress,
    ) -> Result<Reading> {
        match copy(self.to.objects.begin()?, self.to.hasher(), file, look, progress)? {
            Copying::Done(draft, checksum) if checksum == former.checksum => {
                draft.finish()?;
                Stored::again(former).map(Reading::Done)
            }
            Copying::Done(..) => Ok(Reading::Failed(changing())),
            Copying::Failed(reading) => Ok(reading),
        }
    }

    pub(super) fn point_at(&mut self, draft: Draft, checksum: [u8; 32]) -> Result<Reading> {
        self.buffer = draft.finish()?.encode().into_bytes();
        Ok(match self.store_blob(false)? {
            Some(stored) => Reading::Done(Stored { stored, checksum, is_pointer: true }),
            None => Reading::Failed(collision()),
        })
    }
}

/// Copies a file that stays as it was seen.
fn copy(
    mut draft: Draft,
    mut hasher: blake3::Hasher,
    file: &mut File,
    look: &Look,
    progress: &Progress,
) -> Result<Copying> {
    let failed = |capture| Ok(Copying::Failed(Reading::Failed(capture)));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        progress.check()?;
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                draft.write(&piece[..length])?;
                hasher.update(&piece[..length]);
                progress.tick();
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return failed(unreadable(&error)),
        }
        if draft.size() > look.size {
            return failed(changing());
        }
    }
    // What was read while it changed was nobody's file and must not be kept as one.
    let is_as_before = beneath::look_at_open(file.as_fd()).is_ok_and(|after| after == *look);
    if draft.size() != look.size || !is_as_before {
        return failed(changing());
    }
    Ok(Copying::Done(draft, *hasher.finalize().as_bytes()))
}
