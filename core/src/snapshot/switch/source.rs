//! A stored content, to be read from its beginning as often as somebody needs it, with flat memory.
//!
//! What is inline in Git comes out of a pack in pieces that somebody is handed, and who encrypts wants to pull: a thread
//! of its own hands the pieces over. Its end is said, so that one that broke off is never taken for the whole.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::plan::{Item, Whereabouts};
use crate::beneath::RootDirectory;
use crate::error::{Error, Kind, Result};
use crate::git::contents::{Contents, Trouble};
use crate::lfs::Objects;
use crate::progress::Progress;

/// Pieces that wait to be taken.
const PIECES: usize = 4;

type Piece = Result<Option<Zeroizing<Vec<u8>>>>;

/// Where the stored bytes of an item come from.
pub(super) struct Source<'s> {
    pub item: &'s Item,
    pub contents: &'s Contents,
    pub large: &'s Objects,
    pub progress: &'s Progress,
}

impl Source<'_> {
    /// Has `take` read the stored bytes from the first to the last; they count only if this returns without an error.
    pub fn read<T>(&self, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        match &self.item.source {
            Whereabouts::Inline => self.piped(take),
            Whereabouts::Large(pointer) => {
                let absent = || Error::new(Kind::Git, format!("the large object {} is gone", pointer.id));
                let file = self.large.open(&pointer.id)?.ok_or_else(absent)?;
                let mut proven = Proving { source: file, hasher: Sha256::new(), size: 0 };
                let taken = take(&mut proven)?;
                // Whoever takes need not come to the end.
                io::copy(&mut proven, &mut io::sink())
                    .map_err(|error| crate::crypt::error_of(error, "read a large object"))?;
                if proven.size != pointer.size || proven.hasher.finalize().as_slice() != pointer.id.0 {
                    let text = format!(
                        "the large object {} of {} bytes is damaged here: `backupbot lfs scrub` puts it right",
                        pointer.id, pointer.size
                    );
                    return Err(Error::new(Kind::Git, text));
                }
                Ok(taken)
            }
            Whereabouts::Disk { root, path, .. } => {
                let opened: Option<OwnedFd> =
                    RootDirectory::open(root).ok().and_then(|directory| directory.open_file(path).ok());
                let Some(opened) = opened else { return Err(changed_on_disk()) };
                take(&mut std::fs::File::from(opened))
            }
        }
    }

    fn piped<T>(&self, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            let (hand, pieces) = sync_channel(PIECES);
            scope.spawn(move || {
                let end = self.hand_over(&hand);
                // Nobody listens any more if this fails.
                let _ = hand.send(end.map(|()| None));
            });
            let mut pulled = Pulled { pieces, piece: Zeroizing::default(), given: 0, is_over: false };
            let taken = take(&mut pulled)?;
            // The object's name is proven at its end only.
            io::copy(&mut pulled, &mut io::sink())
                .map_err(|error| crate::crypt::error_of(error, "read a content"))?;
            Ok(taken)
        })
    }

    fn hand_over(&self, hand: &SyncSender<Piece>) -> Result<()> {
        let mut reader = self.contents.reader();
        let found = reader.find(self.item.entry.oid)?;
        let streamed = reader.stream(&found, self.progress, &mut |piece| {
            hand.send(Ok(Some(Zeroizing::new(piece.to_vec())))).map_err(|_| Error::cancelled())
        });
        match streamed {
            Ok(_) => Ok(()),
            Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => Err(error),
        }
    }
}

/// The file was to be what the tree has.
pub(super) fn changed_on_disk() -> Error {
    let text = "its large content is not here any more, and the file in the watched directory is not what it was: put the \
                file as it was back, or the object into this repository";
    Error::new(Kind::EncryptionKey, text)
}

struct Pulled {
    pieces: Receiver<Piece>,
    piece: Zeroizing<Vec<u8>>,
    given: usize,
    is_over: bool,
}

impl Read for Pulled {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            if self.is_over {
                return Ok(0);
            }
            match self.pieces.recv() {
                Ok(Ok(Some(piece))) => (self.piece, self.given) = (piece, 0),
                Ok(Ok(None)) => self.is_over = true,
                Ok(Err(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Err(_) => return Err(io::Error::other("the thread that reads a content broke off")),
            }
        }
        let rest = &self.piece[self.given..];
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

/// Hashes what passes.
struct Proving<R> {
    source: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Read for Proving<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(out)?;
        self.hasher.update(&out[..length]);
        self.size += length as u64;
        Ok(length)
    }
}
