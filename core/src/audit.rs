//! The audit log: one line of JSON for everything that was done to Git, to a remote, or by somebody's order.
//!
//! In go [`Event`]s, out come lines in `<state_dir>/audit.jsonl`, numbered and chained: each holds the BLAKE3 of the line
//! before, so nothing can be changed or taken out in the middle without all that follows being written anew
//! ([`verify`]). docs/format.md has the fields.
//!
//! A line is written to the file before [`Audit::record`] returns, so a killed process leaves no gap; it is synced within a
//! second by a thread of its own, so many lines cost one sync. What the crash cut off is found by what it should have
//! said: [`Audit::reference_stands`] knows where each reference stood in the last line about it, and writes a line where that is
//! no longer so. Nothing here ever fails or waits for long: what could not be written waits in memory, a bounded number of
//! events, and [`Audit::trouble`] says so.

mod event;
mod file;
pub mod read;
pub mod verify;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

pub use self::event::{Event, Line, Where};
use self::file::{LogFile, Role};
use crate::clock;
use crate::error::{Error, Result};

/// Events that wait for a disk with room at most.
const PENDING: usize = 4096;
/// What was written is synced after this.
const SYNC_AFTER: Duration = Duration::from_millis(500);

/// Is told of every line, also of those that other processes write, as soon as this one comes by them. It must not block, and
/// must not write lines.
pub type Heed = Arc<dyn Fn(&Event) + Send + Sync>;

/// The last line: its number, and BLAKE3 of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number, 0 before the first.
    pub seq: u64,
    /// In hexadecimal.
    pub hash: String,
}

/// The audit log, for everybody who does something worth a line.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: LogFile,
    pending: VecDeque<(String, Event)>,
    /// Events that found no room in memory either.
    lost: u64,
    trouble: Option<String>,
    syncer: Syncer,
}

/// Whether the thread that syncs is running and has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncer {
    Rests,
    Comes,
}

impl Audit {
    /// Opens the log at `path`, or begins it. A line that a crash cut off is taken away, and a line says so.
    ///
    /// # Errors
    /// If the file can be neither read nor made: whoever starts without an audit log should know.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = LogFile::open(path, Role::Keeper);
        opened
            .map(|opened| Self::of(path, opened))
            .map_err(|error| Error::io("open the audit log", path, error))
    }

    /// Opens the log of somebody else who may be writing to it, to add lines; `None` if nobody has begun one.
    ///
    /// # Errors
    /// If it may not be written to.
    pub fn join(path: &Path) -> Result<Option<Self>> {
        match LogFile::open(path, Role::Guest) {
            Ok(opened) => Ok(Some(Self::of(path, opened))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::io("open the audit log", path, error)),
        }
    }

    fn of(path: &Path, (file, cut): (LogFile, u64)) -> Self {
        let state = State { file, pending: VecDeque::new(), lost: 0, trouble: None, syncer: Syncer::Rests };
        let audit = Self(Arc::new(Shared { path: path.to_owned(), state: Mutex::new(state) }));
        if cut > 0 {
            audit.record(Event::new("audit", "mended").with("bytes of a line that was cut off", cut));
        }
        audit
    }

    /// Has `heed` told of every line from now on.
    pub fn heed(&self, heed: Heed) {
        self.0.state().file.set_heed(heed);
    }

    /// Looks what others wrote, and says which line is the last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn head(&self) -> Result<Head> {
        let mut state = self.0.state();
        state.file.catch_up()?;
        let (seq, hash) = state.file.head();
        Ok(Head { seq, hash: hash.to_owned() })
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Writes a line. If it is about a reference, it says from where that came.
    pub fn record(&self, event: Event) {
        self.record_in(&mut self.0.state(), event);
    }

    fn record_in(&self, state: &mut State, mut event: Event) {
        if event.place.reference.is_some() {
            event.from = state.stands(&event);
        }
        state.write(clock::now().to_string(), event);
        self.have_it_synced(state);
    }

    /// Writes a line unless the last one about its reference says the same. Returns whether there was something to say.
    pub fn reference_stands(&self, event: Event) -> bool {
        let mut state = self.0.state();
        let is_news = state.stands(&event) != event.to;
        if is_news {
            self.record_in(&mut state, event);
        }
        is_news
    }

    /// Why lines are not written at the moment, if so, and how many wait or were lost.
    pub fn trouble(&self) -> Option<String> {
        let state = self.0.state();
        let reason = state.trouble.as_ref()?;
        let lost = if state.lost == 0 { String::new() } else { format!(", {} were lost", state.lost) };
        Some(format!("{reason}; {} lines wait in memory{lost}", state.pending.len()))
    }

    /// Brings everything written to the disk: for the end of a process.
    pub fn sync(&self) {
        self.0.state().sync();
    }

    fn have_it_synced(&self, state: &mut State) {
        if state.syncer == Syncer::Comes || !state.file.is_dirty() {
            return;
        }
        let shared = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name("audit-sync".to_owned());
        match thread.spawn(move || sync_later(&shared)) {
            Ok(_) => state.syncer = Syncer::Comes,
            Err(_) => state.sync(),
        }
    }
}

/// Syncs until nothing was written for a while; then the thread ends.
fn sync_later(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(SYNC_AFTER);
        let Some(shared) = shared.upgrade() else { return };
        // Synced outside the lock: a disk may take seconds, and nobody who writes a line waits for it.
        let file = {
            let mut state = shared.state();
            if !state.file.is_dirty() {
                state.syncer = Syncer::Rests;
                return;
            }
            state.file.take_dirty()
        };
        if let Some(file) = file
            && let Err(error) = file.sync_data()
        {
            shared.state().trouble = Some(format!("the audit log cannot be synced: {error}"));
        }
    }
}

impl Shared {
    /// Whole at every moment between calls, so a panic of a holder leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where the last line about the event's reference said that it stands, written or not.
    fn stands(&self, event: &Event) -> Option<String> {
        let waiting = self.pending.iter().rev().map(|(_, waiting)| waiting);
        let mut about_it = waiting.filter(|waiting| waiting.place == event.place);
        about_it.next().map_or_else(|| self.file.stands(&event.place), |waiting| waiting.to.clone())
    }

    fn write(&mut self, time: String, event: Event) {
        if self.pending.len() >= PENDING {
            self.lost += 1;
        } else {
            self.pending.push_back((time, event));
        }
        while let Some((time, event)) = self.pending.front() {
            if let Err(error) = self.file.append(time, event) {
                self.trouble = Some(error.to_string());
                return;
            }
            self.pending.pop_front();
        }
        if self.lost > 0 {
            let event = Event::new("audit", "lost").with("lines that found no room", self.lost);
            if let Err(error) = self.file.append(&clock::now().to_string(), &event) {
                self.trouble = Some(error.to_string());
                return;
            }
            self.lost = 0;
        }
        self.trouble = None;
    }

    fn sync(&mut self) {
        if let Some(file) = self.file.take_dirty()
            && let Err(error) = file.sync_data()
        {
            self.trouble = Some(format!("the audit log cannot be synced: {error}"));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.state().sync();
    }
}

#[cfg(test)]
mod tests;
