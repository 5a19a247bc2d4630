//! The file that lines are appended to: its lock, its end, and the next file when it has grown.
//!
//! A daemon and a command may write at the same time. Each append takes the file's lock, and whoever finds that the file is not as
//! they left it reads it again. A file that has grown large gets the number of its last line as its name; the next one begins with where
//! every reference stood. Only who opened the log does that: a guest, a command that may run as another user, writes into what is
//! there and makes no file that its owner could not write to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::Heed;
use super::event::{Event, Line, Where};
use crate::error::{Error, Result};
use crate::fault;

/// A file is followed by the next when it is larger.
const LARGEST_FILE: u64 = 16 << 20;
/// No line of ours is longer.
pub(super) const LONGEST_LINE: u64 = 256 << 10;
/// Others hold the lock for one append.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks whether it is free.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// What the first line holds instead of a hash.
pub(super) const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes the files.
    Keeper,
    /// Writes into those that are there.
    Guest,
}

/// The open file and what its lines came to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    end: End,
    is_dirty: bool,
    largest: u64,
    role: Role,
    heed: Option<Heed>,
}

impl fmt::Debug for LogFile {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("LogFile").field("path", &self.path).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What has to be known to write the next line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    length: u64,
    seq: u64,
    head: String,
    references: BTreeMap<Where, String>,
}

impl End {
    fn of_nothing() -> Self {
        Self { length: 0, seq: 0, head: NOTHING_BEFORE.to_owned(), references: BTreeMap::new() }
    }

    fn follow(&mut self, bytes: &[u8], line: &Line) {
        self.length += bytes.len() as u64 + 1;
        self.seq = line.seq;
        self.head = blake3::hash(bytes).to_string();
        let event = &line.event;
        if event.place.reference.is_some() {
            match &event.to {
                Some(to) => self.references.insert(event.place.clone(), to.clone()),
                None => self.references.remove(&event.place),
            };
        }
    }
}

