//! Reading contents and saying whether they are what they should be, by several threads.
//!
//! In: [`Check`]s, one a name, in any number; they wait in a short queue, so memory stays flat. Out: why those are wrong
//! that are, by [`Hashes::key`]. Names that ask the same of the same object are one check: the object is read for the
//! first of them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use git2::Oid;

use super::Request;
use super::survey::Content;
use crate::beneath::EntryKind;
use crate::crypt::gitcrypt::is_clear_text;
use crate::crypt::openpgp::header;
use crate::crypt::unsealer::{Seal, Unsealer};
use crate::error::{Error, Kind, Result};
use crate::git::contents::{ContentReader, Contents, Found, Proof, Recorded, Trouble};
use crate::history::form::{self, Form};
use crate::progress::Progress;

/// Checks that wait.
const QUEUE: usize = 256;
/// More would only make a disk seek.
const MOST_THREADS: usize = 8;
/// Of so many checks it is known that they were made, which takes 32 MB at most; further ones may be made again.
const MOST_SEEN: usize = 1_000_000;
/// Of so many contents it is kept why they are wrong; further ones are counted.
const MOST_WRONG: usize = 100_000;
/// No system has a longer link.
const LONGEST_LINK: u64 = 64 * 1024;

/// What is asked of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    oid: Oid,
    is_link: bool,
    is_own: bool,
    seal: Option<Seal>,
    recorded: Recorded,
}

impl Check {
    fn of(content: &Content<'_>, contents: &Contents) -> Self {
        let is_file = content.kind == EntryKind::File;
        Self {
            oid: content.entry.oid,
            is_link: content.kind == EntryKind::Symlink,
            is_own: content.is_own,
            seal: if is_file { contents.seal_of(&content.git_path()) } else { None },
            recorded: Recorded::by(content.record),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) elsewhere: u64,
    pub(super) ciphertexts: u64,
    /// Contents that are wrong beyond those of which it is said why.
    pub(super) untold: u64,
}

/// The contents of a repository.
pub(super) struct Hashes<'h> {
    contents: Contents,
    /// Of this run: nobody can make two checks look the same.
    key: [u8; 32],
    /// Why a content was not opened with what is here.
    unopened: Mutex<Option<String>>,
    progress: &'h Progress,
}

impl<'h> Hashes<'h> {
    pub(super) fn open(request: &Request<'_>, progress: &'h Progress) -> Result<Self> {
        let key = blake3::derive_key("BackupBot 2026-11-22 verification checks", &request.seed.to_le_bytes());
        let unsealer = Unsealer::of(request.repository, request.snapshot.tree)?;
        let contents = Contents::open_with(request.repository.path(), request.large.cloned())?;
        let contents = contents.opened_by(unsealer);
        Ok(Self { contents, key, unopened: Mutex::default(), progress })
    }

    /// What is asked of a content.
    pub(super) fn asked_of(&self, content: &Content<'_>) -> Check {
        Check::of(content, &self.contents)
    }

