//! How a record comes out: whole lines without secrets, and what could not be written counted and said.
//!
//! In: the pieces that a format writes. Out: one `write` for each line; after a line that broke off (a full disk) the next
//! one begins on a line of its own. Whatever is lost is counted here ([`Lost`]), shown by `/metrics` and by the API, and
//! said in the log as soon as something can be written again.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backupbot_core::secret::redact;
use slog::{Drain, Level, OwnedKVList, Record, RecordStatic, b, o};

/// Bytes of a record that are looked through as one.
const LONGEST_LINE: usize = 1024 * 1024;
/// While more is lost all the time, it is said no more often than this.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Records that nobody will read.
#[derive(Debug)]
pub struct Lost {
    crowded: AtomicU64,
    unwritten: AtomicU64,
}

/// Of this process: there is one log.
pub static LOST: Lost = Lost { crowded: AtomicU64::new(0), unwritten: AtomicU64::new(0) };

impl Lost {
    /// Those for which there was no room because writing was too slow, and those that could not be written.
    pub fn counts(&self) -> (u64, u64) {
        (self.crowded.load(Ordering::Relaxed), self.unwritten.load(Ordering::Relaxed))
    }

    /// There was no room for one.
    pub fn one_more_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says in the log itself what was lost.
pub struct Telling<D: Drain<Ok = (), Err = io::Error>> {
    inner: D,
    lost: &'static Lost,
    /// What was said, and when; only one thread writes.
    said: std::cell::Cell<((u64, u64), Option<Instant>)>,
}

impl<D: Drain<Ok = (), Err = io::Error>> Telling<D> {
    /// What `inner` writes.
    pub fn new(inner: D, lost: &'static Lost) -> Self {
        Self { inner, lost, said: std::cell::Cell::new((lost.counts(), None)) }
    }

    fn say(&self, now: Instant) {
        let ((crowded_then, unwritten_then), at) = self.said.get();
        let (crowded, unwritten) = self.lost.counts();
        let is_soon = at.is_some_and(|at| now.saturating_duration_since(at) < SAY_EVERY);
        if (crowded, unwritten) == (crowded_then, unwritten_then) || is_soon {
            return;
        }
        static PLACE: RecordStatic<'static> = slog::record_static!(Level::Warning, "");
        let message = format_args!("log records were lost: writing was too slow, or failed");
        let values = b!("too_slow" => crowded - crowded_then, "failed" => unwritten - unwritten_then);
        let record = Record::new(&PLACE, &message, values);
        if self.inner.log(&record, &o!().into()).is_ok() {
            self.said.set(((crowded, unwritten), Some(now)));
        }
    }
}

impl<D: Drain<Ok = (), Err = io::Error>> Drain for Telling<D> {
    type Ok = ();
    type Err = slog::Never;

    /// A log that cannot be written must not stop the backup.
    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        match self.inner.log(record, values) {
            Ok(()) => self.say(Instant::now()),
            Err(_) => {
                self.lost.unwritten.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl<D: Drain<Ok = (), Err = io::Error>> Drop for Telling<D> {
    fn drop(&mut self) {
        self.said.set((self.said.get().0, None));
        self.say(Instant::now());
    }
}

/// Passes whole lines on, without any secret that this process has read: whatever a server, a library or a mistake of
/// ours puts into a record.
pub struct Redacting<W: Write> {
    pub(super) inner: W,
    line: Vec<u8>,
    /// The last line broke off.
    is_torn: bool,
}

impl<W: Write> Redacting<W> {
    /// What `inner` gets.
    pub fn new(inner: W) -> Self {
        Self { inner, line: Vec::new(), is_torn: false }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = redact(&text);
        if self.is_torn {
            self.inner.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.inner.write(rest) {
                Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                broken => {
                    self.is_torn = rest.len() < text.len();
                    return Err(broken.err().unwrap_or_else(|| ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut passed = Ok(());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST_LINE {
                passed = passed.and(self.pass_on());
            }
        }
        passed.map(|()| bytes.len())
    }

    /// Half a line may be half a secret, so it waits for the other half.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Drop for Redacting<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Nobody is left to tell.
            let _ = self.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Has room for so many bytes.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), room))))
        }

        fn make_room(&self) {
            self.0.lock().unwrap().1 = usize::MAX;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let count = bytes.len().min(disk.1);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            disk.1 -= count;
            disk.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_line_that_broke_off_the_next_one_begins_anew() {
        let disk = Disk::with_room(9);
        let mut lines = Redacting::new(disk.clone());
        lines.write_all(b"first\n").unwrap();
        assert!(lines.write_all(b"second\n").is_err());
        assert!(lines.write_all(b"third\n").is_err());
        disk.make_room();
        lines.write_all(b"fourth\n").unwrap();
        assert_eq!(disk.text(), "first\nsec\nfourth\n");
    }

    #[test]
    fn what_was_lost_is_said_as_soon_as_something_can_be_written() {
        static LOST: Lost = Lost { crowded: AtomicU64::new(0), unwritten: AtomicU64::new(0) };
        let disk = Disk::with_room(0);
        let writer = Mutex::new(Redacting::new(disk.clone()));
        struct Plain(Mutex<Redacting<Disk>>);
        impl Drain for Plain {
            type Ok = ();
            type Err = io::Error;
            fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> io::Result<()> {
                writeln!(self.0.lock().unwrap(), "{}", record.msg())
            }
        }
        let telling = Telling::new(Plain(writer), &LOST);
        let log = |text: &str| {
            telling
                .log(&slog::record!(Level::Info, "", &format_args!("{text}"), b!()), &o!().into())
                .unwrap();
        };
        log("one");
        log("two");
        LOST.one_more_crowded();
        assert_eq!((LOST.counts(), disk.text().as_str()), ((1, 2), ""));
        disk.make_room();
        log("three");
        log("four");
        let text = disk.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines.len()), ("three", "four", 3), "{lines:?}");
        assert!(lines[1].contains("were lost"), "{lines:?}");
        LOST.one_more_crowded();
        drop(telling);
        assert_eq!(disk.text().lines().count(), 4, "the rest is said at the end");
    }
}