impl LogFile {
    /// Opens the file, or as its keeper begins it. Returns how many bytes of a last line that was cut off were taken away.
    pub fn open(path: &Path, role: Role) -> io::Result<(Self, u64)> {
        let file = open(path, role)?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            end: End::of_nothing(),
            is_dirty: false,
            largest: if role == Role::Guest { u64::MAX } else { LARGEST_FILE },
            role,
            heed: None,
        };
        let cut = log.locked(|log| {
            log.read_again()?;
            log.cut_torn_end()
        })?;
        Ok((log, cut))
    }

    /// From now on `heed` is told of every line, whoever writes it.
    pub fn set_heed(&mut self, heed: Heed) {
        self.heed = Some(heed);
    }

    /// The number and the hash of the last line that is known.
    pub fn head(&self) -> (u64, &str) {
        (self.end.seq, &self.end.head)
    }

    /// Reads what others wrote, if they did.
    pub fn catch_up(&mut self) -> Result<()> {
        let path = self.path.clone();
        self.locked(|log| {
            log.check_place()?;
            log.follow_others()
        })
        .map_err(|error| Error::io("read the audit log", &path, error))
    }

    /// One that can be read only, as on a disk that is full.
    #[cfg(test)]
    pub fn read_only_for_test(path: &Path) -> Self {
        let (log, _) = Self::open(path, Role::Keeper).expect("opened before");
        Self { file: File::open(path).expect("there"), ..log }
    }

    #[cfg(test)]
    pub fn set_largest(&mut self, largest: u64) {
        self.largest = largest;
    }

    /// Where the last line about a reference said that it stands.
    pub fn stands(&self, place: &Where) -> Option<String> {
        self.end.references.get(place).cloned()
    }

    /// Whether something was written since the last [`LogFile::take_dirty`].
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// The file to be synced, if there is reason.
    pub fn take_dirty(&mut self) -> Option<File> {
        if !std::mem::take(&mut self.is_dirty) {
            return None;
        }
        self.file.try_clone().ok()
    }

    /// Writes one line, whole or not at all.
    pub fn append(&mut self, time: &str, event: &Event) -> Result<()> {
        let path = self.path.clone();
        self.locked(|log| log.append_locked(time, event))
            .map_err(|error| Error::io("write to the audit log", &path, error))
    }

    /// Whether the file is still the one at its path: if it was taken away, or followed by the next, the lock that counts is
    /// that of the file that stands there.
    fn check_place(&self) -> io::Result<()> {
        let there = std::fs::metadata(&self.path).ok();
        let own = self.file.metadata()?;
        match there.is_some_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "the file was replaced")),
        }
    }

    /// Whoever wrote half a line is dead: it held the lock.
    fn follow_others(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() != self.end.length {
            self.read_again()?;
            self.cut_torn_end()?;
        }
        Ok(())
    }

    fn append_locked(&mut self, time: &str, event: &Event) -> io::Result<()> {
        self.check_place()?;
        self.follow_others()?;
        if self.end.length >= self.largest {
            self.begin_next(time)?;
        }
        self.put(time, event)
    }

    fn put(&mut self, time: &str, event: &Event) -> io::Result<()> {
        let line = Line {
            seq: self.end.seq + 1,
            time: time.to_owned(),
            event: event.clone(),
            prev: self.end.head.clone(),
        };
        let mut bytes = serde_json::to_vec(&line)?;
        let whole = bytes.len();
        bytes.push(b'\n');
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a line would make the next one unreadable.
            let _ = self.file.set_len(self.end.length);
            return Err(error);
        }
        fault::point("audit:written");
        self.is_dirty = true;
        self.end.follow(&bytes[..whole], &line);
        if let Some(heed) = &self.heed {
            heed(&line.event);
        }
        Ok(())
    }

    /// The file gets its last number as its name, and another takes its place.
    fn begin_next(&mut self, time: &str) -> io::Result<()> {
        self.file.sync_data()?;
        std::fs::rename(&self.path, former(&self.path, self.end.seq))?;
        let next = open(&self.path, self.role)?;
        lock(&next)?;
        self.file = next;
        self.end.length = 0;
        self.begin_with_references(time)
    }

    /// So that nobody has to read the files before to know where a reference stood.
    fn begin_with_references(&mut self, time: &str) -> io::Result<()> {
        for (place, to) in self.end.references.clone() {
            let mut event = Event::new("audit", "continued");
            (event.place, event.from, event.to) = (place, Some(to.clone()), Some(to));
            self.put(time, &event)?;
        }
        Ok(())
    }

    /// Takes the lock of the file that stands at the path, for `work`.
    fn locked<T>(&mut self, mut work: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let began = Instant::now();
        loop {
            lock(&self.file)?;
            let done = work(self);
            let _ = flock(&self.file, FlockOperation::Unlock);
            match done {
                Err(error)
                    if error.kind() == io::ErrorKind::StaleNetworkFileHandle
                        && began.elapsed() < LOCK_PATIENCE =>
                {
                    self.file = match open(&self.path, self.role) {
                        // The next one is about to be made.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            std::thread::sleep(LOCK_PAUSE);
                            continue;
                        }
                        opened => opened?,
                    };
                    // Its length is not the one that is known, unless both are nothing.
                    self.end.length = u64::MAX;
                }
                done => return done,
            }
        }
    }

    /// Reads the file before, for its references, and this one. What is known already stays known if somebody took files away.
    fn read_again(&mut self) -> io::Result<()> {
        let mut end = End::of_nothing();
        let (known, heed) = (self.end.seq, self.heed.clone());
        let news = |line: &Line| {
            if let Some(heed) = heed.as_ref().filter(|_| line.seq > known) {
                heed(&line.event);
            }
        };
        if let Some(before) = formers(&self.path)?.pop() {
            read_end(&File::open(before)?, &mut end, &news)?;
        }
        end.length = 0;
        self.file.seek(SeekFrom::Start(0))?;
        read_end(&self.file, &mut end, &news)?;
        if end.seq < self.end.seq {
            self.end.length = end.length;
        } else {
            self.end = end;
        }
        Ok(())
    }

    /// Takes away what follows the last whole line.
    fn cut_torn_end(&mut self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        if length <= self.end.length {
            return Ok(0);
        }
        self.file.set_len(self.end.length)?;
        self.is_dirty = true;
        Ok(length - self.end.length)
    }
}

/// Follows the whole lines of a file. One that is none of ours counts by its bytes and its place.
fn read_end(file: &File, end: &mut End, news: &dyn Fn(&Line)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut bytes = Vec::new();
    while next_line(&mut reader, &mut bytes)? == Some(Ending::Whole) {
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(line) => {
                end.follow(&bytes, &line);
                news(&line);
            }
            Err(_) => {
                end.length += bytes.len() as u64 + 1;
                end.seq += 1;
                end.head = blake3::hash(&bytes).to_string();
            }
        }
    }
    Ok(())
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As it should.
    Whole,
    /// By the end of the file.
    CutOff,
    /// Not where any line of ours would have.
    TooLong,
}

/// Reads one line without its end; `None` at the end of the file.
pub(super) fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Option<Ending>> {
    bytes.clear();
    let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', bytes)?;
    Ok(match bytes.last() {
        None => None,
        Some(b'\n') => {
            bytes.pop();
            Some(Ending::Whole)
        }
        Some(_) if read as u64 == LONGEST_LINE => Some(Ending::TooLong),
        Some(_) => Some(Ending::CutOff),
    })
}

fn open(path: &Path, role: Role) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(role == Role::Keeper).mode(0o600).open(path)
}

/// Waits for the lock, but not for ever: somebody may hold it who was stopped.
fn lock(file: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < end => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a file is called when the next has begun: by the number of its last line, so that names sort as lines do.
fn former(path: &Path, last: u64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{last:012}"));
    path.with_file_name(name)
}

/// The files before the present one, oldest first.
pub(super) fn formers(path: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    prefix.push(b'.');
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.as_encoded_bytes().strip_prefix(prefix.as_slice());
        if digits.is_some_and(|digits| digits.len() == 12 && digits.iter().all(u8::is_ascii_digit)) {
            found.push(directory.join(name));
        }
    }
    found.sort();
    Ok(found)
}
