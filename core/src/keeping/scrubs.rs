//! What came of looking at the large contents of each place the last time: `<state_dir>/scrubs.json`, written by the daemon
//! and by `lfs scrub`, shown by `status`.
//!
//! One entry for each repository, here and at each remote. What was found damaged stays in it until it was read again and was
//! right, because a sample that was lucky proves nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::audit::Event;
use crate::clock::Moment;
use crate::config::Remote;
use crate::error::Result;
use crate::inspect::notes;
use crate::small_state::Aside;

const FILE: &str = "scrubs";

/// What came of looking at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// The repository.
    pub repository: String,
    /// The remote; absent: what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// When it ended.
    pub at: Moment,
    /// The number of the order, if somebody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// How much was to be read: `whole`, a share, or so many.
    pub sample: String,
    /// Contents that the remote was asked for, or that lie here.
    pub asked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Contents that were read and hashed.
    pub read: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Contents that the remote had lost, and was brought again.
    pub brought: u64,
    /// Contents that were damaged, and were replaced.
    pub replaced: u64,
    /// Contents that the remote has lost and could not be brought.
    pub lost: u64,
    /// Contents that are damaged and could not be replaced.
    pub damaged: u64,
    /// Contents of which nothing could be found out.
    pub unsure: u64,
    /// The first of what was wrong, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// Which are damaged: they are read again the next time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    scrubs: Vec<Scrubbed>,
}

impl Scrubbed {
    /// Of a place at which nothing was looked at yet.
    pub fn begin(repository: &str, remote: Option<&str>, sample: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            remote: remote.map(str::to_owned),
            at: Moment::now(),
            order: None,
            sample: sample.to_owned(),
            asked: 0,
            bytes: 0,
            read: 0,
            read_bytes: 0,
            brought: 0,
            replaced: 0,
            lost: 0,
            damaged: 0,
            unsure: 0,
            named: Vec::new(),
            suspects: Vec::new(),
        }
    }

    /// Whether something is wrong that was not put right.
    pub fn is_bad(&self) -> bool {
        self.lost > 0 || self.damaged > 0
    }

    /// What was found wrong, put right or not.
    pub fn failures(&self) -> u64 {
        self.brought + self.replaced + self.lost + self.damaged
    }

    /// Whether it is about one of these remotes.
    pub fn speaks_of(&self, remotes: &[Remote]) -> bool {
        let name = self.remote.as_deref();
        remotes.iter().any(|remote| name == Some(remote.name.as_str()))
    }

    /// Where, for people.
    pub fn place(&self) -> String {
        self.remote.as_ref().map_or_else(|| "what is here".to_owned(), |remote| format!("remote {remote}"))
    }

    /// What the audit log says of it.
    pub fn deed(&self) -> Event {
        let event = Event::new("lfs scrub", if self.is_bad() { "wrong" } else { "ok" });
        let event = event.in_repository(&self.repository);
        let event = self.remote.iter().fold(event, |event, remote| event.at_remote(remote));
        let event = event.with("objects", self.asked).with("read", self.read).with("bytes", self.read_bytes);
        let numbers = [
            ("brought", self.brought),
            ("replaced", self.replaced),
            ("lost", self.lost),
            ("damaged", self.damaged),
            ("unsure", self.unsure),
        ];
        let event = numbers
            .into_iter()
            .filter(|(_, number)| *number > 0)
            .fold(event, |event, (name, number)| event.with(name, number));
        self.named.first().into_iter().fold(event, |event, first| event.with("first", first))
    }
}

/// Sets the file aside if it is damaged.
///
/// # Errors
/// When that cannot be done.
pub(crate) fn mend(state_dir: &Path) -> Result<Option<Aside>> {
    notes::mend::<Document>(
        state_dir,
        FILE,
        "what was found lost or damaged of large files is not known any more: run `backupbot lfs scrub --read whole`",
    )
}

/// Remembers one instead of what was known of that place.
///
/// # Errors
/// When the file cannot be written.
pub fn remember(state_dir: &Path, newer: Scrubbed) -> Result<()> {
    notes::change(state_dir, FILE, |document: &mut Document| {
        document.scrubs.retain(|it| it.repository != newer.repository || it.remote != newer.remote);
        document.scrubs.push(newer);
    })
}

/// All that is known of a repository.
pub fn read(state_dir: &Path, repository: &str) -> Vec<Scrubbed> {
    let mut scrubs = notes::read::<Document>(state_dir, FILE).scrubs;
    scrubs.retain(|it| it.repository == repository);
    scrubs
}
