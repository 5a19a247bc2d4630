//! Verifying: is what a repository holds still what was backed up? Everything that a restore would read is read, and
//! nothing is written.
//!
//! ```text
//! survey: all trees and all records ─▶ what is there, which part of it is read ─▶ hashes: contents, by several threads
//! ```
//!
//! In: a repository, possibly of a stranger's making, and a snapshot. Out: a [`Report`] with numbers, and with the names
//! of what is wrong. A content is read once, however many names it has. It is proven twice: by the name that Git knows it
//! by, and by the size and BLAKE3 that were recorded when it was read from disk. Where contents are OpenPGP messages and nothing
//! here opens them, the first proof is all there is, and that they are messages: they are counted.
//!
//! Nothing that is wrong stops the rest. An error means that the verification itself could not be done.

mod hashes;
mod report;
mod sample;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::git::contents::LargeContents;
use crate::git::repository::Repository;
use crate::history::{Oid, Snapshot};
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::restore::Named;

pub use report::Report;
pub use sample::{Sample, draw_seed};

use hashes::Hashes;
use sample::{Chosen, Lot};
use survey::{Found, Survey};

/// What is verified.
pub struct Request<'r> {
    /// Where it is.
    pub repository: &'r Repository,
    /// It.
    pub snapshot: &'r Snapshot,
    /// How much of its contents.
    pub sample: Sample,
    /// Decides which files a sample has: the same seed, the same files.
    pub seed: u64,
    /// Who has large contents; without it, the repository's own store.
    pub large: Option<&'r Arc<dyn LargeContents>>,
}

/// What is going to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Files and symbolic links.
    pub files: u64,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
}

/// Verifies. `announce` is told how much is read before that begins.
///
/// # Errors
/// If a stop was asked for, or the repository cannot be worked with at all;
/// [`Kind::EncryptionKey`](crate::error::Kind::EncryptionKey) if the snapshot is encrypted and its key is not known.
pub fn verify(request: &Request<'_>, announce: &mut dyn FnMut(Work), progress: &Progress) -> Result<Report> {
    // First of all: without the key of an encrypted snapshot nothing can be said of it.
    let hashes = Hashes::open(request, progress)?;
    let mut report = Report::of(request);
    let (chosen, work) = look(request, &mut report, progress)?;
    announce(work);
    let lot = Lot::new(request.seed);
    let mut files = (0u64, 0u64);
    let (wrong, done) = hashes.run(&mut |queue| {
        Survey::new(request, progress)?.run(&mut |found| {
            let Found::Content(content) = found else { return Ok(()) };
            if content.is_own || chosen.has(&lot, &content) {
                let bytes = content.record.and_then(|record| record.size).unwrap_or(0);
                if !content.is_own {
                    files = (files.0 + 1, files.1.saturating_add(bytes));
                }
                queue.take(hashes.asked_of(&content), bytes)?;
            }
            Ok(())
        })
    })?;
    report.verified_files = files.0;
    report.verified_bytes = files.1;
    report.objects = done.objects;
    report.hashed_bytes = done.bytes;
    report.elsewhere = done.elsewhere;
    report.ciphertexts = done.ciphertexts;
    if let Some(why) = hashes.unopened() {
        report.remark(Named::at(
            b".",
            format!("not every content could be opened with the keys that are here: {why}"),
        ));
    }
    if wrong.is_empty() {
        return Ok(report);
    }
    let wrong = still_wrong(request, &wrong, &chosen, progress)?;
    // What could not be kept was not looked at again.
    report.problem_count += done.untold;
    name_what_is_wrong(request, &mut report, &hashes, &wrong, &chosen, progress)?;
    Ok(report)
}

