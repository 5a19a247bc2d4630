//! An OpenPGP message, decrypted where it comes in pieces that somebody else reads.
//!
//! In: a message, piece by piece. Out: the plaintext, piece by piece. As with git-crypt's
//! [`Decryptor`](crate::crypt::gitcrypt::Decryptor) the last piece (all of it, up to 64 KiB) is given only when the whole is
//! proven; what came before it is not proven, and to be thrown away if an error comes.
//!
//! What reads messages wants to be given a reader, so a large one is decrypted by a thread of its own, in step with whoever
//! pushes: it asks for each piece, and between two questions it gives what came of it. A small one needs no thread.
//!
//! ```text
//! take, end ─── pieces (1) ──▶ Source │ opener │
//!        ▲                            │        │ Sink
//!        └── events (2): asks, plaintext, the end ┘
//! ```
//!
//! Whoever pushes gives a piece only to a question, and hears everything until the next one; so neither ever waits for the
//! other to take something that it will not take, and memory is that of a few pieces.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Opener;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// A message up to this size is gathered and decrypted at once, if no more than twice as much comes out of it.
const SMALL_BYTES: usize = 1024 * 1024;
/// The most that is taken from a larger one at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Events that wait to be heard.
const EVENTS: usize = 2;
/// How long a stop that was asked for may take to be noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A message that is being decrypted.
#[derive(Debug)]
pub struct Decryptor {
    opener: Opener,
    limit: u64,
    progress: Progress,
    /// What came before it was known how much would come.
    gathered: Vec<u8>,
    worker: Option<Worker>,
    /// Decrypted and not given yet.
    held: Zeroizing<Vec<u8>>,
    /// Given, until the next call.
    given: Zeroizing<Vec<u8>>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Taking,
    /// All of the message came.
    Ending,
    /// It was proven, and all of it was given.
    Over,
    Failed,
}

impl Decryptor {
    /// Decrypts with this opener what gives at most `limit` bytes.
    pub fn new(opener: &Opener, limit: u64, progress: &Progress) -> Self {
        Self {
            opener: opener.clone(),
            limit,
            progress: progress.clone(),
            gathered: Vec::new(),
            worker: None,
            held: Zeroizing::default(),
            given: Zeroizing::default(),
            stage: Stage::Taking,
        }
    }