    /// What the answer to a check is found by.
    pub(super) fn key(&self, check: &Check) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(check.oid.as_bytes());
        let seal = check.seal.map_or(0, |seal| if seal == Seal::GitCrypt { 1 } else { 2 });
        let Recorded { size, blake3 } = check.recorded;
        hasher.update(&[u8::from(check.is_link), u8::from(check.is_own), seal]);
        hasher.update(&[u8::from(size.is_some()), u8::from(blake3.is_some())]);
        hasher.update(&size.unwrap_or_default().to_le_bytes());
        hasher.update(&blake3.unwrap_or_default());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        u128::from_le_bytes(key)
    }

    /// Makes all checks that `feed` gives, and says why those failed that did.
    pub(super) fn run(
        &self,
        feed: &mut dyn FnMut(&mut Queue<'_>) -> Result<()>,
    ) -> Result<(HashMap<u128, String>, Done)> {
        let found = Findings::default();
        let (sender, receiver) = sync_channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = available_parallelism().map_or(2, usize::from).clamp(2, MOST_THREADS);
        let fed = std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for number in 0..threads {
                let (receiver, found) = (receiver.clone(), &found);
                let builder = std::thread::Builder::new().name(format!("verify-{number}"));
                match builder.spawn_scoped(scope, move || self.work(&receiver, found)) {
                    Ok(worker) => workers.push(worker),
                    Err(_) if number > 0 => break,
                    Err(error) => {
                        return Err(Error::with_source(Kind::Limit, "cannot start a thread", error));
                    }
                }
            }
            // The threads hold it now: when none is left, nothing can be sent.
            drop(receiver);
            let mut queue = Queue { hashes: self, sender, seen: HashSet::new() };
            let fed = feed(&mut queue);
            drop(queue);
            let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            if joined.iter().any(std::result::Result::is_err) {
                return Err(Error::new(Kind::Internal, "a thread that verifies contents panicked"));
            }
            match lock(&found.ended_by).take() {
                Some(error) => Err(error),
                None => fed,
            }
        });
        fed?;
        let done = Done {
            objects: found.objects.into_inner(),
            bytes: found.bytes.into_inner(),
            elsewhere: found.elsewhere.into_inner(),
            ciphertexts: found.ciphertexts.into_inner(),
            untold: found.untold.into_inner(),
        };
        Ok((found.wrong.into_inner().unwrap_or_else(PoisonError::into_inner), done))
    }

    fn work(&self, receiver: &Mutex<Receiver<(u128, Check)>>, found: &Findings) {
        let mut reader = self.contents.reader();
        loop {
            let next = lock(receiver).recv();
            let Ok((key, check)) = next else { return };
            match self.check(&mut reader, &check) {
                Ok(read) => {
                    found.objects.fetch_add(1, Ordering::Relaxed);
                    found.bytes.fetch_add(read.bytes, Ordering::Relaxed);
                    let count = |counter: &AtomicU64, how| {
                        counter.fetch_add(u64::from(read.how == how), Ordering::Relaxed);
                    };
                    count(&found.elsewhere, How::Elsewhere);
                    count(&found.ciphertexts, How::Ciphertext);
                }
                Err(Trouble::Object(why)) => found.wrong(key, &why),
                Err(Trouble::Elsewhere(error)) => {
                    lock(&found.ended_by).get_or_insert(error);
                    return;
                }
            }
            self.progress.file_done(0);
        }
    }

    /// Reads an object.
    fn check(&self, reader: &mut ContentReader<'_>, check: &Check) -> std::result::Result<Read, Trouble> {
        self.progress.check().map_err(Trouble::Elsewhere)?;
        let found = reader.find(check.oid).map_err(|error| match error.kind() {
            Kind::Limit | Kind::Cancelled => Trouble::Elsewhere(error),
            _ => Trouble::Object(error),
        })?;
        if let Some(seal) = check.seal {
            return self.encrypted(reader, found, seal, check);
        }
        let wrong = |text: String| Trouble::Object(Error::new(Kind::Git, text));
        if check.is_link && found.size > LONGEST_LINK {
            return Err(wrong(format!("a symbolic link of {} bytes cannot be made", found.size)));
        }
        let mut target = Vec::new();
        let proof = reader.stream(&found, self.progress, &mut |piece| {
            self.progress.bytes_done(piece.len() as u64);
            if check.is_link {
                target.extend_from_slice(piece);
            }
            Ok(())
        })?;
        if check.is_link && (target.is_empty() || target.contains(&0)) {
            return Err(wrong("it is a symbolic link to a name that no file can have".to_owned()));
        }
        let Recorded { size, blake3 } = check.recorded;
        let has_size = size.is_none_or(|size| size == proof.size);
        let has_checksum = blake3.is_none_or(|blake3| blake3 == proof.blake3);
        let is_as_recorded = has_size && has_checksum && blake3.is_some();
        if !is_as_recorded && !check.is_link && !check.is_own {
            match self.large(reader, &found, check)? {
                Large::No => {}
                Large::Elsewhere => return Ok(Read { bytes: proof.size, how: How::Elsewhere }),
                Large::Read(large) => {
                    self.compared(check, &large)?;
                    return Ok(Read { bytes: large.size, how: How::Whole });
                }
            }
            let form = form::of(&proof.beginning, proof.size, None, |_| proof.blake3);
            if form != Form::Content {
                let form = form.as_str();
                return Err(wrong(format!(
                    "the repository holds {form} in place of it, and this version cannot verify what that stands for"
                )));
            }
        }
        self.compared(check, &proof)?;
        Ok(Read { bytes: proof.size, how: How::Whole })
    }

    /// Reads a file that is encrypted.
    fn encrypted(
        &self,
        reader: &mut ContentReader<'_>,
        stored: Found,
        seal: Seal,
        check: &Check,
    ) -> std::result::Result<Read, Trouble> {
        let bytes = stored.size;
        if self.contents.must_open(Some(seal)).is_err() {
            return self.ciphertext(reader, stored, check);
        }
        let content = reader.behind(stored.clone(), Some(seal), check.recorded, self.progress);
        let content = content.map_err(Trouble::Object)?;
        if reader.is_elsewhere(&content).map_err(Trouble::Elsewhere)? {
            return Ok(Read { bytes, how: How::Elsewhere });
        }
        let read = reader.stream(&content, self.progress, &mut |piece| {
            self.progress.bytes_done(piece.len() as u64);
            Ok(())
        });
        let proof = match read {
            // It is for others than those whose key is here.
            Err(Trouble::Elsewhere(error)) if error.kind() == Kind::EncryptionKey => {
                lock(&self.unopened).get_or_insert(error.to_string());
                return self.ciphertext(reader, stored, check);
            }
            read => read?,
        };
        self.compared(check, &proof)?;
        Ok(Read { bytes: proof.size, how: How::Whole })
    }

    /// Reads an OpenPGP message that nothing here opens: that it is what was stored, and a message, is all that can be told.
    fn ciphertext(
        &self,
        reader: &mut ContentReader<'_>,
        stored: Found,
        check: &Check,
    ) -> std::result::Result<Read, Trouble> {
        let bytes = stored.size;
        let content = reader.behind(stored, None, check.recorded, self.progress).map_err(Trouble::Object)?;
        if reader.is_elsewhere(&content).map_err(Trouble::Elsewhere)? {
            return Ok(Read { bytes, how: How::Elsewhere });
        }
        let mut beginning = Vec::new();
        let proof = reader.stream(&content, self.progress, &mut |piece| {
            self.progress.bytes_done(piece.len() as u64);
            let wanted = header::ENOUGH_BYTES.saturating_sub(beginning.len()).min(piece.len());
            beginning.extend_from_slice(&piece[..wanted]);
            Ok(())
        })?;
        match header::look(&beginning) {
            Some(_) => Ok(Read { bytes: proof.size, how: How::Ciphertext }),
            None => Err(Trouble::Object(is_clear_text())),
        }
    }

    /// Why contents were not opened although something is here to open them with, of the first of them.
    pub(super) fn unopened(&self) -> Option<String> {
        lock(&self.unopened).clone()
    }

    /// Reads the large content behind a pointer, if it is one.
    fn large(
        &self,
        reader: &mut ContentReader<'_>,
        pointer: &Found,
        check: &Check,
    ) -> std::result::Result<Large, Trouble> {
        let large =
            reader.behind(pointer.clone(), None, check.recorded, self.progress).map_err(Trouble::Object)?;
        if large.pointer().is_none() {
            return Ok(Large::No);
        }
        if reader.is_elsewhere(&large).map_err(Trouble::Elsewhere)? {
            return Ok(Large::Elsewhere);
        }
        let proof = reader.stream(&large, self.progress, &mut |piece| {
            self.progress.bytes_done(piece.len() as u64);
            Ok(())
        })?;
        Ok(Large::Read(proof))
    }

    /// Compares sound bytes with what was recorded of them.
    fn compared(&self, check: &Check, proof: &Proof) -> std::result::Result<(), Trouble> {
        let wrong = |text: String| Trouble::Object(Error::new(Kind::Git, text));
        let text = "its stored content is sound, but not what was recorded of it";
        let Recorded { size, blake3 } = check.recorded;
        if let Some(size) = size.filter(|size| *size != proof.size) {
            return Err(wrong(format!("{text}: {} bytes, and {size} are recorded", proof.size)));
        }
        if blake3.is_some_and(|blake3| blake3 != proof.blake3) {
            return Err(wrong(format!("{text}: the BLAKE3 is another")));
        }
        Ok(())
    }
}

