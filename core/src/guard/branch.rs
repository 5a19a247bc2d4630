//! The names of quarantine branches, and which of them stand open.
//!
//! `backupbot/quarantine/<instance>/<start>`; the start is UTC, to the second. Whether one is open can be told from
//! the repository alone: the protected branch does not have its tip.

use git2::Oid;

use crate::error::Result;
use crate::git::repository::Repository;

/// All of them are below this.
pub const PREFIX: &str = "refs/heads/backupbot/quarantine/";

/// The branch of a quarantine that begins at `now_s`, Unix seconds, in full; it does not exist yet.
pub fn name(repository: &Repository, instance: &str, now_s: i64) -> Result<String> {
    let at = jiff::Timestamp::from_second(now_s).unwrap_or_default();
    let mut name = format!("{PREFIX}{instance}/{}", at.strftime("%Y%m%dT%H%M%SZ"));
    while repository.reference(&name)?.is_some() {
        name.push('x');
    }
    Ok(name)
}

/// How people say it.
pub fn short(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// The quarantine branches whose tip is not in the history of `protected`, oldest first.
pub fn open(repository: &Repository, protected: Oid) -> Result<Vec<(String, Oid)>> {
    let mut found = Vec::new();
    for (name, tip) in repository.references()? {
        if name.starts_with(PREFIX) && !repository.is_ancestor(tip, protected)? {
            found.push((name, tip));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.rsplit('/').next().cmp(&other.rsplit('/').next()));
    Ok(found)
}
