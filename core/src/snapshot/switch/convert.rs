//! Contents in another form: decrypted with the key that they have, hashed anew, encrypted with the key that they get.
//!
//! In: the plan's items. Out: for each the object that stands for it from now on, and its checksum. Small contents are held
//! whole, others are read twice, because what encrypts needs the whole before it can begin. Nothing but what is to stand
//! in the tree is written anywhere.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use git2::Oid;
use zeroize::Zeroizing;

use super::plan::{Item, Whereabouts};
use super::source::{Source, changed_on_disk};
use crate::content::WHOLE_BYTES;
use crate::crypt::error_of;
use crate::crypt::gitcrypt::cipher::{self, OVERHEAD};
use crate::crypt::gitcrypt::{Decrypting, Encrypting, KeyVersion, Nonce};
use crate::crypt::keyring::Key;
use crate::crypt::openpgp;
use crate::crypt::policy::Policy;
use crate::crypt::sealer::Sealer;
use crate::error::{Error, Kind, Result};
use crate::git::contents::{ContentReader, Contents, Trouble};
use crate::git::pack::object::prepare_hashed;
use crate::git::pack::{Compressor, ObjectKind, PackSet, PackWriter, Streamed, hash_object};
use crate::lfs::objects::{Appending, Draft};
use crate::lfs::{Classifier, Objects, Pointer};
use crate::path::RelPath;
use crate::progress::Progress;

/// Items taken by a thread at a time.
const STRIDE: usize = 16;
/// Read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What stands for a file from now on.
#[derive(Clone, Copy)]
pub(super) struct Converted {
    pub stored: Oid,
    pub is_pointer: bool,
    /// Absent if it stays.
    pub checksum: Option<[u8; 32]>,
}

pub(super) struct Converter<'c> {
    pub contents: &'c Contents,
    pub large: &'c Objects,
    pub pack: &'c PackWriter,
    pub known: &'c PackSet,
    pub classifier: &'c Classifier,
    pub old: Option<(&'c Policy, &'c Key)>,
    pub new: Option<&'c Sealer>,
    /// Which messages stand for contents by now, by their objects and whether these were encrypted. A content gives another
    /// message each time: files that had the same object are to have the same again.
    pub messages: Mutex<HashMap<(Oid, bool), Converted>>,
}

/// What one thread works with.
struct Hands<'c> {
    reader: ContentReader<'c>,
    compressor: Compressor,
    /// For ciphertexts, which no compressor makes smaller.
    uncompressing: Compressor,
}

/// Converts all items, on several threads; the answers are in their order.
pub(super) fn all(
    converter: &Converter<'_>,
    items: &[Item],
    threads: usize,
    progress: &Progress,
) -> Result<Vec<Converted>> {
    let next = AtomicUsize::new(0);
    let threads = threads.clamp(1, items.len().div_ceil(STRIDE).max(1));
    let work = || -> Result<Vec<(usize, Converted)>> {
        let mut hands = Hands {
            reader: converter.contents.reader(),
            compressor: Compressor::new(),
            uncompressing: Compressor::uncompressing(),
        };
        let mut done = Vec::new();
        loop {
            let from = next.fetch_add(STRIDE, Ordering::Relaxed);
            if from >= items.len() {
                return Ok(done);
            }
            for (index, item) in items.iter().enumerate().skip(from).take(STRIDE) {
                progress.check()?;
                let converted = converter.one(item, &mut hands, progress).map_err(|error| {
                    let text = format!("{} cannot be stored in another form", item.shown());
                    Error::with_source(error.kind(), text, error.to_string())
                })?;
                progress.file_done(item.size);
                done.push((index, converted));
            }
        }
    };
    let parts = std::thread::scope(|scope| -> Result<Vec<Vec<(usize, Converted)>>> {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        for worker in workers {
            let part = worker.join();
            parts.push(
                part.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a converting thread panicked"))),
            );
        }
        parts.into_iter().collect()
    })?;
    let mut done: Vec<(usize, Converted)> = parts.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, converted)| converted).collect())
}

