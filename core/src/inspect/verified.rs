//! What was last verified, and with which result: `<state_dir>/verified.json`, written by the daemon and by `verify`,
//! shown by `status`.
//!
//! Of each repository, here and at each configured remote, there are at most two entries: the last whole verification and
//! the last sample after it. A sample that found something wrong stays until something else is found, or the whole is
//! found to be well: another sample that was lucky proves nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::notes;
use crate::audit::Event;
use crate::clock::Moment;
use crate::error::Result;
use crate::small_state::Aside;
use crate::verify::{Report, Sample};

const FILE: &str = "verified";

/// One verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The repository.
    pub repository: String,
    /// The remote that it was fetched from; absent: what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The snapshot.
    pub commit: String,
    /// When it was done.
    pub at: Moment,
    /// `whole`, or which share or how many files.
    pub sample: String,
    /// Files whose content was read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Contents that nothing there opened, of which only the ciphertexts were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertexts: Option<u64>,
    /// How much was wrong.
    pub problems: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    verified: Vec<Verified>,
}

impl Verified {
    /// What `report` says.
    pub fn new(repository: &str, remote: Option<&str>, report: &Report, at: Moment) -> Self {
        Self {
            repository: repository.to_owned(),
            remote: remote.map(str::to_owned),
            commit: report.commit.clone(),
            at,
            sample: report.sample.clone(),
            files: report.verified_files,
            bytes: report.verified_bytes,
            ciphertexts: Some(report.ciphertexts).filter(|many| *many > 0),
            problems: report.problem_count,
        }
    }

    /// What the audit log says of it.
    pub fn deed(&self) -> Event {
        let event = Event::new("verify", if self.problems == 0 { "ok" } else { "wrong" });
        let event = event.in_repository(&self.repository);
        let event = self.remote.iter().fold(event, |event, remote| event.at_remote(remote));
        let event = event.with("snapshot", &self.commit).with("sample", &self.sample);
        let event = event.with("files", self.files).with("bytes", self.bytes);
        let event = self.ciphertexts.iter().fold(event, |event, many| event.with("ciphertexts", many));
        if self.problems == 0 { event } else { event.with("problems", self.problems) }
    }

    /// Whether everything was read.
    pub fn is_whole(&self) -> bool {
        self.sample == Sample::Whole.to_string()
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        self.repository == other.repository && self.remote == other.remote
    }

    /// Whether there is no reason to know of this any more, now that there is `newer`.
    fn is_outdone_by(&self, newer: &Self) -> bool {
        let has_news = newer.problems > 0 || self.problems == 0;
        match (self.is_whole(), newer.is_whole()) {
            (_, true) => true,
            (false, false) => has_news,
            (true, false) => false,
        }
    }
}

/// Sets the file aside if it is damaged.
pub(super) fn mend(state_dir: &Path) -> Result<Option<Aside>> {
    notes::mend::<Document>(
        state_dir,
        FILE,
        "what was verified is not known any more, nor what was found wrong: run `backupbot verify`",
    )
}

/// Remembers one.
///
/// # Errors
/// When the file cannot be written.
pub fn remember(state_dir: &Path, newer: Verified) -> Result<()> {
    notes::change(state_dir, FILE, |document: &mut Document| add(&mut document.verified, newer))
}

fn add(all: &mut Vec<Verified>, newer: Verified) {
    let mut has_bad_sample = false;
    all.retain(|older| {
        let is_kept = !older.is_of_the_same(&newer) || !older.is_outdone_by(&newer);
        has_bad_sample |= is_kept && older.is_of_the_same(&newer) && !older.is_whole();
        is_kept
    });
    if !has_bad_sample {
        all.push(newer);
    }
}

/// All that is known.
pub fn read(state_dir: &Path) -> Vec<Verified> {
    notes::read::<Document>(state_dir, FILE).verified
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(remote: Option<&str>, sample: &str, problems: u64, seconds: i64) -> Verified {
        Verified {
            repository: "documents".to_owned(),
            remote: remote.map(str::to_owned),
            commit: "c0ffee".to_owned(),
            at: Moment::from_unix_seconds(seconds).unwrap(),
            sample: sample.to_owned(),
            files: 1,
            bytes: 2,
            ciphertexts: None,
            problems,
        }
    }

    fn after(runs: &[Verified]) -> Vec<i64> {
        let mut all = Vec::new();
        runs.iter().for_each(|run| add(&mut all, run.clone()));
        all.iter().map(|run| run.at.unix_seconds()).collect()
    }

    #[test]
    fn the_last_whole_and_the_last_sample_after_it_are_kept_for_each_place() {
        let whole = |at| of(Some("usb"), "whole", 0, at);
        let sample = |at| of(Some("usb"), "1%", 0, at);
        assert_eq!(after(&[sample(1), sample(2), whole(3)]), [3]);
        assert_eq!(after(&[whole(1), sample(2), sample(3)]), [1, 3]);
        assert_eq!(after(&[whole(1), whole(2)]), [2]);
        assert_eq!(after(&[whole(1), of(None, "whole", 0, 2), of(Some("nas"), "whole", 0, 3)]), [1, 2, 3]);
    }

    #[test]
    fn a_sample_that_was_lucky_does_not_hide_what_an_earlier_one_found() {
        let bad = |at| of(None, "1%", 3, at);
        let good = |at| of(None, "1%", 0, at);
        assert_eq!(after(&[bad(1), good(2)]), [1]);
        assert_eq!(after(&[bad(1), bad(2), good(3)]), [2]);
        assert_eq!(after(&[bad(1), of(None, "whole", 0, 2), good(3)]), [2, 3]);
        assert_eq!(after(&[of(None, "whole", 1, 1), good(2)]), [1, 2], "the whole still says what is wrong");
    }

    #[test]
    fn what_was_remembered_is_read_again_and_damage_is_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(read(scratch.path()), []);
        remember(scratch.path(), of(None, "whole", 0, 1)).unwrap();
        remember(scratch.path(), of(Some("usb"), "whole", 2, 2)).unwrap();
        assert_eq!(read(scratch.path()).len(), 2);
        std::fs::write(scratch.path().join("verified.json"), "{").unwrap();
        assert_eq!(read(scratch.path()), []);
        remember(scratch.path(), of(None, "whole", 0, 3)).unwrap();
        assert_eq!(read(scratch.path()).len(), 1);
    }
}
