//! Cleaning: a file's bytes become a stored object, captured consistently.
//!
//! A file is looked at before and after it is read; anything but the same look means that it changed meanwhile,
//! and nothing of it is kept. Small files are read whole, so that an unchanged or already stored content costs
//! neither compression nor space; larger ones are streamed with flat memory. What the settings call large goes to the
//! repository's large contents (`large.rs`), and a pointer to it is the object. What is to be encrypted is encrypted first
//! (`sealed.rs`, `message.rs`): only its ciphertext is ever written, and its checksum is keyed.

mod elsewhere;
mod large;
mod message;
mod sealed;

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use git2::Oid;
use sha2::{Digest, Sha256};

use crate::beneath::{self, EntryKind, Look, RootDirectory, Unseen};
use crate::clock::now_ns;
use crate::crypt::sealer::Sealer;
use crate::error::{Error, Kind, Result};
use crate::git::pack::object::prepare_hashed;
use crate::git::pack::{Compressor, ObjectKind, PackSet, PackWriter, Streamed, hash_object};
use crate::lfs::{Classifier, ObjectId, Objects, Pointer};
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::store::changes::{Failure, SkipReason};
use crate::store::files::FileRecord;

pub use elsewhere::Elsewhere;

/// Files up to this are read whole; above it memory stays flat.
pub(crate) const WHOLE_BYTES: u64 = 1024 * 1024;
/// A pipe and a link have no size worth trusting; no system allows a longer link.
const LONGEST_LINK: usize = 64 * 1024;

/// A captured content.
#[derive(Debug, Clone)]
pub struct Cleaned {
    /// What the file was, before and after it was read.
    pub look: Look,
    /// When that was, nanoseconds since 1970.
    pub recorded_ns: i64,
    /// The object.
    pub stored: Oid,
    /// Whether the object is a pointer, and the content among the large ones.
    pub is_pointer: bool,
    /// BLAKE3 of the bytes, keyed where the repository is encrypted.
    pub checksum: [u8; 32],
    /// Extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What became of one entry.
#[derive(Debug, Clone)]
pub enum Capture {
    /// Its object is in the pack or was in the repository.
    Stored(Box<Cleaned>),
    /// It is gone, or is another kind of thing now.
    Gone,
    /// It could not be captured now; its last version stays.
    Failed(Failure),
}

/// Where contents go, and which.
#[derive(Clone, Copy)]
pub struct Destination<'d> {
    /// The pack of the batch.
    pub pack: &'d PackWriter,
    /// Objects that need not be written again.
    pub present: &'d PackSet,
    /// The large contents.
    pub objects: &'d Objects,
    /// Which contents are large.
    pub classifier: &'d Classifier,
    /// What encrypts, if anything is to be encrypted.
    pub sealer: Option<&'d Sealer>,
    /// What is stored for other places, where the same content gives other bytes each time.
    pub elsewhere: &'d Elsewhere,
    /// Whether every remote is known to have a large content, which may be away from here then.
    pub is_everywhere: &'d (dyn Fn(&Pointer) -> Result<bool> + Sync),
}

impl Destination<'_> {
    /// A hasher of checksums.
    fn hasher(&self) -> blake3::Hasher {
        self.sealer.map_or_else(blake3::Hasher::new, |sealer| sealer.key().checksums().hasher())
    }
}

/// What one thread needs to clean files into a pack.
pub struct Cleaner<'c> {
    name: &'c RootName,
    root: &'c RootDirectory,
    to: Destination<'c>,
    compressor: Compressor,
    /// For ciphertexts, which no compressor makes smaller.
    uncompressing: Compressor,
    buffer: Vec<u8>,
}

impl<'c> Cleaner<'c> {
    /// A cleaner of files beneath `root`, which has this name in the repository.
    pub fn new(name: &'c RootName, root: &'c RootDirectory, to: Destination<'c>) -> Self {
        let (compressor, uncompressing) = (Compressor::new(), Compressor::uncompressing());
        Self { name, root, to, compressor, uncompressing, buffer: Vec::new() }
    }

