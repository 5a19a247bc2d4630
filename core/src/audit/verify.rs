//! Whether a log is what was written: every line there, in order, unchanged, and no move of a reference left out.
//!
//! Whoever can write the file can write all of it anew from some line on, with hashes that fit. What that changes is the hash of the
//! last line: one that was noted down elsewhere, with its number, is the proof that nothing up to there was touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::event::{Line, Where};
use super::file::NOTHING_BEFORE;
use super::read::{self, Found, Spot};
use crate::error::Result;

/// Problems listed at most; all are counted.
const LISTED: usize = 100;

/// What is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// What a look at all lines came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Lines read.
    pub lines: u64,
    /// The number of the first, more than 1 if older files were taken away.
    pub first_seq: u64,
    /// The number of the last.
    pub last_seq: u64,
    /// When the first was written.
    pub first_time: Option<String>,
    /// When the last was written.
    pub last_time: Option<String>,
    /// BLAKE3 of the last line.
    pub head: String,
    /// Whether the line asked for has the hash asked for.
    pub has_anchor: Option<bool>,
    /// Whether the last line is cut off, as a process that died in the middle leaves it.
    pub is_cut_off: bool,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// A line that was noted down: its number and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The number.
    pub seq: u64,
    /// BLAKE3 in hexadecimal.
    pub hash: String,
}

/// Looks at every line.
///
/// # Errors
/// If there is no log or it cannot be read; what is wrong in it is in the answer.
pub fn verify(path: &Path, anchor: Option<&Anchor>) -> Result<Verified> {
    let mut chain = Chain { anchor, references: BTreeMap::new(), verified: Verified::default() };
    chain.verified.has_anchor = anchor.map(|_| false);
    read::lines(path, &mut |spot, found| {
        chain.follow(spot, &found);
        true
    })?;
    Ok(chain.verified)
}

struct Chain<'c> {
    anchor: Option<&'c Anchor>,
    references: BTreeMap<Where, Option<String>>,
    verified: Verified,
}

impl Chain<'_> {
    fn follow(&mut self, spot: Spot<'_>, found: &Found<'_>) {
        let bytes = match found {
            Found::CutOff => {
                self.verified.is_cut_off = true;
                return;
            }
            Found::Foreign(bytes, why) => {
                self.problem(spot, why.clone());
                self.verified.last_seq += 1;
                bytes
            }
            Found::Line(line, bytes) => {
                self.follow_line(spot, line);
                bytes
            }
        };
        self.verified.lines += 1;
        self.verified.head = blake3::hash(bytes).to_string();
        if let Some(anchor) = self.anchor
            && anchor.seq == self.verified.last_seq
        {
            self.verified.has_anchor = Some(anchor.hash.eq_ignore_ascii_case(&self.verified.head));
        }
    }

    fn follow_line(&mut self, spot: Spot<'_>, line: &Line) {
        let is_first = self.verified.lines == 0;
        if is_first {
            self.verified.first_seq = line.seq;
            self.verified.first_time = Some(line.time.clone());
            if line.seq == 1 && line.prev != NOTHING_BEFORE {
                self.problem(spot, "the first line names a line before it".to_owned());
            }
        } else {
            let expected = self.verified.last_seq + 1;
            if line.seq != expected {
                self.problem(spot, format!("number {} where {expected} is due", line.seq));
            }
            if line.prev != self.verified.head {
                self.problem(
                    spot,
                    "the line before is not the one that was there when this was written".to_owned(),
                );
            }
        }
        self.verified.last_seq = line.seq;
        self.verified.last_time = Some(line.time.clone());
        self.follow_reference(spot, line);
    }

    fn follow_reference(&mut self, spot: Spot<'_>, line: &Line) {
        let event = &line.event;
        let Some(name) = &event.place.reference else { return };
        if let Some(known) = self.references.get(&event.place)
            && *known != event.from
        {
            let words = |value: &Option<String>| value.clone().unwrap_or_else(|| "nowhere".to_owned());
            let text = format!(
                "{name} is said to come from {}, and stood at {} in the last line about it",
                words(&event.from),
                words(known)
            );
            self.problem(spot, text);
        }
        self.references.insert(event.place.clone(), event.to.clone());
    }

    fn problem(&mut self, spot: Spot<'_>, what: String) {
        self.verified.problem_count += 1;
        if self.verified.problems.len() < LISTED {
            let problem = Problem { file: spot.file.to_owned(), line: spot.number, what };
            self.verified.problems.push(problem);
        }
    }
}