    /// Takes as much from the beginning of `message` as it can, and gives what came of it, which may be nothing.
    ///
    /// # Errors
    /// As [`Opener::decrypt`]. After an error nothing more is decrypted.
    pub fn take(&mut self, message: &mut &[u8]) -> Result<&[u8]> {
        if self.stage != Stage::Taking {
            return Err(Error::new(Kind::Internal, "a message is gone on with after its end"));
        }
        match self.taken(message) {
            Ok(true) => Ok(&self.given),
            Ok(false) => Ok(&[]),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// All of the message came: gives what is left of the plaintext, piece by piece, and nothing when that was all. The last
    /// piece comes when the whole is proven.
    ///
    /// # Errors
    /// As [`Opener::decrypt`].
    pub fn end(&mut self) -> Result<Option<&[u8]>> {
        if self.stage == Stage::Taking {
            self.stage = Stage::Ending;
        }
        match self.stage {
            Stage::Over => return Ok(None),
            Stage::Failed => {
                return Err(Error::new(Kind::Internal, "a message is gone on with after an error"));
            }
            Stage::Taking | Stage::Ending => {}
        }
        match self.ended() {
            Ok(()) => Ok(Some(&self.given)),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.worker = None;
        self.stage = Stage::Failed;
        error
    }

    /// Whether there is something to give.
    fn taken(&mut self, message: &mut &[u8]) -> Result<bool> {
        if self.worker.is_none() {
            if message.len() <= SMALL_BYTES - self.gathered.len() {
                self.gathered.extend_from_slice(message);
                *message = &[];
                return Ok(false);
            }
            self.worker = Some(Worker::begin(&self.opener, self.limit)?);
        }
        loop {
            let Some(worker) = &mut self.worker else { return Err(is_lost()) };
            if worker.asks && self.gathered.is_empty() {
                let (piece, rest) = message.split_at(message.len().min(PIECE_BYTES));
                if !piece.is_empty() {
                    worker.answer(Some(piece.to_vec()))?;
                }
                *message = rest;
                return Ok(false);
            }
            if worker.asks {
                worker.answer(Some(std::mem::take(&mut self.gathered)))?;
            }
            match worker.hear(&self.progress)? {
                Event::Asks => worker.asks = true,
                Event::Plaintext(piece) => {
                    self.given = std::mem::replace(&mut self.held, piece);
                    return Ok(true);
                }
                Event::Ended(outcome) => {
                    outcome?;
                    return Err(is_lost());
                }
            }
        }
    }

    /// Has something to give afterwards, and is over with the last of it.
    fn ended(&mut self) -> Result<()> {
        if self.worker.is_none() {
            let most = 2 * SMALL_BYTES as u64;
            if self.limit <= most {
                self.given = self.opener.decrypt_whole(&self.gathered, self.limit, &self.progress)?;
                self.stage = Stage::Over;
                return Ok(());
            }
            self.worker = Some(Worker::begin(&self.opener, self.limit)?);
        }
        loop {
            let Some(worker) = &mut self.worker else { return Err(is_lost()) };
            if worker.asks {
                let gathered = std::mem::take(&mut self.gathered);
                worker.answer((!gathered.is_empty()).then_some(gathered))?;
            }
            match worker.hear(&self.progress)? {
                Event::Asks => worker.asks = true,
                Event::Plaintext(piece) => {
                    self.given = std::mem::replace(&mut self.held, piece);
                    return Ok(());
                }
                Event::Ended(outcome) => {
                    outcome?;
                    self.given = std::mem::take(&mut self.held);
                    self.stage = Stage::Over;
                    return Ok(());
                }
            }
        }
    }
}

fn is_lost() -> Error {
    Error::new(Kind::Internal, "the thread that decrypts a message ended before its end")
}

/// What the thread says.
#[derive(Debug)]
enum Event {
    /// It wants the next piece.
    Asks,
    Plaintext(Zeroizing<Vec<u8>>),
    Ended(Result<u64>),
}

/// The thread, as whoever pushes sees it. It ends with this.
#[derive(Debug)]
struct Worker {
    /// A piece, or that there is none left.
    pieces: Option<SyncSender<Option<Vec<u8>>>>,
    events: Option<Receiver<Event>>,
    thread: Option<JoinHandle<()>>,
    /// Its own, so that nobody else is stopped with it.
    progress: Progress,
    /// It asked, and was not answered.
    asks: bool,
}

impl Worker {
    fn begin(opener: &Opener, limit: u64) -> Result<Self> {
        let (to_thread, pieces) = sync_channel(1);
        let (say, events) = sync_channel(EVENTS);
        let (opener, progress) = (opener.clone(), Progress::new());
        let own = progress.clone();
        let work = move || {
            let source = Source { say: say.clone(), pieces, piece: Vec::new(), at: 0, is_over: false };
            let outcome = opener.decrypt(source, Sink { say: say.clone() }, limit, &own);
            // Nobody listens if it was given up.
            let _ = say.send(Event::Ended(outcome));
        };
        let thread = Builder::new().name("openpgp".to_owned()).spawn(work);
        let thread =
            thread.map_err(|error| Error::with_source(Kind::Limit, "cannot start a thread", error))?;
        Ok(Self {
            pieces: Some(to_thread),
            events: Some(events),
            thread: Some(thread),
            progress,
            asks: false,
        })
    }

    fn answer(&mut self, piece: Option<Vec<u8>>) -> Result<()> {
        self.asks = false;
        // It waits for it, or is gone, and then says why.
        if let Some(pieces) = &self.pieces {
            let _ = pieces.send(piece);
        }
        Ok(())
    }

    fn hear(&self, progress: &Progress) -> Result<Event> {
        let events = self.events.as_ref().ok_or_else(is_lost)?;
        loop {
            progress.check()?;
            match events.recv_timeout(LOOK_AGAIN) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(is_lost()),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.progress.cancel();
        // Whatever it waits for never comes now.
        self.pieces = None;
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The message, as the thread reads it.
struct Source {
    say: SyncSender<Event>,
    pieces: Receiver<Option<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    is_over: bool,
}

fn is_given_up() -> io::Error {
    io::Error::other(Error::cancelled())
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.is_over {
            self.say.send(Event::Asks).map_err(|_| is_given_up())?;
            match self.pieces.recv().map_err(|_| is_given_up())? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => self.is_over = true,
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.piece.len().min(self.at + amount);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Where the thread's plaintext goes.
struct Sink {
    say: SyncSender<Event>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Zeroizing::new(bytes.to_vec());
        self.say.send(Event::Plaintext(piece)).map_err(|_| is_given_up())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