    /// Captures the file or link at `path`, which was seen as `look`.
    ///
    /// # Errors
    /// Only for the pack (disk full and the like) and cancellation; trouble with the file is a [`Capture`].
    pub fn clean(
        &mut self,
        path: &RelPath,
        look: &Look,
        recorded: Option<&FileRecord>,
        progress: &Progress,
    ) -> Result<Capture> {
        progress.check()?;
        let attempt = match look.kind {
            EntryKind::File => self.clean_file(path, look, recorded, progress)?,
            EntryKind::Symlink => self.clean_link(path)?,
            _ => return Ok(Capture::Gone),
        };
        progress.file_done(look.size);
        Ok(attempt)
    }

    fn clean_file(
        &mut self,
        path: &RelPath,
        expected: &Look,
        recorded: Option<&FileRecord>,
        progress: &Progress,
    ) -> Result<Capture> {
        let recorded_ns = now_ns();
        let opened = self.root.open_file(path).and_then(|file| {
            let look = beneath::look_at_open(file.as_fd())?;
            Ok((File::from(file), look))
        });
        let (mut file, before) = match opened {
            Ok(opened) => opened,
            Err(unseen) => return Ok(capture_of(unseen)),
        };
        if before.kind != expected.kind {
            return Ok(Capture::Gone);
        }
        let former = recorded.filter(|record| record.look.kind == EntryKind::File);
        let is_large = self.to.classifier.is_large(path, before.size);
        let sealer = self.to.sealer.filter(|sealer| sealer.covers(&path.to_git_path(self.name)));
        let read = if before.size <= WHOLE_BYTES {
            match self.read_whole(&mut file, &before) {
                // Nothing of a torn read may reach the pack.
                Ok(()) => self.store_whole(sealer, &before, former, is_large)?,
                Err(capture) => return Ok(capture),
            }
        } else if let Some(sealer) = sealer.filter(|sealer| sealer.is_open_pgp()) {
            self.message_streamed(sealer, &mut file, &before, former, is_large, progress)?
        } else if let Some(sealer) = sealer {
            self.store_sealed(sealer, &mut file, &before, former, is_large, progress)?
        } else if is_large {
            self.store_large(&mut file, &before, former, progress)?
        } else {
            self.store_stream(&mut file, &before, former, progress)?
        };
        let Stored { stored, checksum, is_pointer } = match read {
            Reading::Done(stored) => stored,
            Reading::Failed(capture) => return Ok(capture),
        };
        let xattrs = match beneath::xattrs_of(file.as_fd()) {
            Ok(xattrs) => xattrs,
            Err(unseen) => return Ok(capture_of(unseen)),
        };
        match beneath::look_at_open(file.as_fd()) {
            Ok(after) if after == before => {
                let cleaned = Cleaned { look: before, recorded_ns, stored, is_pointer, checksum, xattrs };
                Ok(Capture::Stored(Box::new(cleaned)))
            }
            Ok(_) => Ok(changing()),
            Err(unseen) => Ok(capture_of(unseen)),
        }
    }

    /// Reads a small file into the buffer, if it stays as it was meanwhile.
    fn read_whole(&mut self, file: &mut File, look: &Look) -> std::result::Result<(), Capture> {
        self.buffer.clear();
        // One byte more than the size tells a growing file from a finished one.
        let read = Read::take(&mut *file, look.size + 1).read_to_end(&mut self.buffer);
        read.map_err(|error| unreadable(&error))?;
        let after = beneath::look_at_open(file.as_fd()).map_err(capture_of)?;
        if self.buffer.len() as u64 != look.size || after != *look {
            return Err(changing());
        }
        Ok(())
    }

