//! How other threads reach the waiting one: a socket pair wakes it, a list says which barriers it is to pass.
//!
//! A barrier needs no mark in the kernel's queue, unlike inotify's: a note is pending from the moment the change
//! is made, so whoever takes the list first and then reads until nothing is pending has read all that happened
//! before the asking.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::watch::Control;

/// What is asked of the waiting thread.
#[derive(Debug)]
pub(super) struct Asker {
    waker: UnixStream,
    asked: Mutex<Vec<u64>>,
}

impl Asker {
    /// The asker, and the end that the waiting thread watches for something to read.
    pub fn new() -> Result<(Self, UnixStream)> {
        let made = UnixStream::pair().and_then(|(waker, woken)| {
            waker.set_nonblocking(true)?;
            woken.set_nonblocking(true)?;
            Ok((waker, woken))
        });
        let (waker, woken) =
            made.map_err(|error| Error::with_source(Kind::Limit, "cannot make a waker for watching", error))?;
        Ok((Self { waker, asked: Mutex::default() }, woken))
    }

    /// The barriers asked for so far, in order; whoever takes them passes them.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.asked())
    }

    /// Gives barriers back that could not be passed yet.
    pub fn put_back(&self, mut tokens: Vec<u64>) {
        let mut asked = self.asked();
        tokens.append(&mut asked);
        *asked = tokens;
    }

    /// Whole at every moment between calls, so a panic of a holder leaves nothing half done.
    fn asked(&self) -> MutexGuard<'_, Vec<u64>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control for Asker {
    fn wake(&self) {
        // A full socket wakes as well as one with a byte more.
        while (&self.waker).write(&[1]).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
    }

    fn barrier(&self, token: u64) -> Result<()> {
        self.asked().push(token);
        self.wake();
        Ok(())
    }
}

/// Reads what wakers wrote; true if there was anything.
pub(super) fn drain(mut woken: &UnixStream) -> bool {
    let mut any = false;
    let mut buffer = [0; 256];
    loop {
        match woken.read(&mut buffer) {
            Ok(0) => return any,
            Ok(_) => any = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return any,
        }
    }
}
