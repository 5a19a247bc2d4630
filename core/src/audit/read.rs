//! Reading the lines of a log, through all its files, oldest first.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::event::Line;
use super::file::{Ending, formers, next_line};
use crate::error::{Error, Result};

/// Where a line stands.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'s> {
    /// The file.
    pub file: &'s Path,
    /// The line in it, from 1.
    pub number: u64,
}

/// One line as it was found.
#[derive(Debug)]
pub enum Found<'f> {
    /// A whole line, and its bytes.
    Line(Box<Line>, &'f [u8]),
    /// A whole line that is none of ours, and its bytes.
    Foreign(&'f [u8], String),
    /// The last line of the last file, cut off.
    CutOff,
}

/// Shows every line to `each`, which says whether it wants more.
///
/// # Errors
/// If there is no log, or one of its files cannot be read.
pub fn lines(path: &Path, each: &mut dyn FnMut(Spot<'_>, Found<'_>) -> bool) -> Result<()> {
    let fail = |file: &Path, error: io::Error| Error::io("read the audit log", file, error);
    let mut files = formers(path).map_err(|error| fail(path, error))?;
    let last = files.len();
    files.push(path.to_owned());
    for (place, file) in files.iter().enumerate() {
        let opened = match File::open(file) {
            // Its successor is not made yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && place == last && last > 0 => {
                return Ok(());
            }
            opened => opened.map_err(|error| fail(file, error))?,
        };
        let mut reader = BufReader::with_capacity(1 << 16, opened);
        let mut bytes = Vec::new();
        let mut number = 0;
        while let Some(ending) = next_line(&mut reader, &mut bytes).map_err(|error| fail(file, error))? {
            number += 1;
            let found = match ending {
                Ending::CutOff if place == last => Found::CutOff,
                Ending::CutOff => Found::Foreign(&bytes, "the line is cut off".to_owned()),
                Ending::TooLong => Found::Foreign(&bytes, "the line is longer than any of ours".to_owned()),
                Ending::Whole => match serde_json::from_slice(&bytes) {
                    Ok(line) => Found::Line(Box::new(line), &bytes),
                    Err(error) => Found::Foreign(&bytes, format!("not a line of an audit log: {error}")),
                },
            };
            if !each(Spot { file, number }, found) {
                return Ok(());
            }
        }
    }
    Ok(())
}