/// What an object came to.
struct Read {
    bytes: u64,
    how: How,
}

/// How much of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The content.
    Whole,
    /// Only its pointer.
    Elsewhere,
    /// What it is encrypted to.
    Ciphertext,
}

/// What is behind a blob.
enum Large {
    /// Nothing: it is the content.
    No,
    /// A content that is not here on purpose.
    Elsewhere,
    /// One that was read.
    Read(Proof),
}

/// Where the threads put what they found.
#[derive(Default)]
struct Findings {
    wrong: Mutex<HashMap<u128, String>>,
    untold: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
    elsewhere: AtomicU64,
    ciphertexts: AtomicU64,
    ended_by: Mutex<Option<Error>>,
}

impl Findings {
    fn wrong(&self, key: u128, why: &Error) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < MOST_WRONG {
            wrong.insert(key, why.to_string());
        } else {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where checks wait.
pub(super) struct Queue<'q> {
    hashes: &'q Hashes<'q>,
    sender: SyncSender<(u128, Check)>,
    seen: HashSet<u128>,
}

impl Queue<'_> {
    /// Takes a check, unless the same one was taken before. `bytes` are those of the file, for whoever watches.
    pub(super) fn take(&mut self, check: Check, bytes: u64) -> Result<()> {
        let key = self.hashes.key(&check);
        if self.seen.contains(&key) {
            self.hashes.progress.file_done(bytes);
            return Ok(());
        }
        if self.seen.len() < MOST_SEEN {
            self.seen.insert(key);
        }
        // Whoever ended the threads says why.
        self.sender.send((key, check)).map_err(|_| Error::cancelled())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
