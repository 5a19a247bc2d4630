//! The restore drills of each remote, the last [`KEPT`] of them: `<state_dir>/drills.json`, written by the daemon and by
//! `drill`, shown by `status`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::notes;
use crate::audit::Event;
use crate::clock::Moment;
use crate::error::Result;
use crate::small_state::Aside;
use crate::verify::Sample;

/// Drills of one remote that are remembered.
pub const KEPT: usize = 20;
/// Names of what was wrong that are remembered of one drill.
pub const NAMED: usize = 5;
const FILE: &str = "drills";

/// How the files came from the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The remote is a path: it was read where it is.
    InPlace,
    /// The server gave only what was drawn.
    Parts,
    /// The whole snapshot was fetched.
    Whole,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// The repository.
    pub repository: String,
    /// The remote.
    pub remote: String,
    /// The snapshot.
    pub commit: String,
    /// When it ended.
    pub at: Moment,
    /// `whole`, or which share or how many files.
    pub sample: String,
    /// Which files were drawn: the same sample and seed draw the same names again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How the files came from the remote.
    pub way: Way,
    /// Whether the same snapshot is here, so that the files could be compared with it.
    pub is_here: bool,
    /// Files and symbolic links that were restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where nothing here opens contents, nothing was restored: so many were read and compared as ciphertexts instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertexts: Option<u64>,
    /// How much was wrong.
    pub problems: u64,
    /// The first of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    drills: Vec<Drilled>,
}

impl Drilled {
    /// What the audit log says of it: something was fetched, and restored into a scratch directory.
    pub fn deed(&self) -> Event {
        let way = match self.way {
            Way::InPlace => "read in place",
            Way::Parts => "parts",
            Way::Whole => "the whole snapshot",
        };
        let event = Event::new("drill", if self.problems == 0 { "ok" } else { "wrong" });
        let event = event.in_repository(&self.repository).at_remote(&self.remote);
        let event = event.with("snapshot", &self.commit).with("sample", &self.sample).with("fetched", way);
        let event = event.with("files", self.files).with("bytes", self.bytes);
        // Where there are any, nothing was restored.
        let event = self.ciphertexts.iter().fold(event, |event, many| event.with("ciphertexts", many));
        if self.problems == 0 { event } else { event.with("problems", self.problems) }
    }

    /// Whether this proves that what `bad` found wrong is well again. Another lot that was lucky proves nothing.
    pub fn makes_up_for(&self, bad: &Self) -> bool {
        let is_whole = self.sample == Sample::Whole.to_string();
        let is_the_same_lot = self.seed.is_some() && self.seed == bad.seed && self.sample == bad.sample;
        self.problems == 0 && (is_whole || is_the_same_lot)
    }
}

/// What stands of a remote's drills, in the order in which they were made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing<'d> {
    /// The latest.
    pub latest: Option<&'d Drilled>,
    /// The latest that found nothing wrong.
    pub good: Option<&'d Drilled>,
    /// The latest that found something wrong which no other took back since.
    pub bad: Option<&'d Drilled>,
}

/// What stands of the drills of a remote.
pub fn standing<'d>(all: &'d [Drilled], repository: &str, remote: &str) -> Standing<'d> {
    let mut standing = Standing::default();
    for drilled in all.iter().filter(|it| it.repository == repository && it.remote == remote) {
        standing.latest = Some(drilled);
        if drilled.problems > 0 {
            standing.bad = Some(drilled);
            continue;
        }
        standing.good = Some(drilled);
        standing.bad = standing.bad.filter(|bad| !drilled.makes_up_for(bad));
    }
    standing
}

/// Sets the file aside if it is damaged.
pub(super) fn mend(state_dir: &Path) -> Result<Option<Aside>> {
    notes::mend::<Document>(
        state_dir,
        FILE,
        "what was restored on trial is not known any more, nor what was found wrong: run `backupbot drill`",
    )
}

/// Remembers one.
///
/// # Errors
/// When the file cannot be written.
pub fn remember(state_dir: &Path, newer: Drilled) -> Result<()> {
    notes::change(state_dir, FILE, |document: &mut Document| add(&mut document.drills, newer))
}

fn add(all: &mut Vec<Drilled>, newer: Drilled) {
    let (repository, remote) = (newer.repository.clone(), newer.remote.clone());
    all.push(newer);
    loop {
        let of_this = |it: &&Drilled| it.repository == repository && it.remote == remote;
        if all.iter().filter(of_this).count() <= KEPT {
            return;
        }
        let bad = standing(all, &repository, &remote).bad.cloned();
        let oldest = all.iter().position(|it| of_this(&it) && Some(it) != bad.as_ref());
        match oldest {
            Some(at) => drop(all.remove(at)),
            None => return,
        }
    }
}

/// All that is known, the oldest first.
pub fn read(state_dir: &Path) -> Vec<Drilled> {
    notes::read::<Document>(state_dir, FILE).drills
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drilled(at: i64, sample: &str, seed: Option<u64>, problems: u64) -> Drilled {
        Drilled {
            repository: "documents".to_owned(),
            remote: "usb".to_owned(),
            commit: "c0ffee".to_owned(),
            at: Moment::from_unix_seconds(at).unwrap(),
            sample: sample.to_owned(),
            seed,
            way: Way::InPlace,
            is_here: true,
            files: 1,
            bytes: 2,
            ciphertexts: None,
            problems,
            named: Vec::new(),
        }
    }

    fn bad_after(runs: &[Drilled]) -> Option<i64> {
        standing(runs, "documents", "usb").bad.map(|bad| bad.at.unix_seconds())
    }

    #[test]
    fn only_the_same_lot_or_the_whole_takes_back_what_a_drill_found() {
        let bad = drilled(1, "1%", Some(7), 2);
        assert_eq!(bad_after(&[drilled(0, "whole", None, 0)]), None);
        assert_eq!(bad_after(std::slice::from_ref(&bad)), Some(1));
        assert_eq!(bad_after(&[bad.clone(), drilled(2, "1%", Some(8), 0)]), Some(1), "lucky");
        assert_eq!(bad_after(&[bad.clone(), drilled(2, "2%", Some(7), 0)]), Some(1), "another lot");
        assert_eq!(bad_after(&[bad.clone(), drilled(2, "1%", Some(7), 0)]), None);
        assert_eq!(bad_after(&[bad.clone(), drilled(2, "whole", None, 0)]), None);
        let whole = drilled(1, "whole", None, 1);
        assert_eq!(bad_after(&[whole.clone(), drilled(2, "1%", None, 0)]), Some(1));
        assert_eq!(bad_after(&[whole, drilled(2, "whole", None, 0)]), None);
        assert_eq!(bad_after(&[bad, drilled(3, "1%", Some(9), 1)]), Some(3));
    }

    #[test]
    fn the_last_twenty_are_kept_and_what_is_still_wrong_besides() {
        let scratch = tempfile::tempdir().unwrap();
        remember(scratch.path(), drilled(1, "1%", Some(7), 1)).unwrap();
        for at in 2..40 {
            remember(scratch.path(), drilled(at, "1%", Some(u64::try_from(at).unwrap() + 7), 0)).unwrap();
        }
        let all = read(scratch.path());
        assert_eq!((all.len(), bad_after(&all)), (KEPT, Some(1)));
        assert_eq!(all.last().unwrap().at.unix_seconds(), 39);
        std::fs::write(scratch.path().join("drills.json"), "{").unwrap();
        assert_eq!(read(scratch.path()), []);
    }
}
