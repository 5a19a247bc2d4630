//! What remotes say to people: bounded, without control characters, without secrets.
//!
//! A server's words are a stranger's. They may be endless, move a terminal's cursor, or repeat the token that was sent.

use crate::error::Error;
use crate::path::lossy;
use crate::secret::redact;

/// Lines that are kept; the last ones say why something failed.
const LINES: usize = 20;
/// Characters of a line that are kept.
const CHARACTERS: usize = 300;
/// Bytes of an unfinished line that are kept.
const LONGEST_LINE: usize = 4096;

/// The lines of a conversation.
#[derive(Debug, Default, Clone)]
pub(super) struct Messages {
    lines: Vec<String>,
    unfinished: Vec<u8>,
}

impl Messages {
    /// Takes bytes of a stream of lines.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                // What follows overwrites the line on a terminal: a counter.
                b'\r' => self.unfinished.clear(),
                byte if self.unfinished.len() < LONGEST_LINE => self.unfinished.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = said(&self.unfinished);
        self.unfinished.clear();
        if line.is_empty() {
            return;
        }
        if self.lines.len() >= LINES {
            self.lines.remove(0);
        }
        self.lines.push(line);
    }

    /// All that is kept, in one string.
    pub(super) fn text(&self) -> String {
        let mut lines = self.lines.clone();
        let rest = said(&self.unfinished);
        if !rest.is_empty() {
            lines.push(rest);
        }
        lines.join("; ")
    }

    /// The same as the end of a sentence; empty if nothing was said.
    pub(super) fn quoted(&self) -> String {
        match self.text() {
            text if text.is_empty() => text,
            text => format!(" (the remote says: {text})"),
        }
    }

    /// An error with what was said beside it.
    pub(super) fn explain(&self, error: Error) -> Error {
        match self.text() {
            text if text.is_empty() => error,
            text => error.with_words(&format!("the remote says: {text}")),
        }
    }

    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.end_line();
        self.lines
    }
}

/// A stranger's words on one line.
pub(crate) fn said(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(LONGEST_LINE)];
    let clean = lossy(bytes.trim_ascii());
    let clean = redact(&clean);
    match clean.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn lines_are_kept_clean_bounded_and_without_secrets() {
        let _token = Secret::new(b"tok-en-of-mine".to_vec());
        let mut messages = Messages::default();
        messages.add(b"Counting: 10%\rCounting: 100%\rdone\n\x1b[31mred\n\n");
        messages.add(b"your tok-en-");
        messages.add(b"of-mine is bad\n");
        messages.add(&[b'x'; 100_000]);
        let lines = messages.into_lines();
        assert_eq!(lines[..3], ["done", "\\u{1b}[31mred", "your [redacted] is bad"]);
        assert_eq!(lines[3].chars().count(), CHARACTERS + 1);

        let mut endless = Messages::default();
        for number in 0..1000 {
            endless.add(format!("line {number}\n").as_bytes());
        }
        let lines = endless.into_lines();
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (LINES, Some("line 999")));
    }
}
