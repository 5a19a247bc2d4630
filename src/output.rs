//! The only place that writes answers to stdout and complaints to stderr.
//!
//! Neither ever shows a secret that this process has read.
//!
//! A reader that went away (`backupbot status | head -1`) is no error: the answer was given.

use std::io::{self, ErrorKind, Write};

use backupbot_core::secret::redact;
use serde::Serialize;

use crate::exit::Failure;

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

/// Tells the person at the terminal. Where even that fails there is nobody left to tell.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", redact(line));
}