impl Converter<'_> {
    fn one(&self, item: &Item, hands: &mut Hands<'_>, progress: &Progress) -> Result<Converted> {
        if !(item.will_be_covered && self.new.is_some_and(Sealer::is_open_pgp)) {
            return self.converted(item, hands, progress);
        }
        let object = (item.entry.oid, item.is_covered);
        let messages = || self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = messages().get(&object) {
            return Ok(*known);
        }
        let converted = self.converted(item, hands, progress)?;
        messages().insert(object, converted);
        Ok(converted)
    }

    fn converted(&self, item: &Item, hands: &mut Hands<'_>, progress: &Progress) -> Result<Converted> {
        if matches!(item.source, Whereabouts::Inline) && item.size <= WHOLE_BYTES + OVERHEAD {
            return self.whole(item, hands, progress);
        }
        self.streamed(item, hands, progress)
    }

    fn old_key(&self, item: &Item) -> Result<Option<&KeyVersion>> {
        // What is on disk is nobody's ciphertext.
        let is_covered = item.is_covered && !matches!(item.source, Whereabouts::Disk { .. });
        match self.old.filter(|_| is_covered) {
            Some((_, key)) => key.version().map(Some),
            None => Ok(None),
        }
    }

    fn new_key(&self, item: &Item) -> Result<Option<&KeyVersion>> {
        match self.new.filter(|_| item.will_be_covered) {
            Some(sealer) => sealer.key().version().map(Some),
            None => Ok(None),
        }
    }

    fn old_hasher(&self) -> blake3::Hasher {
        self.old.map_or_else(blake3::Hasher::new, |(_, key)| key.checksums().hasher())
    }

    fn new_hasher(&self) -> blake3::Hasher {
        self.new.map_or_else(blake3::Hasher::new, |sealer| sealer.key().checksums().hasher())
    }

    /// Whether a content that is inline now is to be a large one.
    fn is_large(&self, item: &Item, plain_size: u64, stored_size: u64) -> bool {
        let path = item.place.as_ref().map(|(_, path)| path);
        plain_size > 0 && path.is_some_and(|path: &RelPath| self.classifier.is_large(path, stored_size))
    }

    fn whole(&self, item: &Item, hands: &mut Hands<'_>, progress: &Progress) -> Result<Converted> {
        let mut plain = Zeroizing::new(Vec::new());
        let found = hands.reader.find(item.entry.oid)?;
        let streamed = hands.reader.stream(&found, progress, &mut |piece| {
            plain.extend_from_slice(piece);
            Ok(())
        });
        match streamed {
            Ok(_) => {}
            Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => return Err(error),
        }
        if let Some(key) = self.old_key(item)? {
            plain = Zeroizing::new(cipher::decrypt_whole(&[key], &plain)?);
        }
        let checksum = Some(*self.new_hasher().update(&plain).finalize().as_bytes());
        if item.keeps_object {
            return Ok(Converted { stored: item.entry.oid, is_pointer: item.is_pointer, checksum });
        }
        let plain_size = plain.len() as u64;
        let is_look_alike = !item.will_be_covered && self.classifier.looks_like_a_pointer(&plain);
        let stored = match self.new.filter(|_| item.will_be_covered) {
            Some(sealer) => Zeroizing::new(sealer.seal(&plain)?),
            None => plain,
        };
        if is_look_alike || self.is_large(item, plain_size, stored.len() as u64) {
            let mut draft = self.large.begin()?;
            draft.write(&stored)?;
            let stored = self.point(&draft.finish()?, hands)?;
            return Ok(Converted { stored, is_pointer: true, checksum });
        }
        let stored = self.blob(&stored, item.will_be_covered, hands)?;
        Ok(Converted { stored, is_pointer: false, checksum })
    }

    /// Adds a blob, unless it is there already.
    fn blob(&self, bytes: &[u8], is_ciphertext: bool, hands: &mut Hands<'_>) -> Result<Oid> {
        let oid = hash_object(ObjectKind::Blob, bytes)?;
        if !self.pack.contains(&oid) && !self.known.contains(&oid)? {
            let compressor = if is_ciphertext { &mut hands.uncompressing } else { &mut hands.compressor };
            self.pack.add_prepared(&prepare_hashed(oid, ObjectKind::Blob, bytes, compressor)?)?;
        }
        Ok(oid)
    }

    fn point(&self, pointer: &Pointer, hands: &mut Hands<'_>) -> Result<Oid> {
        self.blob(pointer.encode().as_bytes(), false, hands)
    }

    fn streamed(&self, item: &Item, hands: &mut Hands<'_>, progress: &Progress) -> Result<Converted> {
        let source = Source { item, contents: self.contents, large: self.large, progress };
        let (old, new) = (self.old_key(item)?, self.new_key(item)?);
        let expected = match &item.source {
            Whereabouts::Disk { checksum, .. } => Some(*checksum),
            _ => None,
        };
        let check = |hashed: &Hashed<'_>| match expected {
            Some(expected) if hashed.old.as_ref().map(|old| *old.finalize().as_bytes()) != Some(expected) => {
                Err(changed_on_disk())
            }
            _ => Ok(()),
        };
        if let Some(sealer) = self.new.filter(|sealer| item.will_be_covered && sealer.is_open_pgp())
            && !item.keeps_object
        {
            let (draft, size, checksum) = source.read(|stored| {
                let mut hashed = self.hashed(item, plain_of(stored, old)?);
                let mut draft = self.large.begin()?;
                let size =
                    openpgp::encrypt(&mut hashed, sealer.recipients(), Appending(&mut draft), progress)?;
                check(&hashed)?;
                Ok((draft, size, *hashed.new.finalize().as_bytes()))
            })?;
            let is_pointer = item.is_pointer || self.is_large(item, size, draft.size());
            let taken = self.message(draft, is_pointer, progress)?;
            return self.placed(taken, Some(checksum), hands);
        }
        if item.keeps_object || new.is_some() {
            let (nonce, checksum) = source.read(|stored| {
                let mut hashed = self.hashed(item, plain_of(stored, old)?);
                let nonce = match new.filter(|_| !item.keeps_object) {
                    Some(key) => Some(Nonce::of(key, &mut hashed, progress)?),
                    None => {
                        drain(&mut hashed, progress, &mut |_| Ok(()))?;
                        None
                    }
                };
                check(&hashed)?;
                Ok((nonce, *hashed.new.finalize().as_bytes()))
            })?;
            let checksum = Some(checksum);
            let (Some(key), Some(nonce)) = (new, nonce) else {
                return Ok(Converted { stored: item.entry.oid, is_pointer: item.is_pointer, checksum });
            };
            let size = nonce.encrypted_size();
            let is_pointer = item.is_pointer || self.is_large(item, nonce.size(), size);
            let stored = source.read(|stored| {
                let mut sealed = Encrypting::new(key, nonce, plain_of(stored, old)?);
                let stored = self.take(&mut sealed, size, (is_pointer, true), progress)?;
                Ok(stored)
            })?;
            return self.placed(stored, checksum, hands);
        }
        // What comes is proven at its end, and nothing of it is kept if it is not what it should be.
        let stored_size = match &item.source {
            Whereabouts::Inline => item.size,
            Whereabouts::Large(pointer) => pointer.size,
            Whereabouts::Disk { size, .. } => *size,
        };
        let size = if old.is_some() { stored_size.saturating_sub(OVERHEAD) } else { stored_size };
        let is_pointer = item.is_pointer || self.is_large(item, size, size);
        let (taken, checksum) = source.read(|stored| {
            let mut hashed = self.hashed(item, plain_of(stored, old)?);
            let taken = self.take(&mut hashed, size, (is_pointer, false), progress)?;
            check(&hashed)?;
            Ok((taken, *hashed.new.finalize().as_bytes()))
        })?;
        self.placed(taken, Some(checksum), hands)
    }

    /// Puts a whole message where it belongs, but not under its name yet if it is large.
    fn message(&self, mut draft: Draft, is_pointer: bool, progress: &Progress) -> Result<Taken> {
        if is_pointer {
            return Ok(Taken::Draft(Box::new(draft)));
        }
        let size = draft.size();
        self.in_pack(self.pack.add_ciphertext(size, draft.read_back()?, progress)?)
    }

    fn in_pack(&self, streamed: Streamed) -> Result<Taken> {
        match streamed {
            Streamed::Stored(oid) => Ok(Taken::Stored(oid)),
            Streamed::SizeChanged => Err(Error::new(Kind::Git, "it has another size than it should")),
            Streamed::ReadFailed(error) => Err(error_of(error, "read what is stored")),
        }
    }

    fn hashed<'r>(&self, item: &Item, source: Box<dyn Read + 'r>) -> Hashed<'r> {
        let is_on_disk = matches!(item.source, Whereabouts::Disk { .. });
        Hashed { source, old: is_on_disk.then(|| self.old_hasher()), new: self.new_hasher() }
    }

    /// Writes what comes to where it belongs, but not under its name yet if it is large.
    fn take(
        &self,
        source: &mut dyn Read,
        size: u64,
        (is_pointer, is_ciphertext): (bool, bool),
        progress: &Progress,
    ) -> Result<Taken> {
        if is_pointer {
            let mut draft = self.large.begin()?;
            drain(source, progress, &mut |piece| draft.write(piece))?;
            if draft.size() != size {
                return Err(Error::new(Kind::Git, "it has another size than it should"));
            }
            return Ok(Taken::Draft(Box::new(draft)));
        }
        let streamed = if is_ciphertext {
            self.pack.add_ciphertext(size, source, progress)?
        } else {
            self.pack.add_stream(size, source, progress, &mut |_| {})?
        };
        self.in_pack(streamed)
    }

    fn placed(&self, taken: Taken, checksum: Option<[u8; 32]>, hands: &mut Hands<'_>) -> Result<Converted> {
        match taken {
            Taken::Stored(stored) => Ok(Converted { stored, is_pointer: false, checksum }),
            Taken::Draft(draft) => {
                let stored = self.point(&draft.finish()?, hands)?;
                Ok(Converted { stored, is_pointer: true, checksum })
            }
        }
    }
}

enum Taken {
    Stored(Oid),
    Draft(Box<Draft>),
}

fn plain_of<'r>(stored: &'r mut dyn Read, old: Option<&KeyVersion>) -> Result<Box<dyn Read + 'r>> {
    Ok(match old {
        Some(key) => Box::new(Decrypting::new(key, stored)?),
        None => Box::new(stored),
    })
}

/// Reads to the end.
fn drain(
    source: &mut dyn Read,
    progress: &Progress,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
    loop {
        progress.check()?;
        match source.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error_of(error, "read what is stored")),
        }
    }
}

/// Hashes a plaintext as it passes.
struct Hashed<'r> {
    source: Box<dyn Read + 'r>,
    /// As it was hashed before, where nothing else proves it.
    old: Option<blake3::Hasher>,
    /// As it is hashed from now on.
    new: blake3::Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(out)?;
        if let Some(old) = &mut self.old {
            old.update(&out[..length]);
        }
        self.new.update(&out[..length]);
        Ok(length)
    }
}
