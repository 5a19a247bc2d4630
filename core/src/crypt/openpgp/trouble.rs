//! The two ends of a message: what goes wrong there is kept as it was, and stops the work.
//!
//! rPGP wraps errors of reader and writer into its own; whether a disk is full or somebody asked to stop must still be
//! known afterwards. A [`Watched`] keeps the first error for who made it, counts bytes, and looks whether to stop.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::progress::Progress;

/// A reader or writer whose first error is kept.
pub(super) struct Watched<'p, T> {
    inner: T,
    progress: &'p Progress,
    error: Option<io::Error>,
    bytes: u64,
    /// Until this is set, no more bytes than these are given.
    gate: Option<(&'p AtomicBool, u64)>,
}

impl<'p, T> Watched<'p, T> {
    pub(super) fn new(inner: T, progress: &'p Progress) -> Self {
        Self { inner, progress, error: None, bytes: 0, gate: None }
    }

    /// One that gives no more than `most` bytes before `is_open` is set.
    pub(super) fn closed(inner: T, progress: &'p Progress, is_open: &'p AtomicBool, most: u64) -> Self {
        Self { gate: Some((is_open, most)), ..Self::new(inner, progress) }
    }

    /// Bytes that went through.
    pub(super) fn passed(&self) -> u64 {
        self.bytes
    }

    /// The first error, with what was being done.
    pub(super) fn take_error(&mut self, doing: &str) -> Result<()> {
        self.error.take().map_or(Ok(()), |error| Err(crate::crypt::error_of(error, doing)))
    }

    fn check(&mut self) -> io::Result<()> {
        if self.error.is_some() {
            return Err(io::Error::other("it failed before"));
        }
        if self.gate.is_some_and(|(is_open, most)| self.bytes > most && !is_open.load(Ordering::Relaxed)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "there is no end of packets before its text",
            ));
        }
        match self.progress.check() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.keep(io::Error::other(error))),
        }
    }

    fn keep(&mut self, error: io::Error) -> io::Error {
        let same = io::Error::new(error.kind(), error.to_string());
        if error.kind() != io::ErrorKind::Interrupted && self.error.is_none() {
            self.error = Some(error);
        }
        same
    }
}

impl<T> fmt::Debug for Watched<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<T: Read> Read for Watched<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        match self.inner.read(buffer) {
            Ok(read) => {
                self.bytes += read as u64;
                Ok(read)
            }
            Err(error) => Err(self.keep(error)),
        }
    }
}

impl<T: BufRead> BufRead for Watched<'_, T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        // Asked twice because a borrow of the first answer would last as long as the error's keeping.
        if let Err(error) = self.inner.fill_buf() {
            return Err(self.keep(error));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.inner.consume(amount);
    }
}

impl<T: Write> Write for Watched<'_, T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.check()?;
        match self.inner.write(buffer) {
            Ok(written) => {
                self.bytes += written as u64;
                Ok(written)
            }
            Err(error) => Err(self.keep(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        flushed.map_err(|error| self.keep(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_source_ends_in_an_error_soon_and_an_open_one_goes_on() {
        let (progress, is_open) = (Progress::new(), AtomicBool::new(false));
        let mut source = Watched::closed(io::repeat(1), &progress, &is_open, 100);
        let mut piece = [0; 60];
        assert!((0..3).map(|_| source.read(&mut piece)).last().unwrap().is_err());
        is_open.store(true, Ordering::Relaxed);
        assert_eq!(source.read(&mut piece).unwrap(), 60);
    }
}