    fn store_whole(
        &mut self,
        sealer: Option<&Sealer>,
        look: &Look,
        former: Option<&FileRecord>,
        is_large: bool,
    ) -> Result<Reading> {
        let mut hasher = self.to.hasher();
        let checksum = *hasher.update(&self.buffer).finalize().as_bytes();
        if let Some(sealer) = sealer.filter(|sealer| sealer.is_open_pgp()) {
            return self.message_whole(sealer, look, former, checksum, is_large);
        }
        let same = former.filter(|former| former.checksum == checksum);
        if let Some(former) = same.filter(|former| !former.is_pointer) {
            return Stored::again(former).map(Reading::Done);
        }
        // A ciphertext is never taken for a pointer.
        let is_pointer =
            is_large || (sealer.is_none() && self.to.classifier.looks_like_a_pointer(&self.buffer));
        if let Some(sealer) = sealer {
            self.buffer = sealer.seal(&self.buffer)?;
        }
        if let Some(former) = same {
            if self.is_lost(former, &Pointer::of(&self.buffer))? {
                self.put_large()?;
            }
            return Stored::again(former).map(Reading::Done);
        }
        if is_pointer {
            self.buffer = self.put_large()?.encode().into_bytes();
        }
        let is_ciphertext = sealer.is_some() && !is_pointer;
        Ok(match self.store_blob(is_ciphertext)? {
            Some(stored) => Reading::Done(Stored { stored, checksum, is_pointer }),
            None => Reading::Failed(collision()),
        })
    }

    /// Adds the buffer as a blob, unless it is there already; `None` for bytes that attack SHA-1.
    fn store_blob(&mut self, is_ciphertext: bool) -> Result<Option<Oid>> {
        let oid = match hash_object(ObjectKind::Blob, &self.buffer) {
            // Nothing else fails so; one such file must not stop the others.
            Err(error) if error.kind() == Kind::Git => return Ok(None),
            oid => oid?,
        };
        if !self.to.pack.contains(&oid) && !self.to.present.contains(&oid)? {
            let compressor = if is_ciphertext { &mut self.uncompressing } else { &mut self.compressor };
            let prepared = prepare_hashed(oid, ObjectKind::Blob, &self.buffer, compressor)?;
            self.to.pack.add_prepared(&prepared)?;
        }
        Ok(Some(oid))
    }

    fn store_stream(
        &mut self,
        file: &mut File,
        look: &Look,
        former: Option<&FileRecord>,
        progress: &Progress,
    ) -> Result<Reading> {
        if let Some(again) = self.stored_before(file, look, former, progress)? {
            return Ok(again);
        }
        let mut hasher = self.to.hasher();
        let streamed = self.to.pack.add_stream(look.size, file, progress, &mut |piece| {
            hasher.update(piece);
        });
        let streamed = match streamed {
            Err(error) if error.kind() == Kind::Git => return Ok(Reading::Failed(collision())),
            streamed => streamed?,
        };
        Ok(match streamed {
            Streamed::Stored(stored) => {
                Reading::Done(Stored { stored, checksum: *hasher.finalize().as_bytes(), is_pointer: false })
            }
            Streamed::SizeChanged => Reading::Failed(changing()),
            Streamed::ReadFailed(error) => Reading::Failed(unreadable(&error)),
        })
    }

    /// What a content of this size is stored as that turns out to be the former one; `None`, with the file at its
    /// beginning, if it is another.
    fn stored_before(
        &self,
        file: &mut File,
        look: &Look,
        former: Option<&FileRecord>,
        progress: &Progress,
    ) -> Result<Option<Reading>> {
        // Reading twice is far cheaper than storing gigabytes again because a time stamp moved.
        let Some(former) = former.filter(|former| former.look.size == look.size) else { return Ok(None) };
        let mut hasher = self.to.hasher();
        let mut name = former.is_pointer.then(Sha256::new);
        let read = hash_stream(file, progress, &mut |piece| {
            hasher.update(piece);
            if let Some(name) = &mut name {
                name.update(piece);
            }
        });
        match read {
            Ok(()) => {}
            Err(StreamTrouble::Cancelled(error)) => return Err(error),
            Err(StreamTrouble::Read(error)) => return Ok(Some(Reading::Failed(unreadable(&error)))),
        }
        let is_same = *hasher.finalize().as_bytes() == former.checksum;
        let is_lost = match name {
            Some(name) if is_same => {
                let id = ObjectId(name.finalize().into());
                self.is_lost(former, &Pointer { id, size: look.size })?
            }
            _ => false,
        };
        if is_same && !is_lost {
            return Stored::again(former).map(Reading::Done).map(Some);
        }
        if let Some(trouble) = rewind(file) {
            return Ok(Some(trouble));
        }
        if !is_same {
            return Ok(None);
        }
        self.put_again(file, look, former, progress).map(Some)
    }