/// Looks again at what is wrong, with packs opened anew: a daemon may have merged those that were open, and nothing of that
/// is damage.
fn still_wrong(
    request: &Request<'_>,
    wrong: &HashMap<u128, String>,
    chosen: &Chosen,
    progress: &Progress,
) -> Result<HashMap<u128, String>> {
    let lot = Lot::new(request.seed);
    let hashes = Hashes::open(request, progress)?;
    let (wrong, _) = hashes.run(&mut |queue| {
        Survey::new(request, progress)?.run(&mut |found| {
            let Found::Content(content) = found else { return Ok(()) };
            let check = hashes.asked_of(&content);
            if (content.is_own || chosen.has(&lot, &content)) && wrong.contains_key(&hashes.key(&check)) {
                queue.take(check, 0)?;
            }
            Ok(())
        })
    })?;
    Ok(wrong)
}

/// The contents that [`verify`] will read, for whoever has to fetch them first. Trees and records have to be there.
///
/// # Errors
/// As [`verify`].
pub fn contents(request: &Request<'_>, progress: &Progress) -> Result<Vec<Oid>> {
    let (chosen, _) = look(request, &mut Report::of(request), progress)?;
    let lot = Lot::new(request.seed);
    let mut contents = Vec::new();
    Survey::new(request, progress)?.run(&mut |found| {
        if let Found::Content(content) = found
            && (content.is_own || chosen.has(&lot, &content))
        {
            contents.push(content.entry.oid);
        }
        Ok(())
    })?;
    contents.sort_unstable();
    contents.dedup();
    Ok(contents)
}

/// The names that [`verify`] will read the contents of, at most `most` of them: the first of the same lot. What is wrong with
/// trees and records is reported as [`verify`] does.
///
/// # Errors
/// As [`verify`].
pub fn drawn(
    request: &Request<'_>,
    most: u32,
    progress: &Progress,
) -> Result<(Vec<(RootName, RelPath)>, Report)> {
    let mut report = Report::of(request);
    let (mut chosen, work) = look(request, &mut report, progress)?;
    if work.files > u64::from(most) {
        let fewer = Request { sample: Sample::Files(most), ..*request };
        (chosen, _) = look(&fewer, &mut Report::of(&fewer), progress)?;
    }
    let lot = Lot::new(request.seed);
    let mut names = Vec::new();
    Survey::new(request, progress)?.run(&mut |found| {
        if let Found::Content(content) = found
            && chosen.has(&lot, &content)
        {
            names.extend(content.place_in_root());
        }
        Ok(())
    })?;
    Ok((names, report))
}

/// Goes through trees and records, reports what is wrong with them, and chooses the contents that are read.
fn look(request: &Request<'_>, report: &mut Report, progress: &Progress) -> Result<(Chosen, Work)> {
    let lot = Lot::new(request.seed);
    let mut choosing = request.sample.begin();
    Survey::new(request, progress)?.run(&mut |found| {
        match found {
            Found::Directory => report.directories += 1,
            Found::Special => report.specials += 1,
            Found::Content(content) => {
                let bytes = content.record.and_then(|record| record.size).unwrap_or(0);
                if !content.is_own {
                    report.files += 1;
                    report.bytes = report.bytes.saturating_add(bytes);
                    choosing.offer(lot.of(&content), bytes);
                }
            }
            Found::Problem(named) => report.problem(named),
            Found::Remark(named) => report.remark(named),
        }
        Ok(())
    })?;
    let (chosen, work) = choosing.end();
    Ok((chosen, work))
}

/// Every name of every content that is wrong, in the order of the walk.
fn name_what_is_wrong(
    request: &Request<'_>,
    report: &mut Report,
    hashes: &Hashes<'_>,
    wrong: &HashMap<u128, String>,
    chosen: &Chosen,
    progress: &Progress,
) -> Result<()> {
    let lot = Lot::new(request.seed);
    Survey::new(request, progress)?.run(&mut |found| {
        if let Found::Content(content) = found
            && (content.is_own || chosen.has(&lot, &content))
            && let Some(why) = wrong.get(&hashes.key(&hashes.asked_of(&content)))
        {
            report.problem(content.named(why.clone()));
        }
        Ok(())
    })
}
