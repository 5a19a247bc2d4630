//! What a line says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::path::lossy;
use crate::secret::redact;

/// Longer texts are cut: a server may say anything.
const LONGEST_TEXT: usize = 1000;

/// Where a reference is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Where {
    /// The repository, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The remote; absent for the repository in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The reference, in full.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Something that happened, before it has its number and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who did or ordered it: `daemon`, `command`, or a role of the HTTP interface with the peer's address.
    pub who: String,
    /// What was done, one word.
    pub what: String,
    /// To what.
    #[serde(flatten)]
    pub place: Where,
    /// Where the reference stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What it came to: `ok`, or the class of what went wrong.
    pub result: String,
    /// More, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

/// A line as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// BLAKE3 of the bytes of the line before, without its end; zeros in the first.
    pub prev: String,
}

impl Event {
    /// Something of the daemon's own accord.
    pub fn new(what: &str, result: &str) -> Self {
        Self {
            who: "daemon".to_owned(),
            what: what.to_owned(),
            place: Where::default(),
            from: None,
            to: None,
            result: clean(result),
            detail: BTreeMap::new(),
        }
    }

    /// Something that somebody ordered.
    pub fn by(self, who: &str) -> Self {
        Self { who: clean(who), ..self }
    }

    /// In a repository.
    pub fn in_repository(mut self, repository: &str) -> Self {
        self.place.repository = Some(repository.to_owned());
        self
    }

    /// At a remote.
    pub fn at_remote(mut self, remote: &str) -> Self {
        self.place.remote = Some(remote.to_owned());
        self
    }

    /// A reference that stands at `to` now; absent: it is gone.
    pub fn reference(mut self, name: &str, to: Option<&str>) -> Self {
        self.place.reference = Some(clean(name));
        self.to = to.map(str::to_owned);
        self
    }

    /// With one thing more to know.
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.detail.insert(name.to_owned(), clean(&value.to_string()));
        self
    }
}

/// Without secrets, and of bounded length.
fn clean(text: &str) -> String {
    let text = redact(text);
    if text.len() <= LONGEST_TEXT {
        return text.into_owned();
    }
    let mut end = LONGEST_TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    lossy(format!("{}…", &text[..end]).as_bytes())
}
