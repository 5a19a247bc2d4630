//! The only place that writes answers to stdout and complaints to stderr.
//!
//! Neither ever shows a secret that this process has read.
//!
//! A reader that went away (`backupbot status | head -1`) is no error: the answer was given.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use backupbot_core::secret::redact;
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Prints an answer and a line end.
pub fn answer(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", redact(text.trim_end_matches('\n'))).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the answer", error))
        }
        _ => Ok(()),
    }
}

/// Prints an answer for a program.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::io("cannot write the answer as JSON", error))?;
    answer(&text)
}

/// An answer of any number of lines, written as they come.
pub struct Lines {
    out: BufWriter<StdoutLock<'static>>,
}

impl Lines {
    /// Begins.
    pub fn begin() -> Self {
        Self { out: BufWriter::with_capacity(64 * 1024, io::stdout().lock()) }
    }

    /// One line.
    ///
    /// # Errors
    /// A reader that went away is told as a [`Failure`] that says nothing and is none: there is nobody to go on for.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let text = redact(text);
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n")).map_err(unwritten)
    }

    /// One line for a program.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::io("cannot write the answer as JSON", error))?;
        self.line(&text)
    }

    /// Bytes as they are: a user's own content.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(unwritten)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Lines::line`].
    pub fn end(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(unwritten)
    }
}

fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure { exit: Exit::Done, lines: Vec::new() },
        _ => Failure::io("cannot write the answer", error),
    }
}

/// A name in a command line that somebody may copy.
pub fn quoted(name: &str) -> String {
    if name.contains(' ') { format!("'{name}'") } else { name.to_owned() }
}

/// Tells the person at the terminal. Where even that fails there is nobody left to tell.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", redact(line));
}