    fn clean_link(&mut self, path: &RelPath) -> Result<Capture> {
        let recorded_ns = now_ns();
        let before = match self.root.look_at(path) {
            Ok(look) if look.kind == EntryKind::Symlink => look,
            Ok(_) => return Ok(Capture::Gone),
            Err(unseen) => return Ok(capture_of(unseen)),
        };
        let target = match self.root.read_link(path) {
            Ok(target) => target,
            Err(unseen) => return Ok(capture_of(unseen)),
        };
        if target.len() > LONGEST_LINK {
            let message = format!("a link of {} bytes cannot be stored", target.len());
            return Ok(Capture::Failed(Failure { reason: SkipReason::Unsupported, message }));
        }
        let checksum = *blake3::hash(&target).as_bytes();
        self.buffer = target;
        let Some(stored) = self.store_blob(false)? else { return Ok(collision()) };
        match self.root.look_at(path) {
            Ok(after) if after == before => Ok(Capture::Stored(Box::new(Cleaned {
                look: before,
                recorded_ns,
                stored,
                is_pointer: false,
                checksum,
                xattrs: Vec::new(),
            }))),
            Ok(_) => Ok(changing()),
            Err(unseen) => Ok(capture_of(unseen)),
        }
    }
}

enum Reading {
    Done(Stored),
    Failed(Capture),
}

/// What a content is stored as.
struct Stored {
    stored: Oid,
    checksum: [u8; 32],
    is_pointer: bool,
}

impl Stored {
    /// As it was, whatever the settings say by now: history does not grow because they change.
    fn again(former: &FileRecord) -> Result<Self> {
        let stored = oid_of(&former.stored)?;
        Ok(Self { stored, checksum: former.checksum, is_pointer: former.is_pointer })
    }
}

enum StreamTrouble {
    Cancelled(Error),
    Read(std::io::Error),
}

fn hash_stream(
    file: &mut File,
    progress: &Progress,
    each: &mut dyn FnMut(&[u8]),
) -> std::result::Result<(), StreamTrouble> {
    let mut piece = vec![0u8; 256 * 1024];
    loop {
        progress.check().map_err(StreamTrouble::Cancelled)?;
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                each(&piece[..length]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamTrouble::Read(error)),
        }
    }
}

fn oid_of(bytes: &[u8; 20]) -> Result<Oid> {
    Oid::from_bytes(bytes).map_err(|error| {
        Error::with_source(Kind::Internal, "a stored id in the stat cache is not one", error)
    })
}

fn capture_of(unseen: Unseen) -> Capture {
    match unseen {
        Unseen::Gone => Capture::Gone,
        Unseen::Unreadable(message) => Capture::Failed(Failure { reason: SkipReason::Unreadable, message }),
    }
}

fn unreadable(error: &std::io::Error) -> Capture {
    Capture::Failed(Failure { reason: SkipReason::Unreadable, message: error.to_string() })
}

fn rewind(file: &mut File) -> Option<Reading> {
    file.rewind().err().map(|error| Reading::Failed(unreadable(&error)))
}

/// An error of ours that comes out of a ciphertext says that the file is not what it was at the first reading.
fn trouble_of(error: &std::io::Error) -> Capture {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => changing(),
        false => unreadable(error),
    }
}

fn collision() -> Capture {
    let message =
        "its bytes are made to collide under SHA-1, which Git names objects by; Git hosts refuse it too"
            .to_owned();
    Capture::Failed(Failure { reason: SkipReason::Unsupported, message })
}

fn changing() -> Capture {
    let message = "it changes while it is read".to_owned();
    Capture::Failed(Failure { reason: SkipReason::Changing, message })
}
